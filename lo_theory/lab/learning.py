"""Gap closed during trainings: the evaluations as records, and the panels and the sheet that show them.

Of rows of any task whose trainings were evaluated; of rows that pool several trainings it is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.drawing import CATEGORICAL
from lo_theory.lab.frame import RESULTS, Frame, Record, gap, kind, parts, pool, records, with_texts
from lo_theory.lab.panel import Axes, Level, Look, Panel, Sheet

Cost = Literal["flops", "seconds"]
Curve = Sequence[Record]
"""The evaluations of one training by step: ``gap`` closed, the keys ``flops``, ``seconds``, and ``curve``, its number.

The seconds are those that ``clock`` names. ``runs("gap")`` has the gap of each training that a row pools.
"""

_ALONG = ("step", "flops")
_UNSAID = ("kind", "row", "N", "P", "problem", "seed", "seconds", "clock", "curve", *_ALONG)  # they name no training
_COSTS: Mapping[Cost, str] = {"flops": "operations", "seconds": "seconds"}
_DASHES = ("-", "--", ":")  # a colour comes again with other dashes
_STRIDE = 5  # neighbours of the palette share a hue, neighbours of a panel should not
_CLOCKS = {"processor_seconds": "processor seconds of training", "training_seconds": "seconds of training"}


def learning_curves(frame: Frame) -> list[Curve]:
    """The curves of all trainings with evaluations on the way, in the order of the rows."""
    held_out = pool(kind(frame, "held_out"))
    closed = gap(held_out, pool(kind(frame, "problem")), "excess")
    points = [
        point.plus(own, seconds=point.value(point.clock))
        for point, own in zip(records(held_out), records(closed), strict=True)
    ]
    trainings = [name for name in held_out.columns if name not in (*_ALONG, *RESULTS)]
    return [
        [point.plus(curve=i) for point in sorted(part, key=lambda point: int(point.step))]
        for i, part in enumerate(parts(points, *trainings))
    ]


def cost_of(curve: Curve, target: float, by: Cost) -> float:
    """Cost at which the gap closed first passes ``target``, straight lines between evaluations; nan if never."""
    cost = closed = 0.0
    for point in curve:
        before, cost = (cost, closed), point.keys[by]
        closed = point.value("gap")
        if closed >= target:
            share = (target - before[1]) / (closed - before[1]) if closed > before[1] else 1.0
            return before[0] + max(0.0, share) * (cost - before[0])
    return math.nan


def place_look(place: int) -> Look:
    """Colour and dashes of the ``place``-th thing of a panel."""
    count = len(CATEGORICAL)
    return {"color": CATEGORICAL[_STRIDE * place % count], "linestyle": _DASHES[place // count % len(_DASHES)]}


def gap_panel(
    title: str, curves: Sequence[Curve], by: Cost, look: Callable[[Record], Look], *, bare: bool = False
) -> Panel:
    """Gap closed against cost, each curve from (0, 0): from a little below 0 (marginals only) to what is reached.

    ``bare``: without intervals.
    """
    points = [point for curve in curves for point in curve]
    starts = [Record({**curve[0].keys, by: 0.0}, {"gap": (Estimate(0.0, math.nan, math.nan), {})}) for curve in curves]
    dotted = {"linewidth": 0.8, "linestyle": ":", "zorder": 2}

    def dress(axes: Axes) -> None:
        highest = max((point.value("gap") for point in points), default=1.0)
        axes.set_ylim(-0.08, min(1.04, max(0.3, 1.1 * highest)))
        axes.set_xlim(left=0)

    clock = _CLOCKS[points[0].clock if points else "training_seconds"]
    return Panel(
        title,
        "curves",
        [*starts, *points],
        x=by,
        y=(lambda point: point.value("gap")) if bare else "gap",
        look=lambda point: {"gid": f"training {point.curve}", **look(point)},  # one curve for each training
        levels=[Level(0.0, dotted), Level(1.0, dotted)],
        xlabel="training FLOPs" if by == "flops" else f"{clock}, evaluations left out",
        ylabel="gap closed (0: marginals only, 1: floor)",
        dress=dress,
    )


def training_sheet(frame: Frame, experiment: Experiment) -> dict[str, Sheet]:
    """``training``: gap closed against operations and against seconds; nothing where no training was evaluated."""
    curves = learning_curves(with_texts(frame, "seeds", seed_texts(experiment)))

    def look(point: Record) -> Look:
        words = [value for key, value in point.keys.items() if key not in _UNSAID]
        label = " ".join(map(str, [f"({point.N}, {point.P})", *words]))
        return {**place_look(point.curve), "elinewidth": 0.6, "label": label}

    title = f"{experiment.heading}: held-out gap closed during training"
    panels = [gap_panel(f"against {words}", curves, by, look) for by, words in _COSTS.items()]
    return {"training": Sheet(title, panels, 2, (12, 5))} if curves else {}
