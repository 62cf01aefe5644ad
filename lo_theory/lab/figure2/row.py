"""The settings of one row of Figure 2: a problem, the lengths of trainings on it, the masks they are judged under."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Objective, Training, check_laws, mask_law
from lo_theory.problem import Layout, LODistribution

__all__ = ["PatternEvaluation", "Reference", "Row"]


@dataclass(frozen=True)
class PatternEvaluation:
    """Losses by pattern and role on ``sequences`` fresh contexts of each mask law, against the exact posterior.

    ``laws`` stand beside pattern(l), l in ``patterns`` (all of 1..N-1 when left out). ``bp``: judge belief propagation
    too. ``proxy``: also measure the errors as the paper does, against the model trained longest in place of the exact
    posterior. ``limit_states``: the largest number of assignments the exact posterior may enumerate for one group of
    latents.
    """

    sequences: int = setting(1000, least=2)
    laws: tuple[str, ...] = ("uniform", "suffix")
    patterns: tuple[int, ...] | None = setting(None, least=1)
    bp: bool = True
    proxy: bool = False
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        names = [mask_law(text).name for text in self.laws]
        names += [f"pattern({count})" for count in self.patterns or ()]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"laws and patterns name {name} twice: each is measured once, leave one out")
            if self.patterns is None and name.startswith("pattern("):
                raise ValueError(
                    f"laws name {name}, which is among the patterns, all of 1..N-1 when left out: leave it out, or "
                    "give patterns"
                )

    def texts(self, layout: Layout) -> tuple[str, ...]:
        """All mask laws, by the names that ``mask_law`` reads, in the order of tables."""
        patterns = range(1, layout.n_latents) if self.patterns is None else self.patterns
        return (*self.laws, *(f"pattern({count})" for count in patterns))


@dataclass(frozen=True)
class Row:
    """A problem, trainings of a model on it, and where they are judged. ``training`` null: no model.

    ``further``: longer trainings, in steps. Each is a training of its own, from the same initialisation and on the same
    data, with the cosine of its own length; stages of the curriculum given in steps are the same steps in all.
    """

    problem: Problem
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None
    further: tuple[int, ...] = setting((), least=1)
    evaluation: PatternEvaluation = field(default_factory=PatternEvaluation)

    def __post_init__(self) -> None:
        if self.further and self.training is None:
            raise ValueError("further lengths are given, but training is null: give training, or further: []")
        lengths = self.lengths
        if lengths:
            self.objective.check_lasts(lengths[0])
        if any(after <= before for before, after in itertools.pairwise(lengths)):
            raise ValueError(f"further lengths must grow, beginning above training.steps: got {list(lengths)}")
        if self.evaluation.proxy and len(lengths) < 2:
            raise ValueError("evaluation.proxy asks for a model trained further than another: give further lengths")
        if not lengths and not self.evaluation.bp:
            raise ValueError("nothing is judged: give training, or evaluation.bp: true")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps of all trainings, the shortest first."""
        return () if self.training is None else (self.training.steps, *self.further)

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem."""
        layout = distribution.layout
        check_laws([("evaluation", self.evaluation.texts(layout)), *self.objective.named_laws()], layout)


@dataclass(frozen=True)
class Reference:
    """What was published, to print below ours."""

    source: str
    statement: str
