"""Training proposals at equal operations: each against the plain masked loss, training by training.

The first row of a problem is what its other rows are compared with. Trainings of one number share initialisation, data
and what they are judged on, so differences are taken training by training.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lo_theory.diffusion import TopK, View, calibration, losses
from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.statistics import Estimate, between
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.experiments.table1 import OwnRule, count_forwards, decoded
from lo_theory.lab.frame import Frame, Record, of_kind, parts, with_texts
from lo_theory.lab.learning import learning_curves, place_look
from lo_theory.lab.panel import Axes, Level, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import (
    Cell,
    Decoding,
    Evaluation,
    Model,
    Objective,
    Source,
    Training,
    check_laws,
    mask_law,
    policy,
    step_count,
)
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, number, plus_minus, text
from lo_theory.lab.training import Learner, make_objective
from lo_theory.lab.units import Unit
from lo_theory.problem import LODistribution


@dataclass(frozen=True)
class Row:
    """A proposal, called ``name``, on a problem.

    ``training.steps`` are those of an objective that sends each row through the network once; one that takes several
    passes takes fewer steps, of as many operations. ``draws``: trainings. ``decoding``: of the model alone.
    """

    name: str
    problem: Problem
    training: Training
    seed: int = 0
    draws: int = setting(3, least=1)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    decoding: Decoding = field(default_factory=lambda: Decoding(denoisers=("model",)))
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        if self.training.evaluations < 1:
            raise ValueError("training.evaluations is 0, so there would be no curve: give it, such as 10")
        if "uniform" not in self.evaluation.laws or not self.evaluation.exact:
            raise ValueError("evaluation needs exact: true and uniform among its laws: proposals are judged by both")
        if any(cell.denoiser != "model" for cell in self.decoding.cells()):
            raise ValueError("decoding is of the model alone: give denoisers: [model]")

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where laws or an objective do not fit, nothing is left to train, or there is no gap."""
        laws = [("evaluation.laws", self.evaluation.laws), *self.objective.named_laws()]
        check_laws(laws, distribution.layout)
        steps = trained_steps(self, distribution)
        if steps < self.training.evaluations:
            raise ValueError(f"training.steps = {self.training.steps} are {steps} steps of {self.objective.kind}")
        self.objective.check_lasts(steps)
        if math.isnan(gap_span(distribution.entropy(), distribution.marginal_entropy())):
            raise ValueError("problem: its tokens are independent, so there is no gap to close: take another")


Reference = Source


def trained_steps(row: Row, distribution: LODistribution) -> int:
    """The most steps of no more passes than ``training.steps`` of one pass a row, stages included; 0 for none."""
    from lo_theory.neural.objectives import count_passes

    def passes(steps: int) -> int:
        return count_passes(make_objective(row.objective, distribution, steps), steps)

    budget = row.training.steps
    return bisect.bisect_right(range(1, budget + 1), budget, key=passes)


def units(s: Subject) -> Iterator[Unit]:
    """The facts of the problem, and each training with what it is judged by."""
    s = s.named(f"{s.size} {s.row.name}", name=s.row.name)
    row = s.row
    training = replace(row.training, steps=trained_steps(row, s.distribution))
    facts = measures.singles(measures.loss_lines(s.distribution))
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    for draw in range(row.draws):
        label, root = f"#{draw} ", s.key.fold("training").fold(draw)
        learner = s.learner(f"{s.title} #{draw}", str(draw), key=root, training=training)
        measure = partial(measures.training, s, learner, {"draw": draw})
        yield s.unit(f"training/{draw}", f"{label}training", measure, learner=learner)
        needs = [f"training/{draw}"]
        for law in row.evaluation.laws:
            measure, n = partial(_losses, s, learner, draw, law), row.evaluation.sequences * (1 + (law == "uniform"))
            yield s.unit(f"losses/{draw}/{law}", f"{label}losses under {law}", measure, needs, forwards=n)
        for own in [*map(_OneDecode, row.decoding.cells()), *_own_decodes(row)]:
            cell, measure = own.cell, partial(_decode, s, learner, draw, own)
            words, n = f"{label}{cell.policy}, {cell.steps} steps", _forwards(s, own)
            yield s.unit(f"decode/{draw}/{cell.name}", words, measure, needs, forwards=n)


def _losses(s: Subject, learner: Learner, draw: int, text: str) -> list[Finding]:
    """KL to the exact posterior under a mask law; under the uniform one also whether the model is as sure as it is."""
    judge, law, n = s.key.fold("judged").fold(draw), mask_law(text), s.row.evaluation.sequences
    model, exact = s.watched(s.model(learner)), s.watched(s.exact(s.row.evaluation.limit_states))
    root = judge.fold(law.name)
    found = losses(model, exact, s.distribution, law, key=root, n=n)
    metrics = {name: getattr(found, name) for name in ("model", "exact", "kl")}
    if text == "uniform":
        sure = calibration(model, exact, s.distribution, law, key=root, n=n)
        metrics |= {"overconfidence": sure.overconfidence, "confidence_error": sure.distance}
    return [Finding("losses", {"draw": draw, "law": law.name}, metrics)]


