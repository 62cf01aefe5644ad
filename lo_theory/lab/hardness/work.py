"""What one row of the hardness map computes, as units of work: a column of cells each, thresholds, population dynamics.

A unit of cells holds all mask rates of observations at one rate of latents, so a kill loses at most one column.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.masks import TwoRates
from lo_theory.diffusion.statistics import Sums
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab.ensembles import Budget
from lo_theory.lab.hardness.row import OBSERVED, Population, Row, ensembles
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.units import Unit, Watched
from lo_theory.lab.work import ModelWork, network_facts
from lo_theory.posterior import BPPosterior, ExactPosterior
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.thresholds import PlantedEnsemble, compare_starts, find_transition, transition_columns

if TYPE_CHECKING:
    from lo_theory.neural import TrainedPosterior

__all__ = ["RowWork", "degree"]


def degree(distribution: LODistribution, ensemble: PlantedEnsemble, masked: float) -> float:
    """Mean degree c = (k P/N) (1 - b) P(an observation is of a kind that counts) at mask rate b of observations."""
    layout = distribution.layout
    return ensemble.k * layout.n_observations / layout.n_latents * (1 - masked) * ensemble.revealed


@dataclass(frozen=True)
class RowWork(ModelWork):
    """The units of one row; the model and the posteriors are made when a unit first asks for them."""

    row: Row

    @property
    def names(self) -> Mapping[str, Any]:
        """The problem's family with what tells its ensemble apart."""
        law = self.distribution.observations
        form = f" q={law.q} k={law.k}" if isinstance(law, TableObservations) else ""
        noise = getattr(self.row.problem, "noise", 0.0)
        return {"family": f"{self.row.problem.family}{form}{f' noise={noise:g}' if noise else ''}"}

    @cached_property
    def exact(self) -> ExactPosterior:
        """The exact posterior, with one thread: units run side by side."""
        return ExactPosterior(self.distribution, limit=self.row.cells.limit_states)

    @cached_property
    def ensembles(self) -> dict[str, PlantedEnsemble]:
        """Planted ensembles by what is observed."""
        return ensembles(self.row, self.distribution)

    def _train(self) -> TrainedPosterior:
        from lo_theory.neural import TrainedPosterior

        model, batch = self.train(f"{self.title} model").model, self.context.options.rows_at_once
        return TrainedPosterior(model, self.distribution.layout, batch=batch, precision="float32")

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        needs: frozenset[str] = frozenset()
        if self.row.training is not None:
            cost = self.row.training.steps * self.row.training.batch * self.distribution.layout.length
            unit = replace(self._unit("training", "training", self._network), cost=cost)
            needs = frozenset({unit.name})
            yield unit
        for a, rates in self.row.cells.columns().items():
            label = f"cells with {100 * a:g} % of the latents hidden"
            yield replace(self._unit(f"cells/{a:g}", label, self._column(a, rates)), needs=needs)
        if self.row.thresholds is not None:
            yield from self._threshold_units(self.row.thresholds)
        if self.row.population is not None:
            yield from self._population_units(self.row.population)

    def _threshold_units(self, budget: Budget) -> Iterator[Unit]:
        for name in OBSERVED:
            yield self._unit(f"thresholds/{name}", f"thresholds, {name} observations", self._thresholds(name, budget))

    def _population_units(self, setting: Population) -> Iterator[Unit]:
        for name, a in itertools.product(setting.observed, setting.latents):
            label = f"population dynamics, {name} observations, {100 * a:g} % of the latents hidden"
            yield self._unit(f"population/{name}/{a:g}", label, self._population(name, a, setting))

    def _unit(self, name: str, label: str, compute: Callable[[], list[Line]]) -> Unit:
        return Unit(f"row{self.index}/{name}", f"{self.title} {label}", compute)

    def _network(self) -> list[Line]:
        facts = network_facts(self.model.model)
        return self.rows("training", "training", {}, facts) + self.held_out_rows("training", str(self.index), {})

    def _judged(self) -> dict[str, Watched]:
        """Everything that is judged, by name; each stops when work is to stop."""
        makers: dict[str, Callable[[], Any]] = {
            "bp": lambda: BPPosterior(self.distribution),
            "model": lambda: self.model,
        }
        return {name: Watched(makers[name](), self.context.stop) for name in self.row.judged}

    def _column(self, a: float, rates: tuple[float, ...]) -> Callable[[], list[Line]]:
        def compute() -> list[Line]:
            lines, judged, name = [], self._judged(), f"cells/{a:g}"
            for b in rates:
                self.context.stop.check()
                law = TwoRates(a, b)
                key = self.key.fold("cells").fold(law.name)
                found = uncertainty(judged, self.exact, self.distribution, law, key=key, n=self.row.cells.contexts)
                place = {"form": self.row.cells.form, "a": a, "b": b}
                lines += self.rows(name, "cell", {**place, "posterior": "exact"}, found.truth)
                for posterior, sums in found.judged.items():
                    lines += self.rows(name, "cell", {**place, "posterior": posterior}, sums)
            return lines

        return compute

    def _thresholds(self, name: str, budget: Budget) -> Callable[[], list[Line]]:
        def compute() -> list[Line]:
            self.context.stop.check()
            ensemble = self.ensembles[name]
            found = find_transition(ensemble, self.key.fold("thresholds").fold(name), budget.effort)
            values = {part: float(value) for part, value in transition_columns(found).items() if value is not None}
            values |= {"degree_revealed": degree(self.distribution, ensemble, 0.0)}
            metrics = {part: Sums.single(value) for part, value in values.items()}
            return self.rows(f"thresholds/{name}", "threshold", {"observed": name}, metrics)

        return compute

    def _population(self, name: str, a: float, setting: Population) -> Callable[[], list[Line]]:
        def compute() -> list[Line]:
            """Both starts at every rate of hidden observations."""
            ensemble, lines = self.ensembles[name], []
            for b in setting.observations:
                self.context.stop.check()
                c, key = degree(self.distribution, ensemble, b), self.key.fold("population").fold(f"{name}/{a:g}/{b:g}")
                starts = compare_starts(
                    ensemble, c, key, rate=1 - a, size=setting.size, sweeps=setting.sweeps, discard=setting.discard
                )
                values = {
                    "planted": starts.planted[0],
                    "planted_error": starts.planted[1],
                    "uninformed": starts.uninformed[0],
                    "uninformed_error": starts.uninformed[1],
                    "advantage": starts.advantage[0],
                    "coexist": float(starts.coexist),
                }
                place = {"observed": name, "a": a, "b": b, "c": c}
                metrics = {part: Sums.single(value) for part, value in values.items()}
                lines += self.rows(f"population/{name}/{a:g}", "population", place, metrics)
            return lines

        return compute
