"""What one row of Table 1 computes, as units of work: named, each leaving rows.

Facts of the problem, the exact posterior and a trained model as denoisers, losses against the exact posterior, one-pass
accuracies, and a grid of decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import (
    BinomialRule,
    Decoded,
    DecodeOptions,
    FixedCount,
    Losses,
    Noise,
    OneAtATime,
    Schedule,
    Sums,
    Uniform,
    conditional_accuracy,
    dead_checks,
    decode,
    diversity,
    generated_accuracies,
    infill_accuracies,
    losses,
)
from lo_theory.lab.laws import policy
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.settings import Cell, mask_law, step_count
from lo_theory.lab.table1.row import Row
from lo_theory.lab.units import Unit, Watched
from lo_theory.lab.work import ModelWork, network_facts
from lo_theory.posterior import BPPosterior, ExactPosterior
from lo_theory.problem import LODistribution, TableObservations

if TYPE_CHECKING:
    from lo_theory.neural import TrainedPosterior

__all__ = ["RowWork", "problem_lines"]


def problem_lines(distribution: LODistribution) -> dict[str, float]:
    """The known lines of a problem.

    ``floor`` and ``marginals_only``: losses in nats per token; ``constant`` and ``independent``: accuracy of
    observations that are always their most likely value, and that are drawn from their single-token marginals, both
    regardless of the latents and against the data; ``observation_mean``: mean of the observations in the data;
    ``self_consistency_...``: see ``_consistency_lines``.
    """
    length = distribution.layout.length
    observed = distribution.token_marginals[distribution.layout.observation_positions]
    return {
        "floor": distribution.entropy() / length,
        "marginals_only": distribution.marginal_entropy() / length,
        "constant": float(observed.max(axis=1).mean()),
        "independent": float(np.square(observed).sum(axis=1).mean()),
        "observation_mean": float((observed @ np.arange(observed.shape[1])).mean()),
        **_consistency_lines(distribution, observed),
    }


def _consistency_lines(distribution: LODistribution, observed: NDArray[np.float64]) -> dict[str, float]:
    """Self-consistency of the exact sampler, and of observations that know nothing of the latents.

    A value counts where it is (tied for) most likely given the latents, which are data. ``..._ceiling``: drawn given
    the latents, E max_v P(o = v | latents) where nothing is tied; ``..._constant``: always the most likely value
    regardless of the latents; ``..._independent``: drawn from the single-token marginals ``observed`` [P, V].
    """
    law = distribution.observations
    if isinstance(law, TableObservations):
        given = law.tables[law.index]  # [P, states, r]
        top, weights = given >= given.max(axis=2, keepdims=True), distribution.scope_weights
        ceiling = float((weights[:, :, None] * given * top).sum(axis=(1, 2)).mean())
        agree = np.einsum("ps,psr->pr", weights, top)  # P(value v counts), by observation
    else:
        ceiling, agree = 1.0, observed[:, : law.r]  # a slab's values are certain given the latents
    drawn = observed[:, : law.r]
    constant = np.take_along_axis(agree, drawn.argmax(axis=1)[:, None], axis=1)
    return {
        "self_consistency_ceiling": ceiling,
        "self_consistency_constant": float(constant.mean()),
        "self_consistency_independent": float((drawn * agree).sum(axis=1).mean()),
    }


@dataclass(frozen=True)
class RowWork(ModelWork):
    """The units of one row; networks and posteriors are made when a unit first asks for them."""

    row: Row

    @property
    def title(self) -> str:
        """The pair (N, P) and the row's own name, as a screen shows them."""
        return f"{super().title} {self.row.name}" if self.row.name else super().title

    @property
    def names(self) -> Mapping[str, Any]:
        """The row's own name, where it has one."""
        return {"name": self.row.name} if self.row.name else {}

    @cached_property
    def lines(self) -> dict[str, float]:
        """Known lines of the problem."""
        return problem_lines(self.distribution)

    @cached_property
    def exact(self) -> ExactPosterior:
        """The exact posterior."""
        threads = self.context.options.threads
        return ExactPosterior(self.distribution, limit=self.row.evaluation.limit_states, threads=threads)

    @cached_property
    def bp(self) -> BPPosterior:
        """Belief propagation."""
        return BPPosterior(self.distribution)

    def _train(self) -> TrainedPosterior:
        from lo_theory.neural import TrainedPosterior

        row, layout, options = self.row, self.distribution.layout, self.context.options
        trained = self.train(self.title)
        compiled = row.training is not None and row.training.compile
        # One shape is compiled, and fewer rows are filled up to it: none should be filled up while decoding.
        batch = min(options.rows_at_once, row.decoding.sequences) if compiled else options.rows_at_once
        return TrainedPosterior(trained.model, layout, batch=batch, precision=trained.precision, compiled=compiled)

    def denoiser(self, name: str) -> Watched:
        """``exact``, ``model`` or ``bp``, which stop when work is to stop."""
        return Watched(getattr(self, name), self.context.stop)

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        cells, evaluation = self.row.decoding.cells(), self.row.evaluation
        yield self._unit("problem", "problem", self._problem)
        if self.row.training is not None:
            cost = self.row.training.steps * self.row.training.batch * self.distribution.layout.length
            yield replace(self._unit("training", "training", self._network), cost=cost)
            for law in evaluation.laws:
                yield self._loss_unit(law)
            one_pass = self._unit("one_pass/model", "model, one pass", lambda: self._one_pass("model"))
            yield self._of_model(one_pass, 2 * evaluation.sequences)
        if evaluation.exact:
            yield self._unit("one_pass/exact", "exact posterior, one pass", lambda: self._one_pass("exact"))
        for cell in cells:
            unit, steps = self._decode_unit(cell), step_count(cell.steps, self.distribution.layout.length)
            forwards = self.row.decoding.sequences * steps
            yield self._of_model(unit, forwards) if cell.denoiser == "model" else unit

    def _unit(self, name: str, label: str, compute: Callable[[], list[Line]]) -> Unit:
        return Unit(f"row{self.index}/{name}", f"{self.title} {label}", compute)

    def _of_model(self, unit: Unit, forwards: int) -> Unit:
        return replace(unit, needs=frozenset({f"row{self.index}/training"}), forwards=forwards)

    def _loss_unit(self, law: str) -> Unit:
        unit = self._unit(f"losses/{law}", f"losses under {law}", lambda: self._losses(law))
        return self._of_model(unit, self.row.evaluation.sequences)

    def _decode_unit(self, cell: Cell) -> Unit:
        tokens = ", argmax" if cell.argmax else ""
        warmth = "" if cell.temperature is None else f", temperature {cell.temperature:g}"
        label = f"{cell.denoiser}, {cell.policy}, {cell.steps} steps{tokens}{warmth}"
        return self._unit(f"decode/{cell.name}", label, lambda: self._decode(cell))

    def _problem(self) -> list[Line]:
        return self.rows("problem", "problem", {}, {name: Sums.single(value) for name, value in self.lines.items()})

    def _network(self) -> list[Line]:
        facts = network_facts(self.model.model)
        return self.rows("training", "training", {}, facts) + self.held_out_rows("training", str(self.index), {})

    def _one_pass(self, denoiser: str) -> list[Line]:
        posterior, n = self.denoiser(denoiser), self.row.evaluation.sequences
        key = self.key.fold("one pass")  # the same contexts for every denoiser
        metrics = {
            "conditional": conditional_accuracy(posterior, self.distribution, key.fold("conditional"), n),
            **infill_accuracies(posterior, self.distribution, Uniform(), key.fold("infill"), n),
        }
        return self.rows(f"one_pass/{denoiser}", "one_pass", {"denoiser": denoiser}, metrics)

    def _losses(self, text: str) -> list[Line]:
        setting, law, unit = self.row.evaluation, mask_law(text), f"losses/{text}"
        exact = self.denoiser("exact") if setting.exact else None
        names = ("model", "exact", "kl") if setting.exact else ("model",)
        # With the problem in the key, rows of one seed do not share their draw of mask sizes.
        key = self.key.fold("losses").fold(self.distribution.fingerprint()).fold(law.name)
        measured: Losses = losses(self.denoiser("model"), exact, self.distribution, law, key=key, n=setting.sequences)
        total = {name: getattr(measured, name) for name in names}
        rows = self.rows(unit, "losses", {"law": law.name}, total)
        for part in measured.classes:
            keys = {
                "law": law.name,
                "latents_hidden": part.latents_hidden,
                "observations_hidden": part.observations_hidden,
            }
            rows += self.rows(unit, "class_losses", keys, {name: getattr(part, name) for name in names})
        return rows

    def _decode(self, cell: Cell) -> list[Line]:
        setting, key = self.row.decoding, self.key.fold("decode").fold(cell.name)
        steps = step_count(cell.steps, self.distribution.layout.length)
        noise = Noise(**asdict(cell.noise)) if cell.noise is not None else None
        temperature = setting.temperature if cell.temperature is None else cell.temperature
        options = DecodeOptions(temperature, cell.argmax, noise, setting.chunk)
        decoded = decode(
            self.denoiser(cell.denoiser),
            policy(cell.policy),
            self._schedule(cell, steps),
            key=key,
            n=setting.sequences,
            options=options,
        )
        judge = key.fold("judge")
        metrics = generated_accuracies(self.distribution, decoded.tokens, judge.fold("accuracy"))
        seen = self._with_dead_ends(cell, decoded)
        if seen is not None:
            metrics |= {"impossible": Sums.of(seen.impossible), "alive_steps": Sums.of(seen.alive_steps)}
            metrics |= dead_checks(self.distribution, seen)
        spread = asdict(diversity(self.distribution, decoded.tokens, judge.fold("diversity")))
        metrics |= {name: Sums.single(value) for name, value in spread.items() if not np.isnan(value)}
        keys = {**cell.keys, "steps": steps, "temperature": temperature}
        return self.rows(f"decode/{cell.name}", "decode", keys, metrics)

    def _with_dead_ends(self, cell: Cell, decoded: Decoded) -> Decoded | None:
        """The decode with its dead ends; None where nobody has looked: a model does not notice them."""
        return decoded if cell.denoiser == "exact" else None

    def _schedule(self, cell: Cell, steps: int) -> Schedule:
        if cell.schedule == "binomial":
            return BinomialRule(steps)
        return OneAtATime() if steps == self.distribution.layout.length else FixedCount(steps)
