"""Weak denoisers whose weakness is known: posteriors that leave out a stated part of what the context says.

With them one asks without any training which weakness makes a decoding rule pay, and which makes it hurt. Belief
propagation that stops early is ``few_rounds``. All are bound to a problem, or to other posteriors of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior import _propagation_kernels
from lo_theory.posterior.bp import BPOptions
from lo_theory.posterior.bp_posterior import BPPosterior, fill_row
from lo_theory.posterior.graph import table_graph
from lo_theory.posterior.protocol import POSTERIOR, Marginals, Posterior, ask, reveal
from lo_theory.posterior.workspace import workspace
from lo_theory.problem import MASK, Distribution, Layout, LODistribution
from lo_theory.problem.layout import frozen, plain
from lo_theory.problem.seams import checked

__all__ = ["Forgetful", "MarginalsOnly", "Mixed", "PropagationOnly", "Screened", "Sharpened", "few_rounds"]


def _unknown(rows: NDArray[np.int8]) -> NDArray[np.float64]:
    return np.full(len(rows), np.nan)


@checked
class MarginalsOnly:
    """p(x_i = v) whatever is revealed: every single token's own law, and no constraint.

    Its loss under any mask law is the marginals-only line. The evidence is not known (nan). Cost: a copy of [L, V] a
    row. Errors: those of ``Distribution.token_marginals``.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self._laws = distribution.token_marginals

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V]."""
        rows = self.layout.check_tokens(tokens)
        probs = np.repeat(self._laws[None], len(rows), axis=0)
        reveal(probs, rows)
        return Marginals(probs, _unknown(rows), np.ones(len(rows), np.bool_))


@checked
class PropagationOnly:
    """What the revealed tokens force by generalised arc consistency, and of what they leave open the prior.

    A latent has its prior, renormalised over the values that have support in every revealed observation that reads it;
    a hidden observation its table averaged over the product of the laws of its scope. It is the exact posterior without
    its sums: right wherever propagation alone decides, and it knows no correlation elsewhere. log_evidence -inf on a
    contradiction, which is then proven; else nan. Cost: some 50 us a row. Errors: ValueError for observations that are
    no tables (random slabs).
    """

    def __init__(self, distribution: LODistribution) -> None:
        self._graph = table_graph(distribution)
        self._law: Any = distribution.observations
        self.distribution = distribution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.distribution,)

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V]."""
        rows, layout = self.layout.check_tokens(tokens), self.layout
        probs, evidence = np.zeros((len(rows), layout.length, layout.n_values)), _unknown(rows)
        domains = workspace(self._graph).domains
        for b, row in enumerate(rows):
            beliefs, possible = np.zeros_like(self.distribution.prior), False
            if _propagation_kernels.restrict(self._graph, domains, row):
                possible = bool(_propagation_kernels.propagate(self._graph, domains))
            if possible:
                latent, index = np.nonzero(np.arange(layout.q) < domains.size[:, None])
                left = latent, domains.values[latent, index]
                beliefs[left] = self.distribution.prior[left]
                beliefs /= beliefs.sum(axis=1, keepdims=True)
            else:
                evidence[b] = -np.inf
            fill_row(probs[b], row, layout, self._law, beliefs, possible=possible)
        return Marginals(probs, evidence, np.ones(len(rows), np.bool_))


@checked
def few_rounds(distribution: LODistribution, rounds: int) -> BPPosterior:
    """Belief propagation that stops after ``rounds`` flooding iterations from uniform messages.

    Its beliefs read factors up to ``rounds`` + 1 steps away. On a forest, with at least as many rounds as the longest
    path has factors, the marginals are exact; on other graphs what many rounds end in is belief propagation's own
    fixed point. Errors: ValueError for rounds < 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}; without any, take MarginalsOnly(problem)")
    return BPPosterior(distribution, options=BPOptions("flooding", noise=0.0, iterations=rounds))


class _Derived:
    """A posterior made of another one's answers."""

    def __init__(self, posterior: Posterior) -> None:
        POSTERIOR.check(posterior, "posterior")
        self.posterior = posterior

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.posterior.layout

    def _ask(self, rows: NDArray[np.int8], posterior: Posterior | None = None) -> Marginals:
        return ask(self.posterior if posterior is None else posterior, rows, self.layout)


