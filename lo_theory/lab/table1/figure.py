"""The figure of Table 1: everything its tables print, pair by pair. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.drawing import letter_panels, mark_empty, new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, INK, marker
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.table1 import panels
from lo_theory.lab.table1.effects_figure import effects_figure
from lo_theory.lab.table1.labels import named
from lo_theory.lab.table1.reading_figure import readings_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Everything the tables print, pair by pair: accuracies with the published points, diversity, losses."""
    ordered = sorted(named(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    figure = new_figure(13, 17, experiment.title or experiment.experiment)
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
    letter_panels(figure.axes)
    _legend(figure, [*cells, *group(ordered, "one_pass")], experiment)
    mark_empty(figure.axes)
    shown = experiment.title or experiment.experiment
    return {
        "figure": figure,
        **readings_figure(experiment, ordered),
        **effects_figure(ordered),
        **training_figures(shown, ordered),
    }


def _legend(figure: Figure, items: Sequence[Measured], experiment: Experiment) -> None:
    """Colours of all denoisers; symbols of what the decodes have."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, fill: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill, label=label)

    denoisers = [
        *sorted({str(item.keys["denoiser"]) for item in items}),
        *(["paper"] if experiment.reference else []),
    ]
    cells = [item for item in items if item.keys["kind"] == "decode"]
    policies = dict.fromkeys(str(cell.keys["policy"]) for cell in cells)
    handles = [entry(name, "s", COLOURS[name], COLOURS[name]) for name in denoisers]
    handles += [entry(name, marker(name), INK, INK) for name in policies]
    handles += [entry("one token a step", "o", INK, INK), entry("several tokens a step", "o", INK, "white")]
    if any(cell.keys["argmax"] for cell in cells):
        handles.append(entry("argmax tokens", "*", INK, INK))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        handletextpad=0.2,
        columnspacing=1.0,
    )
