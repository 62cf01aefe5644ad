"""A first part of training on the masked loss under other laws, before any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lo_theory.neural.model import Transformer
from lo_theory.neural.objectives import Batch, Masked, Objective, State, Stretches, stretches
from lo_theory.problem import Distribution
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Staged"]

_FIRST = "of a stage"


@checked
@dataclass(frozen=True)
class Staged:
    """``first`` during its stages, then ``objective``, whose tensors wait unchanged until then.

    ``first.stages`` say how long; its own law is not used. Errors: ValueError for objectives of two problems.
    """

    first: Masked
    objective: Objective

    def __post_init__(self) -> None:
        problems = [one.distribution.fingerprint() for one in (self.first, self.objective)]
        if problems[0] != problems[1]:
            raise ValueError(f"stages are of the objective's own problem, got {problems[0]} before {problems[1]}")

    @property
    def network(self) -> type[Transformer]:
        """The network that the objective needs."""
        return getattr(self.objective, "network", Transformer)

    @property
    def distribution(self) -> Distribution:
        """See Objective."""
        return self.objective.distribution

    @property
    def _end(self) -> int:
        return sum(stage.steps for stage in self.first.stages)

    def _at(self, step: int) -> Objective:
        return self.first if step < self._end else self.objective

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        return {**self.objective.describe(), "stages": self.first.describe()["stages"]}

    def label(self, step: int) -> str:
        """That of the step's objective."""
        return self._at(step).label(step)

    def passes(self, steps: int) -> Stretches:
        """See Objective: those of both parts."""
        own = min(steps, self._end)
        return [*self.first.passes(own), *stretches(self.objective, steps - own)]

    def check(self, model: Transformer) -> None:
        """See Objective."""
        self.objective.check(model)

    def initial_state(self) -> State:
        """That of the objective."""
        return self.objective.initial_state()

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """What the step's objective draws; a batch of a stage is marked."""
        batch = self._at(step).draw(key, step, rows)
        return {**batch, _FIRST: np.ones(rows[1], np.bool_)} if self._at(step) is self.first else batch

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective."""
        if _FIRST in batch:
            return self.first.loss(model, batch, {})[0], state
        return self.objective.loss(model, batch, state)
