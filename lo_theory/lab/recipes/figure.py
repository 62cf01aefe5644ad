"""The figure of the experiment on recipes: gap closed against operations and seconds, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import dress_gap_axes, line_style
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.recipes.tables import Recipe, recipes
from lo_theory.lab.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_LEFT = -0.1  # of the last panel, where the lines of the others are named


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """A line of panels for each problem; the names in the last panel, in colour, are the legend of all three."""
    found = recipes(experiment, rows)
    pairs = list(dict.fromkeys(recipe.pair for recipe in found))
    parts = [[recipe for recipe in found if recipe.pair == pair] for pair in pairs]
    heights = [max(4.0, 0.34 * len(part)) for part in parts] or [4.0]
    figure = new_figure(16, 0.8 + sum(heights), experiment.title or experiment.experiment)
    grid = figure.add_gridspec(max(1, len(parts)), 3, height_ratios=heights, width_ratios=(1, 1, 0.9))
    for line, part in enumerate(parts):
        for column, by in enumerate(("flops", "seconds")):
            _curves(figure.add_subplot(grid[line, column]), part, by)
        _ends(figure.add_subplot(grid[line, 2]), part)
    letter_panels(figure.axes)
    return {"figure": figure}


def _curves(axes: Axes, part: Sequence[Recipe], by: str) -> None:
    """Every training a line from (0, 0)."""
    for place, recipe in enumerate(part):
        for curve in recipe.curves:
            width = 2.2 if place == 0 else 1.2
            axes.plot((0.0, *curve.along(by)), (0.0, *curve.gaps), **line_style(place), linewidth=width, alpha=0.85)
    dress_gap_axes(axes, [curve for recipe in part for curve in recipe.curves], by)
    axes.set_title("N = {}, P = {}: every line a training".format(*part[0].pair))


def _ends(axes: Axes, part: Sequence[Recipe]) -> None:
    """Gap closed at the end, recipe by recipe: single trainings as dots, mean and interval beside."""
    for place, recipe in enumerate(part):
        colour = line_style(place)["color"]
        axes.plot((_LEFT, _LEFT + 0.06), (place, place), **line_style(place), linewidth=2)
        if not recipe.curves:
            axes.text(0.01, place, "diverged", va="center", fontsize=8, color=colour)
            continue
        axes.plot(recipe.finals, [place] * len(recipe.finals), ".", color=colour, markersize=7, alpha=0.6)
        final = recipe.final
        marker = "D" if len(recipe.finals) > 1 else "o"
        axes.errorbar(
            final.value, place, xerr=final.half, fmt=marker, color=colour, markersize=6, elinewidth=1.4, capsize=3
        )
        axes.text(1.02, place, f"{100 * final.value:.0f} %", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(part)), [recipe.setting.name for recipe in part])
    for place, label in enumerate(axes.get_yticklabels()):
        label.set_color(line_style(place)["color"])
    axes.set_ylim(len(part) - 0.4, -0.6)
    axes.set_xlim(_LEFT, 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("gap closed after the last step")
    axes.set_title("diamonds: mean and 95 % interval over trainings;\ncircles: one training, interval over contexts")
