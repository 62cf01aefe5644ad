"""Sums that add, and the one place where measured numbers become intervals.

A quantity measured on n independent sequences (tokens of one sequence are dependent) is kept as (n, sum, sum of squared
deviations from the mean), so more sequences refine the same number by addition. What several independent runs
(trainings, problems, seeds) have measured is kept apart, run by run: its interval is over the runs.

Every interval is two-sided and of 95 %; ``±`` is the larger half of it, ``Estimate.half``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Estimate", "Runs", "Sums", "between", "difference", "pooled", "student", "welch"]

_Z = 1.959963984540054  # two-sided 95 % quantile of the standard normal law
_ROUNDING = 32 * 2.0**-52  # of a sum of squares, relative
_NO_INTERVAL = (math.nan, math.nan)


def student(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's t: an error of ``freedom`` degrees times this is half of an interval."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval; the ends are nan where there is none."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """What is printed after ±: the larger half of the interval, nan where there is none."""
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True)
class Sums:
    """Number, sum, and sum of squared deviations from the mean of independent values; ``a + b`` pools two measurements.

    Centred, so that values of mean 1e8 keep their spread (Chan, Golub and LeVeque, The American Statistician 37, 1983,
    242); in whatever order measurements are added, the sums agree to rounding. ``deviations`` is nan as soon as a value
    is nan or infinite. Errors: ValueError for a number or deviations below zero, TypeError for what is no number.
    """

    n: int
    total: float
    deviations: float

    def __post_init__(self) -> None:
        if operator.index(self.n) < 0:
            raise ValueError(f"a number of values must not be negative, got n = {self.n}")
        if not math.isfinite(self.total):
            object.__setattr__(self, "deviations", math.nan)
        if self.deviations < 0 or (self.n < 2 and self.deviations > 0):
            raise ValueError(
                f"squared deviations from the mean of {self.n} values cannot sum to {self.deviations}: they are at "
                "least zero, and zero below two values"
            )

    @classmethod
    def of(cls, values: ArrayLike) -> Sums:
        """Sum up one value per sequence: whole or real numbers, True or False. TypeError for anything else."""
        array = np.asarray(values)
        if isinstance(values, np.ma.MaskedArray) or array.dtype.kind not in "biuf":
            raise TypeError(f"values are plain numbers, one a sequence, got {type(values).__name__} of {array.dtype}")
        array = array.astype(np.float64).ravel()
        if not len(array):
            return cls(0, 0.0, 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = array - array[0]  # all zero, to the bit, where all values are one number
            deviations = np.square(apart - apart.mean()).sum()
        return cls(len(array), float(array.sum()), float(deviations))

    @classmethod
    def single(cls, value: float) -> Sums:
        """One value of one run: what does not add over sequences."""
        return cls.of([value])

    @classmethod
    def from_squares(cls, n: int, total: float, squares: float) -> Sums:
        """From n, sum and sum of squares, as older rows hold them: deviations = squares - total**2/n.

        A difference within rounding (32 x 2**-52 of the squares) counts as zero. Values whose mean is large beside
        their spread have lost it there; it cannot be had back.
        """
        if n < 2:
            return cls(n, total, 0.0 if math.isfinite(total) else math.nan)
        deviations = squares - total * (total / n)
        return cls(n, total, 0.0 if deviations <= _ROUNDING * squares else deviations)

    def __add__(self, other: Sums) -> Sums:
        if not self.n or not other.n:
            return self if self.n else other
        n, apart = self.n + other.n, other.mean - self.mean
        between_both = apart * apart * (self.n * other.n / n)
        return Sums(n, self.total + other.total, self.deviations + other.deviations + between_both)

    def shifted(self, by: float) -> Sums:
        """The sums of the values plus ``by``."""
        return Sums(self.n, self.total + by * self.n, self.deviations)

    @property
    def mean(self) -> float:
        """Mean; nan without values."""
        return self.total / self.n if self.n else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; nan below two values, and where a value is nan or infinite."""
        return math.sqrt(self.deviations / self.n / (self.n - 1)) if self.n > 1 else math.nan

    @property
    def fits_share(self) -> bool:
        """Whether the values can all lie in [0, 1]: mean m in [0, 1] and variance at most m (1 - m)."""
        mean, slack = self.mean, 1e-9
        return -slack <= mean <= 1 + slack and self.deviations <= self.n * (mean * (1 - mean) + slack)

    def interval(self, *, share: bool = False) -> tuple[float, float]:
        """95 % interval of the mean: mean ± t standard errors, Student's t of n - 1 degrees; nan below two values.

        With ``share`` (values in [0, 1], of mean m) it is Wilson's with the measured variance: the p whose distance
        from m is at most z = 1.96 standard errors, of a variance r p (1 - p), r = deviations/(n m (1 - m)), in which
        neither of the two counts as less than c = z**2/12 = 0.32, the deviations of z**2 values spread evenly over
        [0, 1]. So values 0 and 1 have Wilson's own interval, other values one of their own variance, and n values that
        are all m, inside of (0, 1), have about m ± z sqrt(c)/n = m ± 1.1/n. The width is never zero, the ends lie in
        [0, 1], both are continuous in the values. Not promised: 95 % where fewer than some three of n values lie more
        than a third of the range from all others, which n values may well not show. Errors: ValueError where the
        values cannot all lie in [0, 1].
        """
        if self.n < 2 or math.isnan(self.deviations):
            return _NO_INTERVAL
        if not share:
            half = student(self.n - 1) * self.standard_error
            return (self.mean - half, self.mean + half)
        if not self.fits_share:
            raise ValueError(
                f"values of mean {self.mean:g} and variance {self.deviations / self.n:g} do not all lie in [0, 1]: "
                "they are no shares"
            )
        mean, least = min(1.0, max(0.0, self.mean)), _Z**2 / 12
        spread = mean * (1 - mean)
        k = _Z**2 / self.n * max(self.deviations, least) / max(self.n * spread, least)
        centre, half = (mean + k / 2) / (1 + k), math.sqrt(k * spread + k * k / 4) / (1 + k)
        return (min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half)))  # rounding aside


