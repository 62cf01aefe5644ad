"""Families of problems side by side: what a masked model lacks, what belief propagation lacks, what an order knows.

All posteriors answer the same contexts; both learners see the same data step by step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lo_theory.diffusion.masks import MaskLaw, draw_masks
from lo_theory.diffusion.orders import AlongOrder, order_losses
from lo_theory.diffusion.pattern_losses import PatternLosses
from lo_theory.diffusion.satisfied import Satisfied
from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.drawing import COLOURS, SHADING
from lo_theory.lab.experiments.orders import Evaluation as OrdersEvaluation
from lo_theory.lab.experiments.orders import MaskedLearner, Order, Reader, causal, masked, readers
from lo_theory.lab.experiments.orders import Row as OrdersRow
from lo_theory.lab.frame import Frame, Record, grouped, of_kind, parts, with_texts
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Axes, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import require_distinct, setting
from lo_theory.lab.settings import Model, Source, Training, check_laws, mask_law
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, measured, text
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.posterior import ExactPosterior, MarginalsOnly, Posterior
from lo_theory.problem import MASK, LODistribution, TableObservations
from lo_theory.rng import Key

_SATISFIED = re.compile(r"^satisfied(?:\(([0-9.]+)\))?$")


def evaluation_law(text: str) -> MaskLaw:
    """Make the law that ``text`` names: one of ``mask_law``, or ``satisfied`` or ``satisfied(0.75)``."""
    match = _SATISFIED.match(text.replace(" ", ""))
    if match is None:
        return mask_law(text)
    try:
        return Satisfied(float(match.group(1) or 1))
    except ValueError as error:
        raise ValueError(f"mask law {text!r}: {error}") from error


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a trained learner, always against the exact posterior.

    ``sequences``: fresh sequences read along its own order by the order-aware learner. ``contexts``: fresh contexts of
    each of the mask laws ``laws``. ``bp``: judge belief propagation on the same contexts, where the problem has a
    factor graph. ``learned``: a posterior counts as Bayes-optimal when the 95 % interval of its KL lies below this
    share of the KL of the single-token marginals.
    """

    laws: tuple[str, ...] = ("uniform", "two_rates(1,0)", "two_rates(0.75,0)")
    sequences: int = setting(512, least=2)
    contexts: int = setting(1024, least=2)
    bp: bool = True
    learned: float = setting(0.05, above=0, most=1)
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        if not self.laws:
            raise ValueError("laws is empty: name at least one mask law, such as uniform")
        require_distinct("laws", (evaluation_law(text).name for text in self.laws))


