"""Whether a sampler draws from the law that it is said to draw from, and how small a deviation would be seen.

The test is the chi-square of counts over all outcomes (bins of equal probability where the law is continuous). Its
false-positive rate is ``level``; and because sum (q - p)**2/p >= (sum |q - p|)**2, *every* law at total variation d
from the right one has noncentrality at least 4 n d**2, so that the smallest deviation that is sure to be detected can
be stated before anything is drawn.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from lo_theory.problem.seams import DISTRIBUTION, checked
from lo_theory.rng import Key
from lo_theory.testing.p_values import binomial, chi_square, pooled_cells, row_counts
from lo_theory.testing.twins import listed_law

__all__ = ["SameLaw", "assert_same_law", "detectable", "draws_needed", "resolution", "same_law", "sampler_of"]

_LEAST_EXPECTED = 20.0
_BINS = 64
_GRID = 2.0**50  # numbers that float64 tells apart where a continuous law puts its mass, at least


@checked
def detectable(n: int, cells: int, level: float, power: float = 0.99) -> float:
    """Smallest total variation distance d such that any law at least so far away is rejected with probability
    ``power``: sqrt(l/(4 n)), where the noncentral chi-square of noncentrality l and ``cells`` - 1 degrees of freedom
    passes the quantile 1 - ``level`` with that probability. For n draws; no more than 1; asymptotic in n.
    """
    if n < 1 or cells < 2 or not 0 < level < 1 or not 0 < power < 1:
        raise ValueError(
            f"a test has n >= 1 draws, two cells or more, level and power in (0, 1); got n = {n}, cells = {cells}, "
            f"level = {level}, power = {power}"
        )
    freedom = cells - 1
    needed = special.chndtrinc(special.chdtri(freedom, level), freedom, 1 - power)
    return min(1.0, math.sqrt(float(needed) / (4 * n)))


@checked
def draws_needed(smallest: float, cells: int, level: float, power: float = 0.99) -> int:
    """Draws after which any law at total variation ``smallest`` or more is rejected with probability ``power``."""
    if not 0 < smallest <= 1:
        raise ValueError(f"a total variation distance lies in (0, 1], got {smallest}")
    return math.ceil((detectable(10**12, cells, level, power) / smallest) ** 2 * 10**12)


def resolution(law: NDArray[np.float64], n: int, level: float, power: float = 0.99) -> tuple[int, float]:
    """Cells that n draws of ``law`` [S] are compared in, and the smallest total variation that is sure to be found.

    Rare cells are pooled, and what differs within the pool is not seen: its probability is added to ``detectable``.
    """
    possible = law[law > 0]
    ranked, pooled = pooled_cells(possible, n, _LEAST_EXPECTED)
    cells = len(possible) - pooled + (pooled > 0)
    hidden = float(possible[ranked[:pooled]].sum()) if pooled > 1 else 0.0
    return cells, min(1.0, detectable(n, max(2, cells), level, power) + hidden)


def sampler_of(sampler: Any) -> Callable[[Key, int], NDArray[Any]]:
    """A sampler as a function of (key, n).

    Taken are a problem; a function of two arguments (key, n), to which ``key.generator()`` and ``key.torch_seed()``
    give randomness; and a function of n alone, which has randomness of its own. Errors: ValueError for anything else.
    """
    if DISTRIBUTION.fits(sampler):
        return lambda key, n: np.asarray(sampler.sample(key, n))
    if not callable(sampler):
        raise ValueError(f"a sampler is a function of (key, n) or of n, or a problem; got {type(sampler).__name__}")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(sampler).parameters.values()
    needed = [each for each in parameters if each.kind in kinds and each.default is each.empty]
    if len(needed) not in (1, 2):
        raise ValueError(f"a sampler takes (key, n) or n alone; this one needs {len(needed)} arguments")
    if len(needed) == 2:
        return lambda key, n: np.asarray(sampler(key, n))
    return lambda key, n: np.asarray(sampler(n))


@dataclass(frozen=True)
class SameLaw:
    """What the comparison of a sampler with a law has found.

    ``p_value`` against ``level``; ``n`` draws in ``cells`` cells; ``smallest``: any law at this total variation
    distance or more is rejected with probability ``power``; ``worst`` says where it deviates most.
    """

    p_value: float
    level: float
    n: int
    cells: int
    smallest: float
    power: float
    worst: str

    @property
    def ok(self) -> bool:
        """Whether the p-value is at least the level."""
        return self.p_value >= self.level

    def __str__(self) -> str:
        verdict = "the same law, as far as this shows" if self.ok else f"ANOTHER LAW: {self.worst}"
        rest = f"any law at total variation {self.smallest:.3g} or more is found with probability {self.power:g}"
        size = f"{self.n:,} draws, {self.cells} cells"
        return f"p = {self.p_value:.3g} at level {self.level:.3g}: {verdict} ({size}; {rest})"


@checked
def same_law(
    sampler: Any,
    distribution: Any,
    *,
    seed: int = 0,
    n: int | None = None,
    smallest: float | None = None,
    level: float = 1e-6,
    power: float = 0.99,
) -> SameLaw:
    """Compare n independent draws of ``sampler`` with ``distribution``, false-positive rate ``level``.

    ``sampler``: see ``sampler_of``. ``distribution``: a problem whose joint law can be listed, probabilities [S] of the
    outcomes 0..S-1, a mapping from outcomes (whole numbers or tuples of them) to probabilities, or a continuous law
    with a ``cdf`` (as of scipy.stats), of which a repeated number counts against the sampler too: in float32 a few
    thousand draws repeat. ``n`` is 20,000 when left out, or what ``smallest`` needs: the total variation distance that
    must be found with probability ``power``. Cost: n draws. Not promised: that the rows are independent.
    Errors: ValueError for a law that is none, or has too many outcomes for n draws.
    """
    draw, key = sampler_of(sampler), Key(seed).fold("same law")
    continuous = hasattr(distribution, "cdf")
    support, law = (np.empty((0, 1)), np.full(_BINS, 1 / _BINS)) if continuous else _listed(distribution)
    if n is None:
        n = 20_000 if smallest is None else max(100, draws_needed(smallest, max(2, (law > 0).sum()), level, power))
    draws = np.asarray(draw(key, n))
    if len(draws) != n:
        raise ValueError(f"the sampler was asked for {n} draws and gave {len(draws)}")
    if not continuous:
        rows = draws.reshape(n, -1)
        if rows.shape[1] != support.shape[1] or rows.dtype.kind not in "iub":
            raise ValueError(
                f"draws are whole numbers, {support.shape[1]} each; got {draws.dtype} of shape {draws.shape}"
            )
        least, largest = support.min(), support.max()
        inside = ((rows >= least) & (rows <= largest)).all(axis=1)
        counts = row_counts(rows[inside].astype(np.int64) - least, support - least)
        counts[-1] += n - inside.sum()
        return _compare(counts, np.append(law, 0.0), support, level, power)
    values = draws.ravel().astype(np.float64)
    places = np.minimum((distribution.cdf(values) * _BINS).astype(np.int64), _BINS - 1)
    found = _compare(np.bincount(places, minlength=_BINS), law, np.arange(_BINS)[:, None], level, power)
    repeats = n - len(np.unique(values))
    by_chance = float(stats.poisson.sf(repeats - 1, n * (n - 1) / 2 / _GRID)) if repeats else 1.0
    worst = found.worst if found.p_value <= by_chance else f"{repeats} numbers come twice, in a continuous law none do"
    p_value = min(1.0, 2 * min(found.p_value, by_chance))
    return SameLaw(p_value, level, n, _BINS, detectable(n, _BINS, level / 2, power), power, worst)


@checked
def assert_same_law(sampler: Any, distribution: Any, **options: Any) -> SameLaw:
    """Raise AssertionError unless ``sampler`` has the law ``distribution``: see ``same_law`` for all arguments.

    A right sampler fails with probability ``level`` at most (one in a million when left out). Answers what was found.
    """
    found = same_law(sampler, distribution, **options)
    if not found.ok:
        raise AssertionError(str(found))
    return found


def _listed(distribution: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Outcomes int64[S, L] and their probabilities."""
    if DISTRIBUTION.fits(distribution):
        rows, p = listed_law(distribution)
        return rows.astype(np.int64), p / p.sum()
    if isinstance(distribution, Mapping):
        outcomes, law = list(distribution), np.array(list(distribution.values()), np.float64)
        try:
            given = np.array([outcome if isinstance(outcome, tuple) else (outcome,) for outcome in outcomes])
        except ValueError:  # tuples of different lengths
            given = np.empty(0)
        if given.ndim != 2 or given.dtype.kind not in "iub":
            raise ValueError(f"outcomes are whole numbers, or tuples of as many each; got {outcomes[:3]}")
        support = given.astype(np.int64)
    else:
        law = np.asarray(distribution, np.float64)
        support = np.arange(law.size, dtype=np.int64)[:, None]
    if law.ndim != 1 or law.size < 1 or not (law >= 0).all() or abs(law.sum() - 1) > 1e-9:
        raise ValueError(
            "a law is a problem, probabilities that sum to one, a mapping from outcomes to them, or has a cdf; got "
            f"{type(distribution).__name__} with sum {law.sum():.6g}"
        )
    return support, law


def _p_value(counts: NDArray[np.int64], law: NDArray[np.float64]) -> float:
    """Chi-square; where all cells but one are too rare for it, the exact binomial test of that one."""
    n, likely = int(counts.sum()), int(np.argmax(law))
    if counts[law == 0].any():
        return 0.0
    if n * (1 - law[likely]) < _LEAST_EXPECTED:
        return binomial(int(counts[likely]), n, float(min(1.0, law[likely])))
    return chi_square(counts, law, least_expected=_LEAST_EXPECTED)


def _compare(
    counts: NDArray[np.int64], law: NDArray[np.float64], support: NDArray[Any], level: float, power: float
) -> SameLaw:
    n = int(counts.sum())
    cells, smallest = resolution(law, n, level, power)
    p_value = _p_value(counts, law)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = np.where(counts == n * law, 0.0, (counts - n * law) / np.sqrt(n * law * (1 - law)))
    place = int(np.argmax(np.abs(deviations)))
    outcome = "an outcome that is impossible" if place >= len(support) else f"outcome {support[place].tolist()}"
    worst = f"{outcome} came {counts[place]:,} times, expected {n * law[place]:,.1f}"
    return SameLaw(p_value, level, n, cells, smallest, power, worst)
