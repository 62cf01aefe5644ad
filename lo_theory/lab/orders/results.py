"""What the experiment on orders shows: nats above the floor by compute, losses along each order, generated sequences.

An order-aware learner is measured along its own order, a masked one under the uniform law and along every order.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.diffusion.losses import gap_share, gap_span
from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.frame import Record, kind, pool, records
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Level, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.style import COLOURS, MODEL_SHADES, ORDER_SHADES, SHADING
from lo_theory.lab.table import Table, key, largest, mean, measured, number, percent, plus_minus, text, with_expected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["above", "figures", "learners", "reached", "tables"]


def learners(frame: DataFrame) -> list[Record]:
    """Each learner after its longest training, with the problem's lines, and all its ``trainings``, ascending.

    Losses are those on its own objective.
    """
    problems = {line.row: line for line in _lines(frame, "problem")}
    own = [*filter(_is_own, _lines(frame, "along")), *_lines(frame, "masked")]
    found: dict[tuple[int, str], list[Record]] = {}
    for line in sorted(own, key=lambda line: (int(line.row), float(line.flops))):
        found.setdefault((line.row, line.learner), []).append(line.plus(problems[line.row]))
    return [trainings[-1].plus(trainings=trainings) for trainings in found.values()]


def above(line: Record) -> Estimate:
    """Nats per token above the floor: the KL, or without the exact posterior loss - floor."""
    if "kl" in line.metrics:
        return line.estimate("kl")
    return Estimate(*(value - line.value("floor") for value in line.estimate("model")))


def reached(trainings: Iterable[Record]) -> float:
    """FLOPs of the least training after which the floor counts as reached; nan if it never is."""
    enough = (float(line.flops) for line in trainings if above(line).high < line.value("reached") * _span(line))
    return next(enough, math.nan)


def _span(line: Record) -> float:
    """From the floor to the marginals-only line; nan where they coincide."""
    return gap_span(line.value("floor"), line.value("marginals_only"))


def _lines(frame: DataFrame, name: str) -> list[Record]:
    return records(pool(kind(frame, name)))


def _is_own(line: Record) -> bool:
    return bool(line.learner == line.order)


def _longest(lines: Sequence[Record]) -> list[Record]:
    """Those of the longest training of their row of the experiment."""
    whole = {line.row: line.training_steps for line in sorted(lines, key=lambda line: int(line.training_steps))}
    return [line for line in lines if line.training_steps == whole[line.row]]


# --- tables ---

_MILLI = 1e3
_NOTHING = Record({})


def tables(frame: DataFrame, experiment: Experiment) -> Iterator[Table]:
    """Above the floor by compute, one for each row of the experiment; along the orders; generated sequences."""
    for _, lines in itertools.groupby(learners(frame), key=lambda line: line.row):
        yield _compute_table(list(lines), experiment)
    yield _along_table(_longest(_lines(frame, "along")))
    generated = _lines(frame, "generate")
    one_pass = {(line.row, line.learner): line for line in _lines(frame, "one_pass")}
    names = (key("learner", left=True), key("policy", left=True))
    yield Table(
        "Generated sequences",
        (
            *(*names, percent("self_consistency", "self-\nconsistent"), percent("consistent", "wholly\nconsistent")),
            *(percent("unpaired"), mean("observation_mean", "mean\nobs."), percent("conditional"), percent("infill")),
        ),
        [line.plus(one_pass.get((line.row, line.learner), _NOTHING)) for line in generated],
        section=lambda line: line.row,
        notes=(
            "Per cent, with 95 % intervals over sequences; equal training FLOPs, one token a step, tokens drawn. The "
            "four accuracies are those of Table 1. Conditional: observations from true latents, most likely values, "
            "for masked learners in one pass, for an order that reads all latents first one after another; infill: "
            "masked learners only. Neither can be asked of another order.",
        ),
    )
    yield Table(
        "Diversity and cost of generated sequences",
        (
            *(*names, with_expected("distinct", "distinct %", ".1f", 100)),
            *(largest("bias", "bias z"), largest("pair", "pair z")),
            *(with_expected("total_variation", "total\nvariation", ".3f"), mean("forwards", form=".0f")),
            *(mean("passes", form=".0f"), mean("seconds", "ms", ".2f", _MILLI)),
        ),
        generated,
        section=lambda line: line.row,
        notes=(
            "Distinct latent strings, and expected of exact samples; largest |z| of a latent's mean and of a pair's "
            "correlation (!: 999 of 1000 exact samplers stay below); total variation distance to p_data (expected of "
            "as many exact samples; N <= 12). A sequence: calls of the network; their worth in passes over all L "
            "positions (a causal network keeps what it has read); milliseconds of wall time as it ran, beside what "
            "else was running.",
        ),
    )


def _compute_table(lines: Sequence[Record], experiment: Experiment) -> Table:
    """The learners of one row of the experiment after each of their trainings."""
    problem, budgets = lines[0], sorted({one.flops for line in lines for one in line.trainings})
    floor, marginals = problem.value("floor"), problem.value("marginals_only")

    def trained(flops: float, line: Record) -> str:
        return plus_minus(above(next((one for one in line.trainings if one.flops == flops), _NOTHING)), scale=_MILLI)

    def closed(line: Record) -> str:
        return number(100 * gap_share(above(line).value, floor, marginals), ".1f")

    return Table(
        f"Above the floor by training FLOPs, ({problem.N}, {problem.P}), seed {problem.seed}",
        (
            key("learner", left=True),
            *(text(f"{flops:.1e}", functools.partial(trained, flops), left=False) for flops in budgets),
            text("gap\nclosed", closed, left=False),
            text("floor\nreached", lambda line: number(reached(line.trainings), ".1e"), left=False),
        ),
        lines,
        notes=(
            "10^-3 nats per token above the entropy floor after trainings of so many FLOPs, with 95 % intervals over "
            "sequences: KL to the exact conditionals on fresh data where measured, else loss - floor. Order-aware "
            "learners along their own order, masked ones under the uniform law (Proposition 2.1: the mean over all "
            "orders). Gap closed: per cent of the way from the marginals-only line "
            f"({number(marginals, '.4f')}) to the floor ({number(floor, '.4f')}). Floor "
            f"reached: least FLOPs at which the interval lies below {100 * problem.value('reached'):g} % of that way.",
            *(() if experiment.reference is None else (f"Paper: {experiment.reference.source}.",)),
        ),
    )


def _along_table(lines: Sequence[Record]) -> Table:
    """Every order after the whole training: its own learner and the masked ones on the same sequences."""
    pair = text("N, P", lambda line: f"{line.N}, {line.P}" if _is_own(line) else "")

    def above_own(line: Record) -> str:
        return "" if _is_own(line) else plus_minus(line.estimate("above_causal"), scale=_MILLI)

    return Table(
        "Along the orders",
        (
            *((pair,) if len({line.row for line in lines}) > 1 else ()),
            text("order", lambda line: line.order if _is_own(line) else ""),
            text("learner", lambda line: "its own" if _is_own(line) else line.learner),
            *(mean("model", "loss", ".4f"), mean("exact", "exact\nloss", ".4f"), measured("kl", "KL", ".2f", _MILLI)),
            measured("kl_latents", "at\nlatents", ".2f", _MILLI),
            measured("kl_observations", "at obser-\nvations", ".2f", _MILLI),
            text("above\nits own", above_own, left=False),
        ),
        lines,
        section=lambda line: (line.row, line.order),
        notes=(
            "After the whole training: losses in nats per token; KL to the exact conditionals, its shares at latents "
            "and at observations, and how far a masked learner lies above the order's own one on the same sequences, "
            "in 10^-3 nats per token, with 95 % intervals over sequences.",
        ),
    )


# --- figures ---

_MASKED = MODEL_SHADES[2::-1]
_MARKERS = "oDs^vP"  # draws of an order
_COLUMNS = 5  # as many as kinds of orders
_NATS = Logarithmic(1e-6)  # below is rounding
_EXACT: Look = {"color": COLOURS["exact"], "linewidth": 2.5, "label": "exact"}
_OPEN: Look = {"color": COLOURS["exact"], "linestyle": "", "marker": "o", "markerfacecolor": "white"}
_FORMULA: Look = {**_OPEN, "label": "exact, closed form"}
_MARGINALS: Look = {"color": COLOURS["line"], "linestyle": "--", "label": "marginals only"}
_REACHED: Look = {"color": COLOURS["line"], "linestyle": ":", "label": "counts as the floor"}

Looks = Mapping[str, Look]


def figures(frame: DataFrame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Above the floor against FLOPs, along the orders, generated sequences; then order by order every position.

    Of several rows of the experiment the first is drawn position by position, and all in the other panels.
    """
    looks, positions, formulas = _looks(frame), _lines(frame, "position"), _lines(frame, "formula")
    shown: dict[str, Record] = {}
    for line in positions:
        shown.setdefault(line.order_kind, line)
    parts = [[line for line in positions if _place(line) == _place(one)] for one in shown.values()]
    empty = [None] * (_COLUMNS - len(parts)) if parts else []
    panels: list[Panel | None] = [
        *(_compute_panel(frame, looks), _along_panel(frame, looks), _generated_panel(frame, looks)),
        *(*(_loss_panel(part, formulas, looks) for part in parts), *empty),
        *(*(_kl_panel(part, looks) for part in parts), *empty),
    ]
    heights = [5.5, 2.3, 2.3] if parts else [5.5]
    title, size = experiment.title or experiment.experiment, (16, 1.0 + sum(heights))
    grid, spans = {"height_ratios": heights}, (_COLUMNS - 2, 1, 1)
    sheet = Sheet(title, panels, _COLUMNS, size, entries=8, grid=grid, spans=spans)
    return {"figure": sheet, **training_sheet(frame, experiment)}


