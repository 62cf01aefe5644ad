"""The figure of Figure 2: all mask laws side by side, the paper's own panel among the others. Loads matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.figure2 import panels
from lo_theory.lab.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["make_figures"]


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """One figure for each problem: ``figure``, and ``figure-1`` and so on for further rows of the experiment."""
    numbers = sorted({int(row.keys["row"]) for row in rows}) or [0]
    parts = {number: [row for row in rows if row.keys.get("row") == number] for number in numbers}
    figures = {f"figure-{n}" if n else "figure": _make_figure(experiment, part) for n, part in parts.items()}
    return figures | training_figures(experiment.title or experiment.experiment, rows)


def _make_figure(experiment: Experiment, rows: Sequence[Row]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 17), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 3, height_ratios=(1.1, 1.1, 1, 1))
    content = panels.Content.of(rows)
    panels.loss_panel(figure.add_subplot(grid[0, :]), content)
    panels.kl_panel(figure.add_subplot(grid[1, :]), content)
    parts = [panels.error_panel, panels.pattern_kl_panel, panels.certainty_panel, panels.order_panel]
    parts += [panels.proxy_panel] if content.has_proxy else []
    for i, draw in enumerate(parts):
        draw(figure.add_subplot(grid[2 + i // 3, i % 3]), content)
    panels.leak_panel(figure.add_subplot(grid[3, len(parts) - 3 :]), content)
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.yaxis.label.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
    figure.legend(
        handles=panels.legend_handles(content),
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    pair = next(("N = {N}, P = {P}".format(**row.keys) for row in rows), "")
    figure.suptitle(f"{experiment.title or experiment.experiment}; {pair}", fontsize=12)
    return figure
