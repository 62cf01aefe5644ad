"""Figure 4: overlap, belief against the limit of many latents, free entropy and iterations, each against the degree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.figure4.tables import degree_points
from lo_theory.lab.rows import Row
from lo_theory.lab.style import BP_SHADES, COLOURS, INK
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.thresholds.figure import curve_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_STARTS = {start: (colour, marker) for (start, colour), marker in zip(BP_SHADES.items(), "os^", strict=True)}
_LINES = {"dynamic": ":", "condensation": "--", "kesten_stigum": "-"}


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Four panels for every row of the experiment, on the paper's axis: neighbours (k-1)c."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    items = {int(item.keys["row"]): item for item in group(ordered, "propagation")}
    figure = new_figure(12, 8.4 * max(1, len(items)), experiment.title or experiment.experiment)
    grid = figure.subplots(2 * max(1, len(items)), 2, squeeze=False)
    thresholds = {item.keys["row"]: item for item in group(ordered, "threshold")}
    for place, (row, item) in enumerate(items.items()):
        part = [axes for line in grid[2 * place : 2 * place + 2] for axes in line]
        scale, of_row = int(item.keys["k"]) - 1, [line for line in ordered if line.keys["row"] == row]
        for axes, metric in zip(part, ("overlap", "belief", "excess", "iterations"), strict=True):
            _points(axes, of_row, metric, scale)
            _thresholds(axes, thresholds.get(row), experiment, scale)
            axes.set_xlabel("neighbours (k-1)c")
        part[0].set_ylabel("overlap")
        part[0].set_ylim(-0.02, 1.04)
        part[0].set_title("Overlap; {label}, {observed} observations, N = {N}".format(**item.keys))
        _belief_panel(part[1], of_row, row, scale)
        _excess_panel(part[2], of_row)
        part[3].set_ylabel("iterations until converged")
        part[3].set_yscale("log")
        part[3].set_title("Iterations")
        letter_panels(grid.flat)
    _legend(figure, experiment)
    return {"figure": figure}


def _points(axes: Axes, rows: Sequence[Row], metric: str, scale: int) -> None:
    """Every instance as a point, hollow where the run did not converge, and a line through the means.

    Instances are shown one by one because near a threshold some find the planted state and some do not: a mean with an
    interval would hide that.
    """
    states = {
        (row.unit, row.keys["start"]): row.sums.mean == 1
        for row in rows
        if row.keys["kind"] == "propagation" and row.metric == "converged"
    }
    for row in rows:
        if row.keys["kind"] == "propagation" and row.metric == metric:
            start = str(row.keys["start"])
            colour, marker = _STARTS[start]
            face = colour if states[row.unit, start] else "white"
            x = scale * float(row.keys["c"])
            axes.plot(x, row.sums.mean, marker, color=colour, markerfacecolor=face, markersize=3.5, alpha=0.75)
    means = degree_points(rows, int(rows[0].keys["row"]))
    for start, items in means.items():
        known = [item for item in items if metric in item.metrics]
        x_values = [scale * float(item.keys["c"]) for item in known]
        axes.plot(x_values, [item.value(metric) for item in known], color=_STARTS[start][0], linewidth=0.9, alpha=0.7)


def _thresholds(axes: Axes, item: Measured | None, experiment: Experiment, scale: int) -> None:
    """Computed thresholds as lines, each with its error as a band, and the paper's stated values as ticks on top."""
    for name, style in _LINES.items():
        value = item.value(f"{name}_neighbours") if item is not None else math.nan
        if math.isfinite(value) and item is not None:
            error = item.value(f"{name}_neighbours_error")
            axes.axvline(value, linestyle=style, color=COLOURS["alarm"], linewidth=1, zorder=0)
            axes.axvspan(value - error, value + error, color=COLOURS["alarm"], alpha=0.12, linewidth=0, zorder=0)
    for stated in experiment.reference.rows if experiment.reference is not None else ():
        edge = axes.get_xaxis_transform()
        axes.plot(stated.neighbours, 1.0, "v", transform=edge, color=COLOURS["paper"], clip_on=False)


def _legend(figure: Figure, experiment: Experiment) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, **style: Any) -> Line2D:
        return Line2D([], [], label=label, **style)

    handles = [
        entry(f"{start} start", color=colour, marker=marker, linestyle="")
        for start, (colour, marker) in _STARTS.items()
    ]
    handles.append(entry("not converged", color=INK, marker="o", markerfacecolor="white", linestyle=""))
    handles += [
        entry(name.replace("_", "-").title() if "_" in name else name, color=COLOURS["alarm"], linestyle=style)
        for name, style in _LINES.items()
    ]
    if experiment.reference is not None:
        handles.append(entry("stated in the paper", color=COLOURS["paper"], marker="v", linestyle=""))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _belief_panel(axes: Axes, rows: Sequence[Row], row: int, scale: int) -> None:
    """Belief in the planted values, with the fixed points of population dynamics (N to infinity) behind it."""
    overlaps, degrees = curve_of(group(rows, "curve"), row)
    if overlaps:
        limits = axes.get_xlim()
        lowest = min(range(len(degrees)), key=degrees.__getitem__)
        neighbours = [scale * c for c in degrees]
        stable, unstable = slice(lowest, None), slice(lowest + 1)
        look: dict[str, Any] = {"color": COLOURS["exact"], "zorder": 0}
        axes.plot(neighbours[stable], overlaps[stable], linewidth=1.6, label="N to infinity", **look)
        axes.plot(
            neighbours[unstable],
            overlaps[unstable],
            linewidth=1,
            linestyle=(0, (2, 2)),
            label="its unstable branch",
            **look,
        )
        axes.set_xlim(limits)
        axes.legend(loc="upper left")
    axes.set_ylabel("belief in the planted values")
    axes.set_ylim(-0.02, 1.04)
    axes.set_title("Belief, and its limit of many latents")


def _excess_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Free entropy; where it crosses zero from the planted start is condensation."""
    axes.axhline(0, color=COLOURS["line"], linewidth=0.8)
    axes.set_title("Free entropy: where it crosses zero is condensation")
    axes.set_ylabel("free entropy above uniform messages,\nnats a latent")
    found = [row.sums.mean for row in rows if row.keys["kind"] == "propagation" and row.metric == "excess"]
    if found:  # the crossing is what matters; degrees far above it would flatten it
        axes.set_yscale("symlog", linthresh=max(1e-4, 0.01 * (max(found) - min(found))))
