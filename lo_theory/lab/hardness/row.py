"""The settings of one row of the hardness map: a problem, the mask rates to look at, whom to judge, what to compute."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lo_theory.lab.ensembles import Budget
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Objective, Training, check_laws

if TYPE_CHECKING:
    from lo_theory.problem import LODistribution
    from lo_theory.thresholds import PlantedEnsemble

__all__ = ["OBSERVED", "Cells", "NoReference", "Observed", "Population", "Row", "check_rates", "ensembles"]

Observed = Literal["all", "satisfied"]
OBSERVED = ("all", "satisfied")

_TENTHS = tuple(round(0.1 * i, 1) for i in range(11))


def check_rates(name: str, rates: tuple[float, ...]) -> None:
    """Raise ValueError unless there are rates, ascending."""
    if not rates:
        raise ValueError(f"{name} is empty: name at least one mask rate")
    if any(after <= before for before, after in itertools.pairwise(rates)):
        raise ValueError(f"{name} must ascend, each rate once, got {list(rates)}")


@dataclass(frozen=True)
class Cells:
    """Which pairs (mask rate of latents a, of observations b) are measured, on ``contexts`` fresh contexts each.

    ``form`` plane: every pair of ``latents`` and ``observations``; lines: the edge a = 1 at every b in
    ``observations``, and the diagonal a = b at every rate in ``latents``. (0, 0) hides nothing and is left out.
    """

    form: Literal["plane", "lines"] = "plane"
    latents: tuple[float, ...] = setting(_TENTHS, least=0, most=1)
    observations: tuple[float, ...] = setting(_TENTHS, least=0, most=1)
    contexts: int = setting(400, least=2)
    limit_states: int = setting(2**24, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        check_rates("latents", self.latents)
        check_rates("observations", self.observations)
        if not any(self.columns().values()):
            raise ValueError("the only cell is (0, 0), which hides nothing: name a rate above 0")

    def columns(self) -> dict[float, tuple[float, ...]]:
        """Rates of observations at each rate of latents."""
        if self.form == "plane":
            pairs = list(itertools.product(self.latents, self.observations))
        else:
            pairs = sorted({*((rate, rate) for rate in self.latents), *((1.0, rate) for rate in self.observations)})
        columns: dict[float, tuple[float, ...]] = {}
        for a, b in pairs:
            if a > 0 or b > 0:
                columns[a] = (*columns.get(a, ()), b)
        return columns


@dataclass(frozen=True)
class Population:
    """Population dynamics from the planted and from the uninformed start, at each pair of mask rates.

    ``observed``: which revealed observations count (all, or those of value 1). ``latents`` are mask rates above 0 (with
    every latent revealed nothing is asked), ``observations`` mask rates below 1 (with none revealed there is no
    degree). See ``compare_starts`` for the rest.
    """

    observed: tuple[Observed, ...] = ("all",)
    latents: tuple[float, ...] = setting((0.5, 0.8, 0.9, 0.95, 0.98, 1.0), above=0, most=1)
    observations: tuple[float, ...] = setting((0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9), least=0)
    size: int = setting(1000, least=512)
    sweeps: int = setting(32, least=8)
    discard: int = setting(60, least=0)

    def __post_init__(self) -> None:
        check_rates("latents", self.latents)
        check_rates("observations", self.observations)
        if not self.observations[-1] < 1:
            raise ValueError(
                f"observations are mask rates below 1 here, got {self.observations[-1]}: none is revealed at 1"
            )
        if not self.observed or len(set(self.observed)) < len(self.observed):
            raise ValueError(f"observed must name all, satisfied or both, each once, got {list(self.observed)}")


@dataclass(frozen=True)
class Row:
    """A problem and what is measured of it.

    ``judged``: bp, model, both or none, beside the exact posterior. ``thresholds``: what may be spent on Kesten-Stigum,
    dynamic and condensation for both ways to observe, null for none; ``population``: null for none.
    """

    problem: Problem
    seed: int = 0
    cells: Cells = field(default_factory=Cells)
    judged: tuple[Literal["bp", "model"], ...] = ("bp",)
    thresholds: Budget | None = None
    population: Population | None = None
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None

    def __post_init__(self) -> None:
        if len(set(self.judged)) < len(self.judged):
            raise ValueError(f"judged names one twice: {list(self.judged)}")
        if "model" in self.judged and self.training is None:
            raise ValueError(
                "judged asks for a model, but training is null: give training, or leave model out of judged"
            )
        if "model" not in self.judged and self.training is not None:
            raise ValueError("training is given, but judged does not name model: name it, or set training: null")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law, belief propagation or an ensemble does not fit the problem."""
        from lo_theory.problem import TableObservations

        check_laws(self.objective.named_laws(), distribution.layout)
        if "bp" in self.judged and not isinstance(distribution.observations, TableObservations):
            raise ValueError("judged names bp, but this problem has no factor graph: leave bp out")
        ensembles(self, distribution)


def ensembles(row: Row, distribution: LODistribution) -> dict[str, PlantedEnsemble]:
    """The planted ensembles that a row needs, by what is observed; ValueError where they make no sense."""
    from lo_theory.problem import TableObservations
    from lo_theory.thresholds import planted_ensemble

    wanted = set(OBSERVED if row.thresholds is not None else ())
    wanted |= set(row.population.observed if row.population is not None else ())
    law = distribution.observations
    if wanted and not isinstance(law, TableObservations):
        raise ValueError(
            "thresholds of random slabs are no transitions of a planted CSP: set thresholds and population to null"
        )
    try:
        return {name: planted_ensemble(law, observed=name) for name in OBSERVED if name in wanted}  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{error}; set thresholds and population to null to draw the map without them") from error


@dataclass(frozen=True)
class NoReference:
    """No such map is published."""
