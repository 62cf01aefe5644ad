"""An L&O problem whose observations are given: its sequences are the latents, and that is what a puzzle is.

Cells are latents, and "these two differ" is an observation that is 1. ``Conditioned`` is the law of the latents,
``Completed`` makes any posterior of the whole problem one of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior.enumerated import EnumeratedPosterior
from lo_theory.posterior.exact import ExactPosterior
from lo_theory.posterior.protocol import POSTERIOR, Marginals, Posterior, ask, check_layout
from lo_theory.posterior.sudoku import SudokuPosterior
from lo_theory.posterior.zebra import ZebraPosterior
from lo_theory.problem import MASK, Distribution, Enumerated, Layout, LODistribution, _list_kernels
from lo_theory.problem.layout import Record, frozen
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import digest_arrays
from lo_theory.problem.sudoku import DrawnGrids
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key

__all__ = ["Completed", "Conditioned", "exact_posterior"]

_ROWS = 1024  # contexts sent through the exact posterior at once
_MOST = 2**16  # sequences that are listed


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Conditioned(Record):
    """p(latents | observations given) of an L&O ``problem``; token i of a sequence is latent i.

    ``observations`` int8[P]; MASK = -1 where one is not given, which is then summed over. All exact, by
    ``ExactPosterior``. Errors: ValueError for values out of range and, where that fits in memory, for observations that
    exclude each other.
    """

    problem: LODistribution
    observations: NDArray[np.int8]

    def __post_init__(self) -> None:
        layout = self.problem.layout
        complete = layout.join(np.full(layout.n_latents, MASK), self.observations)
        object.__setattr__(self, "observations", frozen(layout.split(complete)[1], np.int8))
        hidden = self.complete(np.full((1, layout.n_latents), MASK))
        fits = ExactPosterior(self.problem).estimate_cost(hidden).fits.all()
        if fits and not np.isfinite(self.posterior.log_given):
            raise ValueError("the given observations exclude each other: no latents have them, so there is no law")

    @cached_property
    def layout(self) -> Layout:
        """N latents, no observations."""
        whole = self.problem.layout
        return Layout(whole.n_latents, 0, whole.q, whole.q)

    @cached_property
    def posterior(self) -> Completed:
        """The exact posterior of the latents."""
        return Completed(ExactPosterior(self.problem), self)

    def complete(self, latents: ArrayLike) -> NDArray[np.int8]:
        """Put the given observations beside ``latents`` int8[B, N]: tokens of the whole problem, int8[B, L]."""
        rows = self.layout.check_tokens(latents)
        return self.problem.layout.join(rows, np.broadcast_to(self.observations, (len(rows), len(self.observations))))

    @checked
    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, N], the same whatever the split.

        Latent after latent from its exact law given those before. Cost: N rows of the exact posterior each.
        """
        if n < 0 or start < 0:
            raise ValueError(f"sample takes n >= 0 and start >= 0, got n={n}, start={start}")
        out = np.full((n, self.layout.length), MASK, np.int8)
        for first in range(0, n, _ROWS):
            rows = out[first : first + _ROWS]
            for latent in range(self.layout.length):
                drawn = np.empty(len(rows), np.int8)
                laws = np.ascontiguousarray(self.posterior.marginals(rows).probs[:, latent])
                _list_kernels.draw_values(drawn, latent, start + first, *key.words(), laws)
                rows[:, latent] = drawn
        return out

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(latents | given) in nats of int8[n, N]: float64[n], -inf where impossible."""
        return self.posterior.marginals(self.layout.check_tokens(tokens, complete=True)).log_evidence

    @cached_property
    def enumerated(self) -> Enumerated:
        """The same law as a list of its sequences; ValueError for more than 2**16.

        Latent after latent, every prefix of positive probability is kept. Cost: N rows of the exact posterior each.
        """
        rows = np.full((1, self.layout.length), MASK, np.int8)
        for latent in range(self.layout.length):
            parts = []
            for first in range(0, len(rows), _ROWS):
                part = rows[first : first + _ROWS]
                row, value = np.nonzero(self.posterior.marginals(part).probs[:, latent])
                parts.append(part[row])
                parts[-1][:, latent] = value
            rows = np.concatenate(parts)
            if len(rows) > _MOST:
                raise ValueError(f"more than {_MOST:,} sequences are possible: give more observations")
        chances = np.exp(self.log_prob(rows))
        return Enumerated(rows, chances / chances.sum(), self.layout)

    def entropy(self) -> float:
        """Entropy in nats per sequence, by the list of all; errors as ``enumerated``."""
        return self.enumerated.entropy()

    @cached_property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[N, q]: the law of each latent given the observations."""
        return frozen(self.posterior.marginals(np.full(self.layout.length, MASK)).probs[0], np.float64)

    def marginal_entropy(self) -> float:
        """Sum over latents of the entropy of the single one, nats per sequence."""
        laws = self.token_marginals
        return float(-(laws * np.log(np.where(laws > 0, laws, 1.0))).sum())

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem and what is given."""
        whole = np.frombuffer(bytes.fromhex(self.problem.fingerprint()), np.uint8)
        return digest_arrays({"problem": whole, "observations": self.observations})


@checked
class Completed:
    """Any posterior of the whole problem, asked with the given observations shown: one of the latents alone.

    log_evidence is ln P(revealed latents | given), where ``posterior`` knows its own; ``log_given`` is ln P(given).
    Errors: ValueError for a posterior of another problem.
    """

    def __init__(self, posterior: Posterior, distribution: Conditioned) -> None:
        POSTERIOR.check(posterior, "posterior")
        check_layout(posterior.layout, distribution.problem.layout, type(posterior).__name__)
        self.posterior, self.distribution = posterior, distribution
        hidden = distribution.complete(np.full((1, distribution.layout.length), MASK, np.int8))
        self.log_given = float(ask(posterior, hidden, posterior.layout).log_evidence[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.posterior, self.distribution)

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch of latents int8[B, N], MASK = -1 where hidden: probabilities [B, N, q]."""
        answer = ask(self.posterior, self.distribution.complete(tokens), self.posterior.layout)
        latents, q = self.posterior.layout.latent_positions, self.layout.q
        probs = np.ascontiguousarray(answer.probs[:, latents, :q])
        evidence = np.where(np.isneginf(answer.log_evidence), -np.inf, answer.log_evidence - self.log_given)
        return Marginals(probs, evidence, answer.converged)


@checked
def exact_posterior(distribution: Distribution) -> Posterior:
    """The exact posterior of a problem of any kind that has one: L&O, ``Enumerated``, ``Conditioned``,
    ``CluesAndCells`` where all clues are shown, and of ``DrawnGrids`` that of the uniform law.

    Errors: ValueError for another kind.
    """
    if isinstance(distribution, LODistribution):
        return ExactPosterior(distribution)
    if isinstance(distribution, Enumerated):
        return EnumeratedPosterior(distribution)
    if isinstance(distribution, Conditioned):
        return distribution.posterior
    if isinstance(distribution, DrawnGrids):
        return SudokuPosterior(distribution.size)
    if isinstance(distribution, CluesAndCells):
        return ZebraPosterior(distribution)
    raise ValueError(
        f"no exact posterior is known for a {type(distribution).__name__}: list its sequences (Enumerated)"
    )
