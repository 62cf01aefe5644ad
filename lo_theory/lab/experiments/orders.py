"""Figure 2, left, on data whose floor is known: nats above it against training compute, by reading order and masked.

An order-aware learner is measured along its own order, a masked one under the uniform law and along every order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from lo_theory.diffusion import Decoded, DecodeOptions, OneAtATime, Sums, Uniform, decode, losses
from lo_theory.diffusion.losses import gap_share, gap_span
from lo_theory.diffusion.orders import AlongOrder, OrderLosses, closed_form, order_losses, reading_order
from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.costs import cost_table, measured_costs
from lo_theory.lab.drawing import COLOURS, MODEL_SHADES, ORDER_SHADES, SHADING
from lo_theory.lab.frame import Frame, Record, beside, each, of_kind, parts
from lo_theory.lab.learning import training_sheet
from lo_theory.lab.panel import Axes, Level, Logarithmic, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import require_distinct, setting
from lo_theory.lab.settings import Model, Objective, Source, Stage, Training, check_laws, policy
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Table, key, largest, mean, measured, number, percent, plus_minus, text, with_expected
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit, Watched
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, Layout, LODistribution
from lo_theory.rng import Key

_DRAWN = ("random", "closer", "much_closer")
_SWAPPED = ("closer", "much_closer")


@dataclass(frozen=True)
class Order:
    """A reading order; ``draws`` of the random ones, each with a learner of its own.

    ``swaps`` of "closer" (left out: L/10) and "much_closer" (left out: sqrt(L)).
    """

    name: Literal["latents_first", "reversed", "random", "closer", "much_closer"]
    draws: int = setting(1, least=1)
    swaps: int | None = setting(None, least=1)

    def __post_init__(self) -> None:
        if self.draws > 1 and self.name not in _DRAWN:
            raise ValueError(f"there is one order {self.name}: draws must be 1, got {self.draws}")
        if self.swaps is not None and self.name not in _SWAPPED:
            raise ValueError(f"the order {self.name} takes no swaps ({' and '.join(_SWAPPED)} do), got {self.swaps}")


@dataclass(frozen=True)
class MaskedLearner:
    """A masked diffusion model to compare with: its name in the tables, its mask laws, the stages of a curriculum."""

    name: str = "mdm"
    laws: tuple[str, ...] = ("uniform",)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"a masked learner has a name of letters, digits, - and _, got {self.name!r}")
        Objective(self.laws, self.stages)

    def objective(self, share: float) -> Objective:
        """The objective of a training that is ``share`` as long, its stages with it."""
        stages = tuple(
            stage if stage.steps is None else replace(stage, steps=round(stage.steps * share)) for stage in self.stages
        )
        return Objective(self.laws, stages)


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a trained learner.

    ``sequences``: fresh sequences read along every order. ``contexts``: of the uniform mask law, for the masked
    learners. ``exact``: also the exact conditionals (KL); they must fit, see ``limit_states``. ``reached``: a learner
    counts as having reached the floor when the 95 % interval of what it lies above it is below this share of the way
    from the floor to the marginals-only line.
    """

    sequences: int = setting(512, least=2)
    contexts: int = setting(4096, least=2)
    exact: bool = True
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)
    reached: float = setting(0.01, above=0, most=1)


@dataclass(frozen=True)
class Generation:
    """``sequences`` drawn from every learner, ``chunk`` at once; the masked ones one token a step by each policy.

    ``policies``: as in ``Decoding``; the policy fixed_order is latents first. ``cost_sequences``: on so many true
    sequences the cost of each policy is measured, with the exact posterior beside it where ``evaluation.exact``.
    """

    sequences: int = setting(2000, least=2)
    policies: tuple[str, ...] = ("vanilla", "margin", "fixed_order")
    temperature: float = setting(1.0, above=0)
    chunk: int = setting(512, least=1)
    cost_sequences: int = setting(0, least=0, late=True)

    def __post_init__(self) -> None:
        for name in self.policies:
            policy(name)


