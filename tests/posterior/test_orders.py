"""The search for an elimination order and the cliques it leaves, against slow twins on sets.

Any order gives the right answer, so the comparisons with brute force cannot see a search that has gone wrong: it would
only be slow, or refuse what fits.
"""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest

from lo_theory.posterior._contraction_kernels import contract
from lo_theory.posterior._plan_kernels import prepare
from lo_theory.posterior._propagation_kernels import place, propagate, restrict
from lo_theory.posterior.graph import TableGraph, table_graph
from lo_theory.posterior.workspace import Cliques, Rule, workspace
from lo_theory.problem import LODistribution, nae_sat, sparse_parity
from lo_theory.rng import Key
from tests.posterior.reference import FAMILIES, random_contexts, random_problem

EVERYTHING = Rule(limit=2.0**50, room=2.0**50, few=1.0, node=np.inf)  # eliminate whatever the size

Neighbours = dict[int, set[int]]


def key_of(neighbours: Neighbours, bits: list[float], v: int, attempt: int) -> tuple[float, float]:
    """Key of a root by the rule of an attempt (the smallest goes first), and log2 of the clique it would make."""
    others = sorted(neighbours[v])
    missing = sum(u != w and w not in neighbours[u] for u in others for w in others)  # ordered pairs: twice the fill
    states = bits[v]
    for u in others:
        states += bits[u]
    tie = (attempt * len(bits) + v) * 0x9E3779B97F4A7C15 % 2**64
    noise = ((tie ^ tie >> 40) & 1023) / 1024
    if attempt % 2 == 0:  # least fill
        return missing + (noise if attempt > 1 else states / 128), states
    return states + (0.5 * noise if attempt > 1 else missing / (8192.0 + missing)), states


def greedy(neighbours: Neighbours, bits: list[float], attempt: int) -> tuple[float, list[int]]:
    """States of all cliques and separators, and the order, every key made anew at every step."""
    left, total, order = {v: set(others) for v, others in neighbours.items()}, 0.0, []
    while left:
        keys = {v: key_of(left, bits, v, attempt) for v in left}
        v = min(left, key=lambda v: (keys[v][0], v))
        total += 2.0 ** keys[v][1] + 2.0 ** (keys[v][1] - bits[v])
        order.append(v)
        others = left.pop(v)
        for u in others:
            left[u] = (left[u] | others) - {u, v}
    return total, order


def slow_order(neighbours: Neighbours, bits: list[float]) -> tuple[int, list[int]]:
    """The attempt whose order is taken, and the order: of two rules, of sixteen where both come out large."""
    best, winner, order = math.inf, -1, []
    for attempt in range(16):
        total, found = greedy(neighbours, bits, attempt)
        if total < best:
            best, winner, order = total, attempt, found
        if best < 2**12 or (attempt == 1 and best < 2**18):
            break
    return winner, order


def slow_cliques(neighbours: Neighbours, order: list[int]) -> list[set[int]]:
    """By the elimination game: what each root is tied to when it goes."""
    tied, cliques = nx.Graph(), []
    tied.add_nodes_from(neighbours)
    tied.add_edges_from((v, u) for v, others in neighbours.items() for u in others)
    for v in order:
        others = set(tied[v])
        cliques.append(others)
        tied.add_edges_from(itertools.combinations(others, 2))
        tied.remove_node(v)
    return cliques


def components_of(graph: TableGraph, row: np.ndarray) -> list[tuple[list[int], Neighbours, list[float]]]:
    """Roots of each component as they are numbered before the search, their ties, and log2 of their domains."""
    work = workspace(graph)
    domains, placement = work.domains, work.placement
    if not (restrict(graph, domains, row) and propagate(graph, domains) and contract(graph, domains)):
        return []
    count = place(graph, domains, placement)
    result = []
    for a, b in itertools.pairwise(placement.starts[: count + 1]):
        roots = placement.placed[a:b].tolist()
        number = {root: v for v, root in enumerate(roots)}
        neighbours: Neighbours = {v: set() for v in range(len(roots))}
        for j in np.flatnonzero(domains.active):
            mine = {int(domains.root[i]) for i in graph.scopes[j, : graph.arity[j]]} & set(roots)
            for u, v in itertools.permutations(mine, 2):
                neighbours[number[u]].add(number[v])
        result.append((roots, neighbours, [math.log2(domains.size[root]) for root in roots]))
    return result


