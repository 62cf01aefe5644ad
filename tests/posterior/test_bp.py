"""Belief propagation: kernels against slow twins, schedules, starts, oscillations, contradictions, batches, bad
input.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lo_theory.posterior.bp import BPOptions, run, run_batch
from lo_theory.posterior.factor_graph import FactorGraph, condition
from lo_theory.posterior.overlap import overlap
from lo_theory.problem import LODistribution, TableObservations, colouring, nae, nae_sat, sparse_parity
from lo_theory.problem.planted import PlantedInstance, planted
from lo_theory.rng import Key, fill_words, shuffle
from tests.posterior.trees import (
    random_prior,
    random_table,
    slow_flooding,
    slow_sweeps,
    slow_to_factor,
    slow_to_variable,
)

ALL_STEPS = 1e-300  # a tolerance no run reaches


def loopy(kind: str, q: int, k: int, seed: int = 0) -> FactorGraph:
    """A small graph with cycles, two tables, every latent masked and every observation revealed."""
    rng = np.random.default_rng(seed)
    n, count = 6, 9
    scopes = np.array([rng.choice(n, k, replace=False) for _ in range(count)])
    tables = np.stack([random_table(kind, q, k, 2, rng) for _ in range(2)])
    law = TableObservations(scopes, tables, rng.integers(0, 2, count))
    distribution = LODistribution(random_prior(n, q, rng), law)
    tokens = distribution.sample(Key(seed), 1)[0].copy()
    tokens[:n] = -1
    return condition(distribution, tokens)


def start_messages(graph: FactorGraph, key: Key, noise: float) -> np.ndarray:
    words = np.empty(graph.n_factors * graph.k * graph.q, np.uint64)
    fill_words(words, 0, *key.fold("start").words())
    noisy = 1 + noise * (2 * (words >> np.uint64(11)) / 2.0**53 - 1)
    start = noisy.reshape(graph.n_factors, graph.k, graph.q)
    return start / start.sum(axis=2, keepdims=True)


SHAPES = [("nae", 3, 3), ("xor", 2, 3), ("soft", 2, 3), ("hard", 3, 2), ("soft", 2, 1)]


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "q", "k"), SHAPES)
def test_flooding_is_its_slow_twin(kind: str, q: int, k: int, damping: float) -> None:
    graph = loopy(kind, q, k)
    options = BPOptions(
        damping=damping, noise=0.5, iterations=7, tolerance=ALL_STEPS, messages=True, closed_forms=False
    )
    result = run(graph, key=Key(3), options=options)
    start = start_messages(graph, Key(3), 0.5)
    to_factor = slow_flooding(graph, start, damping, result.iterations, scaled=True)
    np.testing.assert_allclose(result.to_factor, to_factor, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.to_variable, slow_to_variable(graph, to_factor, True), rtol=0, atol=1e-12)
    wrong = slow_flooding(graph, start, damping, result.iterations - 1, scaled=True)
    assert kind == "hard" or k == 1 or np.abs(wrong - result.to_factor).max() > 1e-9  # one step fewer is noticed


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "q", "k"), SHAPES)
def test_sweeps_are_their_slow_twin(kind: str, q: int, k: int, damping: float) -> None:
    graph = loopy(kind, q, k)
    options = BPOptions("sequential", damping, noise=0.5, iterations=4, tolerance=ALL_STEPS, messages=True)
    result = run(graph, key=Key(3), options=options)
    order, orders = np.arange(graph.n_variables), []
    for t in range(result.iterations):
        words = np.empty(len(order), np.uint64)
        fill_words(words, t, *Key(3).fold("order").words())
        shuffle(order, len(order), words)
        orders.append(order.copy())
    start = start_messages(graph, Key(3), 0.5)
    to_factor = slow_sweeps(graph, start, damping, orders)
    np.testing.assert_allclose(result.to_factor, to_factor, rtol=0, atol=1e-12)
    if k > 1 and kind != "hard":  # hard tables soon leave nothing to change
        assert np.abs(slow_sweeps(graph, start, damping, orders[::-1]) - result.to_factor).max() > 1e-9


@pytest.mark.parametrize("schedule", ["flooding", "sequential"])
@pytest.mark.parametrize(("kind", "q"), [("nae", 3), ("xor", 2)])
def test_closed_forms_are_the_general_kernel(kind: str, q: int, schedule: str) -> None:
    for seed in range(5):
        graph = loopy(kind, q, 3, seed)
        options = BPOptions(schedule, noise=0.5, iterations=9, tolerance=ALL_STEPS, messages=True)
        closed = run(graph, key=Key(1), options=options)
        general = run(graph, key=Key(1), options=dataclasses.replace(options, closed_forms=False))
        np.testing.assert_allclose(closed.to_factor, general.to_factor, rtol=0, atol=1e-12)
        np.testing.assert_allclose(closed.free_entropy, general.free_entropy, rtol=1e-12)


def test_messages_are_a_fixed_point() -> None:
    graph = loopy("soft", 2, 3)
    result = run(graph, key=Key(0), options=BPOptions(tolerance=1e-14, messages=True))
    assert result.converged
    to_variable = slow_to_variable(graph, result.to_factor, True)
    np.testing.assert_allclose(result.to_factor, slow_to_factor(graph, to_variable), atol=1e-12)


@pytest.fixture(scope="module")
def instance() -> PlantedInstance:
    return planted(nae(3, 3), 4000, 28.0, key=Key(2))


@pytest.fixture(scope="module")
def graph(instance: PlantedInstance) -> FactorGraph:
    return condition(instance.distribution, instance.tokens)


def test_flooding_multiplies_the_value_imbalance(instance: PlantedInstance, graph: FactorGraph) -> None:
    """The global mode grows by -(k - 1) c |lambda|, -7 at c = 28 for NAE q = 3 k = 3 (a mean over edges: N = 4000
    fluctuates).
    """
    imbalance = []
    for iterations in (3, 4):
        options = BPOptions(noise=1e-6, iterations=iterations, tolerance=ALL_STEPS, messages=True)
        messages = run(graph, key=Key(7), options=options).to_factor
        imbalance.append(messages.mean(axis=(0, 1)) - 1 / 3)
    ratio = imbalance[1][0] / imbalance[0][0]
    assert abs(ratio + 2 * instance.degree / 8) < 0.35


def test_an_oscillation_is_not_convergence(graph: FactorGraph) -> None:
    result = run(graph, key=Key(1), options=BPOptions(iterations=100))
    assert not result.converged
    assert result.oscillating
    assert result.residual > 0.5
    assert result.residual_two < 1e-8  # what a test over an even number of iterations would have called converged


def test_the_damping_that_cures_flooding(graph: FactorGraph) -> None:
    """(x - 1)/(x + 1) = 0.75 at c = 28: from small noise, .74 ends in an oscillation and .76 decays."""
    fails = run(graph, key=Key(1), options=BPOptions(damping=0.72, iterations=600))
    cures = run(graph, key=Key(1), options=BPOptions(damping=0.78, iterations=600))
    assert fails.residual > 1e-3
    assert cures.residual < 1e-4


@pytest.mark.parametrize("options", [BPOptions(damping=0.8), BPOptions("sequential")], ids=["damped", "sequential"])
def test_a_planted_start_survives(instance: PlantedInstance, graph: FactorGraph, options: BPOptions) -> None:
    result = run(graph, key=Key(1), options=dataclasses.replace(options, start="planted"), planted=instance.assignment)
    assert result.converged
    assert not result.contradictory
    assert overlap(result.marginals, instance.assignment).value > 0.9
    assert result.free_entropy_per_variable > instance.density * np.log(8 / 9)  # condensed: above the paramagnet


def test_the_paramagnet_is_a_fixed_point(instance: PlantedInstance, graph: FactorGraph) -> None:
    result = run(graph, key=Key(1), options=BPOptions(noise=0.0, iterations=3))
    assert result.converged
    np.testing.assert_allclose(result.marginals, 1 / 3, atol=1e-12)
    np.testing.assert_allclose(result.free_entropy_per_variable, instance.density * np.log(8 / 9), rtol=1e-12)
    assert overlap(result.marginals, instance.assignment).value == pytest.approx(0.0, abs=1e-12)


def test_isolated_variables_keep_their_prior() -> None:
    prior = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    distribution = LODistribution(prior, TableObservations([[0, 1]], nae(2, 2).emission()[None]))
    for tokens in ([-1, -1, -1, -1, 1], [-1, -1, -1, -1, -1], [-1, -1, -1, 0, 1]):
        for schedule in ("flooding", "sequential"):
            result = run(condition(distribution, tokens), key=Key(0), options=BPOptions(schedule))
            assert result.converged
            np.testing.assert_allclose(result.marginals[2], prior[2])
            expected = (np.log(0.3) if tokens[3] == 0 else 0.0) + (np.log(0.5) if tokens[4] == 1 else 0.0)
            assert result.free_entropy == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["flooding", "sequential"])
def test_contradictory_evidence_is_a_flag(schedule: str) -> None:
    scopes = np.array([[0, 1], [1, 2], [0, 2]])
    distribution = LODistribution(np.full((3, 2), 0.5), TableObservations(scopes, colouring(2).emission()[None]))
    revealed = run(condition(distribution, [0, 0, -1, 1, -1, -1]), key=Key(0), options=BPOptions(schedule))
    assert revealed.contradictory
    assert revealed.free_entropy == -np.inf
    assert np.isfinite(revealed.marginals).all()
    fine = run(condition(distribution, [0, 1, -1, 1, -1, -1]), key=Key(0), options=BPOptions(schedule))
    assert not fine.contradictory


def test_large_degrees_do_not_underflow() -> None:
    """Contradicting soft evidence on one variable, 30,000 factors: the products pass through 1e-9000 and back."""
    table = np.array([[0.9, 0.1], [0.1, 0.9]])
    law = TableObservations(np.zeros((30_000, 1), int), table[None])
    distribution = LODistribution(np.array([[0.5, 0.5]]), law)
    tokens = np.concatenate([[-1], np.arange(30_000) % 2])
    for schedule in ("flooding", "sequential"):
        result = run(condition(distribution, tokens), key=Key(0), options=BPOptions(schedule))
        np.testing.assert_allclose(result.marginals, 0.5, atol=1e-9)
        np.testing.assert_allclose(result.free_entropy, 15_000 * np.log(0.09), rtol=1e-12)


def test_batches_are_the_runs_one_by_one() -> None:
    instances = [planted(nae(3, 3), 60, 9.0, key=Key(seed)) for seed in range(6)]
    graphs = [condition(one.distribution, one.tokens) for one in instances]
    options = BPOptions("sequential", start="planted")
    assignments = [one.assignment for one in instances]
    batches = [run_batch(graphs, key=Key(5), options=options, planted=assignments, threads=t) for t in (1, 3)]
    for b, (left, right) in enumerate(zip(*batches, strict=True)):
        alone = run(graphs[b], key=Key(5).fold(b), options=options, planted=assignments[b])
        np.testing.assert_array_equal(left.marginals, right.marginals)
        np.testing.assert_array_equal(left.marginals, alone.marginals)


def test_bad_options_say_what_is_wrong() -> None:
    for name, value in (
        ("schedule", "chaotic"),
        ("start", "warm"),
        ("damping", 1.0),
        ("damping", -0.1),
        ("noise", 1.0),
        ("iterations", 0),
        ("tolerance", 0.0),
        ("tolerance", float("nan")),
    ):
        with pytest.raises(ValueError, match=name):
            BPOptions(**{name: value})


def test_bad_calls_say_what_is_wrong(graph: FactorGraph, instance: PlantedInstance) -> None:
    with pytest.raises(ValueError, match="planted="):
        run(graph, key=Key(0), options=BPOptions(start="planted"))
    with pytest.raises(ValueError, match="4000 integers"):
        run(graph, key=Key(0), planted=[0, 1])
    with pytest.raises(ValueError, match=r"0\.\.2, found 0\.\.3"):
        run(graph, key=Key(0), planted=np.arange(4000) % 4)
    with pytest.raises(ValueError, match="threads"):
        run_batch([graph], key=Key(0), threads=0)
    with pytest.raises(ValueError, match="one assignment a graph"):
        run_batch([graph], key=Key(0), planted=[])
    with pytest.raises(ValueError, match="over the limit"):
        dataclasses.replace(graph, scopes=np.broadcast_to(np.int32(0), (2**31, 3)))


def test_parity_recovers_what_little_noise_hides() -> None:
    """A working decoder: noisy parity with latents half revealed finds the rest."""
    distribution = sparse_parity(400, 1600, 3, 0.02, seed=1)
    complete = distribution.sample(Key(4), 1)[0]
    tokens = complete.copy()
    tokens[:200] = -1
    result = run(condition(distribution, tokens), key=Key(0))
    assert result.converged
    np.testing.assert_array_equal(result.marginals.argmax(axis=1), complete[:400])


def test_nae_sat_context_of_the_paper() -> None:
    """(20, 280), eleven latents masked: one assignment is left, and sweeps find it."""
    distribution = nae_sat(20, 280, seed=0)
    complete = distribution.sample(Key(1), 1)[0]
    tokens = complete.copy()
    tokens[:11] = -1
    result = run(condition(distribution, tokens), key=Key(0), options=BPOptions("sequential"))
    np.testing.assert_array_equal(result.marginals.argmax(axis=1), complete[:20])