@dataclass(frozen=True)
class Row:
    """One problem and everything that learns it, all of one shape.

    Every learner is trained once for each of ``shares`` of ``training.steps``, warm-up, stages and cosine with it:
    budgets of compute at which a finished training is compared with a finished training.
    """

    problem: Problem
    training: Training
    seed: int = 0
    model: Model = field(default_factory=Model)
    shares: tuple[float, ...] = setting((0.125, 0.25, 0.5, 1.0), above=0, most=1)
    orders: tuple[Order, ...] = (Order("latents_first"), Order("reversed"), Order("random"))
    masked: tuple[MaskedLearner, ...] = (MaskedLearner(),)
    evaluation: Evaluation = field(default_factory=Evaluation)
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        if not self.orders and not self.masked:
            raise ValueError("orders and masked are both empty: there is nothing to learn")
        names = [learner.name for learner in self.masked]
        require_distinct("orders", (order.name for order in self.orders))
        require_distinct("masked", names)
        taken = [name for name in names if any(name.split("-")[0] == order.name for order in self.orders)]
        if taken:
            raise ValueError(f"masked: {taken[0]} is the name of an order's learner, take another")
        if not self.shares or max(self.shares) != 1.0:
            raise ValueError(f"shares must hold 1, the whole training, got {list(self.shares)}")
        require_distinct("shares", self.budgets())
        for learner in self.masked:
            learner.objective(1.0).check_lasts(self.training.steps)

    def budgets(self) -> tuple[int, ...]:
        """Steps of every training, ascending."""
        return tuple(max(1, round(share * self.training.steps)) for share in sorted(self.shares))

    def training_of(self, steps: int) -> Training:
        """The training of a budget: the warm-up is shortened in proportion."""
        return replace(self.training, steps=steps, warmup=round(self.training.warmup * steps / self.training.steps))

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or the exact posterior does not fit in memory."""
        named = [
            (f"masked[{i}]", (*learner.laws, *(law for stage in learner.stages for law in stage.laws)))
            for i, learner in enumerate(self.masked)
        ]
        check_laws(named, distribution.layout)
        check_exact(self, distribution)


Reference = Source


@dataclass(frozen=True)
class Reader:
    """An order-aware learner: its name in tables, the kind of its order, which draw of it, and the order itself."""

    name: str
    order: str
    draw: int
    reading: tuple[int, ...]

    def reads_latents_first(self, layout: Layout) -> bool:
        """Whether all latents are read before any observation."""
        return set(self.reading[: layout.n_latents]) == set(layout.latent_positions.tolist())


def readers(row: Row, layout: Layout) -> tuple[Reader, ...]:
    """Every order-aware learner of a row; orders are drawn at (seed, "orders", name, draw)."""

    def drawn() -> Iterator[Reader]:
        for order in row.orders:
            for draw in range(order.draws):
                key = Key(row.seed).fold("orders").fold(order.name).fold(draw)
                reading = reading_order(order.name, layout, key, swaps=order.swaps)
                yield Reader(f"{order.name}-{draw}" if order.draws > 1 else order.name, order.name, draw, reading)

    return tuple(drawn())


def check_exact(row: Row, distribution: LODistribution) -> None:
    """Raise ValueError if the exact posterior does not fit on one sequence read along every order."""
    if not row.evaluation.exact:
        return
    exact, layout = ExactPosterior(distribution, limit=row.evaluation.limit_states), distribution.layout
    tokens = distribution.sample(Key(row.seed).fold("losses").fold("data"), 1)
    for reader in readers(row, layout):
        rank = np.argsort(np.array(reader.reading))
        contexts = np.where(rank >= np.arange(layout.length)[:, None], np.int8(MASK), tokens)
        cost = exact.estimate_cost(contexts)
        if not cost.fits.all():
            t = int(np.argmin(cost.fits))
            raise ValueError(
                f"evaluation.exact: along {reader.name} at time {t} the exact posterior needs {cost.states[t]:.4g} "
                f"states, over the limit of {row.evaluation.limit_states}: set exact to false, or raise limit_states"
            )


def causal(s: Subject, row: Row, reader: Reader, steps: int) -> Learner:
    """The order-aware learner of one order with a training of ``steps``.

    All learners of a row have one shape and one initialisation and see the same data step by step, so that what differs
    is the order.
    """
    return _learner(s, row, reader.name, steps, Objective(), reader.reading)


def masked(s: Subject, row: Row, learner: MaskedLearner, steps: int) -> Learner:
    """A masked learner with a training of ``steps``."""
    return _learner(s, row, learner.name, steps, learner.objective(steps / row.training.steps), None)


def _learner(
    s: Subject, row: Row, name: str, steps: int, objective: Objective, reading: tuple[int, ...] | None
) -> Learner:
    screen, training = f"{s.size} {name}, {steps} steps", row.training_of(steps)
    return s.learner(screen, f"{name}-{steps}", training=training, objective=objective, reading=reading)


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    s, row, whole = s.named(s.size), s.row, s.row.training.steps
    both, everyone = readers(row, s.distribution.layout), [learner.name for learner in row.masked]
    yield s.unit("problem", "problem", partial(measures.problem, s.distribution, reached=row.evaluation.reached))
    for steps in row.budgets():
        learners = {reader.name: causal(s, row, reader, steps) for reader in both}
        learners |= {learner.name: masked(s, row, learner, steps) for learner in row.masked}
        for name, learner in learners.items():
            label, measure = f"{name}, {steps} steps training", partial(_training, s, name, learner)
            yield s.unit(f"training/{name}/{steps}", label, measure, learner=learner)
    for steps in row.budgets():
        for reader in both:
            needs = [f"training/{name}/{steps}" for name in (reader.name, *(everyone if steps == whole else ()))]
            label = f"along {reader.name}, {steps} steps"
            yield s.unit(f"along/{reader.name}/{steps}", label, partial(_along, s, reader, steps), needs)
        for one in row.masked:
            label, needs = f"{one.name}, {steps} steps, uniform law", [f"training/{one.name}/{steps}"]
            yield s.unit(f"masked/{one.name}/{steps}", label, partial(_uniform, s, one, steps), needs)
    yield s.unit("generate/data", "sequences of the data", partial(_data, s))
    for reader in both:
        needs = [f"training/{reader.name}/{whole}"]
        yield s.unit(f"generate/{reader.name}", f"{reader.name}, sampling", partial(_sample, s, reader), needs)
    for one in row.masked:
        for name in row.generation.policies:
            label, needs = f"{one.name}, decoding by {name}", [f"training/{one.name}/{whole}"]
            yield s.unit(f"generate/{one.name}/{name}", label, partial(_decode, s, one, name), needs)


def _keys(name: str, learner: Learner, **more: str) -> dict[str, Any]:
    """Keys of what is measured of a learner, ``more`` after its name."""
    return {"learner": name, **more, "training_steps": learner.training.steps, "flops": learner.flops()}


def _training(s: Subject, name: str, learner: Learner) -> list[Finding]:
    """Train; what was logged during the training is in the run's journal."""
    keys = _keys(name, learner)
    trained, *held_out = measures.training(s, learner, keys)
    return [trained, *measures.training_losses(s, learner, keys), *held_out]