def chain(cliques: Cliques, rank: int) -> list[int]:
    """The ranks whose separators have this one last."""
    children, child = [], int(cliques.child[rank])
    while child >= 0 and len(children) <= len(cliques.child):
        children.append(child)
        child = int(cliques.sibling[child])
    return children


def check_row(graph: TableGraph, row: np.ndarray) -> list[int]:
    """Compare the plan of a row with the twins; return the winning attempts."""
    components, work = components_of(graph, row), workspace(graph)
    cost = prepare(graph, work, work.law, row, EVERYTHING)
    assert cost.components == len(components)
    placement, cliques, winners, largest = work.placement, work.cliques, [], 1
    for component, (roots, neighbours, bits) in enumerate(components):
        first, end = placement.starts[component], placement.starts[component + 1]
        winner, order = slow_order(neighbours, bits)
        winners.append(winner)
        assert placement.placed[first:end][::-1].tolist() == [roots[v] for v in order]
        numbers = cliques.table[first]
        for v, others, rank in zip(order, slow_cliques(neighbours, order), range(end - 1, first - 1, -1), strict=True):
            separator = sorted(int(placement.rank[roots[u]]) for u in others)
            assert cliques.members[rank, : cliques.arity[rank]].tolist() == [*separator, rank]
            states = math.prod(int(work.domains.size[roots[u]]) for u in [*others, v])
            assert cliques.states[rank] == states
            largest = max(largest, states)
            if separator:
                assert rank in chain(cliques, separator[-1])
        for rank in range(first, end):  # tables and messages follow each other without a gap
            own = int(work.domains.size[placement.placed[rank]])
            assert (cliques.table[rank], cliques.message[rank]) == (numbers, numbers + cliques.states[rank])
            numbers += cliques.states[rank] + cliques.states[rank] // own
        assert numbers == placement.joint[component]
    assert not components or cost.states == pytest.approx(largest)
    return winners


def with_latents_masked(distribution: LODistribution, rows: int) -> np.ndarray:
    tokens = distribution.sample(Key(1), rows)
    tokens[:, distribution.layout.latent_positions] = -1
    return tokens


@pytest.mark.parametrize(
    "distribution",
    [
        nae_sat(40, 45, seed=1),
        nae_sat(30, 45, seed=2, noise=0.1),
        nae_sat(34, 80, seed=3, noise=0.1),
        nae_sat(16, 24, seed=4, q=3, noise=0.1),
        nae_sat(70, 60, seed=5, noise=0.1),  # two words of bits a row
        sparse_parity(24, 30, 3, 0.1, seed=6),
    ],
    ids=["nae", "noisy nae", "wide", "three values", "two words", "parity"],
)
def test_orders_and_cliques_of_large_components(distribution: LODistribution) -> None:
    graph = table_graph(distribution)
    for row in with_latents_masked(distribution, 2):
        assert check_row(graph, row)


def test_orders_and_cliques_of_random_problems() -> None:
    rng, components = np.random.default_rng(5), 0
    for number in range(120):
        distribution = random_problem(rng, FAMILIES[number % len(FAMILIES)], states=1024, most=12)
        graph = table_graph(distribution)
        for row in random_contexts(rng, distribution, 5):
            components += len(check_row(graph, row))
    assert components > 300


def test_every_rule_of_the_search_wins_somewhere() -> None:
    """Else the comparison above would say nothing of it."""
    winners = set()
    for n, p, seed in ((30, 45, 2), (34, 80, 3), (24, 40, 7), (26, 44, 8), (40, 60, 9), (36, 80, 10)):
        graph = table_graph(nae_sat(n, p, seed=seed, noise=0.1))
        winners |= set(check_row(graph, np.array([-1] * n + [1] * p, np.int8)))
    assert {0, 1} <= winners
    assert max(winners) > 1
