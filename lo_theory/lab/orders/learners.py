"""What one row trains: every learner by name, its order, its network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lo_theory.diffusion.orders import reading_order
from lo_theory.lab.settings import Objective
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, Layout, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.lab.orders.row import MaskedLearner, Row
    from lo_theory.lab.subject import Subject
    from lo_theory.lab.training import Learner

__all__ = ["Reader", "causal", "check_exact", "masked", "readers"]


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