def _exact(s: Subject) -> Watched:
    return s.watched(s.exact(s.row.evaluation.limit_states))


def _along(s: Subject, reader: Reader, steps: int) -> list[Finding]:
    """Losses along one order, nats per token: of its own learner, and after the whole training of the masked ones.

    All on the same sequences, so that their difference is measured sequence by sequence (metric ``above_causal``).
    Positions, by time, after the whole training only.
    """
    row, key, laws = s.row, s.key.fold("losses").fold("data"), None
    tokens = s.once("sequences", lambda: s.distribution.sample(key, row.evaluation.sequences))
    if row.evaluation.exact:
        laws = s.once(("laws", reader.name), lambda: AlongOrder(_exact(s), reader.reading).conditionals(tokens))
    whole, learner = steps == row.training.steps, causal(s, row, reader, steps)
    place = {"order": reader.name, "order_kind": reader.order}
    own = order_losses(s.causal(learner), laws, tokens)
    found = _of_order(s, reader, _keys(reader.name, learner, **place), own, whole)
    if not whole:
        return found
    values = closed_form(s.distribution, reader.reading)
    for t in np.flatnonzero(np.isfinite(values)):
        found.append(Finding("formula", {**place, "time": int(t)}, {"exact": Sums.single(values[t])}))
    for one in row.masked:
        learner = masked(s, row, one, steps)
        measured = order_losses(AlongOrder(s.watched(s.model(learner)), reader.reading), laws, tokens)
        above = measured.model - own.model
        if measured.kl is not None and own.kl is not None:
            above = measured.kl - own.kl
        total, *positions = _of_order(s, reader, _keys(one.name, learner, **place), measured, whole)
        more = {"above_causal": Sums.of(above.mean(axis=1))}
        found += [total._replace(metrics={**total.metrics, **more}), *positions]
    return found


