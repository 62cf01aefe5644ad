"""From rows to what tables and figures show: quantities grouped by what they are of, pooled, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lo_theory.diffusion.losses import gap_share
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row

__all__ = [
    "SHARES",
    "Measured",
    "between",
    "consistency_lines",
    "difference",
    "gap_closed",
    "gaps_closed",
    "group",
    "largest_z",
    "quarter_losses",
    "welch",
]

SHARES = frozenset(
    {
        "self_consistency",
        "unpaired",
        "consistent",
        "conditional",
        "infill",
        "infill_drawn",
        "observation_mean",
        "impossible",
        "alive_steps",
        "dead_checks",
        "live_errors",
        "deterministic",
        "excluded",
        "converged",
    }
)
"""Quantities that lie in [0, 1] for every sequence (the observation mean does for two-valued observations)."""


@dataclass(frozen=True)
class Measured:
    """All quantities with the same keys."""

    keys: Mapping[str, Any]
    metrics: Mapping[str, Sums]

    @property
    def pair(self) -> tuple[int, int]:
        """(N, P)."""
        return int(self.keys["N"]), int(self.keys["P"])

    def value(self, metric: str) -> float:
        """Mean of a quantity; nan where it was not measured."""
        return self.metrics[metric].mean if metric in self.metrics else math.nan

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % interval over sequences; (nan, nan) where there is none."""
        if metric not in self.metrics:
            return (math.nan, math.nan)
        sums = self.metrics[metric]
        inside = 0 <= sums.mean <= 1
        return sums.interval(share=metric in SHARES and inside)


def group(rows: Iterable[Row], kind: str) -> list[Measured]:
    """Group the rows of one kind by their keys, in the order of appearance; equal keys and metrics add."""
    groups: dict[tuple[Any, ...], dict[str, Sums]] = {}
    for row in rows:
        if row.keys.get("kind") == kind:
            metrics = groups.setdefault(tuple(row.keys.items()), {})
            metrics[row.metric] = metrics[row.metric] + row.sums if row.metric in metrics else row.sums
    return [Measured(dict(keys), metrics) for keys, metrics in groups.items()]


def difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """first - second of independent samples, each with the ends of its 95 % interval: (value, low, high).

    Square-and-add (Newcombe, Statistics in Medicine 17, 1998, 873): also right for shares near 0 or 1, where a standard
    error is not.
    """
    (value, low, high), (other, other_low, other_high) = first, second
    points = value - other
    return (
        points,
        points - math.hypot(value - low, other_high - other),
        points + math.hypot(high - value, other - other_low),
    )


def gap_closed(loss: Measured, problem: Measured) -> tuple[float, float]:
    """(gap closed, half of its 95 % interval) from a row of losses under the uniform law.

    1 - excess/(marginals only - floor); the excess is the KL to the exact posterior where it was measured, which is the
    less noisy, else loss - floor.
    """
    floor, marginals = problem.value("floor"), problem.value("marginals_only")
    if marginals <= floor:
        return math.nan, math.nan
    if "kl" in loss.metrics:
        sums, excess = loss.metrics["kl"], loss.value("kl")
    else:
        sums, excess = loss.metrics["model"], loss.value("model") - floor
    low, high = sums.interval()
    return gap_share(excess, floor, marginals), (high - low) / 2 / (marginals - floor)


def gaps_closed(rows: Sequence[Row]) -> dict[int, tuple[float, float]]:
    """``gap_closed`` of every row that has losses under the uniform law, in their order."""
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    uniform = [loss for loss in group(rows, "losses") if loss.keys["law"] == "uniform"]
    return {int(loss.keys["row"]): gap_closed(loss, problems[loss.keys["row"]]) for loss in uniform}


def consistency_lines(problem: Measured, cells: Iterable[Measured]) -> tuple[float, float, float]:
    """Self-consistency of the exact sampler, of observations always most likely, and of independent ones; or nan.

    Rows that lack them give them all the same if the problem's ``cells`` show that there is no noise: then a value is
    self-consistent exactly where it agrees with the data.
    """
    if "self_consistency_ceiling" in problem.metrics:
        ceiling, constant, independent = (
            problem.value(f"self_consistency_{name}") for name in ("ceiling", "constant", "independent")
        )
        return ceiling, constant, independent
    ceilings = {cell.value("self_consistency_ceiling") for cell in cells if cell.keys["row"] == problem.keys["row"]}
    if ceilings == {1.0}:
        return 1.0, problem.value("constant"), problem.value("independent")
    return math.nan, math.nan, math.nan


def quarter_losses(classes: Iterable[Measured]) -> dict[tuple[int, int], Sums]:
    """KL of one row's classes pooled by the quarters of latents and of observations hidden."""
    pooled: dict[tuple[int, int], Sums] = {}
    for item in classes:
        if "kl" in item.metrics:
            hidden = item.keys["latents_hidden"], item.keys["observations_hidden"]
            i, j = (min(3, 4 * count // total) for count, total in zip(hidden, item.pair, strict=True))
            pooled[i, j] = pooled.get((i, j), Sums(0, 0.0, 0.0)) + item.metrics["kl"]
    return pooled


def largest_z(count: int, share: float = 0.999) -> float:
    """The value under which the largest |z| of ``count`` standard normals stays with probability ``share``."""
    from scipy.stats import norm

    return float(norm.ppf((1 + share ** (1 / max(count, 1))) / 2))


def between(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of independent runs' values; 95 % interval over runs (Student's t, nan below two)."""
    from scipy.stats import t

    runs = Sums.of(values)
    half = float(t.ppf(0.975, runs.n - 1)) * runs.standard_error if runs.n > 1 else math.nan
    return runs.mean, runs.mean - half, runs.mean + half


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of ``first`` minus that of ``second``, and half of the 95 % interval by Welch's t; nan below two values."""
    from scipy.stats import t

    one, other = Sums.of(first), Sums.of(second)
    points = one.mean - other.mean
    if min(one.n, other.n) < 2:
        return points, math.nan
    parts = [(runs.standard_error**2, runs.n - 1) for runs in (one, other)]
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return points, math.nan
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    return points, float(t.ppf(0.975, freedom)) * math.sqrt(variance)
