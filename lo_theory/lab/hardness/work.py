"""What one row of the hardness map computes, as units of work: a column of cells each, thresholds, population dynamics.

A unit of cells holds all mask rates of observations at one rate of latents, so a kill loses at most one column.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from lo_theory.diffusion.masks import TwoRates
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab import measures
from lo_theory.lab.hardness.row import OBSERVED, ensembles
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.thresholds import PlantedEnsemble, compare_starts, find_transition

__all__ = ["degree", "units"]


def degree(distribution: LODistribution, ensemble: PlantedEnsemble, masked: float) -> float:
    """Mean degree c = (k P/N) (1 - b) P(an observation is of a kind that counts) at mask rate b of observations."""
    layout = distribution.layout
    return ensemble.k * layout.n_observations / layout.n_latents * (1 - masked) * ensemble.revealed


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    row = s.row
    s, learner, needs = s.named(s.size, family=_family(s)), None, list[str]()
    if row.training is not None:
        learner, needs = s.learner(f"{s.size} model"), ["training"]
        yield s.unit("training", "training", partial(measures.training, s, learner, {}), learner=learner)
    for a, rates in row.cells.columns().items():
        label = f"cells with {100 * a:g} % of the latents hidden"
        yield s.unit(f"cells/{a:g}", label, partial(_column, s, learner, a, rates), needs)
    for name in OBSERVED if row.thresholds is not None else ():
        yield s.unit(f"thresholds/{name}", f"thresholds, {name} observations", partial(_thresholds, s, name))
    if row.population is not None:
        for name, a in itertools.product(row.population.observed, row.population.latents):
            label = f"population dynamics, {name} observations, {100 * a:g} % of the latents hidden"
            yield s.unit(f"population/{name}/{a:g}", label, partial(_population, s, name, a))


def _family(s: Subject) -> str:
    """The problem's family with what tells its ensemble apart."""
    law, noise = s.distribution.observations, getattr(s.row.problem, "noise", 0.0)
    form = f" q={law.q} k={law.k}" if isinstance(law, TableObservations) else ""
    return f"{s.row.problem.family}{form}{f' noise={noise:g}' if noise else ''}"


def _column(s: Subject, learner: Learner | None, a: float, rates: Sequence[float]) -> list[Finding]:
    """What is left to know at one mask rate of the latents, and who knows it."""
    found, cells = [], s.row.cells
    for b in rates:
        s.context.stop.check()
        judged = {
            name: s.watched(s.bp() if name == "bp" or learner is None else s.model(learner, precision="float32"))
            for name in s.row.judged
        }
        law, exact, key = TwoRates(a, b), s.exact(cells.limit_states), s.key.fold("cells")
        measured = uncertainty(judged, exact, s.distribution, law, key=key.fold(law.name), n=cells.contexts)
        found += measures.left_open(measured, "cell", {"form": cells.form, "a": a, "b": b, "posterior": "exact"})
    return found


def _thresholds(s: Subject, name: str) -> list[Finding]:
    s.context.stop.check()
    ensemble = ensembles(s.row, s.distribution)[name]
    found = find_transition(ensemble, s.key.fold("thresholds").fold(name), s.row.thresholds.effort)
    revealed = measures.singles({"degree_revealed": degree(s.distribution, ensemble, 0.0)})
    return [*measures.transition(found, {"observed": name}), Finding("threshold", {"observed": name}, revealed)]


def _population(s: Subject, name: str, a: float) -> list[Finding]:
    """Both starts at every rate of hidden observations."""
    setting, ensemble = s.row.population, ensembles(s.row, s.distribution)[name]
    found = []
    for b in setting.observations:
        s.context.stop.check()
        c, key = degree(s.distribution, ensemble, b), s.key.fold("population").fold(f"{name}/{a:g}/{b:g}")
        budget = {"size": setting.size, "sweeps": setting.sweeps, "discard": setting.discard}
        both = compare_starts(ensemble, c, key, rate=1 - a, **budget)
        found += measures.starts(both, {"observed": name, "a": a, "b": b, "c": c})
    return found
