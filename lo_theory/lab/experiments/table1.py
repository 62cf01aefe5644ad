"""Table 1 of the paper: accuracy of generated observations, by denoiser, policy and number of steps.

Beside it facts of the problem, losses against the exact posterior, and one-pass accuracies. Tables and figures are in
``table1_shown``; what the paper claims, its numbers and the effect of adaptive decoding, in ``table1_readings``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from lo_theory.diffusion import (
    DecodeOptions,
    MaskLaw,
    Noise,
    ObservationsFirst,
    Policy,
    Rewriter,
    Sums,
    Uniform,
    decode,
    find_dead_ends,
    losses,
)
from lo_theory.lab import measures
from lo_theory.lab.costs import measured_costs
from lo_theory.lab.experiments.table1_shown import figures as figures
from lo_theory.lab.experiments.table1_shown import tables as tables
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import (
    Cell,
    Decoding,
    Evaluation,
    Model,
    Objective,
    Training,
    check_laws,
    mask_law,
    policy,
    schedule,
    step_count,
)
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit, Watched
from lo_theory.posterior import Posterior
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.rng import Key


@dataclass(frozen=True)
class Along:
    """How many sequences a network on the way generates by each decode, and on how many its cost is measured."""

    sequences: int = setting(least=2)
    cost_sequences: int = setting(0, least=0)


@dataclass(frozen=True)
class Row:
    """A row of the table: a problem, how a model is trained on it, what is measured. ``training`` null: no model.

    ``name`` tells rows of one problem apart, in tables and in the rows' keys. ``along``: every evaluation of the
    training keeps its network, which is judged and decoded too, by all of the model's decodes.
    """

    problem: Problem
    name: str = ""
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    decoding: Decoding = field(default_factory=Decoding)
    evaluation: Evaluation = field(default_factory=Evaluation)
    along: Along | None = setting(None, late=True)  # noqa: RUF009 (a field, as everywhere)

    def __post_init__(self) -> None:
        if self.training is None and any(cell.denoiser == "model" for cell in self.decoding.cells()):
            raise ValueError("decoding asks for a model, but training is null: give training, or denoisers: [exact]")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)
        if self.along and not (self.training and self.training.evaluations):
            raise ValueError("along judges the network of every evaluation of its training: give training.evaluations")

    @property
    def revision(self) -> Mapping[str, Any]:
        """Counts the ways in which the contexts of losses have been drawn: the second, with the problem in the key."""
        return {"losses": 2} if self.training is not None else {}

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or two decodes take equally many steps."""
        layout = distribution.layout
        if self.training is not None:
            check_laws([("evaluation.laws", self.evaluation.laws), *self.objective.named_laws()], layout)
        asked = {cell.denoiser for cell in self.decoding.cells()}
        if "bp" in asked and not isinstance(distribution.observations, TableObservations):
            raise ValueError("decoding.denoisers: bp takes observations that are tables, not slabs: leave it out")
        seen: dict[str, str | int] = {}
        for cell in self.decoding.cells():
            name = dataclasses.replace(cell, steps=step_count(cell.steps, layout.length)).name
            if name in seen:
                raise ValueError(
                    f"decoding.steps: {seen[name]} and {cell.steps} are the same decode {name} at L = {layout.length}: "
                    "leave one out"
                )
            seen[name] = cell.steps


@dataclass(frozen=True)
class Published:
    """A published number: accuracy in per cent."""

    N: int
    P: int
    policy: str
    percent: float


@dataclass(frozen=True)
class Reference:
    """Published numbers to print beside ours; a reading gives them if none is further off than ``tolerance`` points."""

    source: str
    rows: tuple[Published, ...]
    tolerance: float = setting(2.0, above=0)


def titled(s: Subject) -> Subject:
    """The subject under the pair (N, P) and the row's own name, where it has one."""
    return s.named(f"{s.size} {s.row.name}", name=s.row.name) if s.row.name else s.named(s.size)


