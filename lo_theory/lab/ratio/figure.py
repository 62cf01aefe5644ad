"""The figure of the ratio sweep: a column for each N; accuracy, margin minus vanilla, why. Loads matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.ratio.tables import Decode, Facts, decodes, facts, settling_ratio
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, INK, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figures"]

_MET: dict[str, Any] = {
    "color": COLOURS["alarm"],
    "marker": "|",
    "markersize": 14,
    "markeredgewidth": 1.6,
    "linestyle": "",
}


def make_figures(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Accuracy against P/N with the marginals-only value, margin minus vanilla, and what explains them."""
    cells, known = decodes(rows), facts(rows)
    sizes = sorted({fact.pair[0] for fact in known})
    figure = new_figure(max(7.5, 4.6 * len(sizes)), 10.5, experiment.title or experiment.experiment)
    grid = figure.subplots(3, len(sizes), squeeze=False, sharex=True, sharey="row")
    for i, n in enumerate(sizes):
        mine, fact = [it for it in cells if it.pair[0] == n], [it for it in known if it.pair[0] == n]
        _accuracy_panel(grid[0, i], mine, fact)
        _difference_panel(grid[1, i], mine)
        _reason_panel(grid[2, i], mine, fact)
        grid[0, i].set_title(f"N = {n}: accuracy", loc="left")
        grid[1, i].set_title("Margin minus vanilla", loc="left")
        grid[2, i].set_title("Why: what is written after a dead end", loc="left")
        grid[2, i].set_xlabel("P/N")
        _ratio_axis(grid[2, i], fact)
    for axes, label in zip(
        grid[:, 0], ("self-consistent observations, %", "margin - vanilla, percentage points", "share, %"), strict=True
    ):
        axes.set_ylabel(label)
    grid[1, 0].legend(fontsize=8, frameon=False)
    grid[2, 0].set_ylim(-4, 160)  # room for its legend, above the largest share
    grid[2, 0].set_yticks(range(0, 101, 20))
    grid[2, 0].legend(fontsize=7, frameon=False, loc="upper left", ncols=2, columnspacing=1, handlelength=1.6)
    letter_panels(figure.axes)
    _legend(figure, cells)
    return {"figure": figure}


def _ratio_axis(axes: Axes, known: Sequence[Facts]) -> None:
    ratios = sorted({fact.pair[1] / fact.pair[0] for fact in known})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])


def _curve(axes: Axes, ratios: Sequence[float], values: Sequence[Estimate], **style: Any) -> None:
    means = [100 * value.value for value in values]
    known = [value if value.low == value.low else Estimate(value.value, value.value, value.value) for value in values]
    ends = [[100 * (it.value - it.low) for it in known], [100 * (it.high - it.value) for it in known]]
    axes.errorbar(ratios, means, yerr=ends, elinewidth=1, capsize=2, markersize=5, linewidth=1.2, **style)


def _by(cells: Sequence[Decode], name: Callable[[Decode], Any]) -> list[tuple[Any, list[Decode]]]:
    return [(key, list(part)) for key, part in itertools.groupby(cells, key=name)]


def _look(denoiser: str, kind: str, policy: str) -> dict[str, Any]:
    colour = COLOURS[denoiser]
    fill, line = (colour, "-") if kind == "L" else ("white", "--")
    return {"color": colour, "marker": marker(policy), "markerfacecolor": fill, "linestyle": line}


def _accuracy_panel(axes: Axes, cells: Sequence[Decode], known: Sequence[Facts]) -> None:
    level = known[0].independent[0]  # of one law of observations, whatever the ratio
    met: list[float] = []
    for place, part in _by(cells, lambda it: (it.denoiser, it.kind, it.policy)):
        _curve(axes, [it.ratio for it in part], [it.accuracy for it in part], **_look(*place))
        met.append(settling_ratio(part, level))
    _mark(axes, sorted(ratio for ratio in met if not math.isnan(ratio)), 100 * level)
    axes.set_ylim(max(0, axes.get_ylim()[0]), 105)
    axes.plot(
        [fact.pair[1] / fact.pair[0] for fact in known],
        [100 * fact.independent[0] for fact in known],
        color=COLOURS["line"],
        linestyle=":",
        linewidth=2,
        zorder=0,
    )


