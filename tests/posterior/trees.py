"""Random forests of factors, and belief propagation written out slowly: what the tests compare with."""

from __future__ import annotations

import itertools

import numpy as np

from lo_theory.posterior.factor_graph import FactorGraph
from lo_theory.problem import MASK, LODistribution, TableObservations, nae, xor


def forest_scopes(n: int, count: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Up to ``count`` scopes over ``n`` latents whose factor graph has no cycle (at least one; n >= k)."""
    component = np.arange(n)
    scopes: list[np.ndarray] = []
    for _ in range(count):
        roots = np.unique(component)
        if len(roots) < k:
            break
        chosen = rng.choice(roots, k, replace=False)
        scope = np.array([rng.choice(np.flatnonzero(component == root)) for root in chosen])
        component[np.isin(component, chosen)] = chosen[0]
        scopes.append(scope)
    return np.array(scopes, np.int32)


def random_table(kind: str, q: int, k: int, r: int, rng: np.random.Generator) -> np.ndarray:
    """A stochastic table [q**k, r] of the named kind."""
    if kind in ("nae", "xor"):
        predicate = nae(q, k) if kind == "nae" else xor(k)
        rate = rng.choice([0.0, 0.05, 0.3, 1.0])
        channel = np.array([[1 - rate, rate], [rate / 2, 1 - rate / 2]])
        return predicate.emission(channel)
    table = rng.random((q**k, r)) + 1e-3
    if kind == "hard":
        table *= rng.random((q**k, r)) < 0.5
        table[table.sum(axis=1) == 0, 0] = 1.0
    return table / table.sum(axis=1, keepdims=True)


def random_prior(n: int, q: int, rng: np.random.Generator) -> np.ndarray:
    """Random rows, some of them with a value excluded."""
    prior = rng.random((n, q)) + 0.05
    prior[rng.random(n) < 0.2, 0] = 0.0
    return prior / prior.sum(axis=1, keepdims=True)


def make_forest(q: int, k: int, kind: str, seed: int) -> tuple[LODistribution, np.ndarray]:
    """A small problem without cycles and a context of it, possible or not: tokens [L]."""
    rng = np.random.default_rng(seed)
    r = 2 if kind in ("nae", "xor") else int(rng.integers(2, 4))
    n = int(rng.integers(k, max(k + 1, 9 if q == 2 else 7)))
    scopes = forest_scopes(n, int(rng.integers(1, 5)), k, rng)
    tables = np.stack([random_table(kind, q, k, r, rng) for _ in range(int(rng.integers(1, 3)))])
    law = TableObservations(scopes, tables, rng.integers(0, len(tables), len(scopes)))
    distribution = LODistribution(random_prior(n, q, rng), law, rng.permutation(n + len(scopes)))
    latents, observed = rng.integers(0, q, n), rng.integers(0, r, len(scopes))
    if rng.random() < 0.6:  # a context that can occur
        latents = np.array([rng.choice(q, p=row) for row in distribution.prior])
        observed = np.array([rng.choice(r, p=row) for row in law.probabilities(latents[None])[0]])
    latents[rng.random(n) < 0.7] = MASK
    observed[rng.random(len(scopes)) < rng.choice([0.0, 0.4])] = MASK
    return distribution, distribution.layout.join(latents, observed)


def slow_to_variable(graph: FactorGraph, to_factor: np.ndarray, scaled: bool) -> np.ndarray:
    """Messages to variables [F, k, q] by the definition: a sum over all states of every factor."""
    result = np.zeros_like(to_factor)
    for a, (_, t) in enumerate(zip(graph.scopes, graph.table, strict=True)):
        for state, values in enumerate(itertools.product(range(graph.q), repeat=graph.k)):
            for b in range(graph.k):
                others = [to_factor[a, other, values[other]] for other in range(graph.k) if other != b]
                result[a, b, values[b]] += graph.tables[t, state] * np.prod(others)
    return result / result.sum(axis=2, keepdims=True) if scaled else result


def slow_to_factor(graph: FactorGraph, to_variable: np.ndarray) -> np.ndarray:
    """Messages to factors [F, k, q] by the definition, normalised."""
    result = np.empty_like(to_variable)
    for a, scope in enumerate(graph.scopes):
        for b, i in enumerate(scope):
            product = graph.field[i].copy()
            for c, other in enumerate(graph.scopes):
                for d, j in enumerate(other):
                    if j == i and (c, d) != (a, b):
                        product = product * to_variable[c, d]
            result[a, b] = product / product.sum()
    return result


def slow_flooding(graph: FactorGraph, start: np.ndarray, damping: float, iterations: int, scaled: bool) -> np.ndarray:
    """Messages to factors [F, k, q] after flooding iterations; messages to variables are damped."""
    to_factor, kept = start, None
    for _ in range(iterations):
        fresh = slow_to_variable(graph, to_factor, scaled)
        kept = fresh if kept is None else np.where(fresh > 0, (1 - damping) * fresh + damping * kept, 0.0)
        to_factor = slow_to_factor(graph, kept)
    return to_factor


def slow_sweeps(graph: FactorGraph, start: np.ndarray, damping: float, orders: list[np.ndarray]) -> np.ndarray:
    """Messages to factors [F, k, q] after sweeps over the variables in the given orders; messages to factors are
    damped.
    """
    to_factor = start.copy()
    for order in orders:
        for i in order:
            fresh = slow_to_factor(graph, slow_to_variable(graph, to_factor, True))
            mine = graph.scopes == i
            damped = np.where(fresh > 0, (1 - damping) * fresh + damping * to_factor, 0.0)[mine]
            to_factor[mine] = damped / damped.sum(axis=-1, keepdims=True)
    return to_factor
