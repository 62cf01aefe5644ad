"""The figure of Table 1: everything its tables print, pair by pair. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.drawing import letter_panels, mark_empty, new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import ACCURACY_MARKERS, COLOURS, INK, marker
from lo_theory.lab.summary import group
from lo_theory.lab.table1 import panels
from lo_theory.lab.table1.effects_figure import effects_figure
from lo_theory.lab.table1.labels import named
from lo_theory.lab.table1.reading_figure import readings_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]


_COLUMNS = 3
_WIDTH, _HEIGHT = 13.0, 3.3  # inches of the sheet, and of a line of panels
_LEGEND_COLUMNS = 6


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Everything the tables print, pair by pair: accuracies with the published points, diversity, losses.

    A quantity that was not measured has no panel.
    """
    ordered = sorted(named(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    shown = experiment.title or experiment.experiment
    return {
        "figure": _sheet(shown, experiment, ordered),
        **readings_figure(experiment, ordered),
        **effects_figure(ordered),
        **training_figures(shown, ordered),
    }


def _sheet(title: str, experiment: Experiment, ordered: Sequence[Row]) -> Figure:
    """Panels in lines of three; the first and the last are two wide."""
    cells, problems = group(ordered, "decode"), group(ordered, "problem")
    parts: list[tuple[int, Callable[[Axes], None]]] = [
        (2, lambda axes: panels.self_consistency_panel(axes, experiment, problems, cells)),
        (1, lambda axes: panels.wholly_consistent_panel(axes, cells)),
        (1, lambda axes: panels.unpaired_panel(axes, problems, cells)),
        (1, lambda axes: panels.observation_mean_panel(axes, problems, cells)),
        (1, lambda axes: panels.distinct_panel(axes, cells)),
        (1, lambda axes: panels.largest_z_panel(axes, cells, "bias", "a latent's mean")),
        (1, lambda axes: panels.largest_z_panel(axes, cells, "pair", "a pair's correlation")),
        (1, lambda axes: panels.total_variation_panel(axes, cells)),
        (1, lambda axes: panels.one_pass_panel(axes, ordered)),
        (1, lambda axes: panels.loss_panel(axes, ordered)),
        (1, lambda axes: panels.kl_panel(axes, ordered)),
        (1, lambda axes: panels.gap_panel(axes, ordered)),
        (2, lambda axes: panels.classes_panel(axes, ordered)),
    ]
    parts = [part for part in parts if _has_points(part)] or parts[:1]
    places = _flow([width for width, _ in parts])
    lines = places[-1][0] + 1
    height = _HEIGHT + panels.label_inches(cells)
    figure = new_figure(_WIDTH, 0.5 + height * lines, title)
    grid = figure.add_gridspec(lines, _COLUMNS)
    for (width, draw), (line, column) in zip(parts, places, strict=True):
        draw(figure.add_subplot(grid[line, column : column + width]))
    letter_panels(figure.axes)
    mark_empty(figure.axes)
    _legend(figure, experiment, ordered)
    return figure


def _has_points(part: tuple[int, Callable[[Axes], None]]) -> bool:
    """Whether a panel shows points or bars, not lines to compare them with alone: drawn on a sheet of its own."""
    axes = new_figure(_WIDTH, _HEIGHT).add_subplot()
    part[1](axes)
    return any(len(container) for container in axes.containers)


def _flow(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Line and first column of panels so wide, in order; a line ends where the next panel does not fit."""
    places, line, column = [], 0, 0
    for width in widths:
        if column + width > _COLUMNS:
            line, column = line + 1, 0
        places.append((line, column))
        column += width
    return places


def _legend(figure: Figure, experiment: Experiment, rows: Sequence[Row]) -> None:
    """What stands for what on all panels: colours of denoisers and filled or open as swatches, each symbol once."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def swatch(label: str, colour: str, fill: str) -> Patch:
        return Patch(edgecolor=colour, facecolor=fill, label=label)

    def symbol(label: str, marker: Any) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=INK, label=label)

    cells, once = group(rows, "decode"), group(rows, "one_pass")
    names = sorted({str(item.keys["denoiser"]) for item in (*cells, *once)})
    names += ["paper"] if experiment.reference else []
    policies = dict.fromkeys(str(cell.keys["policy"]) for cell in cells if not cell.keys["argmax"])
    handles: list[Artist] = [swatch(name, COLOURS[name], COLOURS[name]) for name in names]
    handles += [swatch("filled: one token a step", INK, INK), swatch("open: several tokens a step", INK, "white")]
    handles += [symbol(f"policy {name}", marker(name)) for name in policies]
    handles += [symbol("most likely tokens (argmax)", "*")] if any(cell.keys["argmax"] for cell in cells) else []
    handles += [symbol(name.replace("_", ", "), mark) for name, mark in ACCURACY_MARKERS.items() if once]
    handles += [symbol(f"mask law {law}", mark) for law, mark in panels.law_markers(rows).items()]
    columns = min(_LEGEND_COLUMNS, len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.4, columnspacing=1.5)
