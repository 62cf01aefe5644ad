"""The figure of the hardness map: a map a quantity, thresholds and paths on it, and the same along P/N below.

Loads matplotlib when called, no display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.hardness import panels
from lo_theory.lab.hardness.legend import legend_handles
from lo_theory.lab.hardness.tables import Cell, Problem, cells, marks, problems
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_COLUMNS = 4


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """One figure for each problem with a map: ``figure``, ``figure-1`` and so on; lines alone make one for each N."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    lines, mapped = cells(ordered, "lines"), problems(ordered)
    alone = [problem for problem in lines if all((problem.family, problem.N) != (p.family, p.N) for p in mapped)]
    subjects = [*mapped, *{(problem.family, problem.N): problem for problem in alone}.values()]
    made = [_make_figure(experiment, ordered, problem) for problem in subjects]
    return {f"figure-{i}" if i else "figure": figure for i, figure in enumerate(made)}


def _ratios(lines: Mapping[Problem, Mapping[tuple[float, float], Cell]], problem: Problem) -> panels.Ratios:
    """Cells of all problems of one family and N, by P/N."""
    own = {p.P / p.N: places for p, places in lines.items() if (p.family, p.N) == (problem.family, problem.N)}
    return dict(sorted(own.items()))


def _make_figure(experiment: Experiment, rows: Sequence[Row], problem: Problem) -> Figure:
    plane = cells(rows, "plane").get(problem, {})
    ratios, found = _ratios(cells(rows, "lines"), problem), marks(rows, problem)
    starts = [item for item in group(rows, "population") if Problem.of(item.keys) == problem]
    judged = {name for cell in plane.values() for name in cell.measured}
    quantities = [q for q in panels.QUANTITIES if q.posterior in judged]
    count = len(quantities) + len({item.keys["observed"] for item in starts})
    bands = -(-count // _COLUMNS) if plane else 0
    below = 1 if len(ratios) > 1 else 0
    title = f"{experiment.title or experiment.experiment}: {panels.name_of(problem, with_pair=bool(plane))}"
    figure = new_figure(17, 1.4 + 4.0 * (bands + below), title)
    grid = figure.subplots(max(1, bands + below), _COLUMNS, squeeze=False)
    places = [axes for band in grid[:bands] for axes in band]
    for axes, quantity in zip(places, quantities, strict=False):
        panels.plane_panel(axes, plane, quantity)
        panels.draw_paths(axes)
        panels.draw_marks(axes, found)
        panels.draw_gap(axes, starts)
    for axes, observed in zip(
        places[len(quantities) :], dict.fromkeys(i.keys["observed"] for i in starts), strict=False
    ):
        panels.gap_panel(axes, [item for item in starts if item.keys["observed"] == observed], str(observed))
        panels.draw_marks(axes, [mark for mark in found if mark.observed == observed])
    for axes in places[count:]:
        axes.set_axis_off()
    for axes, (quantity, form) in zip(grid[bands] if below else (), panels.RATIO_PANELS, strict=False):
        panels.ratio_panel(axes, ratios, quantity, form)
        if form == "edge":
            panels.draw_threshold_curves(axes, found, problem, max(ratios))
    letter_panels([axes for band in grid for axes in band if axes.axison])
    handles: list[Any] = legend_handles(found, plane, ratios, starts)
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
