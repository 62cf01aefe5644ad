"""Sums that add: the one form in which measured numbers are kept, combined and turned into intervals.

A quantity measured on n independent sequences (tokens of one sequence are dependent) is kept as (n, sum, sum of
squares), so more sequences, or more seeds, refine the same number by addition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Z_95", "Sums"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal law."""


@dataclass(frozen=True)
class Sums:
    """Number, sum and sum of squares of independent values; ``a + b`` pools two measurements."""

    n: int
    total: float
    squares: float

    @classmethod
    def of(cls, values: ArrayLike) -> Sums:
        """Sum up one value per sequence."""
        array = np.asarray(values, dtype=np.float64).ravel()
        return cls(len(array), float(array.sum()), float(np.square(array).sum()))

    @classmethod
    def single(cls, value: float) -> Sums:
        """One value of one run: what does not add over sequences."""
        return cls(1, float(value), float(value) ** 2)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean; nan without values."""
        return self.total / self.n if self.n else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; nan below two values."""
        if self.n < 2:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.n - self.mean**2) / (self.n - 1))

    def interval(self, *, share: bool = False) -> tuple[float, float]:
        """95 % interval of the mean, from the standard error.

        With ``share`` (values in [0, 1]) it is Wilson's with the measured variance in place of p(1 - p): never outside
        [0, 1], and not of width zero when all n values agree (then Wilson's own, which n coin flips would give).
        """
        if self.n < 2:
            return (math.nan, math.nan)
        mean, error = self.mean, self.standard_error
        if not share:
            return (mean - Z_95 * error, mean + Z_95 * error)
        spread = mean * (1 - mean)
        # A share with variance s**2 < p(1 - p) is worth p(1 - p)/s**2 as many coin flips.
        worth = spread / error**2 if error > 0 and spread > 0 else float(self.n)
        centre = (mean + Z_95**2 / (2 * worth)) / (1 + Z_95**2 / worth)
        half = Z_95 / (1 + Z_95**2 / worth) * math.sqrt(max(spread, 0.0) / worth + Z_95**2 / (4 * worth**2))
        return (max(0.0, centre - half), min(1.0, centre + half))
