"""From rows to what tables and figures show: quantities grouped by what they are of, pooled, with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.statistics import Estimate, Runs, Sums, pooled
from lo_theory.lab.rows import Row

__all__ = [
    "RUN",
    "SHARES",
    "Measured",
    "add_row",
    "consistency_lines",
    "gap_closed",
    "gaps_closed",
    "gaps_of_runs",
    "group",
    "largest_z",
    "quarter_losses",
]

_Place = TypeVar("_Place", bound=Hashable)

RUN = "run"
"""The key that says of which run the row of a pooled sweep is."""

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
        "refused",
        "contradicted",
        "contradictory",
        "converged",
    }
)
"""Quantities that lie in [0, 1] for every sequence (the observation mean does for two-valued observations)."""


@dataclass(frozen=True)
class Measured:
    """All quantities with the same keys, of one run or of several."""

    keys: Mapping[str, Any]
    metrics: Mapping[str, Runs]

    @property
    def pair(self) -> tuple[int, int]:
        """(N, P)."""
        return int(self.keys["N"]), int(self.keys["P"])

    def value(self, metric: str) -> float:
        """Mean of a quantity; nan where it was not measured."""
        return self.metrics[metric].mean if metric in self.metrics else math.nan

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % interval: of several runs over the runs, else over sequences; (nan, nan) where there is none."""
        if metric not in self.metrics:
            return (math.nan, math.nan)
        return self.metrics[metric].interval(share=self._is_share(metric))

    def _is_share(self, metric: str) -> bool:
        return metric in SHARES and self.metrics[metric].sums.fits_share

    def estimate(self, metric: str) -> Estimate:
        """A quantity with its interval."""
        return Estimate(self.value(metric), *self.interval(metric))

    def minus(self, other: Measured, metric: str) -> Estimate:
        """A quantity less that of ``other``: over the runs that both have, run by run, else over sequences."""
        share = self._is_share(metric) and other._is_share(metric)
        return self.metrics[metric].minus(other.metrics[metric], share=share)

    def by_run(self) -> dict[Hashable, Measured]:
        """The same run by run."""
        runs = dict.fromkeys(run for parts in self.metrics.values() for run in parts.parts)
        return {
            run: Measured(
                self.keys, {name: Runs.of(runs.parts[run]) for name, runs in self.metrics.items() if run in runs.parts}
            )
            for run in runs
        }


def group(rows: Iterable[Row], kind: str) -> list[Measured]:
    """Group the rows of one kind by their keys, in the order of appearance.

    Rows with equal keys are of different runs, such as instances, or cells of a sweep that pools them: those name their
    run by the key ``run``, which is of the grouping no part, and their rows of one run add.
    """
    groups: dict[tuple[Any, ...], dict[str, dict[Hashable, Sums]]] = {}
    for row in rows:
        if row.keys.get("kind") == kind:
            place = tuple(item for item in row.keys.items() if item[0] != RUN)
            parts = groups.setdefault(place, {}).setdefault(row.metric, {})
            run = row.keys.get(RUN, "")
            run = len(parts) if run == "" else run  # a column of a table is empty where a row lacks the key
            parts[run] = parts[run] + row.sums if run in parts else row.sums
    return [
        Measured(dict(keys), {name: Runs(parts) for name, parts in metrics.items()}) for keys, metrics in groups.items()
    ]


def add_row(places: dict[_Place, Measured], place: _Place, item: Measured) -> None:
    """Put what a row of the experiment has measured at a place; where others are, the rows are different runs."""
    item = Measured(item.keys, {name: runs.renamed(item.keys["row"]) for name, runs in item.metrics.items()})
    if (old := places.get(place)) is not None:
        names = dict.fromkeys((*old.metrics, *item.metrics))
        none = Runs({})
        metrics = {name: old.metrics.get(name, none) + item.metrics.get(name, none) for name in names}
        item = Measured(old.keys, metrics)
    places[place] = item


def gap_closed(loss: Measured, problem: Measured) -> Estimate:
    """``gaps_of_runs``, of several runs the mean with its interval over the runs."""
    return pooled(list(gaps_of_runs(loss, problem).values()))


def gaps_of_runs(loss: Measured, problem: Measured, metric: str = "") -> dict[Hashable, Estimate]:
    """Gap closed in each run by a row of losses under the uniform law, from the lines of the run's own problem.

    1 - excess/(marginals only - floor). The excess is ``metric``; without one the KL to the exact posterior where it
    was measured, which is the less noisy, else loss - floor. nan where the lines coincide (``gap_span``).
    """
    lines, found = problem.by_run(), {}
    metric = metric or ("kl" if "kl" in loss.metrics else "model")
    for run, item in loss.by_run().items():
        own = lines.get(run, problem)
        floor, span = own.value("floor"), gap_span(own.value("floor"), own.value("marginals_only"))
        excess = item.metrics[metric].shifted(-floor if metric == "model" else 0.0).estimate()
        found[run] = Estimate(1 - excess.value / span, 1 - excess.high / span, 1 - excess.low / span)
    return found


def gaps_closed(rows: Sequence[Row]) -> dict[int, Estimate]:
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


def quarter_losses(classes: Iterable[Measured]) -> dict[tuple[int, int], Runs]:
    """KL of one row's classes pooled by the quarters of latents and of observations hidden."""
    pooled: dict[tuple[int, int], Runs] = {}
    for item in classes:
        if "kl" in item.metrics:
            hidden = item.keys["latents_hidden"], item.keys["observations_hidden"]
            i, j = (min(3, 4 * count // total) for count, total in zip(hidden, item.pair, strict=True))
            pooled[i, j] = pooled.get((i, j), Runs({})) + item.metrics["kl"]
    return pooled


def largest_z(count: int, share: float = 0.999) -> float:
    """The value under which the largest |z| of ``count`` standard normals stays with probability ``share``."""
    from scipy.stats import norm

    return float(norm.ppf((1 + share ** (1 / max(count, 1))) / 2))
