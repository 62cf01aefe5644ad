"""Tables and figure of ``puzzles``: what is solved under which policy, and what the first error was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import COLOURS, MARKERS, RULE_SHADES
from lo_theory.lab.experiments.puzzle_sets import MOVES
from lo_theory.lab.frame import Frame, Record, beside, each, grouped, of_kind, parts
from lo_theory.lab.panel import Look, Panel, Sheet
from lo_theory.lab.table import Column, Table, key, measured, number, percent, plus_minus, text

_PLACE = ("N", "name", "puzzles", "denoiser", "steps", "argmax", "temperature", "noise")


class _Words(NamedTuple):
    """What notes say of a family of puzzles: ``whole``, what is filled; ``digit``, what is written into a cell;
    ``law``, of the losses, and ``lines``, the beginning of the names of the known lines of that law.
    """

    whole: str
    digit: str
    law: str
    lines: str
    solved: str
    learned: str


_WORDS: Mapping[str, _Words] = {
    "sudoku": _Words(
        *("grid", "digit", "uniform", "", "the finished grid is one, and has the clues"),
        "Nats a token, on fresh grids. Bayes: the exact posterior in the same contexts; masked: under the uniform law, "
        "causal learners along their order, of which the expectation is ln(grids)/L, learners of moves on the moves "
        "alone, over L. Grids of nothing: of those that a causal learner generates, the share that are grids.",
    ),
    "zebra": _Words(
        *("puzzle", "house", "latents_only", "latents_", "what is filled in makes all clues true"),
        "Nats a cell, on fresh puzzles whose clues are all shown. Bayes: the exact posterior in the same contexts, "
        "which counts solutions; its expectation is the mean of ln(solutions)/N. Gap closed: of the way to that from "
        "ln H, the loss of a uniform house.",
    ),
}
"""By family of the first row; an experiment is of one family."""


def solved(frame: Frame) -> list[Record]:
    """One record for each set of puzzles or part of one, denoiser, steps and policy; of models means over trainings."""
    return of_kind(frame, "puzzles", over="draw")


def _sets(lines: Sequence[Record]) -> list[Record]:
    """Of whole sets, without what causal learners make."""
    return [line for line in lines if not {"clues", "technique"} & line.keys.keys() and line.denoiser != "causal"]


def by_policy(lines: Sequence[Record]) -> list[Record]:
    """Policies side by side: ``margin solved`` and so on, and ``effect``, margin less vanilla."""
    found = []
    for part in parts(lines, *_PLACE, "clues", "technique"):
        metrics: dict[str, Any] = {f"{line.policy} {name}": one for line in part for name, one in line.metrics.items()}
        at = {line.policy: line for line in part}
        if {"margin", "vanilla"} <= at.keys():
            metrics["effect"] = (at["margin"].minus(at["vanilla"], "solved"), {})
        found.append(Record({name: value for name, value in part[0].keys.items() if name != "policy"}, metrics))
    return found


def _published(experiment: Experiment) -> list[Record]:
    """The paper's numbers as lines of the table of all sets, one a set."""
    if experiment.reference is None:
        return []
    sets: dict[str, dict[str, Any]] = {}
    for one in experiment.reference.rows:
        place = f"published {one.puzzles}".strip()
        sets.setdefault(place, {})[f"{one.policy} solved"] = (Estimate(one.percent / 100, math.nan, math.nan), {})
    return [Record({"puzzles": place, "denoiser": "paper"}, metrics) for place, metrics in sets.items()]


def _who(line: Record) -> str:
    return " ".join(filter(None, (line.denoiser, line.get("name"))))


_WHO = (key("puzzles", left=True), text("denoiser", _who), key("steps"))
_TOKENS = text("tokens", lambda line: {True: "argmax", False: "drawn"}.get(line.get("argmax"), ""))