def _mark(axes: Axes, ratios: Sequence[float], level: float) -> None:
    """Mark the ratios from which curves stay at the level; those that lie too close together share a label."""
    style: dict[str, Any] = {"color": COLOURS["alarm"], "fontsize": 8, "ha": "center"}
    start = 0
    for end in range(1, len(ratios) + 1):
        axes.plot(ratios[end - 1], level, **_MET)
        if end == len(ratios) or ratios[end] > 1.3 * ratios[end - 1]:
            first, last = f"{ratios[start]:.1f}", f"{ratios[end - 1]:.1f}"
            middle = math.sqrt(ratios[start] * ratios[end - 1])
            text = first if first == last else f"{first} to {last}"
            axes.annotate(text, (middle, level), (0, 9), textcoords="offset points", **style)
            start = end


def _difference_panel(axes: Axes, cells: Sequence[Decode]) -> None:
    margins = {(it.pair, it.denoiser, it.kind): it for it in cells if it.policy == "margin"}
    both = [it for it in cells if it.policy == "vanilla" and (it.pair, it.denoiser, it.kind) in margins]
    for (denoiser, kind), part in _by(both, lambda it: (it.denoiser, it.kind)):
        values = [margins[it.pair, it.denoiser, it.kind].minus(it) for it in part]
        label = f"{denoiser}, {'one token' if kind == 'L' else 'several tokens'} a step"
        style = {**_look(denoiser, kind, "margin"), "marker": "s"}
        _curve(axes, [it.ratio for it in part], values, label=label, **style)
    axes.axhline(0, color=COLOURS["line"], linewidth=1, zorder=0)


def _reason_panel(axes: Axes, cells: Sequence[Decode], known: Sequence[Facts]) -> None:
    dead = [it for it in cells if it.denoiser == "exact" and it.kind == "several"]
    for policy, part in _by(dead, lambda it: it.policy):  # dead checks, live errors: see ``dead_checks``
        ratios, look = [it.ratio for it in part], _look("exact", "several", policy)
        label = f"dead, exact, {policy}, several"
        _curve(axes, ratios, [it.dead for it in part], label=label, **look)
        label = f"live errors, exact, {policy}, several"
        _curve(axes, ratios, [it.live_errors for it in part], label=label, **{**look, "color": COLOURS["alarm"]})
    seen = [it for it in cells if it.denoiser == "model" and it.kind == "L" and not math.isnan(it.dead[0])]
    for policy, part in _by(seen, lambda it: it.policy):
        label = f"dead, model, {policy}, one"
        _curve(axes, [it.ratio for it in part], [it.dead for it in part], label=label, **_look("model", "L", policy))
    ratios = [fact.pair[1] / fact.pair[0] for fact in known]
    ink = {"color": INK, "marker": "x", "linestyle": "-"}
    if any(fact.deterministic[0] == fact.deterministic[0] for fact in known):
        _curve(axes, ratios, [fact.deterministic for fact in known], label="masks that fix every latent", **ink)
    if any(fact.gap[0] == fact.gap[0] for fact in known):
        style = {"color": COLOURS["model"], "marker": "*", "linestyle": "-"}
        _curve(axes, ratios, [fact.gap for fact in known], label="gap closed by the models", **style)


def _legend(figure: Figure, cells: Sequence[Decode]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            label=f"{denoiser}, {policy}, {'one token' if kind == 'L' else 'several tokens'} a step",
            **_look(denoiser, kind, policy),
        )
        for denoiser, kind, policy in dict.fromkeys((it.denoiser, it.kind, it.policy) for it in cells)
    ]
    handles.append(Line2D([], [], color=COLOURS["line"], linestyle=":", linewidth=2, label="marginals only"))
    if any(len(axes.texts) for axes in figure.axes):
        handles.append(Line2D([], [], label="P/N from which it stays there", **_MET))
    columns = 3 if figure.get_figwidth() > 9 else 2  # three are wider than a figure of one N
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