@dataclass(frozen=True)
class Row:
    """One problem, called ``name`` in tables, and its two learners: masked, and order-aware reading latents first.

    Both have one shape and equal training FLOPs, and are trained once for each of ``shares`` of ``training.steps``,
    warm-up, stages and cosine with it.
    """

    name: str
    problem: Problem
    training: Training
    seed: int = 0
    model: Model = field(default_factory=Model)
    shares: tuple[float, ...] = setting((0.5, 1.0), above=0, most=1)
    masked: MaskedLearner = field(default_factory=MaskedLearner)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        self.as_orders()

    def as_orders(self) -> OrdersRow:
        """The same row as the experiment on orders has it, whose networks are trained here."""
        setting = self.evaluation
        return OrdersRow(
            self.problem,
            self.training,
            seed=self.seed,
            model=self.model,
            shares=self.shares,
            orders=(Order("latents_first"),),
            masked=(self.masked,),
            evaluation=OrdersEvaluation(setting.sequences, setting.contexts, True, setting.limit_states),
        )

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or the exact posterior does not fit in memory."""
        self.as_orders().check_fits(distribution)
        check_laws([("evaluation.laws", self.evaluation.laws)], distribution.layout, evaluation_law)
        check_exact(self, distribution)


def check_exact(row: Row, distribution: LODistribution) -> None:
    """Raise ValueError if the exact posterior does not fit on one sequence under a mask law."""
    setting, key = row.evaluation, Key(row.seed).fold("check")
    exact, tokens = ExactPosterior(distribution, limit=setting.limit_states), distribution.sample(key, 1)
    for name in setting.laws:
        masks, _ = draw_masks(evaluation_law(name), key, tokens, distribution.layout)
        cost = exact.estimate_cost(np.where(masks[0], np.int8(MASK), tokens))
        if not cost.fits.all():
            raise ValueError(
                f"evaluation.laws: under {name} the exact posterior needs {cost.states.max():.4g} states, over the "
                f"limit of {setting.limit_states}: take a smaller problem, or raise evaluation.limit_states"
            )


Reference = Source


ROLE_METRICS = ("model", "exact", "kl", "kl_above", "deterministic", "excluded", "converged")
"""What is kept role by role; ``kl_above``: minus belief propagation, where there is a factor graph."""


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    row, orders = s.row, s.row.as_orders()
    s = s.named(f"{row.name}:", family=row.name)
    reader, budgets = readers(orders, s.distribution.layout)[0], orders.budgets()
    facts = measures.singles(measures.loss_lines(s.distribution) | {"learned": row.evaluation.learned})
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    along = {steps: causal(s, orders, reader, steps) for steps in budgets}
    models = {steps: masked(s, orders, row.masked, steps) for steps in budgets}
    for steps in budgets:
        for name, learner in ((reader.name, along[steps]), (row.masked.name, models[steps])):
            label, measure = f"{name}, {steps} steps training", partial(_training, s, name, learner)
            yield s.unit(f"training/{name}/{steps}", label, measure, learner=learner)
    needs = [f"training/{reader.name}/{steps}" for steps in budgets]
    yield s.unit("along", f"along {reader.name}", partial(_along, s, reader, along), needs)
    needs = [f"training/{row.masked.name}/{steps}" for steps in budgets]
    for law in row.evaluation.laws:
        yield s.unit(f"losses/{law}", f"losses under {law}", partial(_losses, s, models, law), needs)


def _budget(learner: Learner) -> dict[str, Any]:
    return {"training_steps": learner.training.steps, "flops": learner.flops()}


def _training(s: Subject, name: str, learner: Learner) -> list[Finding]:
    way = {"learner": name, "training_steps": learner.training.steps}
    return measures.training(s, learner, {"learner": name, **_budget(learner)}, way)


def _along(s: Subject, reader: Reader, learners: Mapping[int, Learner]) -> list[Finding]:
    """Losses of the order-aware learner along its own order, after every training on the same sequences."""
    tokens = s.distribution.sample(s.key.fold("along"), s.row.evaluation.sequences)
    exact = s.watched(s.exact(s.row.evaluation.limit_states))
    laws, found = AlongOrder(exact, reader.reading).conditionals(tokens), []
    for learner in learners.values():
        totals = measures.order_totals(order_losses(s.causal(learner), laws, tokens))
        found.append(Finding("along", {"learner": reader.name, **_budget(learner)}, totals))
    return found


def _losses(s: Subject, models: Mapping[int, Learner], text: str) -> list[Finding]:
    """Losses under a mask law of the models, of belief propagation, and of the marginals that read nothing."""
    setting, none = s.row.evaluation, {"training_steps": "", "flops": ""}
    judged: dict[str, tuple[dict[str, Any], Posterior]] = {
        f"mdm({steps})": ({"posterior": "mdm", **_budget(learner)}, s.model(learner))
        for steps, learner in models.items()
    }
    # A random slab reads all latents in one linear form: it has no factor graph.
    if setting.bp and isinstance(s.distribution.observations, TableObservations):
        judged["bp"] = ({"posterior": "bp", **none}, s.bp())
    judged["marginals"] = ({"posterior": "marginals", **none}, MarginalsOnly(s.distribution))
    exact, law, beside = s.exact(setting.limit_states), evaluation_law(text), "bp" if "bp" in judged else None
    measured = measures.law_losses(s, judged, exact, law, setting.contexts, beside=beside)
    return [found for keys, losses in measured for found in _of_law(keys, losses)]


def _of_law(keys: Mapping[str, Any], losses: PatternLosses) -> list[Finding]:
    found = [Finding("losses", {**keys, "role": "all"}, losses.total)]
    for role, sums in losses.roles.items():
        kept = {name: sums[name] for name in ROLE_METRICS if name in sums}
        found.append(Finding("losses", {**keys, "role": role}, kept))
    return found


_NOTHING = 1e-9  # nats per token: where the single-token marginals lie less above Bayes, there is nothing to know


def gaps(frame: Frame, experiment: Experiment) -> list[Record]:
    """One record for each mask law, row and role, in this order: metrics as ``last kl``.

    first, last: the shortest and the longest training of the masked model; ``first`` only if there are two. bp: where
    there is a factor graph. marginals: of single tokens, which is what there is to know. aware first, aware last: the
    order-aware learner along its own order. ``learned``: the share of what there is to know below which a gap counts as
    closed, and two gaps as level.
    """
    frame = with_texts(frame, "family", seed_texts(experiment))
    learned = {line.row: line.value("learned") for line in of_kind(frame, "problem")}
    aware = {part[0].row: _ends(part, "aware ") for part in parts(of_kind(frame, "along"), "row")}
    found = []
    for lines in parts(grouped(of_kind(frame, "losses"), "law", "row"), "law", "row", "role"):
        own = {line.posterior: line for line in lines if line.posterior != "mdm"}
        own |= _ends([line for line in lines if line.posterior == "mdm"]) | aware.get(lines[0].row, {})
        metrics = {f"{name} {metric}": known for name, line in own.items() for metric, known in line.metrics.items()}
        keys = {name: lines[0].keys[name] for name in ("row", "family", "law", "role")}
        found.append(Record({**keys, "learned": learned[lines[0].row]}, metrics))
    return found


def _ends(lines: Sequence[Record], prefix: str = "") -> dict[str, Record]:
    """The first and the last by length of training; of one it is the last."""
    ordered = sorted(lines, key=lambda line: int(line.training_steps))
    names = ("first", "last") if len(ordered) > 1 else ("last",)
    return {f"{prefix}{name}": ordered[-1 if name == "last" else 0] for name in names if ordered}


def nothing(gap: Record) -> bool:
    """Whether the tokens revealed say nothing about any single hidden one."""
    return gap.value("marginals kl") < _NOTHING


def verdict(gap: Record) -> str:
    """In words, by the rules that the table's notes state."""
    least, last = gap.learned * gap.value("marginals kl"), gap.estimate("last kl")
    if nothing(gap):
        return "nothing to know"
    if last.high < least:
        return "learned"
    first = gap.estimate("first kl")
    trend = "falls" if last.high < first.low else "rises" if last.low > first.high else "flat"
    return f"{_against_bp(gap, least)}; gap {trend}"


