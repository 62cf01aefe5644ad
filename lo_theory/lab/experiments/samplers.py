"""What decoding rules cost: nats per sequence lost, against forward passes, on one exact scale.

Rules are a policy with a schedule. Each is measured with the exact posterior, whose dependence error is then the whole
cost of the rule, and with weak and trained denoisers, on several problems. Rules that hide again have no such cost:
their decodes are judged. Tables and figures are in ``samplers_shown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np

from lo_theory.diffusion import (
    SCHEDULES,
    Counts,
    FixedCount,
    InformationCurve,
    Schedule,
    Sums,
    best_counts,
    certificates,
    decode,
    every_best_counts,
    information_curve,
    schedule_counts,
)
from lo_theory.diffusion.policies import hides_again
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.costs import measured_costs
from lo_theory.lab.denoisers import NEED_TABLES, denoiser
from lo_theory.lab.experiments import sampler_claims, samplers_shown
from lo_theory.lab.frame import Frame
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import closest, setting
from lo_theory.lab.settings import Model, Objective, Training, policy, schedule, step_count
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Table
from lo_theory.lab.units import Unit
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, LODistribution, TableObservations
from lo_theory.rng import Key


@dataclass(frozen=True)
class Rules:
    """Every policy with every schedule in every number of steps: L, L/8 or an integer.

    ``schedules``: names in ``lo_theory.diffusion.SCHEDULES``; ``best``, the counts that cost least in random order on
    the problem's own information curve; ``by_role``, all tokens of the first role and then all others, in two steps.
    A policy that chooses how many tokens by itself takes up to ``steps``. ``denoisers``: they are measured with those
    of the row that are named here, with all where it is empty.
    """

    policies: tuple[str, ...]
    schedules: tuple[str, ...] = ("fixed_count",)
    steps: tuple[str | int, ...] = ("L",)
    denoisers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("policies", "schedules", "steps"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name at least one")
        for text in self.policies:
            policy(text)
        for text in self.schedules:
            known = [*SCHEDULES, *_OF_PROBLEM]
            if text.partition("(")[0].strip() not in known:
                raise ValueError(
                    f"unknown schedule {text!r}: the closest is {closest(text, known)} ({', '.join(known)})"
                )
            if text not in _OF_PROBLEM:
                schedule(text, 1)
        for steps in self.steps:
            step_count(steps, 1)
        for text in self.denoisers:
            denoiser(text)


class Group(NamedTuple):
    """One rule with one denoiser, in several numbers of steps: one unit of work."""

    denoiser: str
    policy: str
    schedule: str
    steps: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its address inside the row."""
        return f"{self.denoiser}/{self.policy}/{self.schedule}"


@dataclass(frozen=True)
class Row:
    """One problem, called ``name`` in tables, and the rules that are measured on it with each of ``denoisers``.

    ``denoisers``: exact, bp, model, marginals, propagation, few_rounds(2), forgetful(0.25), mixed(0.3), sharpened(0.5).
    ``sequences``: true ones, on which costs are measured, the same for all rules. ``generated``: sequences that each
    rule writes and that are judged; 0, none. ``others``: at most so many of both with other denoisers than the exact
    posterior. ``curve``: sequences of the information curve. ``claims``: sequences of each small problem on which the
    claims of ``sampler_claims`` are tested, which do not depend on the row; 0, not with this row. ``limit_states``: the
    largest number of states that the exact posterior may enumerate at once.
    """

    name: str
    problem: Problem
    rules: tuple[Rules, ...]
    denoisers: tuple[str, ...] = ("exact",)
    sequences: int = setting(500, least=2)
    generated: int = setting(0, least=0)
    others: int = setting(500, least=2)
    curve: int = setting(500, least=2)
    claims: int = setting(0, least=0, late=True)
    seed: int = 0
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        if not self.denoisers or not self.rules:
            raise ValueError("a row needs at least one of denoisers and one of rules")
        if not self.groups(1):
            asked = sorted({text for rules in self.rules for text in rules.denoisers})
            raise ValueError(
                f"no rule is measured with {', '.join(self.denoisers)}: rules name {', '.join(asked)}; a name must be "
                "the same text in both"
            )
        for text in self.denoisers:
            denoiser(text)
        if self.trains and self.training is None:
            raise ValueError("denoisers name model, but training is null: give training, or leave model out")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a denoiser does not fit the problem, or the exact posterior does not fit in memory."""
        bound = [text for text in self.denoisers if text.partition("(")[0] in NEED_TABLES]
        if bound and not isinstance(distribution.observations, TableObservations):
            raise ValueError(f"denoisers: {bound[0]} takes observations that are tables, not slabs: leave it out")
        tokens = distribution.sample(Key(self.seed).fold("check"), 1)
        tokens[:, distribution.layout.latent_positions] = MASK
        cost = ExactPosterior(distribution, limit=self.limit_states).estimate_cost(tokens)
        if not cost.fits.all():
            raise ValueError(
                f"the exact posterior needs {cost.states.max():.4g} states, over the limit of {self.limit_states}: "
                "take a smaller problem, or raise limit_states"
            )

    @property
    def trains(self) -> bool:
        """Whether a network is among the denoisers; without one ``training`` is not used."""
        return "model" in self.denoisers

    def counts(self, denoiser: str) -> tuple[int, int]:
        """True and generated sequences of each rule with a denoiser."""
        most = max(self.sequences, self.generated) if denoiser == "exact" else self.others
        return min(self.sequences, most), min(self.generated, most)

    def groups(self, length: int) -> list[Group]:
        """All rules with all denoisers, each once, those of a denoiser together."""
        found: dict[tuple[str, str, str], dict[int, None]] = {}
        for name, rules in product(self.denoisers, self.rules):
            for rule in product(rules.policies, rules.schedules) if name in (rules.denoisers or (name,)) else ():
                steps = found.setdefault((name, *rule), {})
                steps |= dict.fromkeys(step_count(count, length) for count in rules.steps)
        return [Group(*place, tuple(steps)) for place, steps in found.items()]


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    row = s.row
    s = s.named(f"{row.name}:", name=row.name)
    yield s.unit("problem", "problem", partial(measures.problem, s.distribution))
    yield s.unit("information", "information curve", partial(_information, s))
    if row.trains:
        training = partial(measures.training, s, s.learner(), {})
        yield s.unit("training", "training", training, learner=s.learner())
    for group in row.groups(s.distribution.layout.length):
        of_model = group.denoiser == "model"
        yield s.unit(
            f"decode/{group.name}",
            f"{group.denoiser}, {group.policy}, {group.schedule}",
            partial(_decodes, s, group),
            ["training"] if of_model else (),
            forwards=sum(row.counts("model")) * sum(group.steps) if of_model else 0,
        )
    if row.claims:
        yield from sampler_claims.units(s, row.claims)


def _curve(s: Subject) -> InformationCurve:
    """The information curve of the row's problem, made once."""

    def make() -> InformationCurve:
        exact = s.watched(s.exact(s.row.limit_states))
        return information_curve(exact, s.distribution, key=s.key.fold("information"), n=s.row.curve)

    return s.once("information curve", make)


