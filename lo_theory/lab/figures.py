"""The figure of a finished run, PNG and PDF, equal bytes for equal rows. Loads matplotlib when called, no display."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, consistency_lines, gap_closed, group, largest_z, quarter_losses
from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["make_figure", "write_figures"]

_COLOURS = {"exact": "#1b7837", "model": "#762a83", "paper": "#555555"}
_MARKERS = {"vanilla": "o", "top_probability": "^", "margin": "D", "entropy": "s", "fixed_order": "v"}
_SYMBOLS = "oD^svPX<>"  # of mask laws and of accuracies, in the order of their first rows
_LINES = ((0, "-", "exact sampler"), (1, "--", "always the most likely value"), (2, ":", "independent marginals"))
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def make_figure(experiment: Experiment, rows: Sequence[Row]) -> Figure:
    """Everything the tables print, pair by pair: accuracies with the published points, diversity, losses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(rows, key=lambda row: int(row.keys.get("row", 0)))
    figure = Figure(figsize=(13, 17), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(5, 3)
    cells, problems = group(ordered, "decode"), group(ordered, "problem")
    _self_consistency(figure.add_subplot(grid[0, :2]), experiment, problems, cells)
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _wholly_consistent(axes, cells),
        lambda axes: _unpaired(axes, problems, cells),
        lambda axes: _observation_mean(axes, problems, cells),
        lambda axes: _distinct(axes, cells),
        lambda axes: _largest_z(axes, cells, "bias", "a latent's mean"),
        lambda axes: _largest_z(axes, cells, "pair", "a pair's correlation"),
        lambda axes: _total_variation(axes, cells),
        lambda axes: _one_pass(axes, ordered),
        lambda axes: _loss(axes, ordered),
        lambda axes: _kl(axes, ordered),
        lambda axes: _gap(axes, ordered),
    ]
    for i, draw in enumerate(panels):
        draw(figure.add_subplot(grid[(i + 2) // 3, (i + 2) % 3]))
    _classes(figure.add_subplot(grid[4, 1:]), ordered)
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.yaxis.label.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
    _legend(figure, cells, experiment)
    figure.suptitle(experiment.title or experiment.experiment, fontsize=12)
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


def _marker(cell: Measured) -> str:
    return "*" if cell.keys["argmax"] else _MARKERS[str(cell.keys["policy"])]


def _point(axes: Axes, x: float, measured: Measured, metric: str, scale: float, **style: Any) -> None:
    """A quantity with its interval, where it was measured and is finite."""
    value, (low, high) = measured.value(metric), measured.interval(metric)
    if not math.isnan(value):
        error = None if math.isnan(low) else [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]
        axes.errorbar(x, scale * value, yerr=error, elinewidth=1, linestyle="", **style)


def _spread(place: float, i: int, count: int) -> float:
    return place + 0.8 * ((i + 0.5) / count - 0.5)


def _of_cells(axes: Axes, cells: Sequence[Measured], metric: str, scale: float = 1, over: str = "") -> None:
    """One point a cell: colour by denoiser, marker by policy, filled at one token a step; ``over`` divides it."""
    for row, place in _places(cells).items():
        part = [cell for cell in cells if cell.keys["row"] == row]
        for i, cell in enumerate(part):
            colour = _COLOURS[str(cell.keys["denoiser"])]
            fill = colour if int(cell.keys["steps"]) == sum(cell.pair) else "white"
            size = 8 if cell.keys["argmax"] else 5
            one = scale / cell.value(over) if over else scale
            style = {"color": colour, "marker": _marker(cell), "markerfacecolor": fill, "markersize": size}
            _point(axes, _spread(place, i, len(part)), cell, metric, one, **style)
    _label_pairs(axes, cells)


def _level(axes: Axes, place: float, value: float, style: str = "-", label: str = "") -> None:
    """A reference line over one pair."""
    ends = [place - 0.46, place + 0.46]
    axes.plot(ends, [value] * 2, style, color="0.55", linewidth=1, zorder=0, label=label or "_")


def _label_pairs(axes: Axes, cells: Sequence[Measured], extra: Sequence[tuple[int, int]] = ()) -> None:
    pairs = [next(cell.pair for cell in cells if cell.keys["row"] == row) for row in _places(cells)]
    labels = [f"({n}, {p})" for n, p in (*pairs, *extra)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, max(0, len(labels) - 1) + 0.6)


def _self_consistency(
    axes: Axes, experiment: Experiment, problems: Sequence[Measured], cells: Sequence[Measured]
) -> None:
    _of_cells(axes, cells, "self_consistency", 100)
    places = _places(cells)
    at = {next(cell.pair for cell in cells if cell.keys["row"] == row): place for row, place in places.items()}
    extra: list[tuple[int, int]] = []
    for published in experiment.reference.rows if experiment.reference is not None else ():
        pair = (published.N, published.P)
        if pair not in at:
            extra.append(pair)
            at[pair] = float(len(places) + len(extra) - 1)
        marker = _MARKERS.get(published.policy, "x")
        axes.plot(at[pair], published.percent, marker, color=_COLOURS["paper"], markersize=6)
    drawn = [problem for problem in problems if problem.keys["row"] in places]
    for first, problem in enumerate(drawn):
        lines = consistency_lines(problem, cells)
        for i, style, label in _LINES:
            _level(axes, places[problem.keys["row"]], 100 * lines[i], style, "" if first else label)
    if extra and places:
        axes.axvline(len(places) - 0.5, color="0.6", linewidth=0.8, linestyle=":")
    _label_pairs(axes, cells, extra)
    if drawn:
        axes.legend(loc="lower center" if extra else "best", fontsize=7, frameon=False)
    axes.set_ylabel("self-consistent observations, %")
    axes.set_xlabel("measured | published (which accuracy is not stated)" if extra else "")


def _wholly_consistent(axes: Axes, cells: Sequence[Measured]) -> None:
    _of_cells(axes, cells, "consistent", 100)
    axes.set_ylabel("wholly consistent sequences, %")


def _unpaired(axes: Axes, problems: Sequence[Measured], cells: Sequence[Measured]) -> None:
    _of_cells(axes, cells, "unpaired", 100)
    places = _places(cells)
    for problem in problems:
        for name, style in (("constant", "--"), ("independent", ":")):
            if problem.keys["row"] in places:
                _level(axes, places[problem.keys["row"]], 100 * problem.value(name), style)
    axes.set_ylabel("agreement with an unrelated sequence, %")
    axes.set_xlabel("dashed: always the most likely value; dotted: data, or independent")


def _observation_mean(axes: Axes, problems: Sequence[Measured], cells: Sequence[Measured]) -> None:
    _of_cells(axes, cells, "observation_mean")
    places = _places(cells)
    for problem in problems:
        if problem.keys["row"] in places:
            _level(axes, places[problem.keys["row"]], problem.value("observation_mean"))
    axes.set_ylabel("mean of generated observations")
    axes.set_xlabel("line: the data")


def _distinct(axes: Axes, cells: Sequence[Measured]) -> None:
    _of_cells(axes, cells, "distinct", over="distinct_expected")
    axes.axhline(1, color="0.55", linewidth=1, zorder=0)
    axes.set_ylim(-0.05, None)
    axes.set_ylabel("distinct latent strings / expected")


def _largest_z(axes: Axes, cells: Sequence[Measured], name: str, of: str) -> None:
    _of_cells(axes, cells, f"{name}_z")
    for row, place in _places(cells).items():
        counts = {cell.value(f"{name}_count") for cell in cells if cell.keys["row"] == row}
        for count in sorted(count for count in counts if count >= 1):
            _level(axes, place, largest_z(int(count)))
    axes.set_yscale("log")
    axes.set_ylabel(f"{name} z: largest |z| of {of}")
    axes.set_xlabel("line: 999 of 1000 exact samplers stay below")


def _total_variation(axes: Axes, cells: Sequence[Measured]) -> None:
    _of_cells(axes, cells, "total_variation", over="total_variation_expected")
    axes.axhline(1, color="0.55", linewidth=1, zorder=0)
    axes.set_ylabel("total variation to p_data / expected")
    axes.set_xlabel("line: as many exact samples; N <= 12")


def _kinds(axes: Axes, items: Sequence[Measured], names: Sequence[str]) -> None:
    """Pairs below, and a legend of the symbols that stand for ``names``."""
    _label_pairs(axes, items)
    for name, symbol in zip(names, _SYMBOLS, strict=False):
        axes.plot([], [], symbol, color="black", markersize=5, label=name)
    if names:
        axes.legend(fontsize=7, frameon=True, framealpha=0.7, edgecolor="none")


def _one_pass(axes: Axes, rows: Sequence[Row]) -> None:
    items = sorted(group(rows, "one_pass"), key=lambda item: int(item.keys["row"]))
    names = ["conditional", "infill", "infill_drawn"]
    for row, place in _places(items).items():
        part = [item for item in items if item.keys["row"] == row]
        for i, (item, j) in enumerate((item, j) for item in part for j in range(3)):
            style = {"color": _COLOURS[str(item.keys["denoiser"])], "marker": _SYMBOLS[j], "markersize": 5}
            _point(axes, _spread(place, i, 3 * len(part)), item, names[j], 100, **style)
    _kinds(axes, items, ["conditional", "infill", "infill, drawn"])
    axes.set_ylabel("accuracy in one pass, %")


def _by_law(axes: Axes, rows: Sequence[Row], metrics: Sequence[tuple[str, str]]) -> list[Measured]:
    """Losses under every mask law, which the symbols tell apart; ``metrics`` pairs each with its colour."""
    items = group(rows, "losses")
    laws = list(dict.fromkeys(str(item.keys["law"]) for item in items))
    for row, place in _places(items).items():
        part = [item for item in items if item.keys["row"] == row]
        for i, item in enumerate(part):
            symbol = _SYMBOLS[laws.index(str(item.keys["law"])) % len(_SYMBOLS)]
            for metric, colour in metrics:
                style = {"color": _COLOURS[colour], "marker": symbol, "markersize": 5}
                _point(axes, _spread(place, i, len(part)), item, metric, 1, **style)
    _kinds(axes, items, laws)
    return items


def _loss(axes: Axes, rows: Sequence[Row]) -> None:
    items = _by_law(axes, rows, (("exact", "exact"), ("model", "model")))
    places = _places(items)
    for problem in group(rows, "problem"):
        for name, style in (("floor", "-"), ("marginals_only", "--")):
            if problem.keys["row"] in places:
                _level(axes, places[problem.keys["row"]], problem.value(name), style)
    axes.set_ylabel("loss, nats per token")
    axes.set_xlabel("uniform law: line the floor, dashed marginals only")


def _kl(axes: Axes, rows: Sequence[Row]) -> None:
    _by_law(axes, rows, (("kl", "model"),))
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("KL from the exact posterior, nats per token")


def _gap(axes: Axes, rows: Sequence[Row]) -> None:
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    found = [loss for loss in group(rows, "losses") if loss.keys["law"] == "uniform"]
    gaps = [gap_closed(loss, problems[loss.keys["row"]]) for loss in found]
    heights, halves = [100 * gap for gap, _ in gaps], [100 * half for _, half in gaps]
    axes.bar(range(len(gaps)), heights, yerr=halves, color=_COLOURS["model"], width=0.4)
    _label_pairs(axes, found)
    axes.set_ylim(min(0.0, *heights, 0.0), 100)
    axes.set_ylabel("gap closed, %")
    axes.set_xlabel("0: single-token marginals only; 100: Bayes-optimal")


def _classes(axes: Axes, rows: Sequence[Row]) -> None:
    """KL by what the uniform law hides: quarters of the latents from left to right, of the observations by shade."""
    items = [item for item in group(rows, "class_losses") if item.keys["law"] == "uniform"]
    for row, place in _places(items).items():
        pooled = quarter_losses(item for item in items if item.keys["row"] == row)
        for j in range(4):
            known = [i for i in range(4) if (i, j) in pooled]
            heights = [pooled[i, j].mean for i in known]
            label = f"{25 * j}-{25 * (j + 1)} % of the observations hidden" if place == 0 else "_"
            x = [_spread(place, 4 * i + j, 16) for i in known]
            axes.bar(x, heights, width=0.05, color=_COLOURS["model"], alpha=0.25 * (j + 1), label=label)
    _label_pairs(axes, items)
    if items:
        axes.legend(fontsize=7, frameon=False)
    axes.set_ylabel("KL, nats per hidden token")
    axes.set_xlabel("uniform law; four groups a pair: 0-25, 25-50, 50-75, 75-100 % of the latents hidden")


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