@checked
class Forgetful(_Derived):
    """The answer of ``posterior`` when the observations ``forgotten`` (numbers 0..P-1) count as hidden.

    Revealed ones stay one-hot; the rest is p(x_i | what is remembered). None forgotten: ``posterior`` itself.
    log_evidence is that of ``posterior`` where a row reveals none of them, elsewhere nan. Cost: one call of
    ``posterior``. Errors: ValueError for a number that is no observation, or is there twice.
    """

    def __init__(self, posterior: Posterior, forgotten: ArrayLike) -> None:
        super().__init__(posterior)
        given, count = plain(forgotten, "forgotten"), self.layout.n_observations
        given = given.astype(np.int64) if given.size == 0 else given
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise ValueError(f"forgotten must be numbers of observations [n], got {given.dtype} of shape {given.shape}")
        if given.size and not 0 <= given.min() <= given.max() < count:
            wrong = given[(given < 0) | (given >= count)][0]
            raise ValueError(f"forgotten names observation {wrong}: this problem has 0..{count - 1}")
        if len(np.unique(given)) < len(given):
            raise ValueError(f"forgotten names an observation twice, in {len(given)} numbers")
        self.forgotten = frozen(given, np.int64)

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: probabilities [B, L, V]."""
        rows = self.layout.check_tokens(tokens)
        positions, remembered = self.layout.observation_positions[self.forgotten], rows.copy()
        remembered[:, positions] = MASK
        answer = self._ask(remembered)
        reveal(answer.probs, rows)
        evidence = np.where((rows[:, positions] != MASK).any(axis=1), np.nan, answer.log_evidence)
        return Marginals(answer.probs, evidence, answer.converged)


@checked
class Mixed(_Derived):
    """(1 - share) p + share p', of ``posterior`` and of ``other``, position by position.

    Share 0 and 1 are the two themselves, log_evidence included; in between it is nan. ``MarginalsOnly(problem)`` as
    ``other`` mixes with the prior. Cost: one call of each. Errors: ValueError for a share outside [0, 1] and for
    posteriors of two problems.
    """

    def __init__(self, posterior: Posterior, other: Posterior, share: float) -> None:
        super().__init__(posterior)
        POSTERIOR.check(other, "other")
        if not 0 <= share <= 1:
            raise ValueError(f"share lies in [0, 1], got {share}")
        self.other, self.share = other, float(share)

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: probabilities [B, L, V]."""
        rows = self.layout.check_tokens(tokens)
        one, other = self._ask(rows), self._ask(rows, self.other)
        if self.share in (0.0, 1.0):
            return other if self.share else one
        probs = (1 - self.share) * one.probs + self.share * other.probs
        return Marginals(probs, _unknown(rows), one.converged & other.converged)


@checked
class Screened(_Derived):
    """The answer of ``posterior``, which is not asked about rows that ``screen`` finds impossible (evidence zero).

    Those are answered by ``screen``. With ``PropagationOnly(problem)`` it spares ``BPPosterior`` the sweeps of contexts
    that contradict themselves, and answers the same: uniform laws, log_evidence -inf. Cost: one call of ``screen``, and
    one of ``posterior`` for the rows left. Errors: ValueError for posteriors of two problems.
    """

    def __init__(self, posterior: Posterior, screen: Posterior) -> None:
        super().__init__(posterior)
        POSTERIOR.check(screen, "screen")
        self.screen = screen

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: probabilities [B, L, V]."""
        rows = self.layout.check_tokens(tokens)
        first = self._ask(rows, self.screen)
        left = ~np.isneginf(first.log_evidence)
        if not left.any():
            return first
        answer = self._ask(rows[left])
        probs, evidence, converged = first.probs.astype(answer.probs.dtype), first.log_evidence.copy(), first.converged
        probs[left], evidence[left] = answer.probs, answer.log_evidence
        return Marginals(probs, evidence, np.where(left, answer.converged[np.cumsum(left) - 1], converged))


@checked
class Sharpened(_Derived):
    """p**(1 + excess), renormalised, at every hidden position: too sure of itself by a known amount.

    A fault to test checks with: the most likely value stays the same, calibration and laws do not. Negative: not sure
    enough. excess 0: ``posterior`` itself, log_evidence included; else that is nan. Cost: one call of ``posterior``.
    Errors: ValueError unless excess > -1.
    """

    def __init__(self, posterior: Posterior, excess: float) -> None:
        super().__init__(posterior)
        if not -1 < excess < np.inf:
            raise ValueError(f"excess must be a number above -1, got {excess}")
        self.excess = float(excess)

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: probabilities [B, L, V]."""
        rows = self.layout.check_tokens(tokens)
        answer = self._ask(rows)
        if self.excess == 0:
            return answer
        probs = (answer.probs / answer.probs.max(axis=2, keepdims=True)) ** (1 + self.excess)
        return Marginals(probs / probs.sum(axis=2, keepdims=True), _unknown(rows), answer.converged)
