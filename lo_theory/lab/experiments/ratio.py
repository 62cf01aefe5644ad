"""Table 1's columns over the ratio P/N: a row is one of Table 1's, with what its contexts leave open beside.

Problems of one (N, P), each with its training, are the independent runs: intervals are over them (Student's t; of one
problem over sequences), and margin minus vanilla is taken problem by problem before it is averaged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lo_theory.diffusion import Uniform
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import COLOURS, INK, marker
from lo_theory.lab.experiments import table1
from lo_theory.lab.frame import Frame, Record, beside, gap, kind, minus, parts, pool, records
from lo_theory.lab.panel import Axes, Level, Look, Panel, Sheet, handle
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import PAIR, Table, key, measured, percent, plus_minus, text
from lo_theory.lab.units import Unit

Row, Reference = table1.Row, table1.Reference


def units(s: Subject) -> Iterator[Unit]:
    """The units of a row of Table 1; where the exact posterior is asked for, also the uncertainty of its contexts, and
    the dead ends of the model's decodes. At the small sizes of a sweep that costs seconds; at the paper's, with all
    observations written and no latent, it could cost hours.
    """
    setting, law, s = s.row.evaluation, Uniform(), table1.titled(s)
    yield from table1.units(s, find_all_dead_ends=setting.exact)

    def left_open() -> list[Finding]:
        exact, key = s.exact(setting.limit_states), s.key.fold("uncertainty")
        found = uncertainty({}, exact, s.distribution, law, key=key, n=setting.sequences)
        return measures.left_open(found, "uncertainty", {"law": law.name})

    if setting.exact:
        yield s.unit("uncertainty", "what uniform masks leave open", left_open)


_POLICIES = ["vanilla", "margin"]
_PAIR = ["N", "P"]


def _decodes(frame: Frame) -> Frame:
    """Decodes with drawn tokens and a policy of Table 1, pooled over problems: ``tokens`` a step are one or several.

    What only the exact posterior can tell is left out where it has not looked at the decodes of a model.
    """
    part = kind(frame, "decode", policy=_POLICIES, argmax=False)
    if "noise" in part:
        part = part[part["noise"].isna()].drop(columns="noise")
    seen = part["unit"].isin(part["unit"][part["metric"] == "alive_steps"]) | (part["denoiser"] == "exact")
    part = part[seen | ~part["metric"].isin(["dead_checks", "live_errors"])]
    one = part["steps"] == part["N"] + part["P"]
    part = part.assign(tokens=one.map({True: "one", False: "several"})).drop(columns="steps")
    return pool(part, [*_PAIR, "denoiser", "tokens", "policy"], over="row")


def _sorted(lines: Sequence[Record]) -> list[Record]:
    """Lines with their ``ratio`` P/N: by N, denoiser, tokens a step and policy, P ascending."""
    made = [line.plus(ratio=line.P / line.N) for line in lines]
    policies = [None, *_POLICIES]
    return sorted(made, key=lambda it: (it.N, it.denoiser, it.tokens, policies.index(it.get("policy")), it.P))


def decodes(frame: Frame) -> list[Record]:
    """All decodes at each (N, P), pooled over its problems; ``level``: the marginals-only value there."""
    levels = [fact.plus(level=fact.value("self_consistency_independent")) for fact in facts(frame)]
    return _sorted(beside(records(_decodes(frame)), levels, *_PAIR))


def differences(frame: Frame) -> list[Record]:
    """Margin minus vanilla on the same problems."""
    return _sorted(records(minus(_decodes(frame), "policy", "margin", "vanilla")))


def facts(frame: Frame) -> list[Record]:
    """What holds at each (N, P) whatever the decode, N and then P ascending.

    ``self_consistency_independent``: of observations that are drawn from their single-token marginals;
    ``joint_entropy`` and ``deterministic`` under uniform masks; ``gap`` closed by the models. nan where not measured.
    """
    problem = pool(kind(frame, "problem"), _PAIR, over="row")
    losses = pool(kind(frame, "losses", law="uniform"), _PAIR, over="row")
    found = [line.plus(ratio=line.P / line.N) for line in records(problem)]
    for more in (gap(losses, problem), pool(kind(frame, "uncertainty"), _PAIR, over="row")):
        found = beside(found, records(more), *_PAIR)
    return sorted(found, key=lambda fact: (fact.N, fact.P))


def _curves(lines: Sequence[Record]) -> list[list[Record]]:
    """The decodes of each way to decode at one N, by ratio."""
    return parts(lines, "N", "denoiser", "tokens", "policy")


def _above(line: Record, level: float) -> float:
    return line.value("self_consistency") - level


def falls(curve: Sequence[Record], level: float) -> list[float]:
    """Each P/N at which accuracy falls to ``level``, ascending, on straight lines between the measured ratios.

    The lines are those of the figure: straight against the logarithm of P/N.
    """
    found = []
    for before, after in itertools.pairwise(curve):
        high, low = _above(before, level), _above(after, level)
        if high > 0 >= low:
            found.append(before.ratio * (after.ratio / before.ratio) ** (high / (high - low)))
    return found


def settling_ratio(curve: Sequence[Record], level: float) -> float:
    """The P/N from which on accuracy stays at or below ``level``; nan where it ends above it, or never was above.

    Near the level the first fall is chance: a curve that grazes it falls and rises again.
    """
    found = falls(curve, level)
    return found[-1] if found and _above(curve[-1], level) <= 0 else math.nan


def met(curve: Sequence[Record], level: float) -> str:
    """Where a curve falls to a level, first and for good, in words where that is between no measured ratios."""
    below, found = _above(curve[0], level) <= 0, falls(curve, level)
    if not below and not found:
        return "never"
    first = f"{curve[0].ratio:g} or below" if below else f"{found[0]:.1f}"
    if _above(curve[-1], level) > 0:
        return f"{first}, not for good"
    return f"{first}, for good {found[-1]:.1f}" if len(found) + below > 1 else first


_RATIO = key("ratio", "P/N", "g")
_DENOISER, _TOKENS = key("denoiser", left=True), key("tokens", "tokens\na step")
_SEEN = {"alive_steps": "steps alive", "dead_checks": "dead checks", "live_errors": "live errors"}


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """Vanilla and margin beside each other, where they meet the marginals-only value, what the contexts leave open."""
    both = _sorted(records(_decodes(frame), spread="policy"))
    yield Table(
        experiment.heading,
        (
            *(PAIR, _DENOISER, _RATIO, _TOKENS),
            *(percent(f"{policy} self_consistency", policy) for policy in _POLICIES),
            percent("self_consistency", "margin minus\nvanilla"),
            *(
                percent(f"{policy} {name}", f"{policy},\n{words}")
                for name, words in _SEEN.items()
                for policy in _POLICIES
            ),
        ),
        beside(both, differences(frame), *_PAIR, "denoiser", "tokens"),
        section=["N", "denoiser", "tokens"],
        notes="Self-consistency of generated observations in per cent. Steps alive: made while some sequence of the "
        "data had what was written so far; dead checks: observations that were written after that, or one of whose "
        "latents was: for the exact posterior they agree by chance; live errors: wrong observations of the other "
        "checks. Means over problems with 95 % intervals over problems (Student's t; over sequences where there is "
        "one problem, or all have one value); differences are taken problem by problem.",
    )
    yield Table(
        "Where decoding meets the marginals-only value",
        (
            *(key("N"), _DENOISER, key("policy", left=True), _TOKENS),
            text("marginals\nonly", lambda line: f"{100 * line.level:.1f}", left=False),
            *(key("met", "met at P/N"), key("lowest")),
        ),
        [curve[0].plus(met=met(curve, curve[0].level), lowest=_lowest(curve)) for curve in _curves(decodes(frame))],
        notes="Marginals only: observations drawn from their single-token marginals. Met: the first ratio at which "
        "the mean falls to it, on the straight lines of the figure; where it rises above it again, also the one from "
        "which it stays there. Both have the intervals of the means around them.",
    )
    yield Table(
        "What the contexts leave open",
        (
            *(PAIR, _RATIO, measured("joint_entropy", "entropy left,\nnats per hidden latent")),
            *(percent("deterministic", "determined, %"), percent("gap", "gap closed, %")),
        ),
        facts(frame),
        notes="Under uniform masks: what the context leaves open of the hidden latents, the share of contexts that "
        "fix every latent, and what the models have learned.",
    )


def _lowest(curve: Sequence[Record]) -> str:
    least = min(curve, key=lambda it: it.value("self_consistency"))
    return f"{plus_minus(least.estimate('self_consistency'), '.1f', 100)} at {least.ratio:g}"


_MET: Look = {"color": COLOURS["alarm"], "marker": "|", "markersize": 14, "markeredgewidth": 1.6, "linestyle": ""}
_MARGINALS: Look = {"color": COLOURS["line"], "linestyle": ":", "linewidth": 2, "label": "marginals only"}

_FACTS: Mapping[str, Look] = {
    "deterministic": {"color": INK, "marker": "x", "linestyle": "-", "label": "masks that fix every latent"},
    "gap": {"color": COLOURS["model"], "marker": "*", "linestyle": "-", "label": "gap closed by the models"},
}


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """A column for each N: accuracy against P/N with the marginals-only value, margin minus vanilla, and why."""
    lines, known = decodes(frame), facts(frame)
    sizes = list(dict.fromkeys(fact.N for fact in known))
    rows = ((_accuracy_panel, lines), (_difference_panel, differences(frame)), (_reason_panel, _reasons(lines, known)))
    width = max(7.5, 4.6 * len(sizes))
    sheet = Sheet(
        experiment.heading,
        [make(n, [line for line in part if n == line.N], n == sizes[0]) for make, part in rows for n in sizes],
        columns=max(1, len(sizes)),
        size=(width, 10.5),
        legend=[{**_MET, "label": "P/N from which it stays there"}] if any(map(_settled, _curves(lines))) else [],
        entries=3 if width > 9 else 2,  # three are wider than a figure of one N
        grid={"sharex": True, "sharey": "row"},
    )
    return {"figure": sheet}


def _look(line: Record, label: str, **more: Any) -> Look:
    """Colour of the denoiser, symbol of the policy; open and dashed for several tokens a step."""
    colour, one = COLOURS[line.denoiser], line.tokens == "one"
    look = {"color": colour, "marker": marker(line.get("policy", "margin")), "linestyle": "-" if one else "--"}
    return {**look, "markerfacecolor": colour if one else "white", "capsize": 2, "label": label, **more}


def _steps(line: Record) -> str:
    return f"{'one token' if line.tokens == 'one' else 'several tokens'} a step"


def _settled(curve: Sequence[Record]) -> list[float]:
    """The ratio from which on a curve stays at the marginals-only value, if there is one."""
    found = settling_ratio(curve, curve[0].level)
    return [] if math.isnan(found) else [found]


def _panel(title: str, lines: Sequence[Record], look: Callable[[Record], Look], ylabel: str, **more: Any) -> Panel:
    more = {"y": "self_consistency", **more}
    return Panel(title, "curves", lines, x="ratio", look=look, scale=100, ylabel=ylabel, **more)


def _accuracy_panel(n: int, lines: Sequence[Record], first: bool) -> Panel:
    def look(line: Record) -> Look:
        return _look(line, f"{line.denoiser}, {line.policy}, {_steps(line)}")

    def dress(axes: Axes) -> None:
        if ratios := sorted(ratio for curve in _curves(lines) for ratio in _settled(curve)):
            _mark(axes, ratios, 100 * lines[0].level)
        axes.set_ylim(max(0, axes.get_ylim()[0]), 105)

    levels = [Level(lambda line: line.level, _MARGINALS)]
    ylabel = "self-consistent observations, %" if first else ""
    return _panel(f"N = {n}: accuracy", lines, look, ylabel, levels=levels, dress=dress)


def _mark(axes: Axes, ratios: Sequence[float], level: float) -> None:
    """Mark the ratios from which curves stay at the level; those that lie too close together share a label."""
    style: dict[str, Any] = {"color": COLOURS["alarm"], "fontsize": 8, "ha": "center"}
    start = 0
    for end in range(1, len(ratios) + 1):
        axes.plot(ratios[end - 1], level, **_MET)
        if end == len(ratios) or ratios[end] > 1.3 * ratios[end - 1]:
            low, high = f"{ratios[start]:.1f}", f"{ratios[end - 1]:.1f}"
            middle = math.sqrt(ratios[start] * ratios[end - 1])
            words = low if low == high else f"{low} to {high}"
            axes.annotate(words, (middle, level), (0, 9), textcoords="offset points", **style)
            start = end


def _inside(axes: Axes, looks: Iterable[Look], **style: Any) -> None:
    """A legend inside of a panel."""
    axes.legend(handles=[handle(look) for look in {look["label"]: look for look in looks}.values()], **style)


def _difference_panel(n: int, lines: Sequence[Record], first: bool) -> Panel:
    def look(line: Record, label: str = "") -> Look:
        return _look(line, label, marker="s")

    def dress(axes: Axes) -> None:
        if first:
            _inside(axes, [look(line, f"{line.denoiser}, {_steps(line)}") for line in lines])

    ylabel = "margin - vanilla, percentage points" if first else ""
    return _panel("Margin minus vanilla", lines, look, ylabel, levels=[Level(0, {})], dress=dress)


def _reasons(lines: Sequence[Record], known: Sequence[Record]) -> list[Record]:
    """What explains the decodes, each with the metric that is ``shown`` and its look."""
    made = []
    for line in lines:
        words = f"{line.denoiser}, {line.policy}, {line.tokens}"
        if (line.denoiser, line.tokens) in (("exact", "several"), ("model", "one")):
            made.append(line.plus(shown="dead_checks", look=_look(line, f"dead, {words}")))
        if (line.denoiser, line.tokens) == ("exact", "several"):
            red = _look(line, f"live errors, {words}", color=COLOURS["alarm"])
            made.append(line.plus(shown="live_errors", look=red))
    made += [fact.plus(shown=metric, look={**look, "capsize": 2}) for metric, look in _FACTS.items() for fact in known]
    return [line for line in made if not math.isnan(line.value(line.shown))]


def _reason_panel(n: int, lines: Sequence[Record], first: bool) -> Panel:
    def dress(axes: Axes) -> None:
        ratios = sorted({line.ratio for line in lines})
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        if first:
            axes.set_ylim(-4, 160)  # room for its legend, above the largest share
            axes.set_yticks(range(0, 101, 20))
            style: dict[str, Any] = {"fontsize": 7, "columnspacing": 1, "handlelength": 1.6}
            _inside(axes, [line.look for line in lines], loc="upper left", ncols=2, **style)

    return _panel(
        "Why: what is written after a dead end",
        lines,
        lambda line: {**line.look, "label": ""},
        "share, %" if first else "",
        y=lambda line: line.estimate(line.shown),
        xlabel="P/N",
        dress=dress,
    )