@dataclass(frozen=True)
class _OneDecode:
    """A decode under the name of its ``cell``: by the policy of that name, or by one of its own.

    ``learned``: along the order that was learned. ``corrected``: by this policy, with the corrector of ProSeCo.
    """

    cell: Cell
    learned: bool = False
    corrected: str | None = None


def _own_decodes(row: Row) -> list[_OneDecode]:
    """Decodes beside those that are asked for: along the order that was learned; those asked for, with a corrector.

    The corrector is ProSeCo's, on what ProSeCo trained and on the plain loss: does training for it help, or it alone?
    """
    (kind, _), laws = row.objective.named_kind(), row.objective.laws
    if kind == "learned_order":
        return [_OneDecode(Cell("model", "learned_order", "L", False, "fixed_count"), learned=True)]
    if kind == "proseco" or (kind, laws) == ("masked", ("uniform",)):
        cells = row.decoding.cells()
        return [_OneDecode(replace(cell, policy=f"corrected_{cell.policy}"), corrected=cell.policy) for cell in cells]
    return []


def _rule(s: Subject, learner: Learner, own: _OneDecode) -> OwnRule | None:
    """Policy and corrector of a decode of its own, None of others."""
    from lo_theory.neural import SelfCorrection, learned_order

    if own.corrected is not None:
        return OwnRule(policy(own.corrected), SelfCorrection(s.model(learner)))
    if not own.learned:
        return None
    goal: Any = learner.goal()
    order = learned_order(getattr(goal, "objective", goal), s.trained(learner).model)

    def score(view: View) -> Any:
        rule.contexts += len(view.tokens)
        return order.score(view)

    rule = OwnRule(TopK(order.name, score))
    return rule


