"""What one row of Figure 4 computes: belief propagation from every start on one instance at a time, and the thresholds.

A unit is one instance at one degree. Instances of a degree leave rows with equal keys, so they pool, and more instances
later refine the same point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lo_theory.lab import measures
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.units import Unit
from lo_theory.posterior import BPOptions, BPResult, condition
from lo_theory.posterior.bp import run
from lo_theory.posterior.overlap import overlap
from lo_theory.problem.planted import PlantedInstance, planted
from lo_theory.thresholds import find_transition

__all__ = ["units"]


def units(s: Subject) -> Iterator[Unit]:
    """The thresholds and every instance."""
    row, ensemble = s.row, s.row.ensemble
    s = s.named(f"{ensemble.label},", label=ensemble.label, **asdict(ensemble), N=row.N, seed=row.seed)
    if row.thresholds is not None:
        # The longest unit begins first, so that it does not run alone at the end.
        yield s.unit("thresholds", "thresholds", partial(_thresholds, s), cost=1)
    for degree in row.degrees:
        for instance in range(row.instances):
            label = f"c = {degree:g}, instance {instance}"
            yield s.unit(f"c={degree:.12g}/{instance}", label, partial(_propagate, s, degree, instance))


def _thresholds(s: Subject) -> list[Finding]:
    specification = s.row.ensemble.specification
    key = s.key.fold("thresholds").fold(specification.label)
    found = find_transition(specification.ensemble(), key, s.row.thresholds.effort)
    return measures.transition(found, {}) + measures.curve(found.curve, {})


def _propagate(s: Subject, degree: float, instance: int) -> list[Finding]:
    row, key = s.row, s.key.fold("instances").fold(f"{degree:.12g}").fold(instance)
    predicate, problem = row.ensemble.specification.predicate, key.fold("problem")
    drawn = planted(predicate, row.N, degree, key=problem, observed=row.ensemble.observed, size=row.size)
    graph = condition(drawn.distribution, drawn.tokens)
    found = []
    for start in row.starts:
        s.context.stop.check()
        options = BPOptions(start=start, **asdict(row.iteration))
        result = run(graph, key=key.fold(start), options=options, planted=drawn.assignment)
        values = measures.singles(_reached(drawn, result, row.ensemble.q))
        found.append(Finding("propagation", {"c": degree, "start": start}, values))
    return found


def _reached(drawn: PlantedInstance, result: BPResult, q: int) -> dict[str, float]:
    """What a run reached.

    ``overlap`` of the most likely values and ``belief`` (q E[belief in the planted value] - 1)/(q - 1), both under
    the best permutation of the values; ``excess``: Bethe free entropy a latent less that of uniform messages on the
    same instance, only where the run ended without contradiction.
    """
    assignment = drawn.assignment
    if assignment is None:
        raise ValueError("an overlap needs a planted assignment")
    reached = overlap(result.marginals, assignment)
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