@dataclass(frozen=True)
class Runs:
    """One quantity as measured by one run or several: ``parts`` holds the sums of each run over its own sequences.

    Of several runs the mean is that of the runs' means, each weighing the same, and the interval is over the runs.
    ``a + b`` adds the sequences of the same runs and keeps different runs apart.
    """

    parts: Mapping[Hashable, Sums]

    @classmethod
    def of(cls, sums: Sums) -> Runs:
        """What a single run has measured."""
        return cls({0: sums})

    def __add__(self, other: Runs) -> Runs:
        parts = dict(self.parts)
        for run, sums in other.parts.items():
            parts[run] = parts[run] + sums if run in parts else sums
        return Runs(parts)

    def renamed(self, name: Hashable) -> Runs:
        """The same with the run r called (``name``, r), so that others may be added as runs of their own."""
        return Runs({(name, run): sums for run, sums in self.parts.items()})

    def shifted(self, by: float) -> Runs:
        """The same of the values plus ``by``."""
        return Runs({run: sums.shifted(by) for run, sums in self.parts.items()})

    @property
    def sums(self) -> Sums:
        """All sequences of all runs together."""
        return sum(self.parts.values(), Sums(0, 0.0, 0.0))

    @property
    def n(self) -> int:
        """Sequences of all runs."""
        return sum(sums.n for sums in self.parts.values())

    @property
    def means(self) -> dict[Hashable, float]:
        """The mean of every run that has any value."""
        return {run: sums.mean for run, sums in self.parts.items() if sums.n}

    @property
    def mean(self) -> float:
        """Mean of the runs' means; nan without values."""
        means = list(self.means.values())
        return means[0] if len(means) == 1 else Sums.of(means).mean

    @property
    def over_runs(self) -> bool:
        """Whether the interval is over runs: there are several, and they do not all have the same mean."""
        return len(set(self.means.values())) > 1

    def interval(self, *, share: bool = False) -> tuple[float, float]:
        """95 % interval of the mean: of several runs over the runs, else over sequences (``Sums.interval``).

        Over runs it is Student's t on the runs' means; with ``share`` what lies outside [0, 1] is cut off. Runs of a
        single value each are the values. Runs with one mean, to the bit, say nothing of their spread: then the interval
        is over all their sequences.
        """
        if not self.over_runs or all(sums.n <= 1 for sums in self.parts.values()):
            low, high = self.sums.interval(share=share)
            return (min(low, self.mean), max(high, self.mean))  # whose rounding is another
        _, low, high = between(list(self.means.values()))
        return (max(0.0, low), min(1.0, high)) if share else (low, high)

    def estimate(self, *, share: bool = False) -> Estimate:
        """The mean with its interval."""
        return Estimate(self.mean, *self.interval(share=share))

    def minus(self, other: Runs, *, share: bool = False) -> Estimate:
        """Mean of these less that of ``other``.

        Over the runs that both have, if there are two or more: Student's t on the differences run by run. Else, and
        where all these differences are one number, over sequences, which are taken to be independent (``difference``).
        """
        mine, theirs = self.means, other.means
        common = [mine[run] - theirs[run] for run in mine if run in theirs]
        if len(set(common)) > 1:
            return between(common)
        both = (Estimate(runs.mean, *runs.sums.interval(share=share)) for runs in (self, other))
        return difference(*both)


def between(values: Sequence[float]) -> Estimate:
    """Mean of independent runs' values, with Student's t over the runs; the ends are nan below two runs."""
    runs = Sums.of(values)
    return Estimate(runs.mean, *runs.interval())


def pooled(runs: Sequence[Estimate]) -> Estimate:
    """The estimate of a single run as it is; of several the mean of their values, with Student's t over the runs.

    Runs of one value, to the bit, say nothing of their spread: then the widest interval among them.
    """
    if len({run.value for run in runs}) == 1:
        return max(runs, key=lambda run: -math.inf if math.isnan(run.half) else run.half)
    return between([run.value for run in runs])


def difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second of independent samples.

    Square-and-add (Newcombe, Statistics in Medicine 17, 1998, 873): also right for shares near 0 or 1, where a standard
    error is not.
    """
    points = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(points, points - down, points + up)


def welch(first: Iterable[float], second: Iterable[float]) -> Estimate:
    """Mean of ``first`` less that of ``second``, independent runs, by Welch's t; the ends are nan below two values."""
    one, other = Sums.of(list(first)), Sums.of(list(second))
    points = one.mean - other.mean
    parts = [(runs.standard_error**2, runs.n - 1) for runs in (one, other)]
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return Estimate(points, *_NO_INTERVAL)
    half = student(variance**2 / sum(part**2 / freedom for part, freedom in parts)) * math.sqrt(variance)
    return Estimate(points, points - half, points + half)
