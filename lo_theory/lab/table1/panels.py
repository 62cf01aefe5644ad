"""The panels of the figure: each draws one quantity of the tables, pair by pair, on the axes it is given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.style import ACCURACY_MARKERS, COLOURS, LAW_MARKERS, marker
from lo_theory.lab.summary import Measured, consistency_lines, gaps_closed, group, largest_z, quarter_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "classes_panel",
    "distinct_panel",
    "gap_panel",
    "kl_panel",
    "label_inches",
    "largest_z_panel",
    "law_markers",
    "loss_panel",
    "observation_mean_panel",
    "one_pass_panel",
    "self_consistency_panel",
    "total_variation_panel",
    "unpaired_panel",
    "wholly_consistent_panel",
]

_LABEL_INCHES = 0.1  # height of a line of labels
_LETTER_INCHES = 0.062  # width of a letter of one
_LINES = ((0, "-", "exact sampler"), (1, "--", "always the most likely value"), (2, ":", "independent marginals"))


def _places(cells: Sequence[Measured]) -> dict[int, float]:
    """Where the rows stand on the horizontal axis."""
    return {row: float(i) for i, row in enumerate(dict.fromkeys(cell.keys["row"] for cell in cells))}


def _marker(cell: Measured) -> str:
    return "*" if cell.keys["argmax"] else marker(str(cell.keys["policy"]))


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
            colour = COLOURS[str(cell.keys["denoiser"])]
            fill = colour if int(cell.keys["steps"]) == sum(cell.pair) else "white"
            size = 8 if cell.keys["argmax"] else 5
            one = scale / cell.value(over) if over else scale
            style = {"color": colour, "marker": _marker(cell), "markerfacecolor": fill, "markersize": size}
            _point(axes, _spread(place, i, len(part)), cell, metric, one, **style)
    _label_pairs(axes, cells)


def _level(axes: Axes, place: float, value: float, style: str = "-", label: str = "") -> None:
    """A reference line over one pair."""
    ends = [place - 0.46, place + 0.46]
    axes.plot(ends, [value] * 2, style, color=COLOURS["line"], linewidth=1, zorder=0, label=label or "_")


def _label_pairs(axes: Axes, cells: Sequence[Measured], extra: Sequence[tuple[int, int]] = ()) -> None:
    """Pairs and names below, upright where they are too long to stand side by side, and as many as there is room for;
    neighbours of one label, such as other seeds of a problem, share it.
    """
    labels = [*_labels(cells), *(f"({n}, {p})" for n, p in extra)]
    shared = [(label, [i for i, _ in part]) for label, part in itertools.groupby(enumerate(labels), lambda it: it[1])]
    upright, most = not _fit(shared, len(labels), _width(axes)), int(_width(axes) / _LABEL_INCHES)
    shared = shared[:: -(-len(shared) // most) if upright else 1]
    centres = [(places[0] + places[-1]) / 2 for _, places in shared]
    texts = [label if upright else label.replace(" ", "\n").replace(",\n", ", ", 1) for label, _ in shared]
    axes.set_xticks(centres, texts, fontsize=7 if len(shared) > 3 else 8, rotation=90 if upright else 0)
    axes.set_xlim(-0.6, max(0, len(labels) - 1) + 0.6)
    axes.grid(axis="x", visible=False)


def _labels(cells: Sequence[Measured]) -> list[str]:
    """The pair and the name of every row."""
    first = [next(cell for cell in cells if cell.keys["row"] == row) for row in _places(cells)]
    return ["({}, {}) {}".format(*cell.pair, cell.keys.get("name", "")).strip() for cell in first]


def _width(axes: Axes) -> float:
    """Inches of an axes, less than a line of three has: what stands beside it takes the rest."""
    place, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    if place is None or figure is None:
        return 1.0
    return 0.8 * len(place.colspan) * figure.get_size_inches()[0] / place.get_gridspec().ncols


def _fit(shared: Sequence[tuple[str, Sequence[int]]], count: int, width: float) -> bool:
    """Whether labels, each a word a line, stand side by side in so many inches that ``count`` rows share."""
    words = [(max(map(len, label.split(") ", 1)[-1].split(" "))), len(places)) for label, places in shared]
    return all(_LETTER_INCHES * max(letters, 9) <= width * rows / (count + 0.2) for letters, rows in words)


def label_inches(cells: Sequence[Measured]) -> float:
    """Height to leave below a panel for the labels of its rows when they are upright."""
    labels = _labels(cells)
    return _LETTER_INCHES * max(map(len, labels), default=0) if len(set(labels)) > 3 else 0.0


def self_consistency_panel(
    axes: Axes, experiment: Experiment, problems: Sequence[Measured], cells: Sequence[Measured]
) -> None:
    """Self-consistency, its known lines, and the published points."""
    _of_cells(axes, cells, "self_consistency", 100)
    places = _places(cells)
    at = {next(cell.pair for cell in cells if cell.keys["row"] == row): place for row, place in places.items()}
    extra: list[tuple[int, int]] = []
    for published in experiment.reference.rows if experiment.reference is not None else ():
        pair = (published.N, published.P)
        if pair not in at:
            extra.append(pair)
            at[pair] = float(len(places) + len(extra) - 1)
        look: dict[str, Any] = {"marker": marker(published.policy), "markersize": 6, "linestyle": ""}
        axes.errorbar(at[pair], published.percent, color=COLOURS["paper"], **look)
    drawn = [problem for problem in problems if problem.keys["row"] in places]
    for first, problem in enumerate(drawn):
        lines = consistency_lines(problem, cells)
        for i, style, label in _LINES:
            _level(axes, places[problem.keys["row"]], 100 * lines[i], style, "" if first else label)
    if extra and places:
        axes.axvline(len(places) - 0.5, color=COLOURS["line"], linewidth=0.8, linestyle=":")
    _label_pairs(axes, cells, extra)
    if drawn:
        _legend_above(axes, len(_LINES))
    axes.set_ylabel("self-consistent observations, %")
    axes.set_title("Self-consistency")
    axes.set_xlabel("measured | published (which accuracy is not stated)" if extra else "")


def wholly_consistent_panel(axes: Axes, cells: Sequence[Measured]) -> None:
    """Share of sequences of positive probability."""
    _of_cells(axes, cells, "consistent", 100)
    axes.set_ylabel("wholly consistent sequences, %")
    axes.set_title("Whole sequences")


def unpaired_panel(axes: Axes, problems: Sequence[Measured], cells: Sequence[Measured]) -> None:
    """Agreement with an unrelated sequence of the data."""
    _of_cells(axes, cells, "unpaired", 100)
    places = _places(cells)
    for problem in problems:
        for name, style in (("constant", "--"), ("independent", ":")):
            if problem.keys["row"] in places:
                _level(axes, places[problem.keys["row"]], 100 * problem.value(name), style)
    axes.set_ylabel("agreement with an unrelated sequence, %")
    axes.set_title("Unpaired")
    axes.set_xlabel("dashed: always the most likely value; dotted: data, or independent")


def observation_mean_panel(axes: Axes, problems: Sequence[Measured], cells: Sequence[Measured]) -> None:
    """Mean of the generated observations and of the data's."""
    _of_cells(axes, cells, "observation_mean")
    places = _places(cells)
    for problem in problems:
        if problem.keys["row"] in places:
            _level(axes, places[problem.keys["row"]], problem.value("observation_mean"))
    axes.set_ylabel("mean of generated observations")
    axes.set_title("Mean")
    axes.set_xlabel("line: the data")


