"""The settings of one row of Table 1, and the published numbers to print beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Decoding, Evaluation, Model, Objective, Training, check_laws, step_count
from lo_theory.problem import LODistribution, TableObservations

__all__ = ["Published", "Reference", "Row"]


@dataclass(frozen=True)
class Row:
    """A row of the table: a problem, how a model is trained on it, what is measured. ``training`` null: no model.

    ``name`` tells rows of one problem apart, in tables and in the rows' keys.
    """

    problem: Problem
    name: str = ""
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    decoding: Decoding = field(default_factory=Decoding)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if self.training is None and any(cell.denoiser == "model" for cell in self.decoding.cells()):
            raise ValueError("decoding asks for a model, but training is null: give training, or denoisers: [exact]")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)

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