def _place(line: Record) -> tuple[int, str]:
    return line.row, line.order


def _looks(frame: DataFrame) -> Looks:
    """Colour, marker and label of every learner by name."""
    looks: dict[str, Look] = {"data": {"color": COLOURS["exact"], "marker": "x"}}
    draws: dict[str, int] = {}
    for name, of in {line.order: line.order_kind for line in _lines(frame, "along")}.items():
        draws[of] = draws.get(of, -1) + 1
        looks[name] = {"color": ORDER_SHADES[of], "marker": _MARKERS[draws[of] % len(_MARKERS)]}
    for i, name in enumerate(dict.fromkeys(line.learner for line in _lines(frame, "masked"))):
        looks[name] = {"color": _MASKED[i % len(_MASKED)], "marker": "*"}
    return {name: {**look, "label": name} for name, look in looks.items()}


def _compute_panel(frame: DataFrame, looks: Looks) -> Panel:
    """Nats above the floor against training FLOPs: finished trainings as points, the longest's own log as a line.

    The log is of fresh data at every step, so it has no bias.
    """
    problems = {line.row: line for line in _lines(frame, "problem")}
    logged = [line.plus(problems[line.row]) for line in _longest(_lines(frame, "curve"))]

    def height(line: Record) -> Estimate | float:
        return line.value("loss") - line.value("floor") if line.kind == "curve" else above(line)

    def look(line: Record) -> Look:
        own = {**looks[line.learner], "gid": f"row {line.row}, {line.learner}"}  # each a curve of its own
        if line.kind == "curve":
            return {"color": own["color"], "gid": own["gid"], "linewidth": 0.8, "alpha": 0.45, "zorder": 0}
        return {**own, "markersize": 10 if own["marker"] == "*" else 6, "linewidth": 1.5, "linestyle": "-"}

    return Panel(
        "Above the floor, by training",
        "curves",
        [*(one for line in learners(frame) for one in line.trainings), *logged],
        x="flops",
        y=height,
        look=look,
        levels=[
            *(Level(_span(line), _MARGINALS) for line in problems.values()),
            *(Level(line.value("reached") * _span(line), _REACHED) for line in problems.values()),
        ],
        xlabel="training FLOPs (points: finished trainings, KL on fresh data; faint: loss of the longest - floor)",
        ylabel="loss above the entropy floor, nats per token",
        scale=_NATS,
        dress=lambda axes: axes.set_xscale("log"),
    )


