"""Every kernel of the exact posterior against a slow, obvious twin."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from numba import njit

from lo_theory.posterior import _enumeration_kernels, _kernels, _plan_kernels, _propagation_kernels
from lo_theory.posterior.graph import TableGraph, table_graph
from lo_theory.posterior.workspace import Rule, Workspace, workspace
from lo_theory.problem import LODistribution
from tests.posterior.reference import FAMILIES, random_contexts, random_problem


def problems(count: int, seed: int, states: int = 1024) -> list[tuple[LODistribution, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        distribution = random_problem(rng, FAMILIES[number % len(FAMILIES)], states=states, most=12)
        pairs.append((distribution, random_contexts(rng, distribution, 6)))
    return pairs


def slow_propagation(distribution: LODistribution, row: np.ndarray) -> list[set[int]] | None:
    """Sweep over all revealed factors, dropping values without support, until a sweep drops nothing; None on a
    contradiction.
    """
    law, prior = distribution.observations, distribution.prior
    tokens, observed = row[distribution.order[: len(prior)]], row[distribution.order[len(prior) :]]
    domains = [{x for x in range(law.q) if prior[i, x] > 0 and tokens[i] in (-1, x)} for i in range(len(prior))]
    changed = True
    while changed:
        changed = False
        for j in np.flatnonzero(observed >= 0):
            states = allowed_states(distribution, domains, j, observed[j])
            for i in set(law.scopes[j].tolist()):  # type: ignore[union-attr]
                kept = {state[i] for state, factor in states if factor > 0}
                changed |= kept != domains[i]
                domains[i] = kept
    return domains if all(domains) else None


def allowed_states(
    distribution: LODistribution, domains: list[set[int]], j: int, value: int
) -> list[tuple[dict[int, int], float]]:
    """Every assignment of the distinct latents of scope j from their domains, with its factor."""
    law = distribution.observations
    latents = sorted(set(law.scopes[j].tolist()))  # type: ignore[union-attr]
    result = []
    for values in itertools.product(*(sorted(domains[i]) for i in latents)):
        state = dict(zip(latents, values, strict=True))
        number = 0
        for i in law.scopes[j]:  # type: ignore[union-attr]
            number = number * law.q + state[int(i)]
        result.append((state, float(law.tables[law.index[j], number, value])))  # type: ignore[union-attr]
    return result


def run_propagation(graph: TableGraph, work: Workspace, row: np.ndarray) -> list[set[int]] | None:
    if not (
        _propagation_kernels.restrict(graph, work.domains, row) and _propagation_kernels.propagate(graph, work.domains)
    ):
        return None
    return [set(work.domains.values[i, : work.domains.size[i]].tolist()) for i in range(len(work.domains.size))]


def slow_components(
    distribution: LODistribution, domains: list[set[int]], row: np.ndarray
) -> tuple[set[frozenset[int]], set[int]]:
    """Components of the undetermined latents, and the factors that are not constant, by networkx."""
    tied, active = nx.Graph(), set()
    tied.add_nodes_from(i for i, domain in enumerate(domains) if len(domain) > 1)
    n = len(domains)
    for j in range(distribution.layout.n_observations):
        value = row[distribution.order[n + j]]
        if value < 0:
            continue
        states = allowed_states(distribution, domains, j, value)
        if len({factor for _, factor in states}) > 1:
            active.add(j)
            free = [i for i in states[0][0] if len(domains[i]) > 1]
            tied.add_edges_from(itertools.pairwise(free))
    return {frozenset(component) for component in nx.connected_components(tied)}, active


def test_propagation_and_placement() -> None:
    contradictions, split, shrunk = 0, 0, 0
    for distribution, tokens in problems(240, seed=1):
        graph = table_graph(distribution)
        work = workspace(graph)
        for row in tokens:
            expected = slow_propagation(distribution, row)
            assert run_propagation(graph, work, row) == expected
            if expected is None:
                contradictions += 1
                continue
            components, active = slow_components(distribution, expected, row)
            assert set(np.flatnonzero(work.domains.active).tolist()) == active
            count = _propagation_kernels.place(graph, work.domains, work.placement)
            starts, placed = work.placement.starts[: count + 1], work.placement.placed
            assert {frozenset(placed[a:b].tolist()) for a, b in itertools.pairwise(starts)} == components
            for component, (a, b) in enumerate(itertools.pairwise(starts)):
                assert work.placement.rank[placed[a:b]].tolist() == list(range(a, b))
                assert set(work.placement.component[placed[a:b]].tolist()) == {component}
            split += count > 1
            shrunk += any(len(domain) < distribution.layout.q for domain in expected)
    assert min(contradictions, split, shrunk) > 50


def test_sizes_of_components() -> None:
    for distribution, tokens in problems(60, seed=2):
        graph = table_graph(distribution)
        costs, rule, work = np.empty((len(tokens), 6)), Rule(2.0**30, 0.0, np.inf, 0.0), workspace(graph)
        nothing = np.empty((0, 0, 0)), np.empty(0)
        _kernels.answer_rows(graph, work, work.law, tokens, 0, rule, costs, *nothing)
        undetermined, states = costs[:, 0], costs[:, 1]
        for b, row in enumerate(tokens):
            domains = slow_propagation(distribution, row)
            components = slow_components(distribution, domains, row)[0] if domains else set()
            sizes = [np.prod([len(domains[i]) for i in component]) for component in components] if domains else []
            assert states[b] == max(sizes, default=1)
            assert undetermined[b] == sum(len(component) for component in components)


def test_flat_scopes_name_the_same_states() -> None:
    rng = np.random.default_rng(3)
    for distribution, _ in problems(80, seed=4):
        graph, law = table_graph(distribution), distribution.observations
        latents = rng.integers(0, law.q, len(distribution.prior))
        for j in range(law.n_observations):
            used = graph.scopes[j, : graph.arity[j]]
            assert sorted(used) == sorted(set(law.scopes[j].tolist()))  # type: ignore[union-attr]
            state = int(latents[used] @ graph.strides[j, : graph.arity[j]])
            assert state == law.states(latents[None])[0, j]  # type: ignore[union-attr]
            at = (graph.table[j] * graph.r + np.arange(graph.r)) * graph.n_states + state
            assert np.array_equal(graph.tables[at], law.tables[law.index[j], state])  # type: ignore[union-attr]
        for i in range(len(latents)):
            readers = [j for j in range(law.n_observations) if i in law.scopes[j]]  # type: ignore[union-attr]
            assert graph.incident[graph.first[i] : graph.first[i + 1]].tolist() == readers


@njit
def scaled_product(weight: float, exponent: int, factor: float) -> tuple[float, int]:
    return _enumeration_kernels.scaled_product(weight, exponent, factor)  # only kernels can call it


@pytest.mark.parametrize(
    ("weight", "exponent", "factor"),
    [
        (0.75, 0, 0.5),
        (1.0, -3, 0.0),
        (0.0, -1, 0.3),
        (1e-70, 0, 1e-70),
        (2.0**-256, -7, 2.0**-1022),
        (0.9, -1, 5e-324),
        (1e-300, 2, 1e-300),
    ],
)
def test_scaled_product(weight: float, exponent: int, factor: float) -> None:
    product, power = scaled_product(weight, exponent, factor)
    exact = Fraction(weight) * Fraction(factor)
    if exact == 0:
        assert product == 0
        return
    assert product >= 2.0**-256
    assert abs(Fraction(product) * Fraction(2) ** (256 * (power - exponent)) / exact - 1) < Fraction(1, 2**52)


def test_enumeration_of_one_component() -> None:
    """Mass and latent marginals of each component, against a sum over its assignments with the active factors."""
    compared = 0
    for distribution, tokens in problems(120, seed=5, states=256):
        graph = table_graph(distribution)
        work, cells = workspace(graph), np.zeros(100_000)
        for row in tokens:
            domains = run_propagation(graph, work, row)
            cost = _plan_kernels.prepare(graph, work, cells, row, Rule(2.0**30, 0.0, np.inf, 0.0))
            if domains is None:
                assert not cost.possible
                continue
            work.walk.mass[:] = 0
            for component in range(cost.components):
                latents = work.placement.placed[
                    work.placement.starts[component] : work.placement.starts[component + 1]
                ].tolist()
                mass, unit = _enumeration_kernels.enumerate_component(graph, work, cells, component)
                total, marginals = slow_enumeration(
                    distribution, domains, np.flatnonzero(work.domains.active), latents, row
                )
                assert mass * 2.0 ** (256 * unit) == pytest.approx(total, rel=1e-12)
                for i in latents:
                    size = work.domains.size[i]
                    expected = marginals[i, work.domains.values[i, :size]] if total else np.zeros(size)
                    assert np.abs(work.walk.mass[i, :size] - expected).max() < 1e-12
                compared += 1
    assert compared > 300


def slow_enumeration(
    distribution: LODistribution, domains: list[set[int]], active: np.ndarray, latents: list[int], row: np.ndarray
) -> tuple[float, np.ndarray]:
    law, n, prior = distribution.observations, len(domains), distribution.prior.tolist()
    value = {i: min(domain) for i, domain in enumerate(domains)}
    total, marginals = 0.0, np.zeros((n, law.q))
    scopes = {j: law.scopes[j].tolist() for j in active}  # type: ignore[union-attr]
    factors = [
        (scope, law.tables[law.index[j], :, row[distribution.order[n + j]]].tolist())  # type: ignore[union-attr]
        for j, scope in scopes.items()
        if set(scope) & set(latents)
    ]
    for values in itertools.product(*(sorted(domains[i]) for i in latents)):
        value.update(zip(latents, values, strict=True))
        weight = math.prod(prior[i][value[i]] for i in latents)
        for scope, table in factors:
            number = 0
            for i in scope:
                number = number * law.q + value[i]
            weight *= table[number]
        total += weight
        for i in latents:
            marginals[i, value[i]] += weight
    return total, marginals / total if total else marginals


def test_impossible_rows_are_uniform_by_role() -> None:
    order, tokens = np.array([2, 0, 1, 3], np.int32), np.array([-1, 1, -1, -1], np.int8)
    probs = np.full((4, 3), np.nan)
    _kernels.write_impossible(order, (2, 2, 3), tokens, probs)
    third = [1 / 3, 1 / 3, 1 / 3]
    assert np.array_equal(probs, [[0.5, 0.5, 0], [0, 1, 0], [0.5, 0.5, 0], third])