def _of_order(s: Subject, reader: Reader, keys: Mapping[str, Any], measured: OrderLosses, whole: bool) -> list[Finding]:
    """Totals of one learner along one order, split by role, and after the whole training position by position."""
    layout = s.distribution.layout
    latent = layout.is_latent[np.array(reader.reading)]
    totals = measures.order_totals(measured)
    if measured.kl is not None:
        for name, part in (("kl_latents", latent), ("kl_observations", ~latent)):
            totals[name] = Sums.of(np.where(part, measured.kl, 0.0).mean(axis=1))
    found = [Finding("along", keys, totals)]
    arrays = {name: values for name, values in vars(measured).items() if values is not None}
    for t in range(layout.length) if whole else ():
        place = {"time": t, "position": reader.reading[t], "role": "latent" if latent[t] else "observation"}
        here = {name: Sums.of(values[:, t]) for name, values in arrays.items()}
        found.append(Finding("position", {**keys, **place}, here))
    return found


def _uniform(s: Subject, one: MaskedLearner, steps: int) -> list[Finding]:
    """Losses of a masked learner under the uniform law, and its one-pass accuracies after the whole training."""
    setting, learner = s.row.evaluation, masked(s, s.row, one, steps)
    posterior, keys = s.watched(s.model(learner)), _keys(one.name, learner)
    exact, names = (_exact(s), ("model", "exact", "kl")) if setting.exact else (None, ("model",))
    key, n = s.key.fold("uniform"), setting.contexts
    measured = losses(posterior, exact, s.distribution, Uniform(), key=key, n=n)
    found = [Finding("masked", keys, {name: getattr(measured, name) for name in names})]
    if steps == s.row.training.steps:
        accuracies = measures.one_pass(posterior, s.distribution, s.key.fold("one pass"), n)
        found.append(Finding("one_pass", keys, accuracies))
    return found


def _data(s: Subject) -> list[Finding]:
    """Sequences of the data in place of generated ones: what exact samples of this number score."""
    key, n = s.key.fold("generate").fold("data"), s.row.generation.sequences
    tokens = s.distribution.sample(key.fold("tokens"), n)
    metrics = measures.generated(s.distribution, tokens, key.fold("judge"))
    return [Finding("generate", {"learner": "data", "policy": "exact sampler"}, metrics)]


