"""The settings of one row of the experiment on recipes: one problem, one way to train, how often."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lo_theory.diffusion.losses import gap_span
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Objective, Training, check_laws
from lo_theory.problem import LODistribution

__all__ = ["Reference", "Row"]


@dataclass(frozen=True)
class Row:
    """A recipe, called ``name`` in tables, on a problem.

    ``draws``: trainings, each with its own initialisation, data and held-out contexts; those of equal number share them
    between recipes (the data where the batch is the same). ``targets``: shares of the gap
    whose cost is told. The first row of a problem is what its other rows are compared with.
    """

    name: str
    problem: Problem
    training: Training
    seed: int = 0
    draws: int = setting(1, least=1)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    targets: tuple[float, ...] = setting((0.1, 0.5, 0.9), above=0, most=1)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        if self.training.evaluations < 1:
            raise ValueError("training.evaluations is 0, so there would be nothing to show: give it, such as 20")
        self.objective.check_lasts(self.training.steps)
        if not self.targets:
            raise ValueError("targets is empty: name at least one share of the gap, such as 0.5")

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or there is no gap to close."""
        check_laws(self.objective.named_laws(), distribution.layout)
        if math.isnan(gap_span(distribution.entropy(), distribution.marginal_entropy())):
            raise ValueError("problem: its tokens are independent, so there is no gap to close: take another")


@dataclass(frozen=True)
class Reference:
    """What is published of training, in words."""

    source: str