def _against_bp(gap: Record, least: float) -> str:
    """``level with BP`` only where the whole 95 % interval of the difference is small; else who is above."""
    above = gap.estimate("last kl_above")
    if math.isnan(above.value):
        return "no BP" if math.isnan(gap.value("bp kl")) else "not compared with BP"  # rows of an older version
    if -least < above.low and above.high < least:
        return "level with BP"
    return "above BP" if above.low > 0 else "below BP" if above.high < 0 else "not distinguished from BP"


def _above(name: str, title: str) -> Column:
    return measured(f"{name} kl", title, ".2f", 1e3)


_GAPS = (
    *(_above("marginals", "to know"), _above("bp", "BP")),
    *(_above("first", "model,\nfirst"), _above("last", "model,\nlast")),
)


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """A table for each mask law, and one of all by role."""
    found = gaps(frame, experiment)
    for part in parts([gap for gap in found if gap.role == "all"], "law"):
        yield _law_table(part[0].law, part)
    notes = ["10^-3 nats per hidden token of the role: means over its hidden tokens in a context.", *experiment.paper]
    yield Table(
        "By role",
        (key("law", left=True), key("family", left=True), key("role", left=True), *_GAPS),
        [gap for gap in found if gap.role != "all"],
        section=["law"],
        notes=notes,
    )


