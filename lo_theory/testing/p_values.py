"""P-values of counts, means and shares: what a statistical test of a sampler is made of.

Each function answers the probability that a right implementation deviates at least as far. ``same_law`` puts them to
use, ``Ledger`` divides a false-positive budget among them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from lo_theory.problem.seams import checked

__all__ = ["binomial", "chi_square", "chi_square_of_rows", "holm", "mean_test", "row_counts", "t_test", "z_test"]

_FOR_THE_NORMAL_LAW, _FOR_STUDENT = 100, 8
_ROUNDING = 1e-7


def _error(samples: ArrayLike, least: int, law: str) -> tuple[NDArray[np.float64], float]:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size < least:
        raise ValueError(f"{law} needs at least {least} independent samples in one axis, got shape {values.shape}")
    return values, float(values.std(ddof=1) / np.sqrt(values.size))


@checked
def z_test(samples: ArrayLike, mean: float) -> float:
    """Two-sided p-value that independent ``samples`` [n] have this mean: P(|Z| >= |sample mean - mean|/standard error).

    The samples' own standard error and the normal law are supposed; samples that are all one number answer 0 or 1.
    Errors: ValueError below 100 samples.
    """
    values, error = _error(samples, _FOR_THE_NORMAL_LAW, "the normal law")
    difference = values.mean() - mean
    if error == 0:
        return float(difference == 0)
    return float(special.erfc(abs(difference / error) / np.sqrt(2)))


@checked
def mean_test(
    samples: ArrayLike, mean: float, slack: float = 0.0, *, spread: tuple[float, float] = (0.0, 0.0)
) -> float:
    """Two-sided p-value that independent ``samples`` [n] have a mean in [mean, mean + slack], however skewed they are.

    P(|Z| >= |T|), T = sqrt(n) (U + g U**2/3 + g**2 U**3/27 + g/(6 n)), U = (sample mean - mean)/sd, g their skewness
    (Hall, Journal of the Royal Statistical Society B 54, 1992, 221): right to second order, the z-test to first. Means
    that agree to 1e-7 agree: weights are float32. ``spread``: least standard deviations that count where the sample
    mean is too small and where it is too large; of a value so rare that it has not come, the samples' own know
    nothing. Errors: ValueError below 100 samples.
    """
    values, error = _error(samples, _FOR_THE_NORMAL_LAW, "the normal law")
    above = float(values.mean() - mean)
    difference = above if above < 0 else max(above - slack, 0.0)
    if abs(difference) <= _ROUNDING * max(1.0, abs(mean)):
        return 1.0
    n, own, least = values.size, float(values.std()), spread[int(difference > 0)]
    if error == 0 and least == 0:
        return 0.0
    skewness = float(np.power((values - values.mean()) / own, 3).mean()) if own >= least else 0.0
    unit = difference / max(own, least)
    moved = unit + skewness * unit**2 / 3 + skewness**2 * unit**3 / 27 + skewness / (6 * n)
    return float(special.erfc(abs(math.sqrt(n) * moved) / math.sqrt(2)))


@checked
def t_test(samples: ArrayLike, mean: float) -> float:
    """Two-sided p-value (Student) that independent ``samples`` [n], each close to normal, have this mean.

    For a few samples that are themselves averages over many draws: at eight of them the threshold of a test lies near
    twelve standard errors, so what makes them not quite normal hardly counts. Errors: ValueError below 8 samples.
    """
    values, error = _error(samples, _FOR_STUDENT, "Student's law")
    difference = values.mean() - mean
    if error == 0:
        return float(difference == 0)
    return float(2 * special.stdtr(values.size - 1, -abs(difference / error)))


@checked
def chi_square(counts: ArrayLike, probabilities: ArrayLike, *, least_expected: float = 20.0) -> float:
    """P-value that ``counts`` [S] are multinomial with ``probabilities`` [S]: chi-square, sum of (seen - expected)**2 /
    expected.

    Cells expected fewer than ``least_expected`` times are pooled, smallest first, since far out the chi-square tail is
    not to be trusted with small cells. A count where the probability is zero gives 0. Errors: ValueError for
    probabilities that do not sum to one, and for counts too few to make two cells.
    """
    observed, law = np.asarray(counts, dtype=np.float64).ravel(), np.asarray(probabilities, dtype=np.float64).ravel()
    if observed.shape != law.shape or abs(law.sum() - 1) > 1e-9 or (law < 0).any():
        raise ValueError(
            f"chi_square takes one probability a cell, summing to one: {observed.shape} counts, sum {law.sum()}"
        )
    if observed[law == 0].any():
        return 0.0
    ranked, pooled = pooled_cells(law, observed.sum(), least_expected)
    expected, observed = observed.sum() * law[ranked], observed[ranked]
    if pooled:
        expected = np.append(expected[pooled:], expected[:pooled].sum())
        observed = np.append(observed[pooled:], observed[:pooled].sum())
    if len(expected) < 2 or (expected < least_expected).any():
        raise ValueError(
            f"chi_square needs two cells expected {least_expected} times: draw more than {observed.sum():.0f} samples"
        )
    return float(special.chdtrc(len(expected) - 1, (np.square(observed - expected) / expected).sum()))


def pooled_cells(law: NDArray[np.float64], n: float, least_expected: float = 20.0) -> tuple[NDArray[np.intp], int]:
    """Cells [S] from the rarest on, and how many of them ``chi_square`` pools after n draws.

    Those expected fewer than ``least_expected`` times; together they must reach it as well, so the next larger one is
    taken in if they do not.
    """
    ranked = np.argsort(law)
    expected = n * law[ranked]
    pooled = int((expected < least_expected).sum())
    if pooled:
        pooled = max(pooled, int(np.searchsorted(np.cumsum(expected), least_expected)) + 1)
    return ranked, pooled


@checked
def binomial(successes: int, trials: int, probability: float) -> float:
    """Exact two-sided p-value (twice the smaller tail) that ``successes`` of ``trials`` have this probability."""
    law = stats.binom(trials, probability)
    return float(min(1.0, 2 * min(law.cdf(successes), law.sf(successes - 1))))


@checked
def row_counts(rows: NDArray[Any], support: NDArray[Any]) -> NDArray[np.int64]:
    """How often each row of ``support`` [S, L] is met in ``rows`` [n, L]: int64[S + 1].

    One more cell, the last, counts rows met nowhere. Errors: ValueError for negative tokens, and for sequences that
    62 bits do not number.
    """
    together = np.concatenate([support, rows])
    base = int(together.max()) + 1
    if together.min() < 0 or base ** support.shape[1] >= 2**62:
        raise ValueError(
            f"sequences of {support.shape[1]} tokens in {together.min()}..{base - 1} have no 62-bit number each"
        )
    numbers = together.astype(np.int64) @ base ** np.arange(support.shape[1])
    known, drawn = numbers[: len(support)], numbers[len(support) :]
    ranked = np.argsort(known)
    cells = ranked[np.minimum(np.searchsorted(known[ranked], drawn), len(known) - 1)]
    return np.bincount(np.where(known[cells] == drawn, cells, len(known)), minlength=len(known) + 1)


@checked
def chi_square_of_rows(rows: NDArray[Any], support: NDArray[Any], probabilities: NDArray[np.float64]) -> float:
    """P-value that ``rows`` [n, L] are independent draws of the law ``probabilities`` [S] on the sequences ``support``
    [S, L].
    """
    return chi_square(row_counts(rows, support), np.append(probabilities, 0.0))


@checked
def holm(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Which of the hypotheses behind ``p_values`` [m] are rejected: bool[m], at the family-wise level ``level``.

    Holm's rule: the i-th smallest is rejected while it is at most level/(m - i + 1). With every hypothesis true, the
    probability that any is rejected is at most ``level``, whatever depends on what. (Holm, Scandinavian Journal of
    Statistics 6, 1979, 65.) Errors: ValueError for what is no p-value and for a level outside (0, 1).
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all() or not 0 < level < 1:
        raise ValueError(f"p-values lie in [0, 1] and a level in (0, 1), got {values} at {level}")
    ranked = np.argsort(values)
    passed = values[ranked] > level / np.arange(len(values), 0, -1)
    rejected = np.zeros(len(values), np.bool_)
    rejected[ranked[: int(np.argmax(passed)) if passed.any() else len(values)]] = True
    return rejected
