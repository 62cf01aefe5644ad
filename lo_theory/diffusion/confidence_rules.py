"""Rules that choose how many by confidence: the longest run of the surest positions that a bound allows.

They reveal at least what the schedule says, so ``OneAtATime()`` beside them means at least one a step. How many depends
on the marginals alone: whether tokens revealed together are independent is what none of them can see, and what
``decode_cost`` measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion._kernels import TIE
from lo_theory.diffusion.policies import View, entropy, reveal_best, top_probability
from lo_theory.diffusion.schedules import check_budget
from lo_theory.problem.seams import checked

__all__ = ["Prefix", "entropy_bounded", "factor", "frechet", "threshold"]

Array = NDArray[np.float64]


@checked
@dataclass(frozen=True)
class Prefix:
    """Reveal the n hidden positions of highest score, n the largest that ``allowed`` admits, and at least the budget.

    ``allowed(ordered, bound)`` answers bool[B, L], whether n = 1..L are; ``ordered`` float64[B, L] are the scores of
    hidden positions, highest first, zero behind them. Ties (to 1e-12) are broken uniformly at random. Oracle noise
    moves the order, not the number. Cost: a sort of [B, L]. Errors: those of ``TopK``.
    """

    name: str
    score: Callable[[View], Array]
    allowed: Callable[[Array, float], NDArray[np.bool_]]
    bound: float

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask after this step, bool[B, L]; the budget is the least number of positions."""
        scores = self.score(view)
        numbers = np.arange(1, view.layout.length + 1)
        there = numbers <= view.masked.sum(axis=1, keepdims=True)
        ordered = np.where(there, -np.sort(np.where(view.masked, -scores, np.inf), axis=1), 0.0)
        most = np.where(there & self.allowed(ordered, self.bound), numbers, 0).max(axis=1)
        least = check_budget(budget, len(most), "the schedule", start=view.start)
        return reveal_best(view, scores, np.maximum(most, least), self.name)


def _numbers(ordered: Array) -> NDArray[np.int64]:
    return np.arange(1, ordered.shape[1] + 1)


def _above(ordered: Array, tau: float) -> Any:
    return ordered >= tau - 1 / TIE


def _within_factor(ordered: Array, bound: float) -> Any:
    return (_numbers(ordered) + 1) * (1 - ordered) < bound - 1 / TIE


def _certified(ordered: Array, delta: float) -> Any:
    least = np.maximum(0.0, ordered.cumsum(axis=1) - (_numbers(ordered) - 1))
    return least - (1 - ordered) > delta + 1 / TIE


def _within_entropy(ordered: Array, gamma: float) -> Any:
    return ordered - ordered.cumsum(axis=1) <= gamma + 1 / TIE  # scores are minus the entropies


@checked
def threshold(tau: float = 0.9) -> Prefix:
    """All positions with c_i >= ``tau``, c_i the largest probability; at least one (Fast-dLLM, arXiv 2505.22618).

    tau > 1: one at a time, by ``top_probability``. The released code takes the probability of the token that it has
    drawn, which is c_i at temperature 0 only. ValueError for a negative tau.
    """
    if not 0 <= tau < np.inf:
        raise ValueError(f"tau is a probability, or above 1 for one at a time; got {tau}: the paper takes 0.9")
    return Prefix(f"threshold({tau:g})", top_probability().score, _above, tau)


@checked
def factor(f: float = 1.0) -> Prefix:
    """The largest n with (n + 1)(1 - c_(n)) < ``f``, c_(1) >= c_(2) >= ... (Fast-dLLM, arXiv 2505.22618).

    Equal c = 1 - eps: n = ceil(f/eps) - 2, at least one. f = 0: one at a time. Paper and released code differ: the code
    has <=, and it also reveals the last hidden position, whatever its c, when all others are within the bound, so the
    last two always together; here as in the paper. ValueError for a negative f.
    """
    if not 0 <= f < np.inf:
        raise ValueError(f"f is a finite number, not negative (0: one at a time); got {f}: the released code takes 1")
    return Prefix(f"factor({f:g})", top_probability().score, _within_factor, f)


@checked
def frechet(delta: float = 0.0) -> Prefix:
    """The largest n with L_n - U_n > ``delta``: the Frechet bounds of the most likely values (arXiv 2606.02955).

    L_n = max(0, sum_{j <= n} c_(j) - (n - 1)) bounds the probability of the n most likely values together from below,
    U_n = 1 - c_(n) that of all others from above. L_n > U_n: the most likely value of each is the most likely string of
    all n, whatever the joint law. That certifies the mode, not the law: tokens that are drawn are still dependent.
    delta = 1: one at a time. ValueError for a delta outside [-1, 1].
    """
    if not -1 <= delta <= 1:
        raise ValueError(f"delta is a difference of probabilities, in [-1, 1]; got {delta}: 0 certifies the mode")
    return Prefix(f"frechet({delta:g})", top_probability().score, _certified, delta)


@checked
def entropy_bounded(gamma: float = 0.1) -> Prefix:
    """The largest n with sum_{j <= n} H_(j) - H_(n) <= ``gamma`` nats, H_(1) <= H_(2) <= ... (arXiv 2505.24857).

    The left side bounds the total correlation of what is revealed, so with the exact posterior the dependence error of
    a step is at most gamma in expectation. gamma = 0: certain tokens together, and no error. ValueError for a negative
    gamma.
    """
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma is a finite number of nats, not negative; got {gamma}: 0 reveals certain tokens only")
    return Prefix(f"entropy_bounded({gamma:g})", entropy().score, _within_entropy, gamma)
