"""Correctors: redraw some revealed tokens given the others, and how far one step of that moves the law of the data.

A Gibbs step that redraws one position, chosen without a look at the tokens, keeps the law p of the data. Chosen by
confidence, or several at once from their single-token marginals, it does not. ``moved_law`` says by how much, exactly,
at small L: p T = sum_x p(x) sum_S w(S | x) prod_{i in S} q(y_i | x outside S), S the positions redrawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.remasking import without_one
from lo_theory.posterior import Marginals, Posterior, exact_posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.layout import MASK, Record
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = ["Corrector", "Gibbs", "MovedLaw", "Rehide", "gibbs_sweep", "moved_law"]

_LARGEST = 2**24  # strings times subsets


@checked
def gibbs_sweep(
    posterior: Posterior, tokens: ArrayLike, *, positions: str = "random", at_once: int = 1, key: Key
) -> NDArray[np.int8]:
    """Redraw ``at_once`` revealed positions of each row of ``tokens`` int8[n, L] from their marginals given the rest.

    ``positions``: random, or least_confident, those whose tokens have the least probability given all others (ties at
    random). Hidden positions stay hidden; a row with fewer revealed ones redraws all of them. Row i has the address
    ``key``, i. Cost: one context a row, and with least_confident one more for each revealed position.
    """
    corrector = Gibbs(positions, at_once)
    layout = posterior.layout
    rows = layout.check_tokens(tokens).copy()
    among, scores = rows != MASK, np.zeros(rows.shape)
    if corrector.positions == "least_confident":
        scores = without_one(lambda contexts, _: ask(posterior, contexts, layout), rows, among)
    chosen = among.copy()
    _kernels.reveal_highest(chosen, scores, among.sum(axis=1) - at_once, 0, *key.fold("positions").words())
    contexts = np.where(chosen, np.int8(MASK), rows)
    probs, steps = ask(posterior, contexts, layout).probs, np.zeros(rows.shape, np.int32)
    masks = (chosen, ~among)
    _kernels.reveal(rows, steps, *masks, probs, layout.values, 0, 1.0, False, 0, *key.fold("tokens").words())
    return rows


class Corrector(Protocol):
    """Chooses which positions of a complete string are redrawn, all at once."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def chances(self, subsets: NDArray[np.bool_], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chance w(S | x) of each of ``subsets`` bool[s, L] for each string: float64[n, s].

        ``confidence`` float64[n, L]: the probability of each token of the string given all its others.
        """
        ...


CORRECTOR = Seam("a corrector", ("name", "chances"), "Gibbs()")


@checked
@dataclass(frozen=True)
class Gibbs:
    """``gibbs_sweep`` as a corrector: ``at_once`` positions, random or least_confident."""

    positions: str = "random"
    at_once: int = 1

    def __post_init__(self) -> None:
        if self.positions not in ("random", "least_confident"):
            raise ValueError(f"positions are chosen random or least_confident, got {self.positions!r}")
        if self.at_once < 1:
            raise ValueError(f"a sweep redraws at least one position at once, got {self.at_once}")

    @property
    def name(self) -> str:
        """``gibbs(random,1)``."""
        return f"gibbs({self.positions},{self.at_once})"

    def chances(self, subsets: NDArray[np.bool_], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Uniform over the subsets of ``at_once`` positions, among those of least confidence where that is asked."""
        size = min(self.at_once, subsets.shape[1])
        level = np.zeros(confidence.shape)
        if self.positions == "least_confident":
            level = np.floor(confidence * _kernels.TIE + 0.5)
        last = np.sort(level, axis=1)[:, size - 1, None]
        below, tied = level < last, level <= last  # all of the first are chosen, and none outside the second
        has_all = below.astype(np.int64) @ subsets.T == below.sum(axis=1)[:, None]
        has_none = (~tied).astype(np.int64) @ subsets.T == 0
        fits = has_all & has_none & (subsets.sum(axis=1) == size)
        chances: NDArray[np.float64] = fits / fits.sum(axis=1, keepdims=True)
        return chances