def _sample(s: Subject, reader: Reader) -> list[Finding]:
    """Ancestral sampling from an order-aware learner after the whole training."""
    setting, layout, learner = s.row.generation, s.distribution.layout, causal(s, s.row, reader, s.row.training.steps)
    model, key = s.causal(learner), s.key.fold("generate").fold(reader.name)
    drawn = model.generate(key=key, n=setting.sequences, options=_options(s))
    found = [_generated(s, _keys(reader.name, learner, policy="own order"), drawn, key, one_pass=True)]
    if reader.reads_latents_first(layout):
        place = s.key.fold("one pass").fold("conditional")
        truth = s.distribution.sample(place.fold("data"), s.row.evaluation.contexts)
        given, observed = truth.copy(), layout.observation_positions
        given[:, observed] = MASK
        options = DecodeOptions(argmax=True, chunk=setting.chunk)
        filled = model.generate(key=place, n=len(truth), given=given, options=options).tokens
        right = (filled[:, observed] == truth[:, observed]).mean(axis=1)
        found.append(Finding("one_pass", _keys(reader.name, learner), {"conditional": Sums.of(right)}))
    return found


def _decode(s: Subject, one: MaskedLearner, name: str) -> list[Finding]:
    """Decoding with a masked learner after the whole training, one token a step."""
    setting, learner = s.row.generation, masked(s, s.row, one, s.row.training.steps)
    key, options = s.key.fold("generate").fold(one.name).fold(name), _options(s)
    posterior, rule = s.watched(s.model(learner)), (policy(name), OneAtATime())
    drawn = decode(posterior, *rule, key=key, n=setting.sequences, options=options)
    found = _generated(s, _keys(one.name, learner, policy=name), drawn, key, one_pass=False)
    n, exact = setting.cost_sequences, _exact(s) if s.row.evaluation.exact else None
    more = measured_costs(posterior, rule, s.distribution, key=key, n=n, exact=exact, options=options)
    return [found._replace(metrics={**found.metrics, **more})]


def _options(s: Subject) -> DecodeOptions:
    return DecodeOptions(s.row.generation.temperature, chunk=s.row.generation.chunk)


def _generated(s: Subject, keys: Mapping[str, Any], drawn: Decoded, key: Key, *, one_pass: bool) -> Finding:
    """Accuracies and diversity; per sequence: calls of the network, their worth in passes over L positions, seconds."""
    n, length = drawn.tokens.shape
    forwards = drawn.forwards / n
    passes = forwards / length if one_pass else forwards
    cost = measures.singles({"forwards": forwards, "passes": passes, "seconds": drawn.seconds / n})
    return Finding("generate", keys, measures.generated(s.distribution, drawn.tokens, key.fold("judge")) | cost)


def learners(frame: Frame) -> list[Record]:
    """Each learner after its longest training, with the problem's lines, and all its ``trainings``, ascending.

    Losses are those on its own objective.
    """
    own = [*filter(_is_own, of_kind(frame, "along")), *of_kind(frame, "masked")]
    own = beside(sorted(own, key=lambda line: (int(line.row), float(line.flops))), of_kind(frame, "problem"), "row")
    return [trainings[-1].plus(trainings=trainings) for trainings in parts(own, "row", "learner")]


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


def _is_own(line: Record) -> bool:
    return bool(line.learner == line.order)


def _longest(lines: Sequence[Record]) -> list[Record]:
    """Those of the longest training of their row of the experiment."""
    whole = {line.row: line.training_steps for line in sorted(lines, key=lambda line: int(line.training_steps))}
    return [line for line in lines if line.training_steps == whole[line.row]]


