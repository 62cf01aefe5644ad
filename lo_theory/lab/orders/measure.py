"""What is measured of the trained learners of one row: along orders, under the uniform law, in generated sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import (
    Decoded,
    DecodeOptions,
    OneAtATime,
    Sums,
    Uniform,
    conditional_accuracy,
    decode,
    diversity,
    generated_accuracies,
    infill_accuracies,
    losses,
)
from lo_theory.diffusion.orders import AlongOrder, OrderLosses, closed_form, order_losses
from lo_theory.lab.laws import policy
from lo_theory.lab.orders.learners import Networks, Reader, exact_posterior
from lo_theory.lab.orders.row import MaskedLearner, Row
from lo_theory.lab.units import Context, Watched
from lo_theory.problem import MASK, LODistribution
from lo_theory.rng import Key

__all__ = ["Finding", "Measures"]


@dataclass(frozen=True)
class Finding:
    """Quantities with the same keys: what the rows of a unit are made of."""

    kind: str
    keys: Mapping[str, Any]
    metrics: Mapping[str, Sums] = field(default_factory=dict)


def _arrays(measured: OrderLosses) -> dict[str, NDArray[np.float64]]:
    return {name: values for name, values in vars(measured).items() if values is not None}


@dataclass(frozen=True)
class Measures:
    """Measurements of one row, each a function of the learners' names and budgets."""

    row: Row
    distribution: LODistribution
    networks: Networks
    context: Context
    _laws: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def _key(self) -> Key:
        return Key(self.row.seed)

    @cached_property
    def _exact(self) -> Watched:
        threads = self.context.options.threads
        return Watched(exact_posterior(self.row, self.distribution, threads), self.context.stop)

    @cached_property
    def _sequences(self) -> NDArray[np.int8]:
        """The fresh sequences that are read along every order by every learner."""
        return self.distribution.sample(self._key.fold("losses").fold("data"), self.row.evaluation.sequences)

    def _budget(self, steps: int) -> dict[str, Any]:
        return {"training_steps": steps, "flops": self.networks.flops(steps)}

    def _exact_laws(self, reader: Reader) -> NDArray[np.float64] | None:
        """The exact conditionals along an order, made once (by two units at a time perhaps twice, to the same bits)."""
        if not self.row.evaluation.exact:
            return None
        if reader.name not in self._laws:
            self._laws[reader.name] = AlongOrder(self._exact, reader.reading).conditionals(self._sequences)
        return self._laws[reader.name]

    def along(self, reader: Reader, steps: int) -> list[Finding]:
        """Losses along one order, nats per token: of its own learner, and after the whole training of the masked ones.

        All on the same sequences, so that their difference is measured sequence by sequence (metric ``above_causal``).
        Positions, by time, after the whole training only.
        """
        whole, tokens = steps == self.row.training.steps, self._sequences
        exact = self._exact_laws(reader)
        own = order_losses(self.networks.causal(reader, steps), exact, tokens)
        found = self._of_order(reader, steps, reader.name, own, {})
        found += self._formulas(reader) if whole else []
        for learner in self.row.masked if whole else ():
            posterior = Watched(self.networks.masked(learner, steps), self.context.stop)
            measured = order_losses(AlongOrder(posterior, reader.reading), exact, tokens)
            above = measured.model - own.model
            if measured.kl is not None and own.kl is not None:
                above = measured.kl - own.kl
            more = {"above_causal": Sums.of(above.mean(axis=1))}
            found += self._of_order(reader, steps, learner.name, measured, more)
        return found

    def _of_order(
        self, reader: Reader, steps: int, learner: str, measured: OrderLosses, more: Mapping[str, Sums]
    ) -> list[Finding]:
        """Totals of one learner along one order, split by role, and after the whole training position by position."""
        layout, arrays = self.distribution.layout, _arrays(measured)
        latent = layout.is_latent[np.array(reader.reading)]
        keys = {"learner": learner, "order": reader.name, "order_kind": reader.order, **self._budget(steps)}
        totals = {name: Sums.of(values.mean(axis=1)) for name, values in arrays.items()}
        if measured.kl is not None:
            for name, part in (("kl_latents", latent), ("kl_observations", ~latent)):
                totals[name] = Sums.of(np.where(part, measured.kl, 0.0).mean(axis=1))
        found = [Finding("along", keys, {**totals, **more})]
        if steps == self.row.training.steps:
            for t in range(layout.length):
                place = {"time": t, "position": reader.reading[t], "role": "latent" if latent[t] else "observation"}
                here = {name: Sums.of(values[:, t]) for name, values in arrays.items()}
                found.append(Finding("position", keys | place, here))
        return found

    def _formulas(self, reader: Reader) -> list[Finding]:
        """The exact conditional losses that are a formula, by time."""
        values = closed_form(self.distribution, reader.reading)
        keys = {"order": reader.name, "order_kind": reader.order}
        known = np.flatnonzero(np.isfinite(values))
        return [Finding("formula", {**keys, "time": int(t)}, {"exact": Sums.single(values[t])}) for t in known]

    def masked(self, learner: MaskedLearner, steps: int) -> list[Finding]:
        """Losses of a masked learner under the uniform law, and its one-pass accuracies after the whole training."""
        setting, key = self.row.evaluation, self._key.fold("uniform")
        posterior = Watched(self.networks.masked(learner, steps), self.context.stop)
        exact = self._exact if setting.exact else None
        measured = losses(posterior, exact, self.distribution, Uniform(), key=key, n=setting.contexts)
        keys = {"learner": learner.name, **self._budget(steps)}
        names = ("model", "exact", "kl") if setting.exact else ("model",)
        found = [Finding("masked", keys, {name: getattr(measured, name) for name in names})]
        if steps == self.row.training.steps:
            place = self._key.fold("one pass")
            accuracies = {
                "conditional": conditional_accuracy(
                    posterior, self.distribution, place.fold("conditional"), setting.contexts
                ),
                **infill_accuracies(posterior, self.distribution, Uniform(), place.fold("infill"), setting.contexts),
            }
            found.append(Finding("one_pass", keys, accuracies))
        return found

    def data(self) -> list[Finding]:
        """Sequences of the data in place of generated ones: what exact samples of this number score."""
        key, n = self._key.fold("generate").fold("data"), self.row.generation.sequences
        tokens = self.distribution.sample(key.fold("tokens"), n)
        return [Finding("generate", {"learner": "data", "policy": "exact sampler"}, self._judge(tokens, key))]

    def sample(self, reader: Reader) -> list[Finding]:
        """Ancestral sampling from an order-aware learner after the whole training."""
        steps, setting = self.row.training.steps, self.row.generation
        learner, key = self.networks.causal(reader, steps), self._key.fold("generate").fold(reader.name)
        options = DecodeOptions(setting.temperature, chunk=setting.chunk)
        drawn = learner.generate(key=key, n=setting.sequences, options=options)
        keys = {"learner": reader.name, "policy": "own order", **self._budget(steps)}
        found = [Finding("generate", keys, self._judge(drawn.tokens, key) | _cost(drawn, one_pass=True))]
        if reader.reads_latents_first(self.distribution.layout):
            place = self._key.fold("one pass").fold("conditional")
            truth = self.distribution.sample(place.fold("data"), self.row.evaluation.contexts)
            given, observed = truth.copy(), self.distribution.layout.observation_positions
            given[:, observed] = MASK
            options = DecodeOptions(argmax=True, chunk=setting.chunk)
            filled = learner.generate(key=place, n=len(truth), given=given, options=options).tokens
            right = (filled[:, observed] == truth[:, observed]).mean(axis=1)
            keys = {"learner": reader.name, **self._budget(steps)}
            found.append(Finding("one_pass", keys, {"conditional": Sums.of(right)}))
        return found

    def decode(self, learner: MaskedLearner, name: str) -> list[Finding]:
        """Decoding with a masked learner after the whole training, one token a step."""
        steps, setting = self.row.training.steps, self.row.generation
        posterior = Watched(self.networks.masked(learner, steps), self.context.stop)
        key = self._key.fold("generate").fold(learner.name).fold(name)
        options = DecodeOptions(setting.temperature, chunk=setting.chunk)
        drawn = decode(posterior, policy(name), OneAtATime(), key=key, n=setting.sequences, options=options)
        keys = {"learner": learner.name, "policy": name, **self._budget(steps)}
        return [Finding("generate", keys, self._judge(drawn.tokens, key) | _cost(drawn, one_pass=False))]

    def _judge(self, tokens: NDArray[np.int8], key: Key) -> dict[str, Sums]:
        """Accuracies and diversity of generated sequences."""
        judge = key.fold("judge")
        metrics = generated_accuracies(self.distribution, tokens, judge.fold("accuracy"))
        spread = asdict(diversity(self.distribution, tokens, judge.fold("diversity")))
        return metrics | {name: Sums.single(value) for name, value in spread.items() if not np.isnan(value)}


def _cost(drawn: Decoded, *, one_pass: bool) -> dict[str, Sums]:
    """Calls of the network a sequence, their worth in whole passes over L positions, and seconds of wall time."""
    n, length = drawn.tokens.shape
    forwards = drawn.forwards / n
    passes = forwards / length if one_pass else forwards
    return {"forwards": Sums.single(forwards), "passes": Sums.single(passes), "seconds": Sums.single(drawn.seconds / n)}
