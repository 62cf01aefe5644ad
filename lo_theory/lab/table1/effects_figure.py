"""The figure of the effects: adaptive minus vanilla against how far the model has learned, one mark a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, SEQUENTIAL
from lo_theory.lab.table1.effects import Effect, Kind, effects

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["effects_figure"]

_METRIC = "self_consistency"


def effects_figure(rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Self-consistency, one token a step and several; tokens drawn as they come. Nothing below two trained models."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    runs = [
        (kind, run)
        for kind, found in effects(rows).items()
        for run in found
        if kind.tokens == "drawn" and not math.isnan(run.gap.value)
    ]
    if len({run.vanilla.keys["row"] for _, run in runs}) < 2:
        return {}
    figure = new_figure(10, 4.6, "Adaptive minus vanilla against how far the model has learned")
    one, several = figure.subplots(1, 2, sharex=True, sharey=True)
    names, shades = list(dict.fromkeys(kind.of for kind, _ in runs)), colormaps[SEQUENTIAL]
    colours = {name: to_hex(shades(0.85 * i / max(1, len(names) - 1))) for i, name in enumerate(names)}
    _panel(one, [(kind, run) for kind, run in runs if kind.steps == sum(kind.pair)], colours)
    _panel(several, [(kind, run) for kind, run in runs if kind.steps < sum(kind.pair)], colours)
    one.set_title("One token a step", loc="left")
    several.set_title("Several tokens a step", loc="left")
    one.set_ylabel("margin - vanilla, percentage points of self-consistency")
    one.set_xlim(min(-4.0, *(110 * run.gap.value for _, run in runs)), 104)
    letter_panels(figure.axes)
    handles = [several.plot([], [], "o", color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8, frameon=False)
    return {"effects": figure}


def _panel(axes: Axes, runs: Sequence[tuple[Kind, Effect]], colours: Mapping[str, str]) -> None:
    axes.axhline(0, color=COLOURS["line"], linewidth=1, zorder=0)
    for kind, run in runs:
        style: dict[str, Any] = {
            "color": colours[kind.of],
            "marker": "o",
            "markersize": 4,
            "elinewidth": 1,
            "linestyle": "",
        }
        gap, (points, low, high) = run.gap, run.points(_METRIC)
        error = [[points - low], [high - points]]
        axes.errorbar(100 * gap.value, points, xerr=100 * gap.half, yerr=error, **style)
    axes.set_xlabel("gap closed by the model, % (0: marginals only; 100: Bayes-optimal)")
