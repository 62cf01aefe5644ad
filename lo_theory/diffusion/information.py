"""The information curve of a distribution, and what it costs to reveal several tokens at once in random order.

h_j is the mean entropy of one hidden token when j random others are revealed: the Bayes loss at mask size L - j. The
entropy of the sequence is the sum of all h_j (the chain rule along a random order), and revealing s tokens at once
after j are known costs s h_j - (h_j + ... + h_{j+s-1}) nats more than drawing them one at a time. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.contexts import BATCH, row_means
from lo_theory.diffusion.masks import hide_subset
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.distribution import LODistribution, entropies
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = ["InformationCurve", "best_counts", "counts_cost", "information_curve"]


@dataclass(frozen=True)
class InformationCurve:
    """h_j for j = 0..L-1 revealed tokens, nats per hidden token, and the entropy sum_j h_j of a sequence.

    ``hidden`` holds sums over sequences, each of them with one random order; along it the h_j of one sequence are
    dependent, so ``entropy`` has sums of its own.
    """

    hidden: tuple[Sums, ...]
    entropy: Sums

    @property
    def nats(self) -> NDArray[np.float64]:
        """float64[L]: the means."""
        return np.array([sums.mean for sums in self.hidden])


@checked
def information_curve(exact: Posterior, distribution: LODistribution, *, key: Key, n: int) -> InformationCurve:
    """Measure h_j = E H(x_i | j random other tokens), i uniform among the hidden, over n sequences.

    Each sequence is revealed along one uniform order; a context counts the mean entropy of its hidden tokens' exact
    marginals, which has the expectation h_j and no error from the tokens drawn. Cost: n L rows through ``exact``.
    Errors: ValueError for n < 1, and as ``exact`` raises it where a context does not fit.
    """
    check_count(n, "a curve is measured on at least one sequence")
    layout = distribution.layout
    values, positions = np.empty((n, layout.length)), np.arange(layout.length, dtype=np.int32)
    for start in range(0, n, BATCH):
        truth = distribution.sample(key.fold("data"), min(BATCH, n - start), start=start)
        masked = np.zeros((layout.length, *truth.shape), np.bool_)
        for known, hidden in enumerate(masked):
            counts = np.full(len(truth), layout.length - known)
            hide_subset(hidden, key.fold("orders"), start, positions, counts)
        tokens = np.where(masked, np.int8(MASK), truth)
        left = [entropies(ask(exact, rows, layout, name="the exact posterior").probs) for rows in tokens]
        values[start : start + len(truth)] = row_means(np.array(left), masked).T
    return InformationCurve(tuple(Sums.of(column) for column in values.T), Sums.of(values.sum(axis=1)))


def counts_cost(curve: ArrayLike, counts: Sequence[int]) -> float:
    """KL(data || sampler) in nats of a random order that reveals ``counts`` tokens at a time, with exact marginals.

    sum over steps of s h_j - (h_j + ... + h_{j+s-1}), j tokens known before a step of s: the left Riemann error of
    the curve. ``curve`` float[L]. Errors: ValueError unless the counts are positive and sum to L.
    """
    h = _curve(curve)
    if any(count < 1 for count in counts) or sum(counts) != len(h):
        raise ValueError(f"counts are positive and sum to L = {len(h)}, got {list(counts)}")
    starts = np.cumsum([0, *counts[:-1]])
    return float(sum(count * h[start] for count, start in zip(counts, starts, strict=True)) - h.sum())


def best_counts(curve: ArrayLike, steps: int) -> list[int]:
    """The counts of ``steps`` steps that cost least: a dynamic programme over the tokens known, O(steps L**2).

    Of equal costs the one whose later steps are larger. Errors: ValueError unless 1 <= steps <= L.
    """
    h = _curve(curve)
    length = len(h)
    if not 1 <= steps <= length:
        raise ValueError(f"L = {length} tokens are revealed in 1 to {length} steps, got {steps}")
    least, first = np.full((steps + 1, length + 1), np.inf), np.zeros((steps + 1, length + 1), np.intp)
    least[0, length] = 0.0
    for step in range(1, steps + 1):
        for known in range(length):
            counts = np.arange(1, length - known + 1)
            costs = counts * h[known] + least[step - 1, known + counts]
            best = int(costs.argmin())
            least[step, known], first[step, known] = costs[best], counts[best]
    chosen, known = [], 0
    for step in range(steps, 0, -1):
        chosen.append(int(first[step, known]))
        known += chosen[-1]
    return chosen


def _curve(curve: ArrayLike) -> NDArray[np.float64]:
    h = np.asarray(curve, np.float64)
    if h.ndim != 1 or not len(h) or not np.isfinite(h).all():
        raise ValueError(f"a curve is float[L], finite, one number for each count of revealed tokens, got {curve!r}")
    return h
