"""The figure of the experiment on families: a panel a mask law. Loads matplotlib when called, no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.families.tables import Gaps, Place, along, gaps
from lo_theory.lab.rows import Row
from lo_theory.lab.seeds import seeded
from lo_theory.lab.style import COLOURS, SHADING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_LEAST = 1e-6  # nats; drawn here where it is less
_MOST = 4.0  # nats: upper end of the axis
_COLUMNS = 3
_STYLES: dict[str, dict[str, Any]] = {
    "to know (reads nothing)": {"color": COLOURS["line"], "marker": "_", "markersize": 14},
    "belief propagation": {"color": COLOURS["bp"], "marker": "s"},
    "masked model, shortest training": {"color": COLOURS["model"], "marker": "o", "markerfacecolor": "white"},
    "masked model, longest training": {"color": COLOURS["model"], "marker": "o"},
    "order-aware, shortest training": {"color": COLOURS["order_aware"], "marker": "^", "markerfacecolor": "white"},
    "order-aware, longest training": {"color": COLOURS["order_aware"], "marker": "^"},
}
_SHIFTS = dict(zip(_STYLES, (0.0, -0.24, 0.0, 0.12, 0.26, 0.36), strict=True))


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Gaps to Bayes by family on a log axis, a panel a mask law; last the order-aware learner along its own order."""
    ordered = sorted(seeded(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    found, orders = gaps(ordered), along(ordered)
    laws = list(dict.fromkeys(place.law for place in found))
    bands = max(1, -(-(len(laws) + 1) // _COLUMNS))
    figure = new_figure(14, 1 + 4.4 * bands, experiment.title or experiment.experiment)
    grid = figure.subplots(bands, _COLUMNS, squeeze=False, sharey=True)
    places = [axes for line in grid for axes in line]
    for axes, law in zip(places, laws, strict=False):
        law_panel(axes, law, found)
    order_panel(places[len(laws)], orders, {place.row: place.family for place in found})
    for axes in places[len(laws) + 1 :]:
        axes.set_axis_off()
    for line in grid:
        line[0].set_ylabel(f"KL above Bayes, nats per token (least drawn: {_LEAST:g})")
    handles: dict[str, Any] = {}
    for axes in places:
        shown, names = axes.get_legend_handles_labels()
        handles |= dict(zip(map(str, names), shown, strict=True))
    known = [name for name in _STYLES if name in handles]
    figure.legend([handles[name] for name in known], known, loc="outside lower center", ncols=3)
    letter_panels(places[: len(laws) + 1])
    return {"figure": figure, **training_figures(experiment.title or experiment.experiment, rows)}


def _point(axes: Axes, place: float, sums: Runs, name: str) -> None:
    value, (low, high) = max(sums.mean, _LEAST), sums.interval()
    error = [[max(0.0, value - max(low, _LEAST))], [max(0.0, high - value)]]
    axes.errorbar(place + _SHIFTS[name], value, yerr=error, **_STYLES[name], linestyle="", elinewidth=1, label=name)


def _pair(axes: Axes, place: float, models: dict[int, Runs], name: str) -> None:
    """The shortest and the longest training, joined."""
    if len(models) > 1:
        _point(axes, place, models[min(models)], f"{name}, shortest training")
    _point(axes, place, models[max(models)], f"{name}, longest training")


def _dress(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(_LEAST / 2, _MOST)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    for boundary in range(len(names) - 1):
        axes.axvline(boundary + 0.5, color=SHADING["band"], linewidth=0.8, zorder=0)
    axes.grid(axis="x", visible=False)
    axes.set_title(title)
    axes.tick_params(axis="y", labelleft=True)


def law_panel(axes: Axes, law: str, found: dict[Place, Gaps]) -> None:
    """One mask law; a family about whose single tokens nothing is to be known is marked so."""
    parts = {place.family: gap for place, gap in found.items() if place.law == law and place.role == "all"}
    for i, gap in enumerate(parts.values()):
        if gap.nothing:
            axes.axvspan(i - 0.5, i + 0.5, color=SHADING["band"], zorder=-1, linewidth=0)
        elif gap.marginals is not None:
            _point(axes, i, gap.marginals, "to know (reads nothing)")
        if gap.bp is not None:
            _point(axes, i, gap.bp, "belief propagation")
        _pair(axes, i, gap.models, "masked model")
    nothing = "; shaded: nothing to know" if any(gap.nothing for gap in parts.values()) else ""
    _dress(axes, list(parts), f"{law}{nothing}")


def order_panel(axes: Axes, orders: dict[int, dict[int, Runs]], names: dict[int, str]) -> None:
    """The order-aware learner along its own order."""
    for i, models in enumerate(orders.values()):
        _pair(axes, i, models, "order-aware")
    _dress(axes, [names.get(row, str(row)) for row in orders], "order-aware learner along latents first")