def _along_panel(frame: DataFrame, looks: Looks) -> Panel:
    """KL after the whole training along every order: its own learner and the masked ones, same sequences."""
    return Panel(
        "Whole training: own learner;\nmasked (stars)",
        lines=_longest([line for line in _lines(frame, "along") if "kl" in line.metrics]),
        x="order",
        y="kl",
        look=lambda line: looks[line.learner],
        scale=_NATS,
        ylabel="KL along the order, nats per token",
        dress=_slant,
    )


def _generated_panel(frame: DataFrame, looks: Looks) -> Panel:
    """Self-consistency (filled) and share of wholly consistent sequences (open) of what the learners generate."""
    cells = _lines(frame, "generate")

    def look(line: Record) -> Look:
        own = looks[line.learner]
        return {**own, "markerfacecolor": "white" if line.shown == "consistent" else own["color"]}

    return Panel(
        "Self-consistent (filled),\nwholly consistent (open)",
        lines=[line.plus(shown=metric) for line in cells for metric in ("self_consistency", "consistent")],
        x=lambda line: f"{line.learner}, {line.policy}".removesuffix(", own order").removesuffix(", exact sampler"),
        y=lambda line: line.estimate(line.shown),
        look=look,
        scale=100,
        ylabel="generated sequences, %",
        dress=_slant,
    )


