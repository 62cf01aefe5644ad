"""The tables of a run of thresholds: values in c beside published ones, the other units, folds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, group
from lo_theory.thresholds import RowSpecification, published

__all__ = ["tables", "with_error"]

_LEFT = ("ensemble", "observed", "source", "dynamic", "condensation")


def with_error(value: float, error: float) -> str:
    """``8.4602 ±0.0050``: as many digits as two of the error's; six significant ones where it is zero or unknown."""
    if math.isnan(value):
        return "-"
    if math.isnan(error) or error == 0:
        return f"{value:.6g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ±{error:.{digits}f}"


def _threshold(item: Measured, name: str) -> str:
    if f"{name}_c" not in item.metrics:
        return "infinite"
    return with_error(item.value(f"{name}_c"), item.value(f"{name}_c_error"))


def _names(item: Measured) -> tuple[str, str]:
    return str(item.keys["label"]), str(item.keys["observed"])


def specification(item: Measured) -> RowSpecification:
    """The ensemble that a measured row is of."""
    return RowSpecification(*(item.keys[name] for name in ("family", "q", "k", "observed")))


def _off(item: Measured, name: str, value: float | None) -> str:
    """A published value and how far ours lies from it, in per cent."""
    if value is None:
        return ""
    ours, exact = item.value(f"{name}_c"), item.value(f"{name}_c_error") == 0
    return f"{value:.6g}" if exact else f"{value:.6g} ({100 * (ours / value - 1):+.3f} %)"


def _by_mode(items: Sequence[Measured]) -> list[list[Measured]]:
    modes = dict.fromkeys(item.keys["observed"] for item in items)
    return [[item for item in items if item.keys["observed"] == mode] for mode in modes]


def degree_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """The three thresholds in c = kM/N, published values, and how ours differ."""
    sections = []
    for part in _by_mode(group(rows, "threshold")):
        lines = []
        for item in part:
            dynamic, condensation, _ = published(specification(item))
            if item.value("continuous"):
                deepest = 100 * item.value("resolution")
                kind = "continuous: = KS" if deepest <= 2 else "not decided"
                ours = (kind, f"no dip over {deepest:.2g} %" if deepest >= 0.005 else "no dip")
            else:
                ours = (_threshold(item, "dynamic"), _threshold(item, "condensation"))
            theirs = (_off(item, "dynamic", dynamic), _off(item, "condensation", condensation))
            lines.append((*_names(item), *ours, _threshold(item, "kesten_stigum"), *theirs))
        sections.append(tuple(lines))
    columns = ("ensemble", "observed", "dynamic", "condensation", "KS", "published\ndynamic", "published\ncondensation")
    sources = dict.fromkeys(published(specification(item))[2] for item in group(rows, "threshold"))
    notes = (
        "Mean degree c = kM/N with 95 % errors. A continuous transition has dynamic = condensation = Kesten-Stigum "
        "(KS); beside it the deepest dip of a planted state below KS that the errors do not exclude. In brackets: ours "
        "over the published value, less one.",
        f"Published: {'; '.join(filter(None, sources)) or 'none for these ensembles'}.",
    )
    return Table(experiment.title or experiment.experiment, columns, tuple(sections), notes, _LEFT)


def unit_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """The same thresholds as density M/N and as neighbours (k-1)c."""

    def cell(item: Measured, name: str, unit: str) -> str:
        if f"{name}_{unit}" not in item.metrics:
            return "infinite"
        return with_error(item.value(f"{name}_{unit}"), item.value(f"{name}_{unit}_error"))

    names, units = ("dynamic", "condensation", "kesten_stigum"), ("density", "neighbours")
    sections = tuple(
        tuple((*_names(item), *(cell(item, name, unit) for unit in units for name in names)) for item in part)
        for part in _by_mode(group(rows, "threshold"))
    )
    columns = (
        "ensemble",
        "observed",
        *(f"{unit}\n{name}" for unit in ("M/N", "(k-1)c") for name in ("dynamic", "condens.", "KS")),
    )
    return Table("As density M/N and as neighbours (k-1)c", columns, sections, (), _LEFT)


def fold_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """With some latents revealed: the fold of c(overlap), between whose ends two states coexist."""
    items = group(rows, "fold")
    sections = []
    for mode in _by_mode(items):
        for label in dict.fromkeys(item.keys["label"] for item in mode):
            lines = []
            for item in (item for item in mode if item.keys["label"] == label):
                revealed = f"{100 * item.keys['revealed']:g} %"
                if item.value("survives"):
                    names = ("dynamic", "crossing", "spinodal")
                    met = [f"{name}_c" in item.metrics for name in names]
                    parts = tuple(_threshold(item, names[i]) if met[i] else "not met" for i in range(3))
                else:
                    excluded = 100 * item.value("resolution")
                    parts = ("no fold", f"none over {excluded:.2g} % of c" if excluded >= 0.005 else "", "")
                lines.append((*_names(item), revealed, *parts))
            sections.append(tuple(lines))
    columns = ("ensemble", "observed", "latents\nrevealed", "dynamic", "equal free\nentropy", "end of the\nuninformed")
    notes = (
        "Mean degree c with 95 % errors, half the spacing of the curve's points included. Between the first and the "
        "last column an informed and an uninformed state coexist; from the middle one on the informed one is likelier.",
    )
    return Table("Side information: some latents are revealed too", columns, tuple(sections), notes, _LEFT)


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    return [make(experiment, ordered) for make in (degree_table, unit_table, fold_table)]
