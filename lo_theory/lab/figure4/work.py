"""What one row of Figure 4 computes: belief propagation from every start on one instance at a time, and the thresholds.

A unit is one instance at one degree. Instances of a degree leave rows with equal keys, so they pool, and more instances
later refine the same point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.ensembles import transition_lines
from lo_theory.lab.figure4.row import Row
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.units import Context, Unit
from lo_theory.posterior import BPOptions, BPResult, condition
from lo_theory.posterior.bp import run
from lo_theory.posterior.overlap import overlap
from lo_theory.problem.planted import PlantedInstance, planted
from lo_theory.rng import Key
from lo_theory.thresholds import find_transition

__all__ = ["RowWork"]


@dataclass(frozen=True)
class RowWork:
    """The units of one row."""

    index: int
    row: Row
    context: Context

    @property
    def keys(self) -> dict[str, Any]:
        """What all rows share."""
        ensemble = self.row.ensemble
        return {"row": self.index, "label": ensemble.label, **asdict(ensemble), "N": self.row.N, "seed": self.row.seed}

    def units(self) -> Iterator[Unit]:
        """Yield the thresholds and every instance."""
        row = self.row
        if row.thresholds is not None:
            # The longest unit begins first, so that it does not run alone at the end.
            yield Unit(f"row{self.index}/thresholds", f"{row.ensemble.label}, thresholds", self._thresholds, cost=1)
        for degree in row.degrees:
            for instance in range(row.instances):
                yield self._instance_unit(degree, instance)

    def _instance_unit(self, degree: float, instance: int) -> Unit:
        name = f"row{self.index}/c={degree:.12g}/{instance}"
        label = f"{self.row.ensemble.label}, c = {degree:g}, instance {instance}"
        return Unit(name, label, lambda: self._propagate(name, degree, instance))

    def _thresholds(self) -> list[Line]:
        budget, specification = self.row.thresholds, self.row.ensemble.specification
        if budget is None:
            raise ValueError(f"row {self.index} asks for no thresholds")
        key = Key(self.row.seed).fold("thresholds").fold(specification.label)
        found = find_transition(specification.ensemble(), key, budget.effort)
        return transition_lines(f"row{self.index}/thresholds", self.keys, found)

    def _propagate(self, unit: str, degree: float, instance: int) -> list[Line]:
        row, key = self.row, Key(self.row.seed).fold("instances").fold(f"{degree:.12g}").fold(instance)
        drawn = planted(
            row.ensemble.specification.predicate,
            row.N,
            degree,
            key=key.fold("problem"),
            observed=row.ensemble.observed,
            size=row.size,
        )
        graph = condition(drawn.distribution, drawn.tokens)
        lines = []
        for start in row.starts:
            self.context.stop.check()
            options = BPOptions(start=start, **asdict(row.iteration))
            result = run(graph, key=key.fold(start), options=options, planted=drawn.assignment)
            lines += self._lines(unit, {"c": degree, "start": start}, self._measure(drawn, result))
        return lines

    def _lines(self, unit: str, keys: Mapping[str, Any], values: Mapping[str, float]) -> list[Line]:
        whole = {"kind": "propagation", **self.keys, **keys}
        return [Line(unit, name, Sums.single(value), whole) for name, value in values.items()]

    def _measure(self, drawn: PlantedInstance, result: BPResult) -> dict[str, float]:
        """What a run reached.

        ``overlap`` of the most likely values and ``belief`` (q E[belief in the planted value] - 1)/(q - 1), both under
        the best permutation of the values; ``excess``: Bethe free entropy a latent less that of uniform messages on the
        same instance, only where the run ended without contradiction.
        """
        assignment = drawn.assignment
        if assignment is None:
            raise ValueError("an overlap needs a planted assignment")
        reached, q = overlap(result.marginals, assignment), self.row.ensemble.q
        values = {
            "degree": drawn.degree,
            "overlap": reached.value,
            "belief": _belief(result.marginals, reached.permutation[assignment], q),
            "confidence": reached.confidence,
            "iterations": result.iterations,
            "converged": result.converged,
            "contradictory": result.contradictory,
        }
        if not result.contradictory:
            values["excess"] = result.free_entropy_per_variable - _uniform_free_entropy(drawn)
        return values


def _belief(marginals: NDArray[np.float64], guesses: NDArray[np.int64], q: int) -> float:
    believed = np.take_along_axis(marginals, guesses[:, None], axis=1).mean()
    return float((q * believed - 1) / (q - 1))


def _uniform_free_entropy(drawn: PlantedInstance) -> float:
    """Bethe free entropy a latent of uniform messages, in nats: sum over observations of ln P(value) / N.

    Belief propagation on a distribution weighs assignments by their prior, so ln q is in neither of the two.
    """
    layout = drawn.distribution.layout
    values = drawn.tokens[layout.observation_positions].astype(np.intp)
    shares = drawn.distribution.token_marginals[layout.observation_positions]
    known = np.log(np.take_along_axis(shares, values[:, None], axis=1))
    return float(known.sum() / layout.n_latents)
