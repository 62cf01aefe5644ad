"""The figure of Table 1: everything its tables print, pair by pair. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, MARKERS
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.table1 import panels
from lo_theory.lab.table1.reading_figure import readings_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Everything the tables print, pair by pair: accuracies with the published points, diversity, losses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(rows, key=lambda row: int(row.keys.get("row", 0)))
    figure = Figure(figsize=(13, 17), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(5, 3)
    cells, problems = group(ordered, "decode"), group(ordered, "problem")
    panels.self_consistency_panel(figure.add_subplot(grid[0, :2]), experiment, problems, cells)
    parts: list[Callable[[Axes], None]] = [
        lambda axes: panels.wholly_consistent_panel(axes, cells),
        lambda axes: panels.unpaired_panel(axes, problems, cells),
        lambda axes: panels.observation_mean_panel(axes, problems, cells),
        lambda axes: panels.distinct_panel(axes, cells),
        lambda axes: panels.largest_z_panel(axes, cells, "bias", "a latent's mean"),
        lambda axes: panels.largest_z_panel(axes, cells, "pair", "a pair's correlation"),
        lambda axes: panels.total_variation_panel(axes, cells),
        lambda axes: panels.one_pass_panel(axes, ordered),
        lambda axes: panels.loss_panel(axes, ordered),
        lambda axes: panels.kl_panel(axes, ordered),
        lambda axes: panels.gap_panel(axes, ordered),
    ]
    for i, draw in enumerate(parts):
        draw(figure.add_subplot(grid[(i + 2) // 3, (i + 2) % 3]))
    panels.classes_panel(figure.add_subplot(grid[4, 1:]), ordered)
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.yaxis.label.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
    _legend(figure, cells, experiment)
    figure.suptitle(experiment.title or experiment.experiment, fontsize=12)
    shown = experiment.title or experiment.experiment
    return {"figure": figure, **readings_figure(experiment, rows), **training_figures(shown, ordered)}


def _legend(figure: Figure, cells: Sequence[Measured], experiment: Experiment) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, fill: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill, label=label)

    denoisers = [
        *dict.fromkeys(str(cell.keys["denoiser"]) for cell in cells),
        *(["paper"] if experiment.reference else []),
    ]
    policies = dict.fromkeys(str(cell.keys["policy"]) for cell in cells)
    handles = [entry(name, "s", COLOURS[name], COLOURS[name]) for name in denoisers]
    handles += [entry(name, MARKERS[name], "black", "black") for name in policies]
    handles += [entry("one token a step", "o", "black", "black"), entry("several tokens a step", "o", "black", "white")]
    if any(cell.keys["argmax"] for cell in cells):
        handles.append(entry("argmax tokens", "*", "black", "black"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.0,
    )
