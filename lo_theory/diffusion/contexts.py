"""Contexts: fresh data hidden by a mask law, batch by batch, and the question put to a posterior about them.

All that judges posteriors under a mask law draws its contexts here, so the same key gives the same ones everywhere: the
data have the address ``key.fold("data")`` and masks ``key.fold("masks")``, row by row, whatever the batches are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.masks import MaskLaw, describe, draw_masks
from lo_theory.posterior import Marginals, Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.layout import MASK, Layout, Record
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import check_count
from lo_theory.rng import Key

__all__ = ["BATCH", "Contexts", "at_truth", "by_class", "draw_contexts", "row_means"]

BATCH = 1024
"""Contexts sent through a posterior at once."""


@dataclass(frozen=True, eq=False, repr=False)
class Contexts(Record):
    """B contexts, the first of them of sequence ``start``: ``truth`` int8[B, L], ``masked`` bool and ``weight`` float32
    [B, L] as the law says.
    """

    layout: Layout
    start: int
    truth: NDArray[np.int8]
    masked: NDArray[np.bool_]
    weight: NDArray[np.float32]

    @cached_property
    def tokens(self) -> NDArray[np.int8]:
        """int8[B, L]: the truth, MASK where hidden."""
        return np.where(self.masked, np.int8(MASK), self.truth)

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """int64[B, 2]: latents hidden, observations hidden."""
        return np.stack(describe(self.masked, self.layout), axis=1)

    def ask(self, posterior: Posterior, name: str | None = None) -> Marginals:
        """What ``posterior`` answers, its form and values known good. Cost: B rows through it and the check."""
        rows = range(self.start, self.start + len(self.tokens))
        return ask(posterior, self.tokens, self.layout, name=name, rows=rows)


def draw_contexts(
    distribution: Distribution, law: MaskLaw, key: Key, n: int, *, size: int = BATCH, independent: bool = False
) -> Iterator[tuple[Contexts, ...]]:
    """Draw n sequences, ``size`` at a time, and hide positions of them: for every batch, contexts by each of its masks.

    ``independent``: by a law that gives one mask a sequence. Errors: ValueError for others then, for n < 1, and for
    masks and weights that are none (``draw_masks``).
    """
    check_count(n, "posteriors are judged on at least one context")
    layout = distribution.layout
    for start in range(0, n, size):
        truth = distribution.sample(key.fold("data"), min(size, n - start), start=start)
        masks, weights = draw_masks(law, key.fold("masks"), truth, layout, start=start)
        if independent and len(masks) != 1:
            raise ValueError(
                f"{law.name} gives {len(masks)} masks a sequence, which are not independent: take a law that gives one"
            )
        yield tuple(Contexts(layout, start, truth, *each) for each in zip(masks, weights, strict=True))


def at_truth(laws: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
    """Probabilities [n, L] that ``laws`` [n, L, V] give the tokens ``truth`` [n, L]."""
    return np.take_along_axis(laws, truth.astype(np.intp)[:, :, None], axis=2)[:, :, 0]


def row_means(values: NDArray[Any], at: NDArray[np.bool_], default: float = 0.0) -> NDArray[np.float64]:
    """Mean of ``values`` [..., n, L] over the positions ``at`` bool[n, L] of each row, ``default`` where it has none:
    float64[..., n].
    """
    count = at.sum(axis=-1)
    means: NDArray[np.float64] = np.where(at, values, 0.0).sum(axis=-1) / np.maximum(count, 1)
    return np.where(count > 0, means, default)


def by_class(classes: NDArray[np.int64]) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Every class of ``classes`` int64[n, 2], ascending, with the numbers of its rows. n >= 1; cost n ln n."""
    found, number = np.unique(classes, axis=0, return_inverse=True)
    ranked = np.argsort(number.ravel(), kind="stable")
    ends = np.searchsorted(number.ravel()[ranked], np.arange(1, len(found)))
    parts = zip(found.tolist(), np.split(ranked, ends), strict=True)
    return {(latents, observations): members for (latents, observations), members in parts}
