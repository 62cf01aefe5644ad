"""Adaptive minus vanilla along the training: the networks of a training's evaluations, each judged and decoded.

A ``snapshot`` is one network after a part of its training. Its effect is margin minus vanilla, one token a step, tokens
drawn. What the effect depends on is asked by least squares of three quantities that need no decode: the gap closed, the
contexts of a decode that reveals the observations first against those of random order, and P/N.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.statistics import Estimate, difference
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.drawing import COLOURS, marker
from lo_theory.lab.experiments.table1_readings import (
    ADAPTIVE,
    pair_colours,
    published_numbers,
    root_mean_square,
    variants,
)
from lo_theory.lab.frame import Frame, Record, beside, gap, kind, of_kind, parts, pool, records, with_texts
from lo_theory.lab.panel import Axes, Level, Look, Panel, Sheet
from lo_theory.lab.table import PAIR, Column, Table, key, measured, number, pair_text, percent, text
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.lab.experiments.table1 import Reference

_POLICIES = ("vanilla", ADAPTIVE)
_READINGS = {
    "self-consistency": ("vanilla self_consistency", f"{ADAPTIVE} self_consistency"),
    "unpaired": ("vanilla unpaired", f"{ADAPTIVE} unpaired"),
    "conditional": ("conditional", "conditional"),
    "infill": ("infill", "infill"),
}
_CAUSES = {"gap": "gap closed", "square": "its square", "predicted": "contexts", "ratio": "P/N"}
_SETS = (("gap",), ("gap", "square"), ("predicted",), ("ratio",), tuple(_CAUSES))
_DRAWS = 2000  # of trainings, with replacement


def snapshots(frame: Frame) -> list[Record]:
    """One record a network: what it knows, and by policy (``margin self_consistency``) what it generates.

    ``gap`` closed. ``predicted``: KL of contexts with the observations first less that of uniform ones, in units of the
    gap; L times it, in nats, is what such a decode costs more than vanilla. ``effect`` of self-consistency, ``nats``:
    margin less vanilla. ``ratio`` P/N. All with an interval over sequences.
    """
    part = kind(frame, "snapshot")
    lines = of_kind(frame, "snapshot")
    closed = records(gap(pool(part), pool(kind(frame, "problem")), "excess"))
    known = beside([line for line in lines if "policy" not in line.keys], closed, "row", "step")
    problems = {line.row: line for line in of_kind(frame, "problem")}
    found = []
    for line in known:
        made = {
            other.policy: other
            for other in lines
            if (other.row, other.step) == (line.row, line.step) and _is_plain(other, line.N + line.P)
        }
        problem = problems[line.row]
        span = gap_span(problem.value("floor"), problem.value("marginals_only"))
        apart = difference(line.estimate("observations_first"), line.estimate("excess"))
        metrics = {"predicted": Estimate(*(end / span for end in apart))}
        metrics |= {"square": _exactly(line.value("gap") ** 2), "ratio": _exactly(line.P / line.N)}
        for policy, other in made.items():
            metrics |= {f"{policy} {metric}": other.estimate(metric) for metric in other.metrics}
        if set(_POLICIES) <= made.keys():
            # Each sequence is the mean of P observations, so that few are enough for Student's t.
            mine, theirs = (made[name].metrics["self_consistency"][1] for name in (ADAPTIVE, "vanilla"))
            metrics["effect"] = mine.minus(theirs)
            if "cost" in made["vanilla"].metrics:
                metrics["nats"] = made[ADAPTIVE].minus(made["vanilla"], "cost")
        found.append(line.plus(Record({}, {name: (value, {}) for name, value in metrics.items()})))
    return found


def _is_plain(line: Record, length: int) -> bool:
    """Whether a line is a decode with one token a step, tokens drawn, nothing else changed."""
    return line.get("policy") in _POLICIES and line.steps == length and not variants(line)


def _exactly(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan)


class Fit(NamedTuple):
    """Least squares of the effect in points; ``names`` in ``_CAUSES``.

    ``slopes``: points for one standard deviation of a cause, with 95 % intervals over trainings (bootstrap).
    ``explained``: share of the variance. ``signs``: share of the networks with a settled sign (zero is not in the
    effect's interval) of which a fit to all other trainings names it.
    """

    names: tuple[str, ...]
    slopes: Mapping[str, Estimate]
    explained: float
    signs: float


def learned(found: Sequence[Record]) -> list[Record]:
    """The networks that closed a part of the gap and have an effect: before, there is nothing to compare."""
    return [line for line in found if line.value("gap") > 0 and not math.isnan(line.value("effect"))]


def fits(found: Sequence[Record]) -> list[Fit]:
    """The fits by the sets of causes, in the order of what they explain; none below four trainings."""
    lines = learned(found)
    if len({line.row for line in lines}) < 4:
        return []
    sets = [names for names in _SETS if all(_spread(lines, name) > 0 for name in names)]
    return sorted((_fit(lines, names) for names in sets), key=lambda fit: fit.explained)


def _spread(lines: Sequence[Record], name: str) -> float:
    return float(np.std([line.value(name) for line in lines]))


def _fit(lines: Sequence[Record], names: tuple[str, ...]) -> Fit:
    effect: NDArray[np.float64] = 100 * np.array([line.value("effect") for line in lines])
    causes = np.array([[line.value(name) for name in names] for line in lines])
    causes = np.column_stack([np.ones(len(lines)), (causes - causes.mean(axis=0)) / causes.std(axis=0)])
    groups = [np.flatnonzero([line.row == row for line in lines]) for row in dict.fromkeys(line.row for line in lines)]
    slopes = _solve(causes, effect)
    generator = Key(0).fold("bootstrap over trainings").generator()
    drawn = np.array(
        [
            _solve(causes[rows], effect[rows])
            for choice in generator.integers(len(groups), size=(_DRAWS, len(groups)))
            for rows in (np.concatenate([groups[i] for i in choice]),)
        ]
    )
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    right = []
    for group in groups:
        others = np.setdiff1d(np.arange(len(lines)), group)
        guess = causes[group] @ _solve(causes[others], effect[others])
        right += [
            bool(np.sign(guess[place]) == np.sign(effect[i]))
            for place, i in enumerate(group.tolist())
            if _is_settled(lines[i])
        ]
    left = float(np.var(effect - causes @ slopes) / np.var(effect))
    return Fit(
        names,
        {name: Estimate(*map(float, (slopes[i], *ends[:, i]))) for i, name in enumerate(names, 1)},
        1 - left,
        float(np.mean(right)) if right else math.nan,
    )


def _solve(causes: NDArray[np.float64], effect: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.lstsq(causes, effect, rcond=None)[0], np.float64)


def _is_settled(line: Record) -> bool:
    low, high = line.estimate("effect")[1:]
    return low > 0 or high < 0


def along_tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """The networks on the way, what their effect depends on, and which comes nearest to the published numbers."""
    found = snapshots(with_texts(frame, "seeds", seed_texts(experiment)))
    yield Table(
        "Along the training",
        (
            *(PAIR, key("step"), percent("gap", "gap\nclosed"), percent("conditional"), percent("infill")),
            *(percent(f"{policy} self_consistency", policy) for policy in _POLICIES),
            *(measured("effect", "margin -\nvanilla", "+.1f", 100), measured("predicted", "contexts", "+.3f")),
            *(measured("vanilla cost", "vanilla,\nnats", ".2f"), measured("nats", "margin -\nvanilla,\nnats", "+.2f")),
        ),
        found,
        ["row"],
        notes="Each line is the network after so many steps of one training; decodes with one token a step, tokens "
        "drawn. Per cent and points, with 95 % intervals over sequences, of a difference Student's t. Contexts: KL a "
        "token in contexts of a decode that reveals the observations first, less that of uniform ones, as a share of "
        "the gap from the floor to the single-token marginals: above 0, the network is worse without latents.",
    )
    lines = learned(found)
    settled = [line for line in lines if _is_settled(line)]
    yield Table(
        "What the sign of adaptive minus vanilla depends on",
        (
            text("by", lambda fit: ", ".join(_CAUSES[name] for name in fit.names)),
            *(_slope(name, title) for name, title in _CAUSES.items()),
            Column("variance\nexplained, %", lambda fit: f"{100 * fit.explained:.0f}"),
            Column("signs\nright, %", lambda fit: number(100 * fit.signs, ".0f")),
        ),
        fits(found),
        notes=f"Least squares of margin minus vanilla, points of self-consistency, over {len(lines)} networks that "
        f"closed a part of the gap, of {len({line.row for line in lines})} trainings. Slopes: points for one standard "
        "deviation, with 95 % intervals over trainings (bootstrap). Signs: of the "
        f"{len(settled)} networks whose sign is settled, those that a fit to all other trainings names; "
        f"{sum(line.value('effect') > 0 for line in settled)} of them are positive, the paper's sign.",
    )
    yield _nearest_table(found, experiment.reference)


def _slope(name: str, title: str) -> Column:
    def of(fit: Fit) -> str:
        if name not in fit.slopes:
            return ""
        value, low, high = fit.slopes[name]
        return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"

    return Column(title, of)


def _nearest_table(found: Sequence[Record], reference: Reference | None) -> Table:
    """The network of each pair that comes nearest to its published numbers, under each reading."""
    published = published_numbers(reference) if reference is not None else {}
    lines = []
    for own in parts([line for line in found if (line.N, line.P) in published], "N", "P"):
        wanted = [published[own[0].N, own[0].P][policy] for policy in _POLICIES]
        for reading, metrics in _READINGS.items():
            able = [line for line in own if all(metric in line.metrics for metric in metrics)]
            if able:
                apart, nearest = min(((_apart(line, metrics, wanted), i) for i, line in enumerate(able)))
                values = [able[nearest].value(metric) for metric in metrics]
                lines.append((able[nearest], reading, values, wanted, apart))
    return Table(
        "Where a training comes nearest to the published numbers",
        (
            text("N, P", lambda line: pair_text(line[0])),
            text("reading", lambda line: line[1]),
            Column("step", lambda line: str(line[0].step)),
            Column("gap\nclosed", lambda line: f"{100 * line[0].value('gap'):.1f}"),
            *(_of_policy(i, policy) for i, policy in enumerate(_POLICIES)),
            Column("published", lambda line: ", ".join(f"{value:.2f}" for value in line[3])),
            Column("distance", lambda line: f"{line[4]:.1f}"),
        ),
        lines,
        lambda line: (line[0].N, line[0].P),
        notes="Of all networks on the way, seeds and problems of a pair: the one whose vanilla and margin are nearest "
        "to the published ones, root mean square in points. Conditional and infill need no decode and have one number.",
    )


def _of_policy(i: int, policy: str) -> Column:
    return Column(policy, lambda line: f"{100 * line[2][i]:.1f}")


def _apart(line: Record, metrics: Sequence[str], wanted: Sequence[float]) -> float:
    return root_mean_square(
        [100 * line.value(metric) - percent for metric, percent in zip(metrics, wanted, strict=True)]
    )


def along_sheets(frame: Frame, experiment: Experiment) -> dict[str, Sheet]:
    """``sign``: the effect against the gap closed and against the contexts. ``along``: both policies, pair by pair."""
    found = snapshots(frame)
    lines = learned(found)
    if not lines:
        return {}
    names = list(dict.fromkeys(f"({line.N}, {line.P})" for line in found))
    colours = pair_colours(names)

    def look(line: Record) -> Look:
        name = f"({line.N}, {line.P})"
        return {
            "color": colours[name],
            "marker": "o",
            "markersize": 4,
            "linestyle": "",
            "elinewidth": 0.5,
            "label": name,
        }

    def panel(title: str, cause: str, xlabel: str, ylabel: str = "") -> Panel:
        """The effect of every network against one cause."""
        return Panel(
            title,
            "curves",
            lines,
            x=lambda line: 100 * line.value(cause),
            y="effect",
            look=look,
            levels=[Level(0.0, {})],
            scale=100,
            xlabel=xlabel,
            ylabel=ylabel,
        )

    ylabel = "margin - vanilla, percentage points\nof self-consistency, one token a step"
    panels = [
        panel("How far it has learned", "gap", "gap closed, % (0: marginals only; 100: Bayes-optimal)", ylabel),
        panel("Where it errs", "predicted", "KL with observations first less uniform KL, % of the gap"),
    ]
    title = "When does the adaptive order win? Networks along their trainings"
    sheets = {"sign": Sheet(title, panels, 2, (10.5, 4.8), entries=min(6, len(names)), grid={"sharey": True})}
    return {**sheets, "along": _along_sheet(found, experiment, names)}


def _along_sheet(found: Sequence[Record], experiment: Experiment, names: Sequence[str]) -> Sheet:
    """Self-consistency of both policies against the gap closed, one curve a training, and the published numbers."""
    rows = experiment.reference.rows if experiment.reference is not None else ()
    panels = []
    for name in names:
        own = [line for line in found if f"({line.N}, {line.P})" == name]
        lines = [
            Record(
                {**line.keys, "policy": policy},
                {"y": line.metrics[f"{policy} self_consistency"], "gap": line.metrics["gap"]},
            )
            for policy, line in itertools.product(_POLICIES, own)
            if f"{policy} self_consistency" in line.metrics
        ]
        levels = [
            Level(
                line.percent / 100, {"color": COLOURS["paper"], "linestyle": "--" if line.policy == "vanilla" else "-"}
            )
            for line in rows
            if f"({line.N}, {line.P})" == name
        ]
        panels.append(
            Panel(
                name,
                "curves",
                lines,
                x=lambda line: 100 * line.value("gap"),
                y="y",
                look=_policy_look,
                levels=levels,
                scale=100,
                xlabel="gap closed, %",
                ylabel="self-consistent observations, %",
                dress=_from_zero,
            )
        )
    columns = min(3, len(panels))
    legend: list[Look] = [
        {"color": COLOURS["paper"], "linestyle": "--", "label": "published, vanilla"},
        {"color": COLOURS["paper"], "linestyle": "-", "label": "published, adaptive"},
    ]
    size = (4.3 * columns, 0.8 + 3.4 * -(-len(panels) // columns))
    return Sheet("Vanilla and margin along the training, one token a step", panels, columns, size, legend)


def _policy_look(line: Record) -> Look:
    colour = COLOURS["model"] if line.policy == ADAPTIVE else COLOURS["line"]
    shape = {"color": colour, "marker": marker(line.policy), "markersize": 4, "linewidth": 0.8}
    return {**shape, "gid": f"{line.policy} {line.row}", "label": line.policy}


def _from_zero(axes: Axes) -> None:
    axes.set_xlim(left=-5)
