"""A false-positive budget for a whole suite of tests: one number, divided among named tests, and spent by them.

With right implementations the probability that *any* statistical test of the suite fails is at most the budget,
whatever depends on what (Bonferroni). ``tests/budget.py`` of this repository is an example of a registry.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.seams import checked

__all__ = ["Ledger", "Share", "current_test", "totals"]


@checked
@dataclass(frozen=True)
class Share:
    """How many p-values a test compares (over all its cases), and how much of the budget each gets relative to the
    others.
    """

    p_values: int
    weight: float = 1.0


def current_test() -> str:
    """The test that is running, as pytest names it."""
    return os.environ.get("PYTEST_CURRENT_TEST", "outside pytest").rsplit(" (", 1)[0]


@checked
class Ledger:
    """Knows the threshold of every named test and counts the p-values that it compares.

    threshold = budget x weight / sum over names of (p-values x weight). ``registry`` names every test; ``home`` says in
    errors where it is written. Errors: ValueError for an empty share, LookupError for a name that is not there and for
    a test that compares more than it has entered.
    """

    def __init__(self, registry: Mapping[str, Share], budget: float = 1e-3, home: str = "the registry") -> None:
        for name, share in registry.items():
            if share.p_values < 1 or not share.weight > 0:
                raise ValueError(f"{name!r} must register at least one p-value and a positive weight, got {share}")
        self.registry, self.budget, self.home = registry, budget, home
        self.spent: dict[str, dict[str, int]] = {}

    def alpha_for(self, name: str) -> float:
        """Threshold for each p-value of ``name``: its weight's share of the budget."""
        total = sum(share.p_values * share.weight for share in self.registry.values())
        return self.budget * self.share(name).weight / total

    def share(self, name: str) -> Share:
        """The entry of ``name``; an error that names the registry when there is none."""
        if name not in self.registry:
            raise LookupError(f"{name!r} is not in {self.home}: enter it there with the p-values it compares")
        return self.registry[name]

    def begin(self, test: str) -> None:
        """Forget what ``test`` has spent before: it runs (again) now."""
        for tests in self.spent.values():
            tests.pop(test, None)

    def spend(self, name: str, count: int, test: str) -> None:
        """Enter ``count`` comparisons; an error as soon as there are more than registered."""
        share, tests = self.share(name), self.spent.setdefault(name, {})
        tests[test] = tests.get(test, 0) + count
        if self.total(name) > share.p_values:
            raise LookupError(
                f"{name!r} compares {self.total(name)} p-values and registers {share.p_values}: raise its entry in "
                f"{self.home} (compared by {sorted(tests)})"
            )

    def total(self, name: str) -> int:
        """Comparisons made under ``name``."""
        return sum(self.spent.get(name, {}).values())

    def accept(self, name: str, p_values: ArrayLike) -> None:
        """Raise AssertionError unless every p-value of a right implementation is at or above the threshold; enter each
        one.
        """
        values = _checked(p_values)
        self.spend(name, values.size, current_test())
        worst, alpha = values.min(), self.alpha_for(name)
        if worst < alpha:
            raise AssertionError(
                f"{name}: p = {worst:.3g} is below the threshold {alpha:.3g}: the implementation draws from another law"
            )

    def reject(self, name: str, p_values: ArrayLike) -> None:
        """Raise AssertionError unless the same threshold catches a wrong implementation: its smallest p-value must lie
        below. Spends no budget.
        """
        best, alpha = _checked(p_values).min(), self.alpha_for(name)
        if best >= alpha:
            raise AssertionError(
                f"{name}: a wrong implementation passes with p = {best:.3g} >= {alpha:.3g}: the test has no power"
            )

    def overspent(self, counts: Mapping[str, int]) -> list[str]:
        """One line for each name that compared more p-values, over all processes, than it has registered."""
        return [
            f"{name!r} compared {count} p-values over all processes and registers {self.registry[name].p_values}"
            for name, count in counts.items()
            if count > self.registry[name].p_values
        ]


def _checked(p_values: ArrayLike) -> NDArray[np.float64]:
    values = np.atleast_1d(np.asarray(p_values, dtype=np.float64))
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"a p-value lies in [0, 1], got {values[~((values >= 0) & (values <= 1))][0]}")
    return values


@checked
def totals(ledgers: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, int]:
    """Comparisons by name over the ``spent`` of several processes; a test run in two of them counts once."""
    merged: dict[str, dict[str, int]] = {}
    for spent in ledgers:
        for name, tests in spent.items():
            merged.setdefault(name, {}).update(tests)
    return {name: sum(tests.values()) for name, tests in merged.items()}
