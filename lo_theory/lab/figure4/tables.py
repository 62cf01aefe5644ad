"""The tables of Figure 4: what belief propagation reached at every degree, and thresholds beside the paper's values."""

from __future__ import annotations

from collections.abc import Sequence

from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.texts import shown
from lo_theory.lab.thresholds.tables import with_error

__all__ = ["degree_points", "tables"]

_NAMES = {"dynamic": "dynamic", "condensation": "condensation", "kesten_stigum": "Kesten-Stigum"}


def degree_points(rows: Sequence[Row], row: int) -> dict[str, list[Measured]]:
    """Measured points of one row of the experiment by start, in ascending degree."""
    points: dict[str, list[Measured]] = {}
    for item in sorted(group(rows, "propagation"), key=lambda item: float(item.keys["c"])):
        if item.keys["row"] == row:
            points.setdefault(str(item.keys["start"]), []).append(item)
    return points


def threshold_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """The three computed thresholds, in three units, and what the paper states."""
    sections = []
    for item in group(rows, "threshold"):
        units = ("c", "density", "neighbours")
        lines = []
        for name, title in _NAMES.items():
            cells = [with_error(item.value(f"{name}_{unit}"), item.value(f"{name}_{unit}_error")) for unit in units]
            stated = [
                format(value.neighbours, "g")
                for value in (experiment.reference.rows if experiment.reference else ())
                if value.name == name
            ]
            lines.append((str(item.keys["label"]), title, *cells, ", ".join(stated)))
        sections.append(tuple(lines))
    columns = ("ensemble", "threshold", "c = kM/N", "M/N", "neighbours (k-1)c", "paper states")
    notes = ["Computed by population dynamics and in closed form (Kesten-Stigum), with 95 % errors."]
    if experiment.reference is not None:
        notes.append(f"Paper: {experiment.reference.source}.")
    return Table("Thresholds", columns, tuple(sections), tuple(notes), ("ensemble", "threshold"))


def overlap_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Overlap, iterations, convergence and contradictions by degree and start, mean over instances."""
    sections = []
    items = group(rows, "propagation")
    for row in dict.fromkeys(item.keys["row"] for item in items):
        for start, points in degree_points(rows, row).items():
            lines = []
            for item in points:
                c, k, count = float(item.keys["c"]), int(item.keys["k"]), item.metrics["overlap"].n
                lines.append(
                    (
                        start,
                        f"{c:g}",
                        f"{(k - 1) * c:g}",
                        shown(item.estimate("overlap"), form="z.3f"),
                        shown(item.estimate("belief"), form="z.3f"),
                        f"{1000 * item.value('excess'):z.3f}" if "excess" in item.metrics else "-",
                        f"{item.value('iterations'):.0f}",
                        f"{round(count * item.value('converged'))}/{count}",
                        f"{round(count * item.value('contradictory'))}/{count}",
                    )
                )
            sections.append(tuple(lines))
    columns = (
        "start",
        "c",
        "(k-1)c",
        "overlap",
        "belief",
        "excess,\n1e-3 nats",
        "itera-\ntions",
        "con-\nverged",
        "contra-\ndictory",
    )
    notes = (
        "Mean over instances, with 95 % intervals over them. Overlap: most likely values against the planted ones, 0 a "
        "guess, 1 all right, under the best permutation of the values. Belief: the same of the probability given to "
        "the planted value. Excess: Bethe free entropy a latent less that of uniform messages. Converged, "
        "contradictory: runs.",
    )
    return Table(experiment.title or experiment.experiment, columns, tuple(sections), notes, ("start",))


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    return [make(experiment, ordered) for make in (threshold_table, overlap_table)]
