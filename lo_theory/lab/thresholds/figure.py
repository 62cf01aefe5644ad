"""The figure of a run of thresholds: the curves c(overlap) and the hard phases read from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import CATEGORICAL, COLOURS, INK, SHADING
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.thresholds.tables import specification
from lo_theory.thresholds import published

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_of", "make_figures"]

_DASHES = {"satisfied": "-", "all": "--"}
_LOWEST, _HIGHEST = 0.7, 1.6  # of the axis, in units of condensation


def curve_of(curves: Sequence[Measured], row: int) -> tuple[list[float], list[float]]:
    """Overlaps, ascending, and degrees of the curve of one row."""
    points = [(point.keys["overlap"], point.value("c")) for point in curves if point.keys["row"] == row]
    return [overlap for overlap, _ in sorted(points)], [c for _, c in sorted(points)]


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Left: overlap of the fixed points against c, in units of condensation. Right: the thresholds on one axis."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    items = [*group(ordered, "threshold"), *group(ordered, "fold")]
    figure = new_figure(13, 1.5 + max(4.5, 0.34 * len(items)), experiment.title or experiment.experiment)
    left, right = figure.subplots(1, 2)
    _curves(left, items, group(ordered, "curve"))
    _phases(right, items)
    letter_panels((left, right))
    return {"figure": figure}


def _name(item: Measured) -> str:
    revealed = f", {100 * item.keys['revealed']:g} % revealed" if item.keys["revealed"] else ""
    return f"{item.keys['label']}, {item.keys['observed']}{revealed}"


def _unit(item: Measured) -> float:
    """The degree that a row is measured in: condensation, or the like of it; nan where there is none."""
    for name in ("condensation_c", "crossing_c"):
        if name in item.metrics:
            return item.value(name)
    return math.nan


def _colours(items: Sequence[Measured]) -> list[str]:
    """The colour of every row: one an ensemble and revealed fraction, whichever of its observations are revealed."""
    kinds = list(dict.fromkeys((item.keys["label"], item.keys["revealed"]) for item in items))
    places = (kinds.index((item.keys["label"], item.keys["revealed"])) for item in items)
    return [CATEGORICAL[place % len(CATEGORICAL)] for place in places]


def _curves(axes: Axes, items: Sequence[Measured], curves: Sequence[Measured]) -> None:
    for item, colour in zip(items, _colours(items), strict=True):
        overlaps, degrees = curve_of(curves, int(item.keys["row"]))
        unit = _unit(item)
        scale = min(degrees, default=1.0) if math.isnan(unit) else unit
        dashes = _DASHES[str(item.keys["observed"])]
        axes.plot([c / scale for c in degrees], overlaps, color=colour, linestyle=dashes)
    axes.axvline(1, color=COLOURS["line"], linewidth=0.8)
    axes.set_title("Fixed points")
    axes.set_xlim(_LOWEST, _HIGHEST)
    axes.set_ylim(0, 1)
    axes.set_xlabel("c / c of condensation (dashed: all observations revealed; names at the right)")
    axes.set_ylabel("overlap of the fixed point of population dynamics")


def _phases(axes: Axes, items: Sequence[Measured]) -> None:
    """One line a row: hard phase as a bar from condensation to Kesten-Stigum, dynamic threshold left of it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = _colours(items)
    for place, item in enumerate(items):
        unit = _unit(item)
        if math.isnan(unit):
            continue
        names = ("dynamic_c", "condensation_c", "kesten_stigum_c")
        if "crossing_c" in item.metrics:
            names = ("dynamic_c", "crossing_c", "spinodal_c")
        found = [item.value(name) / unit for name in names]
        end = _HIGHEST if math.isnan(found[2]) else found[2]  # infinite: at the edge of the axis
        axes.barh(place, end - found[1], left=found[1], height=0.5, color=SHADING["hard"])
        axes.barh(place, found[1] - found[0], left=found[0], height=0.5, color=SHADING["clustered"])
        for value, name, marker in zip(found, names, "os>", strict=True):
            error = item.value(f"{name}_error") / unit
            x, bar = (_HIGHEST, 0.0) if math.isnan(value) else (value, 0.0 if math.isnan(error) else error)
            axes.errorbar(x, place, xerr=bar, fmt=marker, color=colours[place], ms=5, clip_on=False)
        for stated in published(specification(item))[:2] if not item.keys["revealed"] else ():
            if stated is not None:
                axes.plot(stated / unit, place, "x", color=INK, ms=5, zorder=5)
    axes.set_yticks(range(len(items)), [_name(item) for item in items])
    axes.grid(axis="y", visible=False)
    for place, label in enumerate(axes.get_yticklabels()):
        label.set_color(colours[place])
    axes.set_ylim(len(items) - 0.4, -0.6)
    axes.set_title("Thresholds, each in units of its condensation")
    axes.set_xlim(_LOWEST, _HIGHEST)
    axes.set_xlabel("c / c of condensation")
    symbols = {
        "o": "dynamic",
        "s": "condensation",
        ">": "Kesten-Stigum",
        "x": "published",
    }
    handles: list[Artist] = [
        Line2D([], [], marker=marker, color=INK, linestyle="", label=name) for marker, name in symbols.items()
    ]
    handles.append(Patch(color=SHADING["hard"], label="possible but hard"))
    handles.append(Patch(color=SHADING["clustered"], label="planted state exists, cannot be told"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)
