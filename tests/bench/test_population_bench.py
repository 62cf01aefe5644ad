"""Benchmarks of population dynamics; the goals are those of the documentation."""

from __future__ import annotations

import pytest

from lo_theory.problem import colouring, nae, xor
from lo_theory.rng import Key
from lo_theory.thresholds import Dynamics, Effort, find_transition, planted_ensemble, run_at_degree

CASES = {
    "colouring q=5": (colouring(5), 13.23),
    "nae q=3 k=3": (nae(3, 3), 26.0),
    "nae q=2 k=5": (nae(2, 5), 51.0),
    "xor k=3": (xor(3), 2.75),
}


@pytest.mark.parametrize("name", CASES)
def test_sweep(benchmark, name):
    """One sweep of 20,000 messages; goal 15 million factor messages a second on one free core (k = 2)."""
    predicate, c = CASES[name]
    dynamics = Dynamics(planted_ensemble(predicate), 20_000)
    messages = run_at_degree(dynamics, c, dynamics.planted(), Key(0), sweeps=1, discard=5).messages
    benchmark.extra_info["factor messages"] = int(20_000 * c)
    benchmark.pedantic(
        run_at_degree, (dynamics, c, messages, Key(1)), {"sweeps": 5, "discard": 0}, rounds=5, warmup_rounds=1
    )


@pytest.mark.parametrize(("q", "published"), [(4, 8.46), (5, 13.23)])
def test_condensation_of_colourings(benchmark, q, published):
    """All three thresholds at the default effort; goal at most 2 minutes on one core, condensation within 0.1 %."""
    found = benchmark.pedantic(find_transition, (planted_ensemble(colouring(q)), Key(2), Effort()), rounds=1)
    benchmark.extra_info["condensation"] = str(found.condensation)
    assert abs(found.condensation.value / published - 1) < 1e-3
