"""The figure of the experiment on orders. Loads matplotlib when called, no display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import training_figures
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.orders.tables import excess, longest, own_losses
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, MODEL_SHADES, ORDER_SHADES, SHADING
from lo_theory.lab.summary import Measured, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_MASKED = MODEL_SHADES[2::-1]
_MARKERS = "oDs^vP"  # draws of an order
_COLUMNS = 5
_LEAST = 1e-6  # nats; below it a log axis shows rounding


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Above the floor against FLOPs, along the orders, generated sequences; then order by order every position.

    Of several rows of the experiment the first is drawn position by position, and all in the other panels.
    """
    ordered = sorted(rows, key=lambda row: int(row.keys.get("row", 0)))
    shown = _shown_orders(ordered)
    bands = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = new_figure(16, 5.5 + 4.6 * bands, experiment.title or experiment.experiment)
    parts = figure.add_gridspec(2, 1, height_ratios=[5.5, 4.6 * bands])
    upper, lower = (figure.add_subfigure(parts[i]) for i in range(2))
    first, second, third = upper.subplots(1, 3, width_ratios=[2.2, 1, 1])
    colours = _colours(ordered)
    compute_panel(first, ordered, colours)
    along_panel(second, ordered, colours)
    generated_panel(third, ordered, colours)
    grid = lower.subplots(2 * bands, _COLUMNS, squeeze=False)
    for i, name in enumerate(shown):
        band, column = divmod(i, _COLUMNS)
        position_panels(grid[2 * band][column], grid[2 * band + 1][column], ordered, name, colours)
    for i in range(len(shown), bands * _COLUMNS):
        for axes in (grid[2 * (i // _COLUMNS)][i % _COLUMNS], grid[2 * (i // _COLUMNS) + 1][i % _COLUMNS]):
            axes.set_axis_off()
    if shown:
        grid[0][0].set_ylabel("loss at a position, nats")
        grid[1][0].set_ylabel("KL to the exact conditional, nats")
        grid[0][0].legend(fontsize=7)
    letter_panels([first, second, third, *(axes for line in grid for axes in line if axes.axison)])
    return {"figure": figure, **training_figures(experiment.title or experiment.experiment, rows)}


def _shown_orders(rows: Sequence[Row]) -> list[str]:
    """One order of each kind, the first draw of the first row."""
    kinds: dict[str, str] = {}
    for item in group(rows, "position"):
        kinds.setdefault(str(item.keys["order_kind"]), str(item.keys["order"]))
    return list(kinds.values())


def _colours(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Colour and marker of every learner by name."""
    kinds = {str(item.keys["order"]): str(item.keys["order_kind"]) for item in group(rows, "along")}
    masked = dict.fromkeys(str(item.keys["learner"]) for item in group(rows, "masked"))
    draws: dict[str, int] = {}
    styles: dict[str, dict[str, Any]] = {"data": {"color": COLOURS["exact"], "marker": "x"}}
    for name, kind in kinds.items():
        draws[kind] = draws.get(kind, -1) + 1
        styles[name] = {"color": ORDER_SHADES[kind], "marker": _MARKERS[draws[kind] % len(_MARKERS)]}
    for i, name in enumerate(masked):
        styles[name] = {"color": _MASKED[i % len(_MASKED)], "marker": "*"}
    return styles


def compute_panel(axes: Axes, rows: Sequence[Row], styles: dict[str, dict[str, Any]]) -> None:
    """Nats above the floor against training FLOPs: finished trainings as points, the longest's own log as a line."""
    problems = {int(item.keys["row"]): item for item in group(rows, "problem")}
    for (row, name), items in own_losses(rows).items():
        floor = problems[row].value("floor")
        flops = [float(item.keys["flops"]) for item in items]
        sums = [excess(item, floor) for item in items]
        values = [max(one.mean, _LEAST) for one in sums]
        ends = [one.interval() for one in sums]
        spread = [
            [max(0.0, value - max(low, _LEAST / 10)) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        size = 10 if styles[name]["marker"] == "*" else 6
        axes.errorbar(
            flops, values, yerr=spread, **styles[name], markersize=size, linewidth=1.5, elinewidth=1, label=name
        )
    _training_lines(axes, rows, problems, styles)
    for problem in problems.values():
        floor, marginals = problem.value("floor"), problem.value("marginals_only")
        axes.axhline(marginals - floor, color=COLOURS["line"], linewidth=1, linestyle="--")
        axes.axhline(problem.value("reached") * (marginals - floor), color=COLOURS["line"], linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("loss above the entropy floor, nats per token")
    axes.set_title("Above the floor, by training")
    axes.set_xlabel(
        "training FLOPs (points: finished trainings, KL on fresh data; faint: training loss - floor of the longest;\n"
        "dashed: marginals only; dotted: counts as the floor)"
    )
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower left")


def _training_lines(
    axes: Axes, rows: Sequence[Row], problems: dict[int, Measured], styles: dict[str, dict[str, Any]]
) -> None:
    """The training loss of every longest training minus the floor: fresh data at every step, so no bias."""
    curves: dict[tuple[int, str], list[Measured]] = {}
    for item in longest(group(rows, "curve"), "training_steps"):
        curves.setdefault((int(item.keys["row"]), str(item.keys["learner"])), []).append(item)
    for (row, name), items in curves.items():
        floor = problems[row].value("floor")
        points = [(float(item.keys["flops"]), item.value("loss") - floor) for item in items]
        axes.plot(*zip(*points, strict=True), color=styles[name]["color"], linewidth=0.8, alpha=0.45, zorder=0)


def along_panel(axes: Axes, rows: Sequence[Row], styles: dict[str, dict[str, Any]]) -> None:
    """KL after the whole training along every order: its own learner and the masked ones, same sequences."""
    items = longest([item for item in group(rows, "along") if "kl" in item.metrics], "flops")
    names = list(dict.fromkeys(str(item.keys["order"]) for item in items))
    for item in items:
        place = names.index(str(item.keys["order"]))
        value, (low, high) = item.value("kl"), item.interval("kl")
        error = [[max(0.0, value - max(low, _LEAST / 10))], [max(0.0, high - value)]]
        axes.errorbar(place, max(value, _LEAST), yerr=error, **styles[str(item.keys["learner"])], linestyle="")
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("KL along the order, nats per token")
    axes.set_title("Whole training: own learner; masked (stars)")


def generated_panel(axes: Axes, rows: Sequence[Row], styles: dict[str, dict[str, Any]]) -> None:
    """Self-consistency (filled) and share of wholly consistent sequences (open) of what the learners generate."""
    cells = group(rows, "generate")
    names = list(dict.fromkeys((str(cell.keys["learner"]), str(cell.keys["policy"])) for cell in cells))
    for cell in cells:
        learner, policy = str(cell.keys["learner"]), str(cell.keys["policy"])
        for metric, fill in (("self_consistency", styles[learner]["color"]), ("consistent", "white")):
            value, (low, high) = 100 * cell.value(metric), cell.interval(metric)
            error = [[max(0.0, value - 100 * low)], [max(0.0, 100 * high - value)]]
            axes.errorbar(
                names.index((learner, policy)), value, yerr=error, **styles[learner], markerfacecolor=fill, linestyle=""
            )
    labels = [
        learner if policy in ("own order", "exact sampler") else f"{learner}, {policy}" for learner, policy in names
    ]
    axes.set_xticks(range(len(names)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("generated sequences, %")
    axes.set_title("Self-consistent (filled), wholly consistent (open)")


def position_panels(
    upper: Axes, lower: Axes, rows: Sequence[Row], order: str, styles: dict[str, dict[str, Any]]
) -> None:
    """One order, position by position: losses above, KL below; grey where a latent is read."""
    items = [item for item in group(rows, "position") if item.keys["order"] == order]
    items = [item for item in items if item.keys["row"] == items[0].keys["row"]]
    learners = list(dict.fromkeys(str(item.keys["learner"]) for item in items))
    own = [item for item in items if item.keys["learner"] == learners[0]]
    for axes in (upper, lower):
        for item in own:
            if item.keys["role"] == "latent":
                axes.axvspan(
                    int(item.keys["time"]) - 0.5,
                    int(item.keys["time"]) + 0.5,
                    color=SHADING["band"],
                    zorder=0,
                    linewidth=0,
                )
    times = [int(item.keys["time"]) for item in own]
    if "exact" in own[0].metrics:
        upper.plot(times, [item.value("exact") for item in own], color=COLOURS["exact"], linewidth=2.5, label="exact")
    formulas = [
        item
        for item in group(rows, "formula")
        if item.keys["order"] == order and item.keys["row"] == items[0].keys["row"]
    ]
    points = [[float(item.keys["time"]) for item in formulas], [item.value("exact") for item in formulas]]
    upper.plot(*points, "o", color=COLOURS["exact"], markerfacecolor="white", markersize=5, label="exact, closed form")
    for name in learners:
        part = [item for item in items if item.keys["learner"] == name]
        look = {
            "color": styles[name]["color"],
            "markersize": 3,
            "marker": "." if name == order else "x",
            "linewidth": 0.8,
        }
        label = "order-aware" if name == order else name
        upper.plot(times, [item.value("model") for item in part], **look, label=label)
        if "kl" in part[0].metrics:
            lower.plot(times, [max(item.value("kl"), _LEAST) for item in part], **look)
    upper.set_title(f"Loss, {order}")
    lower.set_title(f"KL, {order}")
    lower.set_yscale("log")
    lower.set_xlabel("position in the order (grey: a latent)")