_MILLI = 1e3


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """Above the floor by compute, one for each row of the experiment; along the orders; generated sequences."""
    for lines in parts(learners(frame), "row"):
        yield _compute_table(lines, experiment)
    yield _along_table(_longest(of_kind(frame, "along")))
    generated, names = of_kind(frame, "generate"), (key("learner", left=True), key("policy", left=True))
    yield Table(
        "Generated sequences",
        (
            *(*names, percent("self_consistency", "self-\nconsistent"), percent("consistent", "wholly\nconsistent")),
            *(percent("unpaired"), mean("observation_mean", "mean\nobs."), percent("conditional"), percent("infill")),
        ),
        beside(generated, of_kind(frame, "one_pass"), "row", "learner"),
        section=["row"],
        notes="Per cent, with 95 % intervals over sequences; equal training FLOPs, one token a step, tokens drawn. "
        "The four accuracies are those of Table 1. Conditional: observations from true latents, most likely values, "
        "for masked learners in one pass, for an order that reads all latents first one after another; infill: masked "
        "learners only. Neither can be asked of another order.",
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
        section=["row"],
        notes="Distinct latent strings, and expected of exact samples; largest |z| of a latent's mean and of a pair's "
        "correlation (!: 999 of 1000 exact samplers stay below); total variation distance to p_data (expected of as "
        "many exact samples; N <= 12). A sequence: calls of the network; their worth in passes over all L positions "
        "(a causal network keeps what it has read); milliseconds of wall time as it ran, beside what else was running.",
    )
    yield cost_table(generated, names, ["row"])


def _compute_table(lines: Sequence[Record], experiment: Experiment) -> Table:
    """The learners of one row of the experiment after each of their trainings."""
    problem, budgets = lines[0], sorted({one.flops for line in lines for one in line.trainings})
    floor, marginals = problem.value("floor"), problem.value("marginals_only")

    def trained(flops: float, line: Record) -> str:
        return next((plus_minus(above(one), scale=_MILLI) for one in line.trainings if one.flops == flops), "-")

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
        notes=[
            "10^-3 nats per token above the entropy floor after trainings of so many FLOPs, with 95 % intervals over "
            "sequences: KL to the exact conditionals on fresh data where measured, else loss - floor. Order-aware "
            "learners along their own order, masked ones under the uniform law (Proposition 2.1: the mean over all "
            "orders). Gap closed: per cent of the way from the marginals-only line "
            f"({number(marginals, '.4f')}) to the floor ({number(floor, '.4f')}). Floor "
            f"reached: least FLOPs at which the interval lies below {100 * problem.value('reached'):g} % of that way.",
            *experiment.paper,
        ],
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
        section=["row", "order"],
        notes="After the whole training: losses in nats per token; KL to the exact conditionals, its shares at "
        "latents and at observations, and how far a masked learner lies above the order's own one on the same "
        "sequences, in 10^-3 nats per token, with 95 % intervals over sequences.",
    )


_MASKED = MODEL_SHADES[2::-1]
_MARKERS = "oDs^vP"  # draws of an order
_COLUMNS = 5  # as many as kinds of orders
_NATS = Logarithmic(1e-6)  # below is rounding

_EXACT: Look = {"color": COLOURS["exact"], "linewidth": 2.5, "label": "exact"}
_FORMULA: Look = {
    **{"color": COLOURS["exact"], "linestyle": "", "marker": "o", "markerfacecolor": "white"},
    "label": "exact, closed form",
}
_MARGINALS: Look = {"color": COLOURS["line"], "linestyle": "--", "label": "marginals only"}
_REACHED: Look = {"color": COLOURS["line"], "linestyle": ":", "label": "counts as the floor"}