@checked
@dataclass(frozen=True)
class Rehide:
    """Hide each token with probability ``sigma``, then redraw all hidden ones at once: ReMDM at the end of a decode."""

    sigma: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma is a probability, got {self.sigma}")

    @property
    def name(self) -> str:
        """``rehide(sigma)``."""
        return f"rehide({self.sigma:g})"

    def chances(self, subsets: NDArray[np.bool_], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """sigma**|S| (1 - sigma)**(L - |S|)."""
        sizes = subsets.sum(axis=1)
        chances = self.sigma**sizes * (1 - self.sigma) ** (subsets.shape[1] - sizes)
        return np.broadcast_to(chances, (len(confidence), len(subsets)))


@dataclass(frozen=True, eq=False, repr=False)
class MovedLaw(Record):
    """The law of the data ``before`` and ``after`` one step of a corrector: float64[v_1, ..., v_L], by the tokens."""

    name: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def total_variation(self) -> float:
        """Half the sum of |p - p T|."""
        return float(np.abs(self.before - self.after).sum() / 2)

    @cached_property
    def kl(self) -> float:
        """KL(p || p T) in nats; infinite where the step leaves a string of the data and nothing comes back to it."""
        held = self.before > 0
        with np.errstate(divide="ignore"):
            divergence = self.before[held] @ (np.log(self.before[held]) - np.log(self.after[held]))
        return max(0.0, float(divergence))


@checked
def moved_law(
    distribution: Distribution, correctors: Sequence[Corrector], *, posterior: Posterior | None = None
) -> list[MovedLaw]:
    """What one step of each corrector makes of the law of the data, exactly, by all strings and all subsets.

    ``posterior``: whose marginals are drawn from; the exact one when left out. Cost: some (V + 1)**L contexts and
    2**L tables of V**L numbers, once for all correctors: 0.2 s at L = 8, 1 s at L = 10. Errors: ValueError for more
    than 2**16 strings, and where a corrector's chances do not sum to one.
    """
    layout = distribution.layout
    posterior = exact_posterior(distribution) if posterior is None else posterior
    sizes = tuple(int(size) for size in layout.values)
    if math.prod(sizes) * 2**layout.length > _LARGEST:
        raise ValueError(
            f"a law is moved where strings times subsets of positions are at most 2**24, such as 12 bits: L = "
            f"{layout.length} here, with {math.prod(sizes)} strings"
        )
    strings = np.indices(sizes, np.int8).reshape(layout.length, -1).T
    weights = np.exp(distribution.log_prob(np.ascontiguousarray(strings)))
    held = np.ascontiguousarray(strings[weights > 0])

    def answer(contexts: NDArray[np.int8], _: NDArray[np.intp]) -> Marginals:
        return ask(posterior, contexts, layout)

    confidence = without_one(answer, held, np.ones(held.shape, np.bool_))
    subsets = np.array(list(itertools.product((False, True), repeat=layout.length)))
    chances = np.array([_checked(corrector, subsets, confidence) for corrector in correctors])
    chances = chances.reshape(len(correctors), len(held), len(subsets)) * weights[weights > 0][:, None]
    after, place = np.zeros((len(correctors), *sizes)), tuple(held.T.astype(np.intp))
    for number in np.flatnonzero(chances.any(axis=(0, 1))):
        flow = np.zeros_like(after)
        flow[(slice(None), *place)] = chances[:, :, number]
        after += _redrawn(flow, subsets[number], posterior)
    before = weights.reshape(sizes)
    return [MovedLaw(corrector.name, before, law) for corrector, law in zip(correctors, after, strict=True)]


def _checked(corrector: Corrector, subsets: NDArray[np.bool_], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    CORRECTOR.check(corrector, "a corrector")
    chances = np.asarray(corrector.chances(subsets, confidence), np.float64)
    shape = (len(confidence), len(subsets))
    if chances.shape != shape or (chances < 0).any() or not np.allclose(chances.sum(axis=1), 1, rtol=0, atol=1e-9):
        raise ValueError(f"{corrector.name} must give chances float64{list(shape)}, at least 0 and 1 in sum a string")
    return chances


def _redrawn(flow: NDArray[np.float64], subset: NDArray[np.bool_], posterior: Posterior) -> NDArray[np.float64]:
    """Where the mass ``flow`` [c, v_1, ..., v_L] of strings goes when ``subset`` bool[L] is redrawn at once."""
    axes = tuple(1 + np.flatnonzero(subset))
    mass = flow.sum(axis=axes, keepdims=True)
    kept = mass.shape[1:]
    contexts = np.indices(kept, np.int8).reshape(len(kept), -1).T
    contexts = np.where(subset, np.int8(MASK), contexts)
    some = mass.reshape(len(mass), -1).any(axis=0)
    probs = np.zeros((len(contexts), *np.shape(posterior.layout.values), posterior.layout.n_values))
    probs[some] = ask(posterior, contexts[some], posterior.layout).probs
    for position in np.flatnonzero(subset):
        shape = list(kept)
        shape[position] = flow.shape[1 + position]
        law = probs[:, position, : shape[position]].reshape(*kept, shape[position])
        mass = mass * np.moveaxis(law, -1, position).reshape(shape)
    return mass
