"""Adaptive minus vanilla decoding of one denoiser, run by run, and the table of it with intervals over the runs.

A run is a problem with a training of its own. Runs are of one kind where all but the seeds agree: pair, name (which
holds the settings in which rows differ, see ``labels``), denoiser, steps, how tokens are drawn. Reads rows only.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lo_theory.diffusion.statistics import Estimate, between
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, gaps_of_runs, group
from lo_theory.lab.table1.labels import variants
from lo_theory.lab.table1.readings import ADAPTIVE
from lo_theory.lab.texts import shown

__all__ = ["Effect", "Kind", "effects", "effects_table"]

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)
_METRICS = (("self_consistency", "self-consistent"), ("consistent", "wholly consistent"))


class Kind(NamedTuple):
    """What runs have in common."""

    pair: tuple[int, int]
    name: str
    denoiser: str
    steps: int
    tokens: str

    @property
    def of(self) -> str:
        """``12, 48 training.steps 500``."""
        return " ".join(filter(None, ("{}, {}".format(*self.pair), self.name)))


@dataclass(frozen=True)
class Effect:
    """The two decodes of one run. ``gap``: gap closed by its model; nan where unknown."""

    vanilla: Measured
    adaptive: Measured
    gap: Estimate

    def points(self, metric: str) -> Estimate:
        """Adaptive minus vanilla in points of per cent, over sequences, which differ from decode to decode."""
        apart = self.adaptive.minus(self.vanilla, metric)
        return Estimate(*(100 * value for value in apart))


def effects(rows: Sequence[Row]) -> dict[Kind, list[Effect]]:
    """All runs that were decoded both ways, by kind, in the order of the rows; a row may pool several runs."""
    gaps = _gaps(rows)
    runs: dict[tuple[Kind, int, Hashable], dict[str, Measured]] = {}
    for cell in group(rows, "decode"):
        for run, own in cell.by_run().items():
            runs.setdefault((_kind(cell), int(cell.keys["row"]), run), {})[str(cell.keys["policy"])] = own
    found: dict[Kind, list[Effect]] = {}
    for (kind, row, run), decodes in runs.items():
        if {"vanilla", ADAPTIVE} <= decodes.keys():
            gap = gaps.get((row, run), _UNKNOWN) if kind.denoiser == "model" else _UNKNOWN
            found.setdefault(kind, []).append(Effect(decodes["vanilla"], decodes[ADAPTIVE], gap))
    return found


def _gaps(rows: Sequence[Row]) -> dict[tuple[int, Hashable], Estimate]:
    """Gap closed by the model of every run under the uniform law, by row and run."""
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    found: dict[tuple[int, Hashable], Estimate] = {}
    for loss in group(rows, "losses"):
        if loss.keys["law"] == "uniform":
            row = int(loss.keys["row"])
            found |= {(row, run): gap for run, gap in gaps_of_runs(loss, problems[row]).items()}
    return found


def _kind(cell: Measured) -> Kind:
    keys = cell.keys
    tokens = [*([] if keys["argmax"] else ["drawn"]), *variants(keys)]
    return Kind(
        cell.pair,
        str(keys.get("name", "")),
        str(keys["denoiser"]),
        int(keys["steps"]),
        ", ".join(tokens),
    )


def effects_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Adaptive minus vanilla where there are several runs of a kind, with intervals over them."""
    lines = []
    for kind, runs in effects(rows).items():
        if len(runs) > 1:
            gaps = [100 * run.gap.value for run in runs if not math.isnan(run.gap.value)]
            closed = f"{min(gaps):.0f} to {max(gaps):.0f}" if gaps else ""
            place = (kind.of, kind.denoiser, str(kind.steps), kind.tokens, str(len(runs)), closed)
            lines.append((*place, *(text for metric, _ in _METRICS for text in _over_runs(runs, metric))))
    columns: tuple[str, ...] = ("N, P", "denoiser", "steps", "tokens", "runs", "gap\nclosed, %")
    for _, title in _METRICS:
        columns += (title.replace(" ", "\n"), "least, most", "above 0")
    notes = (
        "Points of per cent, adaptive (margin) minus vanilla of one trained model. Mean over runs, each with a problem "
        "and a training of its own where their seeds differ, with its 95 % interval over runs (Student's t), which "
        "holds what differs between them; the least and the most of a run; runs in which it is positive. Gap closed: "
        "the least and the most of their models.",
    )
    left = ("N, P", "denoiser", "tokens")
    return Table("Adaptive minus vanilla", columns, (tuple(lines),) if lines else (), notes, left=left)


def _over_runs(runs: Sequence[Effect], metric: str) -> tuple[str, str, str]:
    points = [run.points(metric).value for run in runs]
    above = f"{sum(point > 0 for point in points)}/{len(points)}"
    return shown(between(points), form="+.1f"), f"{min(points):+.1f}, {max(points):+.1f}", above
