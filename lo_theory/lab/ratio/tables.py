"""The tables of the ratio sweep: decodes, and what the contexts leave open, averaged over problems at each (N, P).

Problems of one (N, P), each with its training, are the independent runs: intervals are over them (Student's t; of one
problem over sequences), and margin minus vanilla is taken problem by problem before it is averaged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lo_theory.diffusion.statistics import Estimate, Runs, pooled
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, add_row, gaps_of_runs, group
from lo_theory.lab.texts import shown

__all__ = ["Decode", "Facts", "decodes", "facts", "falls", "settling_ratio", "tables"]

_POLICIES = ("vanilla", "margin")


@dataclass(frozen=True)
class Decode:
    """One way to decode at one (N, P): ``kind`` is ``L`` (one token a step) or ``several``.

    ``accuracy``: self-consistency of the generated observations; ``alive``: share of the steps made while the context
    was possible, as the exact posterior sees it; ``dead`` and ``live_errors``: see ``dead_checks`` of the diffusion
    room, nan for a model whose decodes the exact posterior has not looked at; ``problems``: accuracy
    problem by problem.
    """

    pair: tuple[int, int]
    denoiser: str
    policy: str
    kind: str
    accuracy: Estimate
    alive: Estimate
    dead: Estimate
    live_errors: Estimate
    problems: Runs

    @property
    def ratio(self) -> float:
        """P/N."""
        return self.pair[1] / self.pair[0]

    def minus(self, other: Decode) -> Estimate:
        """Difference of accuracies on the same problems."""
        return self.problems.minus(other.problems, share=True)


@dataclass(frozen=True)
class Facts:
    """What holds at one (N, P) whatever the decode.

    ``independent``: accuracy of observations that are drawn from their single-token marginals; ``joint_entropy`` (nats
    per hidden latent) and ``deterministic``: see ``Uncertainty``, under uniform masks; ``gap``: gap closed by the
    models. nan where not measured.
    """

    pair: tuple[int, int]
    independent: Estimate
    joint_entropy: Estimate
    deterministic: Estimate
    gap: Estimate


def decodes(rows: Iterable[Row]) -> list[Decode]:
    """All decodes with drawn tokens and a policy of Table 1, by N, denoiser, kind and policy, P ascending."""
    found: dict[tuple[tuple[int, int], str, str, str], Measured] = {}
    for cell in group(rows, "decode"):
        keys = cell.keys
        if keys["policy"] in _POLICIES and not keys["argmax"] and "noise" not in keys:
            kind = "L" if int(keys["steps"]) == sum(cell.pair) else "several"
            add_row(found, (cell.pair, str(keys["denoiser"]), str(keys["policy"]), kind), _seen(cell))
    made = [
        Decode(
            *place,
            all_of.estimate("self_consistency"),
            all_of.estimate("alive_steps"),
            all_of.estimate("dead_checks"),
            all_of.estimate("live_errors"),
            all_of.metrics["self_consistency"],
        )
        for place, all_of in found.items()
    ]
    return sorted(made, key=lambda it: (it.pair[0], it.denoiser, it.kind, _POLICIES.index(it.policy), it.pair[1]))


def _seen(cell: Measured) -> Measured:
    """What only the exact posterior can tell left out of rows of models that it has not looked at: they may hold 0."""
    if cell.keys["denoiser"] == "exact" or "alive_steps" in cell.metrics:
        return cell
    unseen = ("dead_checks", "live_errors")
    return Measured(cell.keys, {name: runs for name, runs in cell.metrics.items() if name not in unseen})


def facts(rows: Sequence[Row]) -> list[Facts]:
    """What holds at each (N, P), N and then P ascending."""
    problems = group(rows, "problem")
    own = {int(problem.keys["row"]): problem for problem in problems}
    losses = [item for item in group(rows, "losses") if item.keys["law"] == "uniform"]
    open_ = group(rows, "uncertainty")

    def mean(pair: tuple[int, int], items: Iterable[Measured], metric: str) -> Estimate:
        found: dict[str, Measured] = {}
        for item in items:
            if item.pair == pair and metric in item.metrics:
                add_row(found, metric, item)
        return found[metric].estimate(metric) if found else Estimate(math.nan, math.nan, math.nan)

    def gap(pair: tuple[int, int]) -> Estimate:
        parts = [gaps_of_runs(item, own[int(item.keys["row"])]) for item in losses if item.pair == pair]
        return pooled([gap for part in parts for gap in part.values()])

    return [
        Facts(
            pair,
            mean(pair, problems, "self_consistency_independent"),
            mean(pair, open_, "joint_entropy"),
            mean(pair, open_, "deterministic"),
            gap(pair),
        )
        for pair in sorted({problem.pair for problem in problems})
    ]


def falls(curve: Sequence[Decode], level: float) -> list[float]:
    """Each P/N at which accuracy falls to ``level``, ascending, on straight lines between the measured ratios.

    The lines are those of the figure: straight against the logarithm of P/N.
    """
    found = []
    for before, after in itertools.pairwise(curve):
        high, low = before.accuracy[0] - level, after.accuracy[0] - level
        if high > 0 >= low:
            found.append(before.ratio * (after.ratio / before.ratio) ** (high / (high - low)))
    return found


def settling_ratio(curve: Sequence[Decode], level: float) -> float:
    """The P/N from which on accuracy stays at or below ``level``; nan where it ends above it, or never was above.

    Near the level the first fall is chance: a curve that grazes it falls and rises again.
    """
    found = falls(curve, level)
    return found[-1] if found and curve[-1].accuracy[0] <= level else math.nan


def _met(curve: Sequence[Decode], level: float) -> str:
    """Where a curve falls to a level, first and for good, in words where that is between no measured ratios."""
    below, found = curve[0].accuracy[0] <= level, falls(curve, level)
    if not below and not found:
        return "never"
    first = f"{curve[0].ratio:g} or below" if below else f"{found[0]:.1f}"
    if curve[-1].accuracy[0] > level:
        return f"{first}, not for good"
    return f"{first}, for good {found[-1]:.1f}" if len(found) + below > 1 else first


def _text(estimate: Estimate, scale: float = 100, form: str = ".1f") -> str:
    return shown(estimate, scale, form)


def _decode_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    found = decodes(rows)
    lines: dict[tuple[int, str, str], list[tuple[str, ...]]] = {}
    pairs = {(it.pair, it.denoiser, it.kind, it.policy): it for it in found}
    for vanilla in (it for it in found if it.policy == "vanilla"):
        margin = pairs.get((vanilla.pair, vanilla.denoiser, vanilla.kind, "margin"))
        lines.setdefault((vanilla.pair[0], vanilla.denoiser, vanilla.kind), []).append(
            (
                "{}, {}".format(*vanilla.pair),
                vanilla.denoiser,
                f"{vanilla.ratio:g}",
                "one" if vanilla.kind == "L" else "several",
                _text(vanilla.accuracy),
                _text(margin.accuracy) if margin else "-",
                _text(margin.minus(vanilla)) if margin else "-",
                _text(vanilla.alive),
                _text(margin.alive) if margin else "-",
                _text(vanilla.dead),
                _text(margin.dead) if margin else "-",
                _text(vanilla.live_errors),
                _text(margin.live_errors) if margin else "-",
            )
        )
    columns = (
        "N, P",
        "denoiser",
        "P/N",
        "tokens\na step",
        "vanilla",
        "margin",
        "margin minus\nvanilla",
        "vanilla,\nsteps alive",
        "margin,\nsteps alive",
        "vanilla,\ndead checks",
        "margin,\ndead checks",
        "vanilla,\nlive errors",
        "margin,\nlive errors",
    )
    notes = (
        "Self-consistency of generated observations in per cent. Steps alive: made while some sequence of the data had "
        "what was written so far; dead checks: observations that were written after that, or one of whose latents was: "
        "for the exact posterior they agree by chance; live errors: wrong observations of the other checks. Means over "
        "problems with 95 % intervals over problems (Student's t; over sequences where there is one problem, or all "
        "have one value); differences are taken problem by problem.",
    )
    return Table(experiment.title or experiment.experiment, columns, tuple(map(tuple, lines.values())), notes)


def _meeting_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    levels = {fact.pair: fact.independent[0] for fact in facts(rows)}
    curves: dict[tuple[int, str, str, str], list[Decode]] = {}
    for it in decodes(rows):
        curves.setdefault((it.pair[0], it.denoiser, it.kind, it.policy), []).append(it)
    lines = []
    for (n, denoiser, kind, policy), curve in curves.items():
        level = levels[curve[0].pair]
        least = min(curve, key=lambda it: it.accuracy[0])
        lines.append(
            (
                str(n),
                denoiser,
                policy,
                "one" if kind == "L" else "several",
                f"{100 * level:.1f}",
                _met(curve, level),
                f"{_text(least.accuracy)} at {least.ratio:g}",
            )
        )
    columns = ("N", "denoiser", "policy", "tokens\na step", "marginals\nonly", "met at P/N", "lowest")
    notes = (
        "Marginals only: observations drawn from their single-token marginals. Met: the first ratio at which the mean "
        "falls to it, on the straight lines of the figure; where it rises above it again, also the one from which it "
        "stays there. Both have the intervals of the means around them.",
    )
    return Table("Where decoding meets the marginals-only value", columns, (tuple(lines),), notes)


def _facts_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    lines = tuple(
        (
            "{}, {}".format(*fact.pair),
            f"{fact.pair[1] / fact.pair[0]:g}",
            _text(fact.joint_entropy, 1, ".3f"),
            _text(fact.deterministic),
            _text(fact.gap),
        )
        for fact in facts(rows)
    )
    columns = ("N, P", "P/N", "entropy left,\nnats per hidden latent", "determined, %", "gap closed, %")
    notes = (
        "Under uniform masks: what the context leaves open of the hidden latents, the share of contexts that fix every "
        "latent, and what the models have learned.",
    )
    return Table("What the contexts leave open", columns, (lines,), notes)


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    return [make(experiment, rows) for make in (_decode_table, _meeting_table, _facts_table)]
