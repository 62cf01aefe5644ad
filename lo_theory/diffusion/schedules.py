"""Schedules: how many positions a decoder reveals at each step.

A schedule answers ``budget(step, masked, key, start)`` with a number for each row, and ``steps(hidden)`` with how many
steps a decode takes. ``SCHEDULES`` makes one by name for a number of steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lo_theory.diffusion import _kernels
from lo_theory.problem.layout import plain
from lo_theory.problem.seams import Seam, checked, is_whole
from lo_theory.rng import Key

__all__ = [
    "SCHEDULES",
    "BinomialRule",
    "Counts",
    "FixedCount",
    "OneAtATime",
    "RandomSizes",
    "RevealCurve",
    "Schedule",
    "check_budget",
    "first_hitting_times",
    "random_sizes_factor",
    "schedule_counts",
]


class Schedule(Protocol):
    """Chooses how many positions."""

    @property
    def name(self) -> str:
        """Name with its parameters."""
        ...

    def steps(self, hidden: int) -> int:
        """Steps a decode takes from ``hidden`` masked positions."""
        ...

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """How many positions each row reveals at this step, int64[B]."""
        ...


SCHEDULE = Seam("a schedule", ("name", "steps", "budget"), "FixedCount(4)")


def check_budget(budget: Any, rows: int, name: str, *, start: int = 0) -> NDArray[np.int64]:
    """Return what a schedule answered, int64[B]; ValueError for another shape or kind, and for a negative number."""
    counts = plain(budget, f"the budget of {name}")
    if counts.shape != (rows,) or counts.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must budget how many positions each row reveals, int64[{rows}]; got "
            f"{counts.dtype}{list(counts.shape)}"
        )
    wrong = (counts < 0) | (counts > np.iinfo(np.int64).max)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} budgets {counts[row]} positions for row {start + row}: at least 0 are revealed, at most all"
        )
    return np.require(counts, np.int64, ("C", "W"))


@checked
def schedule_counts(schedule: Schedule, hidden: int, key: Key) -> list[int]:
    """How many of ``hidden`` masked positions a schedule reveals at each of its steps; steps of none are left out."""
    if hidden < 0:
        raise ValueError(f"the number of hidden positions is not negative, got {hidden}")
    masked, counts = np.ones((1, hidden), np.bool_), []
    for step in range(schedule.steps(hidden)):
        budget = schedule.budget(step, masked, key.fold(step), 0)
        count = int(min(check_budget(budget, 1, schedule.name)[0], masked.sum()))
        masked[0, np.flatnonzero(masked[0])[:count]] = False
        counts += [count] if count else []
    return counts


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a decode takes at least one step, got {steps}")


@dataclass(frozen=True)
class OneAtATime:
    """One position a step."""

    name: str = "one_at_a_time"

    def steps(self, hidden: int) -> int:
        """As many steps as hidden positions."""
        return hidden

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """One for every row in which something is hidden."""
        return np.asarray(masked.any(axis=1), np.int64)


@checked
@dataclass(frozen=True)
class FixedCount:
    """Exactly ``count`` steps of equal size: what is left, divided by the steps left, rounded up."""

    count: int

    def __post_init__(self) -> None:
        _check_steps(self.count)

    @property
    def name(self) -> str:
        """``fixed_count(steps)``."""
        return f"fixed_count({self.count})"

    def steps(self, hidden: int) -> int:
        """``count``, or fewer where fewer positions are hidden."""
        return min(self.count, hidden)

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """ceil(hidden / steps left)."""
        return -(-masked.sum(axis=1) // max(1, self.count - step))


@checked
@dataclass(frozen=True)
class BinomialRule:
    """The paper's rule on an even grid.

    K ~ Binomial(hidden, (alpha_s - alpha_t)/(1 - alpha_t)) = Binomial(hidden, 1/(steps left)).

    With the vanilla policy every position is revealed independently, as in the paper's reverse process.
    """

    count: int

    def __post_init__(self) -> None:
        _check_steps(self.count)

    @property
    def name(self) -> str:
        """``binomial(steps)``."""
        return f"binomial({self.count})"

    def steps(self, hidden: int) -> int:
        """``count``: a step may reveal nothing."""
        return self.count

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """Independent binomial draws, row by row; at the last step all that is left."""
        counts = np.empty(len(masked), np.int64)
        rate = 1.0 / max(1, self.count - step)
        _kernels.draw_binomial(counts, start, *key.fold("budget").words(), masked.sum(axis=1), rate)
        return counts


@checked
@dataclass(frozen=True)
class Counts:
    """So many positions at each step, from ``counts``: a schedule found elsewhere, such as ``best_counts``.

    What is left after the last step is revealed with it, and a row that has less hidden takes fewer steps.
    """

    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.counts or not all(is_whole(count) and count >= 1 for count in self.counts):
            raise ValueError(f"counts are positive whole numbers of positions, one a step, got {list(self.counts)}")

    @property
    def name(self) -> str:
        """``counts(3,1,2)``."""
        return f"counts({','.join(map(str, self.counts))})"

    def steps(self, hidden: int) -> int:
        """The first step by which all are revealed."""
        done = np.flatnonzero(np.cumsum(self.counts) >= hidden)
        return int(done[0]) + 1 if len(done) else len(self.counts)

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """The count of the step, at the last one all that is left."""
        hidden = masked.sum(axis=1)
        return hidden if step >= len(self.counts) - 1 else np.minimum(self.counts[step], hidden)


@checked
@dataclass(frozen=True)
class RevealCurve:
    """``count`` steps along a curve of the share revealed, a(t) from a(0) = 0 to a(1) = 1, at least one a step.

    beta(a, b): a(t) = sin(pi/2 G(t))**2, G the distribution function of Beta(a, b) (arXiv 2509.13866): Beta(1, 1) is
    the squared sine, Beta(1/2, 1/2) equal steps. cosine: a(t) = 1 - cos(pi/2 t), few tokens first (arXiv 2202.04200).
    """

    count: int
    form: Literal["beta", "cosine"] = "beta"
    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.count)
        if self.form not in ("beta", "cosine"):
            raise ValueError(f"the form of a curve is beta or cosine, got {self.form!r}")
        if not (0 < self.a < np.inf and 0 < self.b < np.inf):
            raise ValueError(f"a and b of a Beta law are positive numbers, got {self.a} and {self.b}")

    @property
    def name(self) -> str:
        """``beta(steps,a,b)`` or ``cosine(steps)``."""
        return f"cosine({self.count})" if self.form == "cosine" else f"beta({self.count},{self.a:.3g},{self.b:.3g})"

    def steps(self, hidden: int) -> int:
        """``count``, or fewer where fewer positions are hidden."""
        return min(self.count, hidden)

    def revealed(self, t: float) -> float:
        """a(t), the share revealed at time t in [0, 1]."""
        if self.form == "cosine":
            return 1 - math.cos(math.pi / 2 * t)
        return math.sin(math.pi / 2 * float(special.betainc(self.a, self.b, t))) ** 2

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """hidden less round(hidden (1 - a(t'))/(1 - a(t))), t' the next time; each step left after it is kept one."""
        hidden = masked.sum(axis=1)
        steps = np.minimum(self.count, hidden + step)
        left = np.maximum(steps - step - 1, 0)
        now, then = 1 - self.revealed(step / self.count), 1 - self.revealed(min(1.0, (step + 1) / self.count))
        kept = np.rint(hidden * (then / now if now > 0 else 0.0)).astype(np.int64)
        return hidden - np.where(left > 0, np.clip(kept, left, np.maximum(hidden - 1, 0)), 0)


@checked
@dataclass(frozen=True)
class RandomSizes:
    """``count`` steps of random sizes, whose mean cost in random order is the same share of TC for every distribution.

    With n hidden tokens and k steps left, size s < n has the chance pi(s) proportional to
    (1 - sum_{j<s} pi(j) (1 - g(k-1, n-j)))/(1 + (n-s-1) g(k-1, n-s)), with g(k, n) = 1 - 1/(sum over s of these), pi(j)
    in the sum counted before it is divided, and g(1, n) = 1; for two steps pi(s) ~ 1/(n-s). The mean KL is then
    g(count, L) TC, TC the total correlation, whatever the law of the data is: ``random_sizes_factor``. Random sizes
    with a guarantee that scales as TC/steps are the idea of arXiv 2602.20126; the law here is derived from that aim
    *(second hand: the paper's own law was out of reach)*.
    """

    count: int

    def __post_init__(self) -> None:
        _check_steps(self.count)

    @property
    def name(self) -> str:
        """``random_sizes(steps)``."""
        return f"random_sizes({self.count})"

    def steps(self, hidden: int) -> int:
        """``count``, or fewer where fewer positions are hidden; a decode may end earlier."""
        return min(self.count, hidden)

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """A size for each row, 1 .. hidden - 1, by address; at the last step all that is left. Cost: rows x hidden."""
        hidden = masked.sum(axis=1)
        left = max(1, self.count - step)
        if left == 1:
            return hidden
        sizes, factors = np.empty(len(masked), np.int64), _size_factors(left - 1, masked.shape[1])[left - 1].copy()
        _kernels.draw_sizes(sizes, hidden, factors, start, *key.fold("budget").words())
        return sizes


@functools.lru_cache(maxsize=64)
def _size_factors(steps: int, length: int) -> NDArray[np.float64]:
    """float64[steps + 1, length + 1]: g(k, n). O(steps length**2)."""
    factors = np.zeros((steps + 1, length + 1))
    _kernels.size_factors(factors)
    return factors


@checked
def random_sizes_factor(length: int, steps: int) -> float:
    """g(steps, L): the mean cost of ``RandomSizes(steps)`` in random order, as a share of the total correlation."""
    _check_steps(steps)
    if length < 1:
        raise ValueError(f"a sequence has at least one token, got length = {length}")
    return float(_size_factors(steps, length)[steps, length])


@checked
def first_hitting_times(key: Key, rows: int, hidden: int, *, start: int = 0) -> NDArray[np.float64]:
    """When each of ``hidden`` masks is lifted on the way from time 1 to 0, one after the other: float64[rows, hidden].

    t <- t u**(1/n) while n are left, u uniform (arXiv 2409.02908); each lifts one mask chosen uniformly. So it is
    random order one at a time, and how many times fall into each of T equal intervals has the law of
    ``BinomialRule(T)``. Row i has the address ``key``, ``start`` + i.
    """
    if rows < 0 or hidden < 0:
        raise ValueError(f"rows and hidden are not negative, got {rows} and {hidden}")
    units = np.empty((rows, hidden))
    _kernels.draw_rows_of_units(units, start, *key.words())
    return np.asarray(np.cumprod((1.0 - units) ** (1.0 / np.arange(hidden, 0, -1)), axis=1), np.float64)


def _cosine(steps: int) -> Schedule:
    return RevealCurve(steps, "cosine")


def _beta(steps: int, a: float = 1.0, b: float = 1.0) -> Schedule:
    return RevealCurve(steps, "beta", a, b)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "fixed_count": FixedCount,
    "binomial": BinomialRule,
    "cosine": _cosine,
    "beta": _beta,
    "random_sizes": RandomSizes,
}
"""By name: a function of the number of steps, and of further numbers where it takes some."""