def _law_table(law: str, found: Sequence[Record]) -> Table:
    """All families under one mask law, the order-aware learner beside."""
    of = " or ".join(sorted({f"{100 * gap.learned:g} %" for gap in found}))
    notes = [
        "Minus Bayes: KL from the exact marginals in 10^-3 nats per token, with 95 % intervals over contexts; BP -: no "
        "factor graph. To know: of the single-token marginals, which read nothing. First and last: shortest and "
        "longest training of the masked model, and of the order-aware learner along its own order, latents first, on "
        f"whole sequences (the same in every table). Verdict: learned, if the last interval is below {of} of what "
        "there is to know. Else by the last model minus BP, context by context: level with BP (a candidate for "
        f"hardness), if its interval lies within {of} of what there is to know; above BP (a fast algorithm gets "
        "further from the same tokens: not yet learned) or below BP, if zero is outside; else not distinguished. Gap "
        "falls or rises: intervals of first and last apart."
    ]
    if law.startswith("satisfied"):
        notes.append(
            "Only observations of value 1 are revealed. The exact posterior takes the hidden as missing at random, as "
            "all others do: KL compares marginals given the same tokens, losses at the true token mean nothing here."
        )
    aware = (_above("aware first", "order-aware,\nfirst"), _above("aware last", "order-aware,\nlast"))
    columns = (key("family", left=True), *_GAPS, text("verdict", verdict), *aware)
    return Table(f"Above Bayes under {law}", columns, found, notes=notes)


_LEAST, _MOST = 1e-6, 4.0  # nats: what is less is drawn at the least; upper end of the axis
_COLUMNS = 3
_OPEN = {"markerfacecolor": "white"}
_MODEL, _AWARE = {"color": COLOURS["model"], "marker": "o"}, {"color": COLOURS["order_aware"], "marker": "^"}

_LAW_LOOKS: Mapping[str, Look] = {
    "marginals": {"color": COLOURS["line"], "marker": "_", "markersize": 14, "label": "to know (reads nothing)"},
    "bp": {"color": COLOURS["bp"], "marker": "s", "label": "belief propagation"},
    "first": {**_MODEL, **_OPEN, "label": "masked model, shortest training"},
    "last": {**_MODEL, "label": "masked model, longest training"},
}

_AWARE_LOOKS: Mapping[str, Look] = {
    "aware first": {**_AWARE, **_OPEN, "label": "order-aware, shortest training"},
    "aware last": {**_AWARE, "label": "order-aware, longest training"},
}


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Gaps to Bayes by family on a log axis, a panel for each mask law; last the order-aware learner by itself."""
    found = [gap for gap in gaps(frame, experiment) if gap.role == "all"]
    rows = {gap.row: gap for gap in sorted(found, key=lambda gap: int(gap.row))}
    shown = [(f"{part[0].law}{_shaded(part)}", part, _LAW_LOOKS) for part in parts(found, "law")]
    shown.append(("order-aware learner along latents first", list(rows.values()), _AWARE_LOOKS))
    panels = [_panel(*one, labelled=i % _COLUMNS == 0) for i, one in enumerate(shown)]
    size = (14, 1 + 4.4 * -(-len(panels) // _COLUMNS))
    sheet = Sheet(experiment.heading, panels, _COLUMNS, size, entries=3, grid={"sharey": True})
    return {"figure": sheet, **training_sheet(frame, experiment)}


def _shaded(part: Sequence[Record]) -> str:
    return "; shaded: nothing to know" if any(map(nothing, part)) else ""


def _panel(title: str, part: Sequence[Record], looks: Mapping[str, Look], *, labelled: bool) -> Panel:
    """The gaps of each family side by side; a family of whose single tokens nothing is to be known is shaded."""
    unknown = {gap.row for gap in part if nothing(gap)} if "marginals" in looks else set()
    there = [who for who in looks if any(not math.isnan(gap.value(f"{who} kl")) for gap in part)]
    names = [gap.family for gap in part]

    def height(line: Record) -> Estimate:
        known = line.row not in unknown or line.who != "marginals"
        return Estimate(*(max(number, _LEAST) if known else math.nan for number in line.estimate(f"{line.who} kl")))

    def dress(axes: Axes) -> None:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(_LEAST / 2, _MOST)
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, **turned)
        axes.set_xlim(-0.6, len(names) - 0.4)
        for i, gap in enumerate(part):
            if gap.row in unknown:
                axes.axvspan(i - 0.5, i + 0.5, color=SHADING["band"], zorder=-1, linewidth=0)
        for i in range(len(names) - 1):
            axes.axvline(i + 0.5, color=SHADING["band"], linewidth=0.8, zorder=0)
        axes.tick_params(axis="y", labelleft=True)

    return Panel(
        title,
        lines=[gap.plus(who=who) for gap in part for who in there],
        x="row",
        y=height,
        look=lambda line: looks[line.who],
        ylabel=f"KL above Bayes, nats per token (least drawn: {_LEAST:g})" if labelled else "",
        dress=dress,
    )
