"""Gap closed along trainings: read from the rows of any task that evaluated on the way, and drawn.

Pure functions of rows; matplotlib only on the axes they are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.losses import gap_share
from lo_theory.diffusion.statistics import Z_95
from lo_theory.lab.rows import Row
from lo_theory.lab.style import COLOURS
from lo_theory.lab.summary import Measured, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "dress_gap_axes", "gap_curves", "line_style", "training_figures"]

_ALONG = ("step", "flops")
_UNSAID = ("kind", "row", "N", "P", "problem", "seed", "clock")  # keys that name no training
_DASHES = ("-", "--", ":")  # a colour comes again with other dashes
_COLOURS = 10


@dataclass(frozen=True)
class Curve:
    """One training: gap closed, with half of its 95 % interval over contexts, after so many operations and seconds.

    ``keys`` are those of its rows, without the place along it; ``clock`` says which seconds they are.
    """

    keys: Mapping[str, Any]
    clock: str
    flops: tuple[float, ...]
    seconds: tuple[float, ...]
    gaps: tuple[float, ...]
    halves: tuple[float, ...]

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
    floor, marginals = problem.value("floor"), problem.value("marginals_only")
    span = marginals - floor if marginals > floor else math.nan  # no gap where the tokens are independent
    ordered = sorted(items, key=lambda item: int(item.keys["step"]))
    excess = [item.metrics["excess"] for item in ordered]
    clock = str(keys["clock"])
    return Curve(
        keys,
        clock,
        tuple(float(item.keys["flops"]) for item in ordered),
        tuple(item.value(clock) for item in ordered),
        tuple(gap_share(sums.mean, floor, marginals) for sums in excess),
        tuple(Z_95 * sums.standard_error / span for sums in excess),
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
    return {"color": f"C{place % _COLOURS}", "linestyle": _DASHES[place // _COLOURS % len(_DASHES)]}


def training_figures(title: str, rows: Sequence[Row]) -> dict[str, Figure]:
    """``training``: gap closed against operations and against seconds; nothing where no training was evaluated."""
    curves = gap_curves(rows)
    if not curves:
        return {}
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, by in zip(figure.subplots(1, 2), ("flops", "seconds"), strict=True):
        for place, curve in enumerate(curves):
            x, y = (0.0, *curve.along(by)), (0.0, *curve.gaps)
            axes.errorbar(x, y, yerr=(0.0, *curve.halves), **line_style(place), elinewidth=0.6, label=curve.name)
        dress_gap_axes(axes, curves, by)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"{title}: held-out gap closed during training", fontsize=12)
    return {"training": figure}