def _slant(axes: Axes) -> None:
    for label in axes.get_xticklabels():
        label.set(rotation=60, ha="right", rotation_mode="anchor")


def _loss_panel(lines: Sequence[Record], formulas: Sequence[Record], looks: Looks) -> Panel:
    """Losses along one order, position by position."""
    exact = [line for line in lines if _is_own(line) and "exact" in line.metrics]
    exact += [line for line in formulas if _place(line) == _place(lines[0])]

    def look(line: Record) -> Look:
        return _thin(line, looks) if line.shown == "model" else _EXACT if line.kind == "position" else _FORMULA

    return Panel(
        f"Loss, {lines[0].order}",
        "curves",
        [*(line.plus(shown="exact") for line in exact), *(line.plus(shown="model") for line in lines)],
        x="time",
        y=lambda line: line.value(line.shown),
        look=look,
        ylabel="loss, nats",
        dress=lambda axes: _shade_latents(axes, lines),
    )


def _kl_panel(lines: Sequence[Record], looks: Looks) -> Panel:
    """KL along one order, position by position; empty where the exact conditionals were not asked."""
    known = [line for line in lines if "kl" in line.metrics]
    return Panel(
        f"KL, {lines[0].order}",
        "curves",
        known,
        x="time",
        y=lambda line: line.value("kl"),
        look=lambda line: _thin(line, looks),
        scale=_NATS,
        xlabel="position in the order (grey: a latent)",
        ylabel="KL from exact, nats",
        dress=lambda axes: _shade_latents(axes, known),
    )


def _thin(line: Record, looks: Looks) -> Look:
    look = {"color": looks[line.learner]["color"], "marker": "." if _is_own(line) else "x", "gid": line.learner}
    return look | {"markersize": 3, "linewidth": 0.8}


def _shade_latents(axes: Axes, lines: Sequence[Record]) -> None:
    """Grey where a latent is read."""
    for time in {line.time for line in lines if line.role == "latent"}:
        axes.axvspan(time - 0.5, time + 0.5, color=SHADING["band"], zorder=0, linewidth=0)
