"""The figure of the readings: vanilla and adaptive accuracy under each of them, beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import letter_panels, new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS, INK, marker
from lo_theory.lab.table1.readings import ADAPTIVE, Pair, Reading, published_numbers, readings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["readings_figure"]

_POLICIES = ("vanilla", ADAPTIVE)
_LINE = 0.27  # inches a reading
_ENTRY = 1.6  # inches of an entry of the legend


def readings_figure(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
    """One panel a pair, one line a reading, the nearest to the published numbers on top; nothing without those."""
    found = readings(rows, experiment.reference) if experiment.reference is not None else []
    if not found:
        return {}
    pairs = sorted({pair for reading in found for pair in reading.values})
    title = f"Which reading fits? {experiment.title or experiment.experiment}"
    figure = new_figure(4.6 + 3.2 * len(pairs), 2.4 + _LINE * len(found), title)
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    published = published_numbers(experiment.reference)
    for axes, pair in zip(panels, pairs, strict=True):
        _panel(axes, pair, found, published)
    panels[0].set_yticks(range(len(found)), [reading.label for reading in found], fontsize=8)
    panels[0].set_ylim(len(found) - 0.4, -1.8)
    letter_panels(panels)
    _legend(figure, lines=bool(set(pairs) & published.keys()))
    return {"readings": figure}


def _panel(axes: Axes, pair: Pair, found: Sequence[Reading], published: Mapping[Pair, Mapping[str, float]]) -> None:
    for i, reading in enumerate(found):
        if pair in reading.values:
            colour, (vanilla, adaptive) = COLOURS[reading.denoiser], reading.values[pair]
            axes.plot([vanilla.value, adaptive.value], [i, i], color=colour, linewidth=1, alpha=0.5, zorder=1)
            for value, policy in ((vanilla, "vanilla"), (adaptive, ADAPTIVE)):
                fill = colour if policy == ADAPTIVE else "white"
                error = [[max(0.0, value.value - value.low)], [max(0.0, value.high - value.value)]]
                axes.errorbar(
                    value.value,
                    i,
                    xerr=error,
                    elinewidth=1,
                    marker=marker(policy),
                    color=colour,
                    markerfacecolor=fill,
                    markersize=5,
                )
    _published(axes, published, pair)
    axes.set_title("({}, {})".format(*pair), loc="left")
    axes.set_xlabel("accuracy, %")
    axes.tick_params(axis="x", labelsize=8)


def _published(axes: Axes, published: Mapping[Pair, Mapping[str, float]], pair: Pair) -> None:
    """The published numbers of the pair; the range of all published pairs where it is none of them."""
    lines = [published[pair]] if pair in published else list(published.values())
    for policy, style in zip(_POLICIES, ("--", "-"), strict=True):
        numbers = [line[policy] for line in lines if policy in line]
        if len(numbers) == 1:
            axes.axvline(numbers[0], color=COLOURS["paper"], linestyle=style, linewidth=1.2, zorder=0)
        elif numbers:
            axes.axvspan(min(numbers), max(numbers), color=COLOURS["paper"], alpha=0.12, linewidth=0, zorder=0)
            axes.text(
                (min(numbers) + max(numbers)) / 2,
                -1.65,
                f"published\n{'adaptive' if policy == ADAPTIVE else policy}",
                ha="center",
                va="top",
                fontsize=7,
                color=COLOURS["paper"],
            )


def _legend(figure: Figure, *, lines: bool) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, fill: str, style: Any = "") -> Line2D:
        return Line2D([], [], linestyle=style, marker=marker, color=colour, markerfacecolor=fill, label=label)

    handles = [
        entry("exact posterior", "s", COLOURS["exact"], COLOURS["exact"]),
        entry("model", "s", COLOURS["model"], COLOURS["model"]),
        entry("vanilla", marker("vanilla"), INK, "white"),
        entry("adaptive (margin)", marker(ADAPTIVE), INK, INK),
    ]
    if lines:
        handles.append(entry("published vanilla", "", COLOURS["paper"], "none", "--"))
        handles.append(entry("published adaptive", "", COLOURS["paper"], "none", "-"))
    columns = min(len(handles), int(figure.get_size_inches()[0] / _ENTRY))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
