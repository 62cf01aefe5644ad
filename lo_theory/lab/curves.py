"""Gap closed along trainings: read from the rows of any task that evaluated on the way, and drawn.

Pure functions of rows; matplotlib only on the axes they are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Estimate, pooled
from lo_theory.lab.drawing import new_figure
from lo_theory.lab.rows import Row
from lo_theory.lab.style import CATEGORICAL, COLOURS
from lo_theory.lab.summary import Measured, gaps_of_runs, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "dress_gap_axes", "gap_curves", "line_style", "training_figures"]

_ALONG = ("step", "flops")
_UNSAID = ("kind", "row", "N", "P", "problem", "seed", "clock")  # keys that name no training
_DASHES = ("-", "--", ":")  # a colour comes again with other dashes
_STRIDE = 5  # neighbours of the palette share a hue, neighbours of a panel should not


@dataclass(frozen=True)
class Curve:
    """One training: gap closed, with half of its 95 % interval over contexts, after so many operations and seconds.

    Of a row that pools several trainings it is their mean, with its interval over them; ``ends`` has the last gap of
    each, with its interval over contexts. ``keys`` are those of its rows, without the place along it; ``clock`` says
    which seconds they are.
    """

    keys: Mapping[str, Any]
    clock: str
    flops: tuple[float, ...]
    seconds: tuple[float, ...]
    gaps: tuple[float, ...]
    halves: tuple[float, ...]
    ends: tuple[Estimate, ...]

    @property
    def name(self) -> str:
        """What tells the training apart: the pair (N, P), and whatever else its rows are keyed by."""
        words = [str(value) for key, value in self.keys.items() if key not in _UNSAID]
        return " ".join(["({N}, {P})".format(**self.keys), *words])

    def along(self, by: str) -> tuple[float, ...]:
        """Cost at every point: ``flops`` or ``seconds``."""
        return {"flops": self.flops, "seconds": self.seconds}[by]

    def cost_of(self, target: float, by: str) -> float:
        """Cost at which the gap closed first passes ``target``, straight lines between evaluations; nan if never."""
        costs, before = self.along(by), (0.0, 0.0)
        for cost, gap in zip(costs, self.gaps, strict=True):
            if gap >= target:
                share = (target - before[1]) / (gap - before[1]) if gap > before[1] else 1.0
                return before[0] + max(0.0, share) * (cost - before[0])
            before = (cost, gap)
        return math.nan


def gap_curves(rows: Sequence[Row]) -> list[Curve]:
    """The curves of all trainings with evaluations on the way, in the order of the rows."""
    problems = {item.keys["row"]: item for item in group(rows, "problem")}
    found: dict[tuple[Any, ...], list[Measured]] = {}
    for item in group(rows, "held_out"):
        name = tuple((key, value) for key, value in item.keys.items() if key not in _ALONG)
        found.setdefault(name, []).append(item)
    return [_curve(dict(name), items, problems[dict(name)["row"]]) for name, items in found.items()]


def _curve(keys: dict[str, Any], items: Iterable[Measured], problem: Measured) -> Curve:
    ordered = sorted(items, key=lambda item: int(item.keys["step"]))
    runs = [tuple(gaps_of_runs(item, problem, "excess").values()) for item in ordered]
    gaps, clock = [pooled(part) for part in runs], str(keys["clock"])
    return Curve(
        keys,
        clock,
        tuple(float(item.keys["flops"]) for item in ordered),
        tuple(item.value(clock) for item in ordered),
        tuple(gap.value for gap in gaps),
        tuple(gap.half for gap in gaps),
        runs[-1],
    )


_LABELS = {
    ("flops", ""): "training FLOPs",
    ("seconds", "processor_seconds"): "processor seconds of training, evaluations left out",
    ("seconds", "training_seconds"): "seconds of training, evaluations left out",
}


def dress_gap_axes(axes: Axes, curves: Iterable[Curve], by: str) -> None:
    """Axes of gap closed against cost: from a little below 0 (marginals only) to what is reached, at most 1."""
    shown = list(curves)
    highest = max((gap for curve in shown for gap in curve.gaps), default=1.0)
    clock = shown[0].clock if shown else "training_seconds"
    for level in (0.0, 1.0):
        axes.axhline(level, color=COLOURS["line"], linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.08, min(1.04, max(0.3, 1.1 * highest)))
    axes.set_xlim(left=0)
    axes.set_xlabel(_LABELS[by, "" if by == "flops" else clock])
    axes.set_ylabel("gap closed (0: marginals only, 1: floor)")


def line_style(place: int) -> dict[str, Any]:
    """Colour and dashes of the ``place``-th curve of a panel."""
    count = len(CATEGORICAL)
    return {"color": CATEGORICAL[_STRIDE * place % count], "linestyle": _DASHES[place // count % len(_DASHES)]}


def training_figures(title: str, rows: Sequence[Row]) -> dict[str, Figure]:
    """``training``: gap closed against operations and against seconds; nothing where no training was evaluated."""
    curves = gap_curves(rows)
    if not curves:
        return {}
    figure = new_figure(12, 5, f"{title}: held-out gap closed during training")
    for axes, by in zip(figure.subplots(1, 2), ("flops", "seconds"), strict=True):
        for place, curve in enumerate(curves):
            x, y = (0.0, *curve.along(by)), (0.0, *curve.gaps)
            axes.errorbar(x, y, yerr=(0.0, *curve.halves), **line_style(place), elinewidth=0.6, label=curve.name)
        dress_gap_axes(axes, curves, by)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return {"training": figure}
