"""What one row trains: every learner by name, its order, its network. Loads torch when one is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lo_theory.diffusion.orders import reading_order
from lo_theory.lab.once import Once
from lo_theory.lab.units import Context
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, Layout, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lo_theory.lab.orders.row import MaskedLearner, Row
    from lo_theory.neural import Objective, Trained, TrainedPosterior, TransformerConfig
    from lo_theory.neural.causal import CausalLearner

__all__ = ["Networks", "Reader", "check_exact", "exact_posterior", "readers"]


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


def exact_posterior(row: Row, distribution: LODistribution, threads: int = 1) -> ExactPosterior:
    """The exact posterior of a row's problem."""
    return ExactPosterior(distribution, limit=row.evaluation.limit_states, threads=threads)


def check_exact(row: Row, distribution: LODistribution) -> None:
    """Raise ValueError if the exact posterior does not fit on one sequence read along every order."""
    if not row.evaluation.exact:
        return
    exact, layout = exact_posterior(row, distribution), distribution.layout
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


class Networks:
    """The trained networks of a row, each made when first asked for: trained, trained further, or read.

    All have one shape, one initialisation and see the same data step by step, so that what differs is the order.
    """

    def __init__(
        self, index: int, row: Row, distribution: LODistribution, context: Context, lines: Mapping[str, float]
    ) -> None:
        self.index, self.row, self.distribution, self.context, self.lines = index, row, distribution, context, lines
        self._trained: Once[Trained] = Once()

    def file(self, name: str, steps: int) -> str:
        """Name of the checkpoint of one training."""
        return f"{self.index}-{name}-{steps}"

    @cached_property
    def network(self) -> TransformerConfig:
        """The shape of all of them, without the direction of attention."""
        from lo_theory.lab.training import make_network

        return make_network(self.row.model, self.distribution.layout)

    def flops(self, steps: int) -> float:
        """Floating-point operations of a training of so many steps, see ``flop_per_token``; equal for all learners."""
        from lo_theory.neural.flops import flop_per_token

        return float(steps * self.row.training.batch * self.network.places * flop_per_token(self.network))

    def causal(self, reader: Reader, steps: int) -> CausalLearner:
        """The order-aware learner of one order after a training of ``steps``."""
        from lo_theory.neural import Causal
        from lo_theory.neural.causal import CausalLearner

        trained = self._make(reader.name, steps, Causal(self.distribution, reader.reading), causal=True)
        layout, batch = self.distribution.layout, self.context.options.rows_at_once
        return CausalLearner(trained.model, layout, reader.reading, batch=batch, precision=trained.precision)

    def masked(self, learner: MaskedLearner, steps: int) -> TrainedPosterior:
        """A masked learner after a training of ``steps``."""
        from lo_theory.lab.training import make_masked
        from lo_theory.neural import TrainedPosterior

        objective = make_masked(learner.objective(steps / self.row.training.steps), self.distribution, steps)
        trained = self._make(learner.name, steps, objective, causal=False)
        layout, batch = self.distribution.layout, self.context.options.rows_at_once
        return TrainedPosterior(trained.model, layout, batch=batch, precision=trained.precision)

    def _make(self, name: str, steps: int, objective: Objective, *, causal: bool) -> Trained:
        return self._trained.get((name, steps), lambda: self._train(name, steps, objective, causal))

    def _train(self, name: str, steps: int, objective: Objective, causal: bool) -> Trained:
        from lo_theory.lab.training import Learner, train_model

        layout = self.distribution.layout
        label = f"({layout.n_latents}, {layout.n_observations}) {name}"
        return train_model(
            Learner(
                f"{label}, {steps} steps",
                self.file(name, steps),
                replace(self.network, causal=causal),
                self.row.training_of(steps),
                objective,
                Key(self.row.seed).fold("training"),
                self.lines,
            ),
            self.context,
        )