def _section(line: Record) -> tuple[Any, ...]:
    """A set of puzzles, or all that is published."""
    return (line.get("N"), line.puzzles) if "N" in line.keys else ()


_OVER = (
    "95 % intervals: over puzzles; of models over trainings (Student's t), for these puzzles, and where all trainings "
    "have one share, or there is one, over all their decodes."
)
_VOID = (
    " Of learners of moves, per cent of the puzzles. Not finished: a cell is never filled, which counts as a digit "
    "that is excluded; void moves: one that names no empty cell or no digit, and does nothing."
)


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """What is solved, what went wrong first, parts of the sets, and what the networks know."""
    found = grouped(solved(frame), "N", "puzzles", "denoiser")
    lines = [*by_policy(_sets(found)), *_published(experiment)]
    effect = Column("margin less\nvanilla", lambda line: plus_minus(line.estimate("effect"), "+.1f", 100), of="effect")
    own = _WORDS[experiment.rows[0].problem.family]
    notes = (
        f"Per cent. {_OVER} Margin less vanilla without training: as if their puzzles were not the same. Solved: "
        f"{own.solved}."
    )
    yield Table(
        "Puzzles solved",
        [*_WHO, _TOKENS, *_policies(lines), effect],
        lines,
        _section,
        [notes, *experiment.paper],
    )
    wrong = [line for line in _sets(found) if line.value("solved") < 1]
    moves = [percent("unfinished", "not\nfinished"), percent("void", "void\nmoves")]
    yield Table(
        "The first error",
        [
            *(*_WHO, _TOKENS, key("policy", left=True), percent("by_model", "model\nerror")),
            *(percent("by_dependence", "dependence\nerror"), percent("cells_right", "cells\nright")),
            *(percent("cells_excluded", "cells\nexcluded"), percent("cells_dead", "cells in\ndead ends")),
            percent("cells_dead_wrong", "of these\nwrong"),
            *(moves if any("unfinished" in line.metrics for line in wrong) else []),
        ],
        wrong,
        _section,
        "Per cent of the puzzles, then of the empty cells. Model error: the first step that went wrong wrote a "
        f"{own.digit} of exact probability 0 in its context (cells excluded); dependence error: each of its "
        f"{own.digit}s was possible, all together were not. Cells in dead ends: filled later. Cells right: as in the "
        f"solution, of sets with one solution; 100 less these are excluded and wrong in dead ends. {_OVER}"
        + (_VOID if any("unfinished" in line.metrics for line in wrong) else ""),
    )
    for name, words in (("clues", "By number of clues"), ("technique", "By technique")):
        lines = by_policy([line for line in found if name in line.keys])
        size = Column("puzzles", lambda line: number(_count(line), ".0f"))
        yield Table(words, [*_WHO, _TOKENS, key(name, left=True), size, *_policies(lines)], lines, _section, notes)
    yield _learned(frame, found, own)


def _count(line: Record) -> float:
    """Puzzles of a part of a set; each of several trainings has solved them all."""
    (_, runs), *_ = line.metrics.values()
    return max((sums.n for sums in runs.parts.values()), default=math.nan)


def _policies(lines: Sequence[Record]) -> list[Column]:
    names = dict.fromkeys(name for line in lines for name in line.metrics if name.endswith(" solved"))
    return [percent(name, _heads(name.removesuffix(" solved"))) for name in names]


def _heads(policy: str) -> str:
    """What a column of a policy is called."""
    return "own\nmoves" if policy == "own" else policy.replace("_", "\n")


