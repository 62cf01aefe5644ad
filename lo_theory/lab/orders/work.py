"""The units of work of one row of the experiment on orders: trainings, and what is measured of them.

Losses along orders, under the uniform law, and of generated sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import Decoded, DecodeOptions, OneAtATime, Sums, Uniform, decode, losses
from lo_theory.diffusion.orders import AlongOrder, OrderLosses, closed_form, order_losses
from lo_theory.lab import measures
from lo_theory.lab.laws import policy
from lo_theory.lab.orders.learners import Reader, causal, masked, readers
from lo_theory.lab.orders.row import MaskedLearner
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit, Watched
from lo_theory.problem import MASK
from lo_theory.rng import Key

__all__ = ["units"]


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


def _keys(name: str, learner: Learner) -> dict[str, Any]:
    return {"learner": name, "training_steps": learner.training.steps, "flops": learner.flops()}


def _training(s: Subject, name: str, learner: Learner) -> list[Finding]:
    """Train; what was logged during the training is in the run's journal."""
    keys = _keys(name, learner)
    trained, *held_out = measures.training(s, learner, keys)
    return [trained, *measures.training_losses(s, learner, keys), *held_out]


def _exact(s: Subject) -> Watched:
    return s.watched(s.exact(s.row.evaluation.limit_states))


def _sequences(s: Subject) -> NDArray[np.int8]:
    """The fresh sequences that are read along every order by every learner."""
    key, n = s.key.fold("losses").fold("data"), s.row.evaluation.sequences
    return s.once("sequences", lambda: s.distribution.sample(key, n))


def _exact_laws(s: Subject, reader: Reader) -> NDArray[np.float64] | None:
    """The exact conditionals along an order."""
    if not s.row.evaluation.exact:
        return None
    return s.once(("laws", reader.name), lambda: AlongOrder(_exact(s), reader.reading).conditionals(_sequences(s)))


def _along(s: Subject, reader: Reader, steps: int) -> list[Finding]:
    """Losses along one order, nats per token: of its own learner, and after the whole training of the masked ones.

    All on the same sequences, so that their difference is measured sequence by sequence (metric ``above_causal``).
    Positions, by time, after the whole training only.
    """
    row, tokens, laws = s.row, _sequences(s), _exact_laws(s, reader)
    whole, learner = steps == row.training.steps, causal(s, row, reader, steps)
    own = order_losses(s.causal(learner), laws, tokens)
    found = _of_order(s, reader, _keys(reader.name, learner), own, {}, whole)
    found += _formulas(s, reader) if whole else []
    for one in row.masked if whole else ():
        learner = masked(s, row, one, steps)
        measured = order_losses(AlongOrder(s.watched(s.model(learner)), reader.reading), laws, tokens)
        above = measured.model - own.model
        if measured.kl is not None and own.kl is not None:
            above = measured.kl - own.kl
        more = {"above_causal": Sums.of(above.mean(axis=1))}
        found += _of_order(s, reader, _keys(one.name, learner), measured, more, whole)
    return found


def _of_order(
    s: Subject, reader: Reader, keys: Mapping[str, Any], measured: OrderLosses, more: Mapping[str, Sums], whole: bool
) -> list[Finding]:
    """Totals of one learner along one order, split by role, and after the whole training position by position."""
    layout = s.distribution.layout
    latent = layout.is_latent[np.array(reader.reading)]
    (name, learner), *budget = keys.items()
    keys = {name: learner, "order": reader.name, "order_kind": reader.order, **dict(budget)}
    totals = measures.order_totals(measured)
    if measured.kl is not None:
        for name, part in (("kl_latents", latent), ("kl_observations", ~latent)):
            totals[name] = Sums.of(np.where(part, measured.kl, 0.0).mean(axis=1))
    found = [Finding("along", keys, {**totals, **more})]
    arrays = {name: values for name, values in vars(measured).items() if values is not None}
    for t in range(layout.length) if whole else ():
        place = {"time": t, "position": reader.reading[t], "role": "latent" if latent[t] else "observation"}
        here = {name: Sums.of(values[:, t]) for name, values in arrays.items()}
        found.append(Finding("position", keys | place, here))
    return found


def _formulas(s: Subject, reader: Reader) -> list[Finding]:
    """The exact conditional losses that are a formula, by time."""
    values = closed_form(s.distribution, reader.reading)
    keys = {"order": reader.name, "order_kind": reader.order}
    known = np.flatnonzero(np.isfinite(values))
    return [Finding("formula", {**keys, "time": int(t)}, {"exact": Sums.single(values[t])}) for t in known]


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
    model, key, own = s.causal(learner), s.key.fold("generate").fold(reader.name), _keys(reader.name, learner)
    options = DecodeOptions(setting.temperature, chunk=setting.chunk)
    drawn = model.generate(key=key, n=setting.sequences, options=options)
    found = [_generated(s, own, "own order", drawn, key, one_pass=True)]
    if reader.reads_latents_first(layout):
        place = s.key.fold("one pass").fold("conditional")
        truth = s.distribution.sample(place.fold("data"), s.row.evaluation.contexts)
        given, observed = truth.copy(), layout.observation_positions
        given[:, observed] = MASK
        options = DecodeOptions(argmax=True, chunk=setting.chunk)
        filled = model.generate(key=place, n=len(truth), given=given, options=options).tokens
        right = (filled[:, observed] == truth[:, observed]).mean(axis=1)
        found.append(Finding("one_pass", own, {"conditional": Sums.of(right)}))
    return found


def _decode(s: Subject, one: MaskedLearner, name: str) -> list[Finding]:
    """Decoding with a masked learner after the whole training, one token a step."""
    setting, learner = s.row.generation, masked(s, s.row, one, s.row.training.steps)
    key, options = (
        s.key.fold("generate").fold(one.name).fold(name),
        DecodeOptions(setting.temperature, chunk=setting.chunk),
    )
    posterior = s.watched(s.model(learner))
    drawn = decode(posterior, policy(name), OneAtATime(), key=key, n=setting.sequences, options=options)
    return [_generated(s, _keys(one.name, learner), name, drawn, key, one_pass=False)]


def _generated(s: Subject, keys: Mapping[str, Any], name: str, drawn: Decoded, key: Key, *, one_pass: bool) -> Finding:
    """Accuracies and diversity; per sequence: calls of the network, their worth in passes over L positions, seconds."""
    n, length = drawn.tokens.shape
    forwards = drawn.forwards / n
    passes = forwards / length if one_pass else forwards
    cost = measures.singles({"forwards": forwards, "passes": passes, "seconds": drawn.seconds / n})
    metrics = measures.generated(s.distribution, drawn.tokens, key.fold("judge")) | cost
    (first, learner), *budget = keys.items()
    return Finding("generate", {first: learner, "policy": name, **dict(budget)}, metrics)