def units(s: Subject, *, find_all_dead_ends: bool = False) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept.

    ``find_all_dead_ends``: the exact posterior looks for those of every denoiser, at some log2(steps) calls a decode.
    """
    s, row, evaluation = titled(s), s.row, s.row.evaluation
    yield s.unit("problem", "problem", partial(measures.problem, s.distribution))
    if row.training is not None:
        learner = _learner(s)
        yield s.unit("training", "training", partial(measures.training, s, learner, {}), learner=learner)
        for law in evaluation.laws:
            label, forwards = f"losses under {law}", evaluation.sequences
            yield s.unit(f"losses/{law}", label, partial(_losses, s, law), ["training"], forwards=forwards)
        label, forwards = "model, one pass", 2 * evaluation.sequences
        yield s.unit("one_pass/model", label, partial(_one_pass, s, "model"), ["training"], forwards=forwards)
        for step in learner.evaluated if row.along is not None else ():
            decoding = dataclasses.replace(row.decoding, **asdict(row.along))
            cells = _of_model(decoding)
            forwards = 4 * evaluation.sequences + sum(count_forwards(s, decoding, cell) for cell in cells)
            measure = partial(_along, s, step, decoding, cells)
            yield s.unit(f"along/{step}", f"model after {step} steps", measure, ["training"], forwards=forwards)
    if evaluation.exact:
        yield s.unit("one_pass/exact", "exact posterior, one pass", partial(_one_pass, s, "exact"))
    for cell in row.decoding.cells():
        of_model = cell.denoiser == "model"
        warmth = "" if cell.temperature is None else f", temperature {cell.temperature:g}"
        label = f"{cell.denoiser}, {cell.policy}, {cell.steps} steps{', argmax' if cell.argmax else ''}{warmth}"
        yield s.unit(
            f"decode/{cell.name}",
            label,
            partial(_decode, s, cell, find_all_dead_ends),
            ["training"] if of_model else (),
            forwards=count_forwards(s, row.decoding, cell) if of_model else 0,
        )


def _learner(s: Subject) -> Learner:
    return s.learner(keep=s.row.along is not None)


def _of_model(decoding: Decoding) -> list[Cell]:
    return [cell for cell in decoding.cells() if cell.denoiser == "model"]


def _steps(s: Subject, cell: Cell) -> int:
    return step_count(cell.steps, s.distribution.layout.length)


def count_forwards(s: Subject, decoding: Decoding, cell: Cell) -> int:
    """Sequences that a decode, and what measures its cost, sends through its denoiser."""
    return (decoding.sequences + _cost_sequences(decoding, cell)) * _steps(s, cell)


def _denoiser(s: Subject, name: str) -> Watched:
    """``exact``, ``model`` or ``bp``."""
    if name == "model":
        row, rows = s.row, s.context.options.rows_at_once
        compiled = row.training is not None and row.training.compile
        # One shape is compiled, and fewer rows are filled up to it: none should be filled up while decoding.
        batch = min(rows, row.decoding.sequences) if compiled else rows
        return s.watched(s.model(_learner(s), batch=batch, compiled=compiled))
    return s.watched(s.bp() if name == "bp" else s.exact(s.row.evaluation.limit_states))


def _one_pass(s: Subject, denoiser: str) -> list[Finding]:
    key = s.key.fold("one pass")  # the same contexts for every denoiser
    found = measures.one_pass(_denoiser(s, denoiser), s.distribution, key, s.row.evaluation.sequences)
    return [Finding("one_pass", {"denoiser": denoiser}, found)]


def _losses(s: Subject, text: str) -> list[Finding]:
    """Losses of the model under a mask law, over all contexts and by class."""
    setting, law = s.row.evaluation, mask_law(text)
    exact, names = (_denoiser(s, "exact"), ("model", "exact", "kl")) if setting.exact else (None, ("model",))
    measured = losses(_denoiser(s, "model"), exact, s.distribution, law, key=_losses_key(s, law), n=setting.sequences)
    found = [Finding("losses", {"law": law.name}, {name: getattr(measured, name) for name in names})]
    for part in measured.classes:
        hidden = {"latents_hidden": part.latents_hidden, "observations_hidden": part.observations_hidden}
        sums = {name: getattr(part, name) for name in names}
        found.append(Finding("class_losses", {"law": law.name, **hidden}, sums))
    return found


def _losses_key(s: Subject, law: MaskLaw) -> Key:
    """With the problem in the key, rows of one seed do not share their draw of mask sizes."""
    return s.key.fold("losses").fold(s.distribution.fingerprint()).fold(law.name)


def _decode(s: Subject, cell: Cell, find_all_dead_ends: bool) -> list[Finding]:
    """One decode, and how good its sequences are."""
    return [decoded(s, s.row.decoding, _denoiser(s, cell.denoiser), cell, find_all_dead_ends)]


@dataclass
class OwnRule:
    """A decode that no names make: ``policy``, and ``rewriter`` of the tokens that it reveals; such a one has no cost.

    ``contexts``: those that the policy has sent through the network so far, beside the denoiser's. It counts them.
    """

    policy: Policy
    rewriter: Rewriter | None = None
    contexts: int = 0


def decoded(
    s: Subject,
    setting: Decoding,
    denoiser: Posterior,
    cell: Cell,
    find_all_dead_ends: bool = False,
    *,
    root: Key | None = None,
    own: OwnRule | None = None,
) -> Finding:
    """One decode of a denoiser; its randomness is below ``root``, that of the row where not given.

    ``own``: the rule that the cell names and no name makes, such as an order that was learned.
    """
    key, steps = (s.key if root is None else root).fold("decode").fold(cell.name), _steps(s, cell)
    noise = Noise(**asdict(cell.noise)) if cell.noise is not None else None
    temperature = setting.temperature if cell.temperature is None else cell.temperature
    rule = own.policy if own else policy(cell.policy), schedule(cell.schedule, steps)
    rewriter = own.rewriter if own else None
    options = DecodeOptions(temperature, cell.argmax, noise, setting.chunk, rewriter=rewriter)
    made = decode(denoiser, *rule, key=key, n=setting.sequences, options=options)
    passes = {} if own is None else {"forward_passes": (made.forwards + own.contexts) / setting.sequences}
    dead_ends: dict[str, Sums] = {}
    knows = cell.denoiser == "exact"  # a model does not notice that what it has written is impossible
    if knows or find_all_dead_ends:
        seen = made if knows else find_dead_ends(_denoiser(s, "exact"), made)
        dead_ends = measures.dead_ends(s.distribution, seen)
    metrics = measures.generated(s.distribution, made.tokens, key.fold("judge"), dead_ends) | measures.singles(passes)
    if n := _cost_sequences(setting, cell):
        exact = denoiser if knows else _denoiser(s, "exact") if s.row.evaluation.exact else None
        metrics |= measured_costs(denoiser, rule, s.distribution, key=key, n=n, exact=exact, options=options)
    return Finding("decode", {**cell.keys, "steps": steps, "temperature": temperature}, metrics)


def _along(s: Subject, step: int, decoding: Decoding, cells: Sequence[Cell]) -> list[Finding]:
    """The network after ``step`` steps: its losses, its accuracies in one pass, and its decodes."""
    from lo_theory.neural import TrainedPosterior, load_model

    options, trained, n = s.context.options, s.trained(_learner(s)), s.row.evaluation.sequences
    path = _learner(s).snapshot(s.context.run.folder, step)
    network = load_model(path, problem=s.distribution.fingerprint()).to(options.device)
    batch, layout = options.rows_at_once, s.distribution.layout
    model = s.watched(TrainedPosterior(network, layout, batch=batch, precision=trained.precision))
    found = measures.one_pass(model, s.distribution, s.key.fold("one pass"), n)
    exact = _denoiser(s, "exact") if s.row.evaluation.exact else None
    for law, name in ((Uniform(), "excess"), (ObservationsFirst(), "observations_first")):
        measured = losses(model, exact, s.distribution, law, key=_losses_key(s, law), n=n)
        floor = s.distribution.entropy() / s.distribution.layout.length
        found[name] = measured.model.shifted(-floor) if exact is None else measured.kl
    decodes = [decoded(s, decoding, model, cell) for cell in cells]
    return [
        Finding("snapshot", {"step": step}, found),
        *(Finding("snapshot", {"step": step, **made.keys}, made.metrics) for made in decodes),
    ]


def _cost_sequences(decoding: Decoding, cell: Cell) -> int:
    """On how many sequences the cost of a decode is measured; with argmax it has none that is finite."""
    return 0 if cell.argmax else decoding.cost_sequences