def _information(s: Subject) -> Iterator[Finding]:
    """The curve, and what the best and the equal counts of each number of steps cost in random order."""
    curve, length = _curve(s), s.distribution.layout.length
    yield Finding("information", {}, {"entropy": curve.entropy, **measures.singles(_total_correlation(s))})
    for known, sums in enumerate(curve.hidden):
        yield Finding("information", {"known": known}, {"hidden_entropy": sums})
    asked = {steps for group in s.row.groups(length) for steps in group.steps}
    for steps, best in enumerate(every_best_counts(curve.nats), 1):
        if steps not in asked:
            yield Finding("information", {"schedule": "best", "steps": steps}, {"curve_cost": curve.cost(best)})
            continue
        equal = schedule_counts(FixedCount(steps), length, s.key)
        for name, counts in (("best", best), ("fixed_count", equal)):
            keys = {"schedule": name, "steps": steps, "counts": " ".join(map(str, counts))}
            bounds = certificates(curve.nats, counts)
            named = measures.singles({metric: bounds[of] for metric, of in _BOUNDS.items()})
            yield Finding("information", keys, {"curve_cost": curve.cost(counts), **named})


_BOUNDS = {"bound_tc": "TC", "bound_dtc": "DTC", "bound_mi": "MI"}
"""Metric -> certificate."""


def _total_correlation(s: Subject) -> dict[str, float]:
    return {"total_correlation": s.distribution.marginal_entropy() - s.distribution.entropy()}


def _best(s: Subject, steps: int) -> Schedule:
    return Counts(tuple(best_counts(_curve(s).nats, steps)))


def _by_role(s: Subject, steps: int) -> Schedule:
    layout = s.distribution.layout
    return Counts((layout.n_latents, layout.n_observations) if steps > 1 else (layout.length,))


_OF_PROBLEM: Mapping[str, Callable[[Subject, int], Schedule]] = {"best": _best, "by_role": _by_role}
"""Schedules that are made for a problem, for a number of steps."""


def _schedule(s: Subject, text: str, steps: int) -> Schedule:
    return _OF_PROBLEM[text](s, steps) if text in _OF_PROBLEM else schedule(text, steps)


def _decodes(s: Subject, group: Group) -> Iterator[Finding]:
    """What one rule costs with one denoiser, and how good the sequences are that it writes, by number of steps."""
    for steps in group.steps:
        keys = {"denoiser": group.denoiser, "policy": group.policy, "schedule": group.schedule, "steps": steps}
        yield Finding("decode", keys, {**_cost(s, group, steps), **_generated(s, group, steps)})


def _cost(s: Subject, group: Group, steps: int) -> dict[str, Sums]:
    """Nats per true sequence, on sequences that all rules share; nothing for a rule that hides again."""
    row, posterior = s.row, s.watched(denoiser(group.denoiser)(s))
    exact = posterior if group.denoiser == "exact" else s.watched(s.exact(row.limit_states))
    rule, (n, _) = (policy(group.policy), _schedule(s, group.schedule, steps)), row.counts(group.denoiser)
    return measured_costs(posterior, rule, s.distribution, key=s.key.fold("cost"), n=n, exact=exact)


def _generated(s: Subject, group: Group, steps: int) -> dict[str, Sums]:
    """How good generated sequences are; of a rule without a cost also the passes that they took."""
    (_, n), rule = s.row.counts(group.denoiser), policy(group.policy)
    if not n:
        return {}
    key, plan = s.key.fold("decode").fold(f"{group.name}({steps})"), _schedule(s, group.schedule, steps)
    decoded = decode(s.watched(denoiser(group.denoiser)(s)), rule, plan, key=key, n=n)
    calls = {"calls": Sums.of(np.full(n, decoded.forwards / n))} if hides_again(rule) else {}
    return measures.generated(s.distribution, decoded.tokens, key.fold("judge"), calls)


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """Claims, rules ranked, the frontier, weak and trained denoisers, rules that hide again, information curves."""
    yield from sampler_claims.tables(frame)
    yield from samplers_shown.tables(frame, experiment)


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """The frontier of each problem with the exact posterior; the same with the other denoisers on a second sheet."""
    return {**samplers_shown.figures(frame, experiment), **training_sheet(frame, experiment)}
