"""The family-wise false-positive budget of the suite: one number, divided here, spent through ``accept``.

With a right implementation the probability that *any* statistical test of the suite fails is at most ``BUDGET``,
whatever depends on what (Bonferroni). Every statistical test is entered in ``REGISTRY`` with the p-values it compares;
a name that is not there, or a test that compares more than it has entered, is an error. Seeds are fixed, so a test that
passes keeps passing; the budget says how much a *new* seed, version or machine may be blamed on chance.

To add a test: one line in ``REGISTRY``. All thresholds shrink a little and their sum stays ``BUDGET``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

BUDGET = 1e-3


@dataclass(frozen=True)
class Share:
    """How many p-values a test compares (over all its cases), and how much of the budget each gets relative to the
    others.
    """

    p_values: int
    weight: float = 1.0


REGISTRY: Mapping[str, Share] = {
    # the helper itself
    "budget helper": Share(8),
    # rng
    "philox bits": Share(64),
    "below": Share(6),
    "unit": Share(1),
    "shuffle": Share(2),
    "key exits": Share(6),
    # problem
    "random scopes": Share(3),
    "slab vectors": Share(2),
    "constraint numbers": Share(2),
    "planted scopes": Share(4),
    "variables of scopes": Share(6),
    "null values": Share(6),
    "planted assignment": Share(1),
    # samplers against the joint law
    "sampler law": Share(16),
    "sampler rows independent": Share(12),
    "sampler noise rate": Share(3),
    "sampler law, long": Share(16),
    "sampler rows independent, long": Share(12),
    "sampler moments, long": Share(8),
    # posterior
    "calibration": Share(6),
    "calibration, long": Share(4),
    # thresholds
    "parity curve": Share(4),
    "parity free entropy": Share(1),
    "one population or several": Share(3),
    "weak overlaps": Share(1),
    "parity thresholds": Share(2),
    "colouring thresholds": Share(2),
    "parity thresholds, long": Share(6),
    "colouring thresholds, long": Share(4),
    "figure four, long": Share(2),
    "threshold intervals, long": Share(2),
    # examples
    "example: block sizes": Share(1),
    "example: block weights": Share(5),
    "example: entropy bound": Share(1),
    "example: exact targets": Share(1),
    # diffusion
    "decode keeps p_data": Share(6),
    "temperature": Share(3),
    "ties": Share(2),
    "oracle noise": Share(4),
    "noise on scores": Share(2),
    "addresses": Share(5),
    "noise and ties": Share(2),
    "binomial rule": Share(2),
    "z scores": Share(2),
    "known accuracies": Share(13),
    "diversity": Share(4),
    "pattern losses": Share(8),
    "leaks": Share(10),
    "information curve": Share(4),
    "two rates": Share(2),
    "masks bernoulli": Share(1),
    "masks uniform": Share(1),
    "mdm loss bernoulli": Share(1),
    "mdm loss uniform": Share(1),
    "random order": Share(1),
    "random swaps": Share(1),
    "causal samples": Share(1),
}


class Ledger:
    """Counts the p-values compared, by name and test, and knows the threshold of each."""

    def __init__(self, registry: Mapping[str, Share], budget: float = BUDGET) -> None:
        for name, share in registry.items():
            if share.p_values < 1 or not share.weight > 0:
                raise ValueError(f"{name!r} must register at least one p-value and a positive weight, got {share}")
        self.registry, self.budget = registry, budget
        self.spent: dict[str, dict[str, int]] = {}

    def alpha_for(self, name: str) -> float:
        """Threshold for each p-value of ``name``: its weight's share of the budget."""
        total = sum(share.p_values * share.weight for share in self.registry.values())
        return self.budget * self.share(name).weight / total

    def share(self, name: str) -> Share:
        """The entry of ``name``; an error that names the registry when there is none."""
        if name not in self.registry:
            raise LookupError(
                f"{name!r} is not in REGISTRY of tests/budget.py: enter it there with the p-values it compares"
            )
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
                "REGISTRY of "
                f"tests/budget.py (compared by {sorted(tests)})"
            )

    def total(self, name: str) -> int:
        """Comparisons made under ``name``."""
        return sum(self.spent.get(name, {}).values())


LEDGER = Ledger(REGISTRY)


def current_test() -> str:
    """The test that is running, as pytest names it."""
    return os.environ.get("PYTEST_CURRENT_TEST", "outside pytest").rsplit(" (", 1)[0]


def alpha_for(name: str) -> float:
    """Threshold for each p-value of the test registered as ``name``."""
    return LEDGER.alpha_for(name)


def _checked(p_values: ArrayLike) -> np.ndarray:
    values = np.atleast_1d(np.asarray(p_values, dtype=np.float64))
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"a p-value lies in [0, 1], got {values[~((values >= 0) & (values <= 1))][0]}")
    return values