def _learned(frame: Frame, found: Sequence[Record], words: _Words) -> Table:
    """The loss of each network beside the exact one: masked under the law of its family, causal along its order."""
    problem = {(line.N, line.get("name")): line for line in of_kind(frame, "problem")}
    masked = of_kind(frame, "losses", over="draw", law=words.law)
    trained = [line.plus(law=words.law, learner="masked") for line in masked]
    along = [line.plus(law="its order") for line in of_kind(frame, "along", over="draw")]
    nothing = [line.plus(learner=line.policy) for line in found if line.denoiser == "causal"]
    lines = beside([*trained, *along], of_kind(frame, "training", over="draw"), "N", "name", "learner")
    lines = beside(lines, nothing, "N", "name", "learner")
    lines = [line.plus(lines=problem[line.N, line.get("name")]) for line in lines]

    def gap(line: Record) -> str:
        span = line.lines.value(f"{words.lines}marginals_only") - line.lines.value(f"{words.lines}floor")
        if line.learner in MOVES:  # of another law
            return ""
        return number(100 * (1 - line.value("kl") / span), ".1f")

    nothings = [percent("solved", "grids of\nnothing")] if nothing else []
    return Table(
        "What the networks know",
        [
            text("learner", lambda line: " ".join(filter(None, (line.learner, line.get("name"))))),
            key("law", left=True),
            Column("weights", lambda line: number(line.value("parameters"), ",.0f")),
            *(measured("model", "loss", ".4f"), measured("exact", "Bayes", ".4f"), measured("kl", "KL", ".4f")),
            Column(f"KL, nats\na {words.whole}", lambda line: plus_minus(line.estimate("kl"), ".3f", line.N), of="kl"),
            *(Column("gap\nclosed, %", gap), *nothings),
        ],
        lines,
        ["N"],
        f"{words.learned} {_OVER}",
    )


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """For each set of puzzles the share solved by most and by fewest steps, and the first errors of the latter.

    Of the likeliest digits, where any decode takes them.
    """
    every = grouped(_sets(solved(frame)), "N", "puzzles", "denoiser")
    argmax = any(line.argmax for line in every)
    found = [line for line in every if line.argmax == argmax]
    rows = [_panels(part) for part in parts(found, "N", "puzzles")]
    columns = max(map(len, rows), default=3)
    panels = [panel for row in rows for panel in [*row, *[None] * (columns - len(row))]]
    size = (16 / 3 * columns, 0.8 + 4 * max(1, len(rows)))
    return {"figure": Sheet(experiment.heading, panels, columns, size, grid={"sharey": True})}


def _panels(part: Sequence[Record]) -> list[Panel]:
    """The panels of a set of puzzles: three, or two where all its decodes have as many steps."""
    steps = sorted({line.steps for line in part})
    most, fewest = ([line for line in part if line.steps == count] for count in (steps[-1], steps[0]))
    errors = [one for line in fewest for one in each([line], *_KINDS)]
    title, tokens = f"{part[0].puzzles}, N = {part[0].N}", "argmax" if part[0].argmax else "drawn"
    shown = [
        (most, "solved", f"solved\n{steps[-1]} steps, {tokens}"),
        (fewest, "solved", f"solved\n{steps[0]} steps, {tokens}"),
        (errors, "value", f"the first error\n{steps[0]} steps, {tokens}"),
    ]
    panels = [
        Panel(f"{title}: {words}", "points", lines, _who, y, look=_look, scale=100, ylabel="per cent")
        for lines, y, words in shown
    ]
    return panels if len(steps) > 1 else [panels[0], panels[2]]


_KINDS = {"by_model": "model error", "by_dependence": "dependence error"}
_ORDERS = {"color": COLOURS["model"], "marker": "P"}  # a decode along the order of the training


def _look(line: Record) -> Look:
    """Policies by colour and marker, dependence errors hollow."""
    own = {"color": RULE_SHADES.get(line.policy), "marker": MARKERS.get(line.policy)}
    name, kind = line.policy.replace("_", " "), line.get("metric", "")
    hollow = {"markerfacecolor": "none"} if kind == "by_dependence" else {}
    label = f"{name}: {_KINDS[kind]}" if hollow else name
    return {**(own if line.policy in MARKERS else _ORDERS), "markersize": 5, **hollow, "label": label}