def distinct_panel(axes: Axes, cells: Sequence[Measured]) -> None:
    """Distinct latent strings over what the data would give."""
    _of_cells(axes, cells, "distinct", over="distinct_expected")
    axes.axhline(1, color=COLOURS["line"], linewidth=1, zorder=0)
    axes.set_ylim(-0.05, None)
    axes.set_ylabel("distinct latent strings / expected")
    axes.set_title("Diversity")


def largest_z_panel(axes: Axes, cells: Sequence[Measured], name: str, of: str) -> None:
    """Largest |z| and the level under which exact samplers stay."""
    from matplotlib.ticker import LogLocator, NullLocator

    _of_cells(axes, cells, f"{name}_z")
    for row, place in _places(cells).items():
        counts = {cell.value(f"{name}_count") for cell in cells if cell.keys["row"] == row}
        for count in sorted(count for count in counts if count >= 1):
            _level(axes, place, largest_z(int(count)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"largest |z| of {of}")
    axes.set_title(f"{name.capitalize()} z")
    axes.set_xlabel("line: 999 of 1000 exact samplers stay below")


def total_variation_panel(axes: Axes, cells: Sequence[Measured]) -> None:
    """Total variation distance over what as many exact samples give."""
    _of_cells(axes, cells, "total_variation", over="total_variation_expected")
    axes.axhline(1, color=COLOURS["line"], linewidth=1, zorder=0)
    axes.set_ylabel("total variation to p_data / expected")
    axes.set_title("Total variation")
    axes.set_xlabel("line: as many exact samples; N <= 12")


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.1,
        ncols=columns,
        fontsize=7,
        handletextpad=0.3,
        columnspacing=0.8,
    )