def accept(name: str, p_values: ArrayLike, *, ledger: Ledger = LEDGER) -> None:
    """Fail unless every p-value of a right implementation is above the threshold; each one is entered in the ledger."""
    values = _checked(p_values)
    ledger.spend(name, values.size, current_test())
    worst, alpha = values.min(), ledger.alpha_for(name)
    assert worst >= alpha, (
        f"{name}: p = {worst:.3g} is below the threshold {alpha:.3g}: the implementation draws from another law"
    )


def reject(name: str, p_values: ArrayLike, *, ledger: Ledger = LEDGER) -> None:
    """Fail unless the same threshold catches a wrong implementation: its smallest p-value must lie below.

    Spends no budget.
    """
    best, alpha = _checked(p_values).min(), ledger.alpha_for(name)
    assert best < alpha, (
        f"{name}: a wrong implementation passes with p = {best:.3g} >= {alpha:.3g}: the test has no power"
    )


def z_test(samples: ArrayLike, mean: float) -> float:
    """Two-sided p-value that independent ``samples`` have this mean, their own standard error and the normal law
    supposed.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size < 100:
        raise ValueError(f"the normal law needs at least 100 independent samples in one axis, got shape {values.shape}")
    error, difference = values.std(ddof=1) / np.sqrt(values.size), values.mean() - mean
    if error == 0:
        return float(difference == 0)
    return float(special.erfc(abs(difference / error) / np.sqrt(2)))


def t_test(samples: ArrayLike, mean: float) -> float:
    """Two-sided p-value (Student) that independent ``samples``, each close to normal, have this mean.

    For a few samples that are themselves averages over many draws: at eight of them the threshold of a test lies near
    twelve standard errors, so what makes them not quite normal hardly counts.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size < 8:
        raise ValueError(f"Student's law is used for 8 samples or more in one axis, got shape {values.shape}")
    error, difference = values.std(ddof=1) / np.sqrt(values.size), values.mean() - mean
    if error == 0:
        return float(difference == 0)
    return float(2 * special.stdtr(values.size - 1, -abs(difference / error)))


def chi_square(counts: ArrayLike, probabilities: ArrayLike, *, least_expected: float = 20.0) -> float:
    """P-value that ``counts`` are multinomial with ``probabilities``.

    Cells expected fewer than ``least_expected`` times are pooled, smallest first, since far out the chi-square tail is
    not to be trusted with small cells. A count where the probability is zero gives 0.
    """
    observed, law = np.asarray(counts, dtype=np.float64).ravel(), np.asarray(probabilities, dtype=np.float64).ravel()
    if observed.shape != law.shape or abs(law.sum() - 1) > 1e-9 or (law < 0).any():
        raise ValueError(
            f"chi_square takes one probability a cell, summing to one: {observed.shape} counts, sum {law.sum()}"
        )
    if observed[law == 0].any():
        return 0.0
    ranked = np.argsort(law)
    expected, observed = observed.sum() * law[ranked], observed[ranked]
    pooled = int((expected < least_expected).sum())
    if pooled:  # together the small cells must reach the least as well: take in the next larger one if they do not
        pooled = max(pooled, int(np.searchsorted(np.cumsum(expected), least_expected)) + 1)
        expected = np.append(expected[pooled:], expected[:pooled].sum())
        observed = np.append(observed[pooled:], observed[:pooled].sum())
    if len(expected) < 2 or (expected < least_expected).any():
        raise ValueError(
            f"chi_square needs two cells expected {least_expected} times: draw more than {observed.sum():.0f} samples"
        )
    return float(special.chdtrc(len(expected) - 1, (np.square(observed - expected) / expected).sum()))


def binomial(successes: int, trials: int, probability: float) -> float:
    """Exact two-sided p-value (twice the smaller tail) that ``successes`` of ``trials`` have this probability."""
    law = stats.binom(trials, probability)
    return float(min(1.0, 2 * min(law.cdf(successes), law.sf(successes - 1))))


def row_counts(rows: np.ndarray, support: np.ndarray) -> np.ndarray:
    """How often each row of ``support`` [S, L] is met in ``rows`` [n, L].

    One more cell, the last, counts rows met nowhere.
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


def chi_square_of_rows(rows: np.ndarray, support: np.ndarray, probabilities: np.ndarray) -> float:
    """P-value that ``rows`` are independent draws of the law ``probabilities`` [S] on the sequences ``support`` [S, L]."""
    return chi_square(row_counts(rows, support), np.append(probabilities, 0.0))


def totals(ledgers: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, int]:
    """Comparisons by name over the ledgers of several processes; a test run in two of them counts once."""
    merged: dict[str, dict[str, int]] = {}
    for spent in ledgers:
        for name, tests in spent.items():
            merged.setdefault(name, {}).update(tests)
    return {name: sum(tests.values()) for name, tests in merged.items()}


def overspent(counts: Mapping[str, int], registry: Mapping[str, Share] = REGISTRY) -> list[str]:
    """One line for each name that compared more p-values than it has registered."""
    return [
        f"{name!r} compared {count} p-values over all processes and registers {registry[name].p_values}"
        for name, count in counts.items()
        if count > registry[name].p_values
    ]
