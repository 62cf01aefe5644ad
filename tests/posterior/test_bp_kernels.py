"""What belief propagation reports beside its messages, against slow twins on graphs with cycles.

Beliefs, Bethe free entropy, laws of masked observations, and how far the messages were from standing still.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lo_theory.posterior import _bp_closing_kernels
from lo_theory.posterior.bp import BPOptions, BPResult, run
from lo_theory.posterior.factor_graph import FactorGraph
from lo_theory.rng import Key, fill_words, shuffle
from tests.posterior.test_bp import ALL_STEPS, SHAPES, loopy, start_messages
from tests.posterior.trees import slow_flooding, slow_sweeps, slow_to_variable


def slow_bethe(graph: FactorGraph, to_factor: np.ndarray, to_variable: np.ndarray) -> tuple[float, np.ndarray]:
    """sum_i ln Z_i + sum_a ln Z_a - sum_(ia) ln Z_ia by the definition, from normalised messages, and the beliefs."""
    total, beliefs = 0.0, graph.field.copy()
    for i in range(graph.n_variables):
        for a, b in np.argwhere(graph.scopes == i):
            beliefs[i] *= to_variable[a, b]
        total += math.log(beliefs[i].sum())
        beliefs[i] /= beliefs[i].sum()
    for a, t in enumerate(graph.table):
        weight = 0.0
        for state, values in enumerate(itertools.product(range(graph.q), repeat=graph.k)):
            weight += graph.tables[t, state] * math.prod(to_factor[a, b, v] for b, v in enumerate(values))
        total += math.log(weight)
        total -= sum(math.log(to_factor[a, b] @ to_variable[a, b]) for b in range(graph.k))
    return total, beliefs[: graph.n_latents]


@pytest.mark.parametrize("schedule", ["flooding", "sequential"])
@pytest.mark.parametrize(("kind", "q", "k"), SHAPES)
def test_beliefs_and_bethe_free_entropy_are_their_slow_twin(kind: str, q: int, k: int, schedule: str) -> None:
    """With cycles and far from a fixed point, where nothing cancels."""
    graph = loopy(kind, q, k)
    options = BPOptions(schedule, noise=0.5, iterations=3, tolerance=ALL_STEPS, messages=True)
    result = run(graph, key=Key(3), options=options)
    assert result.to_factor is not None
    assert result.to_variable is not None
    expected, beliefs = slow_bethe(graph, result.to_factor, result.to_variable)
    assert result.free_entropy == pytest.approx(expected, abs=1e-11)
    np.testing.assert_allclose(result.marginals, beliefs, rtol=0, atol=1e-12)
    if k > 1:  # without the term of the edges it is another number
        assert abs(slow_bethe(graph, result.to_factor, np.ones_like(result.to_variable) / q)[0] - expected) > 1e-3


def changes(messages: list[np.ndarray], over: int) -> list[float]:
    """Largest change over ``over`` iterations, at the last of the ``messages`` and at the one before."""
    return [float(np.abs(messages[t] - messages[t - over]).max()) for t in (-2, -1)]


def nearest(value: float, candidates: list[float]) -> float:
    return min(abs(value - candidate) for candidate in candidates)


def check_residuals(result: BPResult, messages: list[np.ndarray]) -> None:
    """Each residual is a change at the last place where it could be measured, or at the one before: not earlier."""
    assert nearest(result.residual, changes(messages, 1)) < 1e-12
    assert nearest(result.residual_two, changes(messages, 2)) < 1e-12
    assert nearest(result.residual, changes(messages[:-2], 1)) > 0.01 * result.residual


@pytest.mark.parametrize("iterations", [5, 6, 7, 11])
@pytest.mark.parametrize(("kind", "q"), [("soft", 2), ("nae", 3)])
def test_residuals_of_flooding_are_their_slow_twin(kind: str, q: int, iterations: int) -> None:
    """Changes of the messages to variables, whenever the run ends."""
    graph, start = loopy(kind, q, 3), start_messages(loopy(kind, q, 3), Key(3), 0.5)
    options = BPOptions(noise=0.5, iterations=iterations, tolerance=ALL_STEPS, closed_forms=False)
    result = run(graph, key=Key(3), options=options)
    assert result.iterations == iterations
    slow = [slow_flooding(graph, start, 0.0, t, scaled=True) for t in range(iterations)]
    check_residuals(result, [slow_to_variable(graph, messages, True) for messages in slow])


@pytest.mark.parametrize("iterations", [5, 6])
def test_residuals_of_sweeps_are_their_slow_twin(iterations: int) -> None:
    """Changes of the messages to factors, the order of each sweep taken from the run's own words."""
    graph = loopy("soft", 2, 3)
    order, orders = np.arange(graph.n_variables), []
    for t in range(iterations):
        words = np.empty(len(order), np.uint64)
        fill_words(words, t, *Key(3).fold("order").words())
        shuffle(order, len(order), words)
        orders.append(order.copy())
    start = start_messages(graph, Key(3), 0.5)
    result = run(graph, key=Key(3), options=BPOptions("sequential", 0.0, "noise", 0.5, iterations, ALL_STEPS))
    check_residuals(result, [slow_sweeps(graph, start, 0.0, orders[:t]) for t in range(1, iterations + 1)])


@pytest.mark.parametrize(("q", "k", "r"), [(2, 3, 2), (3, 2, 3), (3, 3, 2), (2, 4, 3)])
def test_laws_of_masked_observations_are_their_slow_twin(q: int, k: int, r: int) -> None:
    """The table averaged over independent latents, scopes with and without repeats."""
    rng = np.random.default_rng(q + 10 * k)
    scopes, index = rng.integers(0, 4, (30, k)).astype(np.int32), rng.integers(0, 2, 30).astype(np.int32)
    tables, belief = rng.dirichlet(np.ones(r), (2, q**k)), rng.dirichlet(np.ones(q), 4)
    masked = np.flatnonzero(rng.random(30) < 0.7)
    laws, expected = np.empty((len(masked), r)), np.zeros((len(masked), r))
    _bp_closing_kernels.observation_laws(masked, scopes, tables, index, belief, laws)
    for row, j in enumerate(masked):
        for latents in itertools.product(range(q), repeat=4):
            state = int(np.ravel_multi_index([latents[i] for i in scopes[j]], (q,) * k))
            weight = math.prod(belief[i, x] for i, x in enumerate(latents))
            expected[row] += weight * tables[index[j], state]
    np.testing.assert_allclose(laws, expected, rtol=1e-12)
    repeats = np.array([len(set(scopes[j])) < k for j in masked])
    assert repeats.any()
    assert not repeats.all()