def _forwards(s: Subject, own: _OneDecode) -> int:
    """Sequences that a decode sends through the network: a learned order is asked too, correctors at most so often."""
    from lo_theory.neural import SelfCorrection

    forwards = count_forwards(s, s.row.decoding, own.cell)
    if own.learned:
        return 2 * forwards
    if own.corrected is not None:
        steps = step_count(own.cell.steps, s.distribution.layout.length)
        return s.row.decoding.sequences * (steps + steps // SelfCorrection.every * SelfCorrection.passes)
    return forwards


def _decode(s: Subject, learner: Learner, draw: int, own: _OneDecode) -> list[Finding]:
    model, root = s.watched(s.model(learner)), s.key.fold("judged").fold(draw)
    found = decoded(s, s.row.decoding, model, own.cell, root=root, own=_rule(s, learner, own))
    return [Finding("decode", {"draw": draw, **found.keys}, found.metrics)]


@dataclass(frozen=True)
class Quantity:
    """What a training is judged by: ``metric``, of the KL under a mask ``law``, of what is decoded by a ``decode``.

    A decode is a policy and its number of steps.
    """

    metric: str
    law: str = ""
    decode: str = ""

    @property
    def name(self) -> str:
        """``kl uniform``, ``margin 60 cost``; else the metric: ``gap``."""
        return f"{self.metric} {self.law}" if self.law else f"{self.decode} {self.metric}".strip()


def proposals(frame: Frame, experiment: Experiment) -> list[Record]:
    """One record for each row with results, those of one problem together.

    ``curves`` of its trainings; ``trainings``: a mapping from the number of a training to what it was measured to be,
    by ``Quantity``. The metrics are their means by the quantities' names, with intervals over trainings (Student's t).
    """
    frame = with_texts(frame, "name", seed_texts(experiment))
    curves, found = learning_curves(frame), []
    for line in of_kind(frame, "problem"):
        own = [curve for curve in curves if curve[0].row == line.row]
        trainings = {curve[0].draw: {_GAP: curve[-1].value("gap")} for curve in own}
        for judged in (each for each in [*of_kind(frame, "losses"), *of_kind(frame, "decode")] if each.row == line.row):
            trainings[judged.draw] |= _judged(judged)
        keys = {"row": line.row, "N": line.N, "P": line.P, "name": line.name, "curves": own, "trainings": trainings}
        span = gap_span(line.value("floor"), line.value("marginals_only"))
        keys |= {"span": span, "setting": experiment.rows[line.row]}
        found.append(_averaged(keys, list(trainings.values())))
    return [proposal for part in parts(found, "N", "P") for proposal in part]


def _judged(judged: Record) -> dict[Quantity, float]:
    """What tables show of losses under a law or of a decode."""
    if judged.kind == "losses":
        wanted = [Quantity("kl", law=judged.law), *map(Quantity, _SURE)]
    else:
        wanted = [Quantity(metric, decode=f"{judged.policy} {judged.steps}") for metric in (*_DECODED, *_PASSES)]
    return {one: judged.value(one.metric) for one in wanted if one.metric in judged.metrics}


def _averaged(keys: Mapping[str, Any], trainings: Sequence[Mapping[Quantity, float]]) -> Record:
    """Each quantity's mean over the trainings that have it, with its interval; ``quantities`` lists them."""
    quantities = list(dict.fromkeys(one for training in trainings for one in training))
    values = {one: [training[one] for training in trainings if one in training] for one in quantities}
    return Record({**keys, "quantities": quantities}, {one.name: (between(each), {}) for one, each in values.items()})


def differences(found: Sequence[Record]) -> list[Record]:
    """Every proposal less the first row of its problem, as means over trainings of one number, with intervals."""
    apart = []
    for first, *others in parts(found, "N", "P"):
        for other in others:
            pairs = [(other.trainings[i], first.trainings[i]) for i in other.trainings if i in first.trainings]
            less = [{each: one[each] - base[each] for each in one if each in base} for one, base in pairs]
            apart.append(_averaged({**other.keys, "first": first.name}, less))
    return apart


_NAMES = (text("N, P", lambda line: f"{line.N}, {line.P}"), key("name", "proposal", left=True))


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """What each proposal reaches, and how far it is from the plain loss."""
    found = proposals(frame, experiment)
    setting = (
        *_NAMES,
        text("objective", lambda line: _objective(line.setting.objective)),
        Column("steps", lambda line: number(_last(line, "step"), ".0f")),
        text("trainings", lambda line: f"{len(line.trainings)}", left=False),
        Column("FLOPs", lambda line: number(_last(line, "flops"), ".2e")),
    )
    over = "Means over trainings, with 95 % intervals over them (Student's t), of a single one none."
    sure = (
        "Over-confident: the largest probability at a hidden token less what the exact posterior gives that value, "
        "points; confidence error: its absolute value. Uniform law."
    )
    counted = any(quantity.metric in _PASSES for line in found for quantity in line.quantities)
    passes = " passes: of the network, a sequence, where a step may take several." if counted else ""
    title = "What each proposal reaches"
    yield Table(title, [*setting, *_columns(found, _KNOWN)], found, ["N", "P"], [f"{over} {sure}", *experiment.paper])
    yield Table(
        "KL by mask law",
        [*_NAMES, *_columns(found, _KL)],
        found,
        ["N", "P"],
        f"From the exact marginals to the model's, nats a token. {over}",
    )
    yield Table(
        "Decodes",
        [*_NAMES, *_columns(found, (*_DECODED, *_PASSES))],
        found,
        ["N", "P"],
        "By policy and number of steps: self-consistent observations, per cent; cost, nats a sequence, where every "
        f"true sequence can be generated. corrected_: with the corrector passes of ProSeCo; such a decode has no cost, "
        f"since no path belongs to one sequence.{passes} {over}",
    )
    yield Table(
        "The learned order on the way",
        [
            *(*_NAMES, key("step")),
            *(_measured(name, words, form, scale) for name, words, form, scale in _PATH),
        ],
        [point for line in found for point in paths(line)],
        ["N", "P"],
        "P(a latent is revealed before an observation): one half in random order. Forward head: in the order that "
        f"the training draws for a sequence. Reverse head: where all is hidden, as a decode begins. {over}",
    )
    apart = differences(found)
    for what, group in (("loss", (*_KNOWN, *_KL)), ("decodes", _DECODED)):
        columns = _columns(apart, group)
        count = sum(column.of in line.metrics for column in columns for line in apart)
        notes = (
            "Proposal less the first row of its problem, training by training, those of one number: initialisation and "
            "data are the same, step by step. Means with 95 % intervals (Student's t); ! where the interval does not "
            f"hold 0. Of the {count} differences here {count / 20:.1f} are marked by chance."
        )
        yield Table(f"Against the first row: {what}", [*_NAMES, *columns], apart, ["N", "P"], notes)


_PATH = (
    ("latents_first", "latents first,\nforward head", ".3f", 1),
    ("latents_first_reverse", "latents first,\nreverse head", ".3f", 1),
    ("gap", "gap\nclosed, %", ".1f", 100),
)


def paths(line: Record) -> list[Record]:
    """Of a proposal that learns an order the evaluations on the way, means over trainings; of others nothing."""
    names = [name for name, *_ in _PATH]
    found = []
    for points in zip(*line.curves, strict=True):
        if all(names[0] in point.metrics for point in points):
            values = [{Quantity(name): point.value(name) for name in names} for point in points]
            found.append(_averaged({**line.keys, "step": points[0].step}, values))
    return found


def _last(line: Record, name: str) -> float:
    return max((curve[-1].keys[name] for curve in line.curves), default=math.nan)


def _objective(setting: Objective) -> str:
    kind = [] if setting.kind == "masked" else [setting.kind]
    laws = [] if kind and setting.laws == ("uniform",) else ["+".join(setting.laws)]
    return " ".join(kind + laws)


_GAP = Quantity("gap")
_SURE = ("overconfidence", "confidence_error")
_KNOWN, _KL = ("gap", *_SURE), ("kl",)
_DECODED, _PASSES = ("self_consistency", "cost"), ("forward_passes",)
_UNITS = {"gap": 100, "overconfidence": 100, "confidence_error": 100, "self_consistency": 100}
_FORMS = {"kl": ".4f", "overconfidence": ".2f", "confidence_error": ".2f", "cost": ".2f"}
_TITLES = {
    "gap": "gap\nclosed, %",
    "overconfidence": "over-\nconfident",
    "confidence_error": "confidence\nerror",
    "self_consistency": "consistent",
    "cost": "nats",
    "forward_passes": "passes",
}


def _columns(found: Sequence[Record], metrics: Sequence[str]) -> list[Column]:
    """A column for each quantity of these metrics that was measured."""
    columns = []
    for one in dict.fromkeys(quantity for line in found for quantity in line.quantities):
        if one.metric in metrics:
            title = one.law or "\n".join(filter(None, (one.decode, _TITLES[one.metric])))
            columns.append(_measured(one.name, title, _FORMS.get(one.metric, ".1f"), _UNITS.get(one.metric, 1)))
    return columns


def _measured(metric: str, title: str, form: str, scale: float) -> Column:
    """A measured column; of a difference with its sign, and ! behind what differs from 0."""

    def of(line: Record) -> str:
        if metric not in line.metrics:
            return ""
        estimate, apart = line.estimate(metric), "first" in line.keys
        words = plus_minus(estimate, f"+{form}" if apart else form, scale)
        return words + "!" * (apart and (estimate.low > 0 or estimate.high < 0))

    return Column(title, of, of=metric)


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """For each problem nats above the floor against operations, and the differences from the first row at the end."""
    found = proposals(frame, experiment)
    panels: list[Panel | None] = []
    for part in parts(found, "N", "P"):
        panels += [_curves(part), _ends(part, differences(part)) if len(part) > 1 else None]
    size = (12.5, 0.8 + 4.2 * max(1, len(panels) // 2))
    return {"figure": Sheet(experiment.heading, panels, 2, size, grid={"width_ratios": (1.5, 1)})}


_LOWEST = 1e-3  # nats a token


def _curves(part: Sequence[Record]) -> Panel:
    """Nats above the floor, the mean over the trainings of each proposal."""
    lines = [
        Record({"flops": points[0].flops, "place": place, "name": line.name}, {"nats": (_mean(points, line.span), {})})
        for place, line in enumerate(part)
        for points in zip(*line.curves, strict=True)
    ]

    def look(line: Record) -> Look:
        return {**place_look(line.place), "label": line.name, "linewidth": 1.2 if line.place else 2.2}

    title = f"N = {part[0].N}, P = {part[0].P}: means over {max(len(line.curves) for line in part)} trainings"
    scale, words = Logarithmic(_LOWEST), "nats a token above the floor"
    return Panel(title, "curves", lines, "flops", "nats", look=look, scale=scale, xlabel="training FLOPs", ylabel=words)


def _mean(points: Sequence[Record], span: float) -> Estimate:
    """Without an interval: that of three trainings would hide all others."""
    return Estimate(span * sum(1 - point.value("gap") for point in points) / len(points), math.nan, math.nan)


def _ends(part: Sequence[Record], apart: Sequence[Record]) -> Panel:
    """Gap closed less that of the first row, proposal by proposal."""
    places = {line.row: place for place, line in enumerate(part)}

    def look(line: Record) -> Look:
        return {"color": place_look(places[line.row])["color"], "marker": "D", "markersize": 5, "capsize": 3}

    def dress(axes: Axes) -> None:
        axes.set_yticks(range(len(apart)), [line.name for line in apart])
        axes.grid(axis="y", visible=False)

    lines = [line.plus(place=place) for place, line in enumerate(apart)]
    title = f"gap closed less that of {part[0].name}\nmean and 95 % interval over trainings"
    levels = [Level(0.0, {"linewidth": 0.8})]
    return Panel(
        title, "spans", lines, "gap", "place", look=look, scale=100, levels=levels, xlabel="points", dress=dress
    )