def one_pass_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Accuracies that need no decoding."""
    items = sorted(group(rows, "one_pass"), key=lambda item: int(item.keys["row"]))
    marks = list(ACCURACY_MARKERS.items())
    for row, place in _places(items).items():
        part = [item for item in items if item.keys["row"] == row]
        for i, (item, (name, symbol)) in enumerate((item, mark) for item in part for mark in marks):
            style = {"color": COLOURS[str(item.keys["denoiser"])], "marker": symbol, "markersize": 5}
            _point(axes, _spread(place, i, len(marks) * len(part)), item, name, 100, **style)
    _label_pairs(axes, items)
    axes.set_ylabel("accuracy in one pass, %")
    axes.set_title("One pass")


def law_markers(rows: Sequence[Row]) -> dict[str, Any]:
    """Marker of every mask law of the losses, in the order of their first rows."""
    laws = dict.fromkeys(str(item.keys["law"]) for item in group(rows, "losses"))
    return dict(zip(laws, itertools.cycle(LAW_MARKERS), strict=False))


def _by_law(axes: Axes, rows: Sequence[Row], metrics: Sequence[tuple[str, str]]) -> list[Measured]:
    """Losses under every mask law, which the symbols tell apart; ``metrics`` pairs each with its colour."""
    items, symbols = group(rows, "losses"), law_markers(rows)
    for row, place in _places(items).items():
        part = [item for item in items if item.keys["row"] == row]
        for i, item in enumerate(part):
            for metric, colour in metrics:
                style = {"color": COLOURS[colour], "marker": symbols[str(item.keys["law"])], "markersize": 7}
                _point(axes, _spread(place, i, len(part)), item, metric, 1, **style)
    _label_pairs(axes, items)
    return items


def loss_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Losses of the model and of the exact posterior by mask law."""
    items = _by_law(axes, rows, (("exact", "exact"), ("model", "model")))
    places = _places(items)
    for problem in group(rows, "problem"):
        for name, style in (("floor", "-"), ("marginals_only", "--")):
            if problem.keys["row"] in places:
                _level(axes, places[problem.keys["row"]], problem.value(name), style)
    axes.set_ylabel("loss, nats per token")
    axes.set_title("Loss")
    axes.set_xlabel("uniform law: line the floor, dashed marginals only")


def kl_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """KL of the model's marginals from the exact ones by mask law."""
    _by_law(axes, rows, (("kl", "model"),))
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("KL from the exact posterior, nats per token")
    axes.set_title("KL")


def gap_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Gap closed between the marginals alone and the floor."""
    found = [loss for loss in group(rows, "losses") if loss.keys["law"] == "uniform"]
    gaps = gaps_closed(rows).values()
    if all(math.isnan(gap.value) for gap in gaps):
        return
    heights, halves = [100 * gap.value for gap in gaps], [100 * gap.half for gap in gaps]
    axes.bar(range(len(gaps)), heights, yerr=halves, color=COLOURS["model"], width=0.4)
    _label_pairs(axes, found)
    axes.set_ylim(min(0.0, *heights, 0.0), 100)
    axes.set_ylabel("gap closed, %")
    axes.set_title("Gap closed")
    axes.set_xlabel("0: single-token marginals only; 100: Bayes-optimal")


def classes_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """KL by what the uniform law hides: quarters of the latents from left to right, of the observations by shade."""
    items = [item for item in group(rows, "class_losses") if item.keys["law"] == "uniform"]
    for row, place in _places(items).items():
        pooled = quarter_losses(item for item in items if item.keys["row"] == row)
        for j in range(4):
            known = [i for i in range(4) if (i, j) in pooled]
            heights = [pooled[i, j].mean for i in known]
            label = f"{'' if j else 'observations hidden: '}{25 * j}-{25 * (j + 1)} %" if place == 0 else "_"
            x = [_spread(place, 4 * i + j, 16) for i in known]
            axes.bar(x, heights, width=0.05, color=COLOURS["model"], alpha=0.25 * (j + 1), label=label)
    _label_pairs(axes, items)
    if items:
        _legend_above(axes, 4)
    axes.set_ylabel("KL, nats per hidden token")
    axes.set_title("KL by class")
    axes.set_xlabel("uniform law; four groups a pair: 0-25, 25-50, 50-75, 75-100 % of the latents hidden")
