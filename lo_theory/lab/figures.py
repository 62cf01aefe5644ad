"""The figure of a finished run, PNG and PDF, equal bytes for equal rows. Loads matplotlib when called, no display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, gap_closed, group
from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figure", "write_figures"]

_COLOURS = {"exact": "#1b7837", "model": "#762a83", "paper": "#555555"}
_MARKERS = {"vanilla": "o", "top_probability": "^", "margin": "D", "entropy": "s", "fixed_order": "v"}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def make_figure(experiment: Experiment, rows: Sequence[Row]) -> Figure:
    """Self-consistency with the published points, mean observation, gap closed, and diversity, pair by pair."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(rows, key=lambda row: int(row.keys.get("row", 0)))
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, width_ratios=(1.6, 1))
    cells = group(ordered, "decode")
    _self_consistency(panels[0, 0], experiment, ordered, cells)
    _gap(panels[0, 1], ordered)
    _observation_mean(panels[1, 0], ordered, cells)
    _diversity(panels[1, 1], cells)
    _legend(figure, cells, experiment)
    figure.suptitle(experiment.title or experiment.experiment, fontsize=11)
    return figure


def write_figures(folder: Path, experiment: Experiment, rows: Sequence[Row]) -> None:
    """Write figure.png and figure.pdf."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", "pdf.fonttype": 42}):
        figure = make_figure(experiment, rows)
        for form, metadata in _METADATA.items():
            write_atomically(
                folder / f"figure.{form}",
                lambda file, form=form, metadata=metadata: figure.savefig(
                    file, format=form, dpi=160, metadata=metadata
                ),  # type: ignore[misc]
            )


def _places(cells: Sequence[Measured]) -> dict[int, float]:
    """Where the rows stand on the horizontal axis."""
    return {row: float(i) for i, row in enumerate(dict.fromkeys(cell.keys["row"] for cell in cells))}


def _points(axes: Axes, cells: Sequence[Measured], metric: str, scale: float) -> None:
    """One point a cell with its interval: colour by denoiser, marker by policy, filled at one token a step."""
    places = _places(cells)
    for row, place in places.items():
        part = [cell for cell in cells if cell.keys["row"] == row and not cell.keys["argmax"]]
        longest = max((int(cell.keys["steps"]) for cell in part), default=0)
        for i, cell in enumerate(part):
            value, (low, high) = cell.value(metric), cell.interval(metric)
            if math.isnan(value):
                continue
            colour = _COLOURS[str(cell.keys["denoiser"])]
            error = None if math.isnan(low) else [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]
            axes.errorbar(
                place + 0.7 * ((i + 0.5) / len(part) - 0.5),
                scale * value,
                yerr=error,
                fmt=_MARKERS[str(cell.keys["policy"])],
                color=colour,
                markerfacecolor=colour if int(cell.keys["steps"]) == longest else "white",
                markersize=5,
                elinewidth=1,
            )


def _label_pairs(axes: Axes, cells: Sequence[Measured], extra: Sequence[tuple[int, int]] = ()) -> None:
    pairs = [next(cell.pair for cell in cells if cell.keys["row"] == row) for row in _places(cells)]
    labels = [f"({n}, {p})" for n, p in (*pairs, *extra)]
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.6, max(0, len(labels) - 1) + 0.6)


def _self_consistency(axes: Axes, experiment: Experiment, rows: Sequence[Row], cells: Sequence[Measured]) -> None:
    _points(axes, cells, "self_consistency", 100)
    places = _places(cells)
    at = {next(cell.pair for cell in cells if cell.keys["row"] == row): place for row, place in places.items()}
    extra: list[tuple[int, int]] = []
    for published in experiment.reference.rows if experiment.reference is not None else ():
        pair = (published.N, published.P)
        if pair not in at:
            extra.append(pair)
            at[pair] = float(len(places) + len(extra) - 1)
        axes.plot(
            at[pair], published.percent, _MARKERS.get(published.policy, "x"), color=_COLOURS["paper"], markersize=6
        )
    problem = next(iter(group(rows, "problem")), None)
    if problem is not None:
        for value, text in (
            (1.0, "exact sampler"),
            (problem.value("constant"), "always the most likely value"),
            (problem.value("independent"), "independent marginals"),
        ):
            axes.axhline(100 * value, color="0.75", linewidth=0.8, zorder=0)
            axes.annotate(
                text,
                (1, 100 * value),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 2),
                textcoords="offset points",
                ha="right",
                fontsize=7,
                color="0.4",
            )
    if extra and places:
        axes.axvline(len(places) - 0.5, color="0.6", linewidth=0.8, linestyle=":")
    _label_pairs(axes, cells, extra)
    axes.set_ylabel("self-consistency of observations, %")
    axes.set_xlabel("(N, P)" + (": measured | published (which accuracy is not stated)" if extra else ""), fontsize=8)


def _observation_mean(axes: Axes, rows: Sequence[Row], cells: Sequence[Measured]) -> None:
    _points(axes, cells, "observation_mean", 1)
    places = _places(cells)
    for problem in group(rows, "problem"):
        place = places.get(problem.keys["row"])
        if place is not None:
            axes.plot(
                [place - 0.45, place + 0.45],
                [problem.value("observation_mean")] * 2,
                color="0.6",
                linewidth=0.9,
                zorder=0,
            )
    _label_pairs(axes, cells)
    axes.set_ylabel("mean of generated observations")
    axes.set_xlabel("(N, P); line: the data", fontsize=8)


def _gap(axes: Axes, rows: Sequence[Row]) -> None:
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    found = [loss for loss in group(rows, "losses") if loss.keys["law"] == "uniform"]
    gaps = [gap_closed(loss, problems[loss.keys["row"]]) for loss in found]
    heights, halves = [100 * gap for gap, _ in gaps], [100 * half for _, half in gaps]
    axes.bar(range(len(gaps)), heights, yerr=halves, color=_COLOURS["model"], width=0.4)
    axes.set_xlim(-0.6, max(0, len(gaps) - 1) + 0.6)
    axes.set_xticks(range(len(found)), ["({}, {})".format(*loss.pair) for loss in found], fontsize=8)
    axes.set_ylim(min(0.0, *heights, 0.0), 100)
    axes.set_ylabel("gap closed, %")
    axes.set_xlabel("0: single-token marginals only; 100: Bayes-optimal", fontsize=8)


def _diversity(axes: Axes, cells: Sequence[Measured]) -> None:
    """Distinct latent strings over their expectation against self-consistency; argmax runs are stars."""
    for cell in cells:
        x, y = 100 * cell.value("self_consistency"), cell.value("distinct") / cell.value("distinct_expected")
        marker = "*" if cell.keys["argmax"] else _MARKERS[str(cell.keys["policy"])]
        axes.plot(
            x, y, marker, color=_COLOURS[str(cell.keys["denoiser"])], markersize=9 if marker == "*" else 5, alpha=0.8
        )
    axes.axhline(1, color="0.75", linewidth=0.8, zorder=0)
    axes.set_ylim(-0.05, 1.15)
    axes.set_xlabel("self-consistency, % (star: argmax tokens)", fontsize=8)
    axes.set_ylabel("distinct latent strings / expected")


def _legend(figure: Figure, cells: Sequence[Measured], experiment: Experiment) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, fill: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill, label=label)

    denoisers = [
        *dict.fromkeys(str(cell.keys["denoiser"]) for cell in cells),
        *(["paper"] if experiment.reference else []),
    ]
    policies = dict.fromkeys(str(cell.keys["policy"]) for cell in cells)
    handles = [entry(name, "s", _COLOURS[name], _COLOURS[name]) for name in denoisers]
    handles += [entry(name, _MARKERS[name], "black", "black") for name in policies]
    handles += [entry("one token a step", "o", "black", "black"), entry("several tokens a step", "o", "black", "white")]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.0,
    )
