"""The information curve of a distribution, and what it costs to reveal several tokens at once in random order.

h_j is the mean entropy of one hidden token when j random others are revealed: the Bayes loss at mask size L - j. The
entropy of the sequence is the sum of all h_j (the chain rule along a random order), and revealing s tokens at once
after j are known costs s h_j - (h_j + ... + h_{j+s-1}) nats more than drawing them one at a time. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from lo_theory.diffusion.contexts import BATCH, row_means
from lo_theory.diffusion.masks import hide_subset
from lo_theory.diffusion.schedules import random_sizes_factor
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.distribution import entropies
from lo_theory.problem.layout import MASK, Record
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import check_count, checked, is_whole
from lo_theory.rng import Key

__all__ = [
    "InformationCurve",
    "best_counts",
    "binomial_cost",
    "certificates",
    "certified_counts",
    "correlations",
    "counts_cost",
    "every_best_counts",
    "information_curve",
    "random_sizes_cost",
]


@dataclass(frozen=True, eq=False, repr=False)
class InformationCurve(Record):
    """h_j for j = 0..L-1 revealed tokens, nats per hidden token, measured on n sequences.

    ``values`` float64[n, L]: of each sequence, along one random order of its own, the mean entropy of what is hidden.
    """

    values: NDArray[np.float64]

    @property
    def hidden(self) -> tuple[Sums, ...]:
        """Sums over sequences for each number of revealed tokens."""
        return tuple(Sums.of(column) for column in self.values.T)

    @property
    def entropy(self) -> Sums:
        """The entropy sum_j h_j of a sequence, nats."""
        return Sums.of(self.values.sum(axis=1))

    @property
    def nats(self) -> NDArray[np.float64]:
        """float64[L]: the means."""
        means: NDArray[np.float64] = self.values.mean(axis=0)
        return means

    def cost(self, counts: Sequence[int]) -> Sums:
        """``counts_cost`` with its error: the h_j of one sequence are dependent, sequences are not."""
        return Sums.of(self.values @ _weights(counts, self.values.shape[1]))


@checked
def information_curve(exact: Posterior, distribution: Distribution, *, key: Key, n: int) -> InformationCurve:
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
    return InformationCurve(values)


@checked
def counts_cost(curve: ArrayLike, counts: Sequence[int]) -> float:
    """KL(data || sampler) in nats of a random order that reveals ``counts`` tokens at a time, with exact marginals.

    sum over steps of s h_j - (h_j + ... + h_{j+s-1}), j tokens known before a step of s: the left Riemann error of
    the curve. ``curve`` float[L]. Errors: ValueError unless the counts are positive and sum to L.
    """
    h = _curve(curve)
    return float(h @ _weights(counts, len(h)))


def _weights(counts: Sequence[int], length: int) -> NDArray[np.float64]:
    """float64[L]: what each h_j weighs in the cost of ``counts``."""
    if not all(is_whole(count) and count >= 1 for count in counts) or sum(counts) != length:
        raise ValueError(f"counts are positive and sum to L = {length}, whole numbers; got {list(counts)}")
    weights = np.full(length, -1.0)
    weights[np.cumsum([0, *counts[:-1]])] += counts
    return weights


@checked
def binomial_cost(curve: ArrayLike, steps: int) -> float:
    """Expected ``counts_cost`` of the paper's rule: K ~ Binomial(hidden, 1/(steps left)) tokens at each of ``steps``.

    Exact, by the law of the number of tokens known before each step. O(steps L**2).
    """
    h = _curve(curve)
    length, total = len(h), -float(h.sum())
    known = np.zeros(length + 1)  # the law of how many are known
    known[0] = 1.0
    if steps < 1:
        raise ValueError(f"a decode takes at least one step, got {steps}")
    for left in range(steps, 0, -1):
        after = np.zeros(length + 1)
        for j in np.flatnonzero(known):
            law = binom.pmf(np.arange(length - j + 1), length - j, 1 / left)
            after[j:] += known[j] * law
            total += known[j] * (length - j) / left * (h[j] if j < length else 0.0)
        known = after
    return total


@checked
def best_counts(curve: ArrayLike, steps: int) -> list[int]:
    """The counts of ``steps`` steps that cost least: a dynamic programme over the tokens known, O(steps L**2).

    Of equal costs the one whose later steps are larger. Errors: ValueError unless 1 <= steps <= L.
    """
    h = _curve(curve)
    if not 1 <= steps <= len(h):
        raise ValueError(f"L = {len(h)} tokens are revealed in 1 to {len(h)} steps, got {steps}")
    return _chosen(_first_steps(h, steps), steps)


@checked
def every_best_counts(curve: ArrayLike) -> list[list[int]]:
    """``best_counts`` in 1, 2, ... L steps, by one dynamic programme of O(L**3)."""
    h = _curve(curve)
    first = _first_steps(h, len(h))
    return [_chosen(first, steps) for steps in range(1, len(h) + 1)]


def _first_steps(h: NDArray[np.float64], steps: int) -> NDArray[np.intp]:
    """int[steps + 1, L]: the first count of the best so many steps, by the tokens known before."""
    length = len(h)
    least, first = np.full((steps + 1, length + 1), np.inf), np.zeros((steps + 1, length), np.intp)
    least[0, length] = 0.0
    for step in range(1, steps + 1):
        for known in range(length):
            counts = np.arange(1, length - known + 1)
            costs = counts * h[known] + least[step - 1, known + counts]
            best = int(costs.argmin())
            least[step, known], first[step, known] = costs[best], counts[best]
    return first


def _chosen(first: NDArray[np.intp], steps: int) -> list[int]:
    chosen, known = [], 0
    for step in range(steps, 0, -1):
        chosen.append(int(first[step, known]))
        known += chosen[-1]
    return chosen


@checked
def random_sizes_cost(curve: ArrayLike, steps: int) -> float:
    """Expected ``counts_cost`` of ``RandomSizes(steps)``: g(steps, L) times the total correlation, exactly."""
    h = _curve(curve)
    return random_sizes_factor(len(h), steps) * correlations(h)["TC"]


@checked
def correlations(curve: ArrayLike) -> dict[str, float]:
    """What of the dependence of L tokens a curve knows, in nats.

    ``TC`` = sum_j (h_0 - h_j), the total correlation and the cost of one step; ``DTC`` = sum_j (h_j - h_{L-1}), the
    dual total correlation; ``MI`` = TC + DTC = L (h_0 - h_{L-1}), the sum of the mutual informations I(x_i; others).
    """
    h = _curve(curve)
    known = {"TC": float((h[0] - h).sum()), "DTC": float((h - h[-1]).sum())}
    return {**known, "MI": known["TC"] + known["DTC"]}


@checked
def certificates(curve: ArrayLike, counts: Sequence[int]) -> dict[str, float]:
    """Upper bounds in nats on ``counts_cost``, each from one number of the distribution, by source.

    With b tokens known before a step of s: ``TC`` = TC max (s-1)/(L-b-1) and ``DTC`` = DTC max (s-1)/(b+1), which for
    steps in a geometric row are the bounds of arXiv 2511.04647; ``MI`` = MI (max s - 1)/L, for equal steps the bound of
    arXiv 2510.25544 by the average number of tokens a step; ``MI, 2505.21400`` = MI (2**ceil(log2 max s) - 1)/L. The
    bounds of these three papers are *second hand*, the first three derived anew: they are the best that TC, DTC or MI
    alone can say of these counts, as some curve reaches each.
    They hold for curves that do not rise, as every distribution's does; one that is measured may, by its error.
    """
    known = correlations(curve)
    h, sizes = _curve(curve), np.asarray(counts, np.int64)
    _weights(counts, len(h))
    before, most = np.cumsum(sizes) - sizes, int(sizes.max())
    left = np.maximum(len(h) - before - 1, 1)
    return {
        "TC": known["TC"] * float(((sizes - 1) / left).max()),
        "DTC": known["DTC"] * float(((sizes - 1) / (before + 1)).max()),
        "MI": known["MI"] * (most - 1) / len(h),
        "MI, 2505.21400": known["MI"] * (2 ** (most - 1).bit_length() - 1) / len(h),
    }


@checked
def certified_counts(length: int, steps: int, known: str = "TC") -> list[int]:
    """The counts of at most ``steps`` steps with the least certificate by TC or DTC alone: no curve is needed.

    TC: as many as r (L-b-1) + 1 with b known, smaller and smaller; DTC: r (b+1) + 1, larger and larger, r as small as
    the number of steps allows (geometric, as in arXiv 2511.04647). Errors: ValueError for another name.
    """
    if known not in _ROOM:
        raise ValueError(f"counts are certified by {' or '.join(_ROOM)}, got {known!r}")
    if not 1 <= steps <= length:
        raise ValueError(f"L = {length} tokens are revealed in 1 to {length} steps, got {steps}")
    ratios = sorted({(size - 1) / room for room in range(1, length + 1) for size in range(1, length + 1)})
    low, high = 0, len(ratios) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_greedy(length, ratios[middle], known)) <= steps else (middle + 1, high)
    return _greedy(length, ratios[low], known)


_ROOM: dict[str, Callable[[int, int], int]] = {
    "TC": lambda length, before: length - before - 1,
    "DTC": lambda length, before: before + 1,
}


def _greedy(length: int, ratio: float, known: str) -> list[int]:
    """Steps as large as the ratio of the certificate allows."""
    counts: list[int] = []
    while (before := sum(counts)) < length:
        counts.append(min(length - before, 1 + int(ratio * _ROOM[known](length, before) + 1e-9)))
    return counts


def _curve(curve: ArrayLike) -> NDArray[np.float64]:
    h = np.asarray(curve, np.float64)
    if h.ndim != 1 or not len(h) or not np.isfinite(h).all():
        raise ValueError(f"a curve is float[L], finite, one number for each count of revealed tokens, got {curve!r}")
    return h