Looks = Mapping[str, Look]


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Above the floor against FLOPs, along the orders, generated sequences; then order by order every position.

    Of several rows of the experiment the first is drawn position by position, and all in the other panels.
    """
    looks, positions = _looks(frame), of_kind(frame, "position")
    orders = {part[0].order_kind: part for part in reversed(parts(positions, "row", "order"))}  # the first of each kind
    shown = [orders[name] for name in dict.fromkeys(line.order_kind for line in positions)]
    empty = [None] * (_COLUMNS - len(shown)) if shown else []
    panels: list[Panel | None] = [
        *(_compute_panel(frame, looks), _along_panel(frame, looks), _generated_panel(frame, looks)),
        *(*(_loss_panel(part, of_kind(frame, "formula"), looks) for part in shown), *empty),
        *(*(_kl_panel(part, looks) for part in shown), *empty),
    ]
    heights = [5.5, 2.3, 2.3] if shown else [5.5]
    grid, spans = {"height_ratios": heights}, (_COLUMNS - 2, 1, 1)
    sheet = Sheet(experiment.heading, panels, _COLUMNS, (16, 1.0 + sum(heights)), entries=8, grid=grid, spans=spans)
    return {"figure": sheet, **training_sheet(frame, experiment)}


def _looks(frame: Frame) -> Looks:
    """Colour, marker and label of every learner by name."""
    looks: dict[str, Look] = {"data": {"color": COLOURS["exact"], "marker": "x"}}
    for own in parts(of_kind(frame, "along"), "order_kind"):
        for draw, name in enumerate(dict.fromkeys(line.order for line in own)):
            looks[name] = {"color": ORDER_SHADES[own[0].order_kind], "marker": _MARKERS[draw % len(_MARKERS)]}
    for i, name in enumerate(dict.fromkeys(line.learner for line in of_kind(frame, "masked"))):
        looks[name] = {"color": _MASKED[i % len(_MASKED)], "marker": "*"}
    return {name: {**look, "label": name} for name, look in looks.items()}


def _compute_panel(frame: Frame, looks: Looks) -> Panel:
    """Nats above the floor against training FLOPs: finished trainings as points, the longest's own log as a line.

    The log is of fresh data at every step, so it has no bias.
    """
    problems = of_kind(frame, "problem")
    logged = beside(_longest(of_kind(frame, "curve")), problems, "row")

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
            *(Level(_span(line), _MARGINALS) for line in problems),
            *(Level(line.value("reached") * _span(line), _REACHED) for line in problems),
        ],
        xlabel="training FLOPs (points: finished trainings, KL on fresh data; faint: loss of the longest - floor)",
        ylabel="loss above the entropy floor, nats per token",
        scale=_NATS,
        dress=lambda axes: axes.set_xscale("log"),
    )


def _along_panel(frame: Frame, looks: Looks) -> Panel:
    """KL after the whole training along every order: its own learner and the masked ones, same sequences."""
    return Panel(
        "Whole training: own learner;\nmasked (stars)",
        lines=_longest([line for line in of_kind(frame, "along") if "kl" in line.metrics]),
        x="order",
        y="kl",
        look=lambda line: looks[line.learner],
        scale=_NATS,
        ylabel="KL along the order, nats per token",
        dress=_slant,
    )


def _generated_panel(frame: Frame, looks: Looks) -> Panel:
    """Self-consistency (filled) and share of wholly consistent sequences (open) of what the learners generate."""

    def look(line: Record) -> Look:
        own = looks[line.learner]
        return {**own, "markerfacecolor": "white" if line.metric == "consistent" else own["color"]}

    return Panel(
        "Self-consistent (filled),\nwholly consistent (open)",
        lines=each(of_kind(frame, "generate"), "self_consistency", "consistent"),
        x=lambda line: f"{line.learner}, {line.policy}".removesuffix(", own order").removesuffix(", exact sampler"),
        y="value",
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
    known = [line for line in formulas if (line.row, line.order) == (lines[0].row, lines[0].order)]
    exact = each([*filter(_is_own, lines), *known], "exact")

    def look(line: Record) -> Look:
        return _thin(line, looks) if line.metric == "model" else _EXACT if line.kind == "position" else _FORMULA

    return Panel(
        f"Loss, {lines[0].order}",
        "curves",
        [*exact, *each(lines, "model")],
        x="time",
        y=lambda line: line.value("value"),
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
