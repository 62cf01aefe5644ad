"""Tables and figures of the experiment on decoding rules: nats lost against forward passes, the frontier, who is on it.

A rule is compared with the best random order in as many steps, from the information curve: between two whole numbers
of steps on the straight line, which a sampler reaches that draws its number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import COLOURS, RULE_SHADES, marker
from lo_theory.lab.frame import Frame, Record, of_kind, parts
from lo_theory.lab.panel import Axes, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.table import Table, key, largest, mean, measured, number, percent, text, with_expected

_KNOW_ROLES = ("fixed_order", "position_calibrated")  # by their places, latents first
_BUDGETS = (2, 4, 8, 16, 32, 64)  # passes at which rules are compared, and L
_DIGITS = 6  # of nats: what differs by less costs the same
_FLOOR = 1e-2  # nats: less is drawn here


class Found:
    """The lines of all tables and panels."""

    def __init__(self, frame: Frame) -> None:
        lines = [line.plus(length=line.N + line.P) for line in of_kind(frame, "decode")]
        self.information = of_kind(frame, "information")
        random = [line for line in self.information if line.get("schedule") == "best"]
        self.random = {part[0].row: sorted(part, key=_steps) for part in parts(random, "row")}
        priced = [line for line in lines if "infinite_cost" in line.metrics]
        self.priced = [self._beside(line) for line in priced]
        self.judged = [line for line in lines if "self_consistency" in line.metrics]
        self.remasking = [line for line in self.judged if "infinite_cost" not in line.metrics]

    def _beside(self, line: Record) -> Record:
        """The line with the steps that it takes one after the other, and the best random order in as many."""
        best, taken = self.random[line.row], min(line.value("calls"), line.steps)
        steps, nats = [point.steps for point in best], [point.value("curve_cost") for point in best]
        found = {"taken": taken, "random_cost": float(np.interp(taken, steps, nats))}
        return line.plus(Record({}, {name: (Estimate(value, math.nan, math.nan), {}) for name, value in found.items()}))


def _budgets(length: int) -> list[int]:
    return [*(budget for budget in _BUDGETS if budget < length), length]


def _steps(line: Record) -> int:
    return int(line.steps)


def family(line: Record) -> str:
    """The policy without its numbers."""
    return str(line.policy).partition("(")[0]


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """All tables, those of the exact posterior first."""
    found = Found(frame)
    yield _frontier(found)
    yield _ranked(found)
    yield _adaptive(found)
    yield _remasking(found)
    yield _curves(found)


_RULE = (key("policy", left=True), key("schedule", left=True))
_PASSES = mean("calls", "passes", ".1f")
_TAKEN = mean("taken", "steps", ".1f")
_COST = measured("cost", "nats lost", "z.3f")
_RANDOM = mean("random_cost", "best\nrandom", "z.3f")


def _at_budgets(lines: Sequence[Record]) -> Iterator[tuple[int, list[Record]]]:
    """For each budget the lines of one problem and denoiser that need no more passes, cheapest first."""
    for budget in _budgets(lines[0].length) if lines else ():
        within = [line for line in lines if line.value("calls") <= budget + 1e-9 and not line.value("infinite_cost")]
        if within:
            yield budget, sorted(within, key=lambda line: (round(line.value("cost"), _DIGITS), line.value("calls")))


def _frontier(found: Found) -> Table:
    """The cheapest rule in at most so many passes."""
    lines = []
    for part in parts(found.priced, "row", "denoiser"):
        blind = [line for line in part if family(line) not in _KNOW_ROLES]
        for budget, within in _at_budgets(blind):
            least = within[0].estimate("cost")
            level = [line for line in within if line.estimate("cost").low <= least.high + 10**-_DIGITS]
            lines.append(within[0].plus(budget=budget, level=len(level)))
    columns = (key("name", "problem", left=True), key("denoiser", left=True), key("budget", "at most"), *_RULE, _PASSES)
    return Table(
        "The frontier: the rule that loses least in at most so many forward passes",
        (*columns, _COST, _RANDOM, key("level", "level\nwith it")),
        lines,
        ["row", "denoiser"],
        notes="Nats per sequence, 95 % intervals over sequences: KL of the decoder's law from the data's, along its "
        "own order. Best random: the optimal counts of a random order with exact marginals in as many passes. Level "
        "with it: rules within the budget whose interval overlaps, itself included. Rules that know the places of the "
        "latents are left out (fixed order, position calibrated): with exact marginals, latents first and then all "
        "observations costs nothing in two passes, since the latents are independent and so are the observations given "
        "them.",
    )


def _ranked(found: Found) -> Table:
    """All rules with the exact posterior, in the order of their cost, between one budget and the next."""
    exact = [line for line in found.priced if line.denoiser == "exact"]
    lines = []
    for part in parts(exact, "row"):
        least = 1.0
        for budget in _budgets(part[0].length):
            own = [line for line in part if least < line.value("taken") <= budget and line.value("taken") < line.length]
            lines += [line.plus(budget=budget) for line in sorted(own, key=lambda line: line.value("cost"))]
            least = budget
    return Table(
        "Rules with the exact posterior, ranked at comparable numbers of steps",
        (key("name", "problem", left=True), key("budget", "up to"), *_RULE, _TAKEN, _PASSES, _COST, _RANDOM, _over()),
        lines,
        ["row", "budget"],
        notes="The exact posterior has no model error: the cost is what comes of drawing tokens of one step "
        "independently. Up to: so many steps one after the other, and more than in the section before; one step a "
        "token costs nothing in any order and is left out. Passes: contexts that are asked, those of rules that look "
        "ahead included. Over: the cost above (+) or below (-) the best random order in as many steps.",
    )


def _over() -> Any:
    def of(line: Record) -> str:
        return number(line.value("cost") - line.value("random_cost"), "+z.3f")

    return text("over", of, left=False)


def _adaptive(found: Found) -> Table:
    """Orders with each denoiser, one token a step and in few: where does adaptive order pay?"""
    plain = [line for line in found.priced if line.schedule == "fixed_count" and "(" not in line.policy]
    by_policy = [line for line in plain if line.steps in (8, line.length)]
    orders = [name for name in _ORDERS if any(line.policy == name for line in by_policy)]
    lines = []
    for part in parts(by_policy, "row", "denoiser", "steps"):
        own = {line.policy: line for line in part if line.policy in orders}
        if "vanilla" in own:
            costs = {
                f"{metric} {name}": line.metrics[metric]
                for name, line in own.items()
                for metric in ("cost", "model_error")
                if metric in line.metrics
            }
            costs |= {"excluded": max((line.metrics["infinite_cost"] for line in own.values()), key=lambda it: it[0])}
            lines.append(Record({**own["vanilla"].keys}, costs))
    lines.sort(key=lambda line: (line.row, -line.steps))
    return Table(
        "Where adaptive order pays: nats lost by denoiser",
        (
            *(key("name", "problem", left=True), key("denoiser", left=True), key("steps")),
            *(measured(f"cost {name}", name.replace("_", "\n"), "z.3f") for name in orders),
            *(mean(f"model_error {name}", f"of it model,\n{name}", "z.3f") for name in ("vanilla", "margin")),
            mean("excluded", "infinite", ".1f", 100),
        ),
        lines,
        ["row", "steps"],
        notes="Equal steps: one token a step, then 8. Nats per sequence with 95 % intervals, dependence and model "
        "error together, on the same sequences for all; of it model: what comes of marginals that are not exact. A "
        "denoiser gains by an order that loses less than vanilla, which is random. Infinite: per cent of sequences of "
        "which it excludes a token in one of the orders; they are not in the means.",
    )


_ORDERS = ("vanilla", "margin", "top_probability", "entropy", "fixed_order")


def _remasking(found: Found) -> Table:
    """Rules that hide again, and beside them random order and margin in as many steps."""
    places = {(line.row, line.denoiser, line.steps) for line in found.remasking}
    beside = [
        line
        for line in found.judged
        if line.policy in ("vanilla", "margin") and line.schedule in ("binomial", "fixed_count")
    ]
    own = [line for line in beside if (line.row, line.denoiser, line.steps) in places]
    lines = sorted([*own, *found.remasking], key=lambda line: (line.row, line.denoiser, line.steps))
    return Table(
        "Rules that hide again",
        (
            *(key("name", "problem", left=True), key("denoiser", left=True), key("steps"), *_RULE, _PASSES),
            *(percent("self_consistency", "self-\nconsistent"), percent("consistent", "wholly\nconsistent")),
            with_expected("distinct", "distinct", ".1f", 100),
            *(largest("bias", "bias z"), with_expected("total_variation", "TV to p_data", ".3f")),
        ),
        lines if found.remasking else [],
        ["row", "denoiser", "steps"],
        notes="They have no exact cost, since a token that is drawn twice leaves no trace: their sequences are judged, "
        "beside those of random order and of margin in as many steps; ReMDM follows the binomial schedule. "
        "Per cent with 95 % intervals over sequences; distinct latent "
        "strings and the total variation to p_data (N <= 12) with what as many exact samples give in brackets; bias z: "
        "the largest |z| of a latent's mean, ! where 999 of 1000 exact samplers stay below.",
    )


def _curves(found: Found) -> Table:
    """The information curve of each problem: entropy, total correlation, the best counts beside equal ones."""
    whole = {line.row: line for line in found.information if "entropy" in line.metrics}
    equal = [line for line in found.information if line.get("schedule") == "fixed_count"]
    equals = {(line.row, line.steps): line for line in equal}
    lines = []
    for row, part in found.random.items():
        for line in (line for line in part if line.steps in (1, *_BUDGETS) and (row, line.steps) in equals):
            other = equals[row, line.steps]
            lines.append(line.plus(whole[row], Record({}, {"equal": other.metrics["curve_cost"]}), counts=line.counts))
    return Table(
        "Random order by the information curve",
        (
            *(key("name", "problem", left=True), measured("entropy"), mean("total_correlation", "total\ncorrelation")),
            *(key("steps"), measured("equal", "equal steps", "z.3f"), measured("curve_cost", "best steps", "z.3f")),
            *(mean(f"bound_{of}", f"by {of.upper()}", "z.3f") for of in ("tc", "dtc", "mi")),
            text("best counts", lambda line: _shortened(line.counts)),
        ),
        lines,
        ["row"],
        notes="Nats per sequence. Equal and best steps: KL from the data to random order with exact marginals; the "
        "best counts are the least on this curve, by a dynamic programme. By TC, DTC, MI: upper bounds on the best "
        "steps that know only the total correlation, its dual or their sum. One step costs the total correlation.",
    )


def _shortened(counts: str) -> str:
    """At most so many counts as a line of a table has room for."""
    numbers = counts.split()
    return counts if len(numbers) <= 8 else " ".join([*numbers[:6], "...", numbers[-1]])


_BLUE = RULE_SHADES["vanilla"]
_OWN: Mapping[str, Look] = {
    "threshold": {"color": RULE_SHADES["threshold"], "marker": "P", "label": "threshold"},
    "factor": {"color": RULE_SHADES["factor"], "marker": "X", "label": "factor, Frechet"},
    "frechet": {"color": RULE_SHADES["frechet"], "marker": "X", "label": "factor, Frechet"},
    "entropy_bounded": {"color": RULE_SHADES["entropy_bounded"], "marker": "h", "label": "entropy bounded"},
    "stable": {"color": RULE_SHADES["stable"], "marker": "p", "label": "stable"},
    "information_gain": {"color": RULE_SHADES["information_gain"], "marker": "*", "label": "information gain"},
    "lookahead": {"color": RULE_SHADES["lookahead"], "marker": "d", "label": "lookahead"},
    "position_calibrated": {"color": RULE_SHADES["position_calibrated"], "marker": "<", "label": "position calibrated"},
    "margin": {"color": RULE_SHADES["margin"], "marker": "D", "label": "margin"},
    "top_probability": {"color": RULE_SHADES["top_probability"], "marker": "^", "label": "top probability, entropy"},
    "entropy": {"color": RULE_SHADES["entropy"], "marker": "s", "label": "top probability, entropy"},
    "fixed_order": {"color": RULE_SHADES["fixed_order"], "marker": "v", "label": "fixed order, latents first"},
}
_VANILLA: Mapping[str, Look] = {
    "fixed_count": {"color": _BLUE, "marker": "o", "label": "vanilla, equal steps"},
    "best": {"color": _BLUE, "marker": "o", "markerfacecolor": "white", "label": "vanilla, best counts"},
}
_OTHER: Look = {
    "color": RULE_SHADES["other vanilla"],
    "marker": ".",
    "linestyle": "",
    "label": "vanilla, other schedules",
}
_LINES: Mapping[str, Look] = {
    "random": {"color": COLOURS["line"], "linestyle": "--", "label": "best random order"},
    "any": {"color": COLOURS["alarm"], "linestyle": ":", "label": "best order, roles known"},
}


def _look(line: Record) -> Look:
    """Colour and symbol of a rule; lines of one look and one ``gid`` are joined."""
    if line.get("line"):
        return _LINES[line.line]
    if line.policy == "vanilla":
        return _VANILLA.get(line.schedule) or {**_OTHER, "gid": line.schedule}
    name = family(line)
    plain = {"marker": marker(name), "label": name.replace("_", " ")}
    return {"markersize": 4, **_OWN.get(name, plain), "gid": f"{name} {line.schedule}"}


def _passes(line: Record) -> float:
    return float(line.steps) if line.get("line") else line.value("calls")


def _nats(line: Record) -> Estimate | float:
    return line.value("curve_cost") if line.get("line") == "random" else line.estimate("cost")


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """A panel for each problem with the exact posterior, and on a second sheet one for each other denoiser."""
    found = Found(frame)
    every = {(part[0].row, part[0].denoiser): part for part in parts(found.priced, "row", "denoiser")}
    if not every:
        return {}
    rows, who = (list(dict.fromkeys(place[i] for place in every)) for i in (0, 1))
    exact = [every.get((row, "exact")) for row in rows]
    names = [name for name in who if name != "exact"]
    judged = [row for row in rows if any((row, name) in every for name in names)]
    others = [every.get((row, name)) for row in judged for name in names]
    made = {"figure": _sheet(f"{experiment.heading}, exact posterior", found, exact, min(3, len(rows)), 4.6)}
    if others:
        made["denoisers"] = _sheet(f"{experiment.heading}, other denoisers", found, others, len(names), 3.6)
    return made


def _sheet(title: str, found: Found, shown: Sequence[Sequence[Record] | None], columns: int, width: float) -> Sheet:
    """Panels ``width`` inches wide; None leaves a place empty."""
    labelled = [not any(shown[i - i % columns : i]) for i in range(len(shown))]  # the first of each row
    panels = [
        _panel(found, part, labelled=first) if part else None for part, first in zip(shown, labelled, strict=True)
    ]
    size = (width * columns, 1.3 + 0.8 * width * -(-len(panels) // columns))
    return Sheet(title, panels, columns, size, entries=min(5, 2 * columns))


def _panel(found: Found, part: Sequence[Record], *, labelled: bool) -> Panel:
    """Nats lost against passes: rules, the best random order, and what an order that knows the roles loses."""
    lines = sorted((line for line in part if not line.value("infinite_cost")), key=lambda line: line.value("calls"))
    rules = [line for line in lines if line.schedule != "by_role"]
    known = [line.plus(line="any", steps=line.value("calls")) for line in lines if line.schedule == "by_role"]
    random = [line.plus(line="random") for line in found.random[part[0].row]]
    who = "" if part[0].denoiser == "exact" else f"\n{part[0].denoiser}"

    def dress(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")

    return Panel(
        f"{part[0].name}{who}",
        "curves",
        [*random, *known, *rules],
        x=_passes,
        y=_nats,
        look=_look,
        scale=Logarithmic(_FLOOR),
        xlabel="forward passes per sequence",
        ylabel="nats per sequence lost" if labelled else "",
        dress=dress,
    )
