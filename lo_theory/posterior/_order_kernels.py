"""Numba kernels that choose an elimination order for a component and write down its cliques before any table exists.

Two greedy rules, least fill and smallest clique, each with the other as tie-break; where the tables come out large,
also with random tie-breaks, the same for every run. The order with the fewest states in all its cliques is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from lo_theory.posterior._compile import inlined_kernel, kernel
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Cliques, Domains, Placement, Search, Workspace

__all__ = ["clique_states", "find_order", "write_cliques"]

_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)
_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EIGHTS, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_TWO, _FOUR, _TOP = np.uint64(2), np.uint64(4), np.uint64(56)
_MIXER, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(40)

_ENOUGH = 2.0**12  # states in all cliques below which a better order would not pay for its search
_WIDE = 2.0**18  # states from which random tie-breaks are tried
_ATTEMPTS = 16


@inlined_kernel
def _ones(word: Any) -> int:
    """Count the bits of a word."""
    word -= (word >> _ONE) & _PAIRS
    word = (word & _FOURS) + ((word >> _TWO) & _FOURS)
    word = (word + (word >> _FOUR)) & _EIGHTS
    return int((word * _BYTES) >> _TOP)


@inlined_kernel
def _tie(search: Search, u: int, v: int) -> None:
    search.adjacency[u, v >> 6] |= _ONE << uint64(v & 63)


@inlined_kernel
def _tied(search: Search, u: int, v: int) -> bool:
    return (search.adjacency[u, v >> 6] >> uint64(v & 63)) & _ONE != uint64(0)


@kernel
def _connect(
    graph: TableGraph, domains: Domains, placement: Placement, search: Search, component: int
) -> tuple[int, int]:
    """Tie the roots of a component that share an active factor; return their number and the words of a row."""
    first = placement.starts[component]
    m = placement.starts[component + 1] - first
    words = (m + 63) // 64
    search.adjacency[:m, :words] = 0
    for v in range(m):
        i = placement.placed[first + v]
        search.alive[v], search.latent[v], search.bits[v] = True, i, np.log2(domains.size[i])
    for j in range(graph.table.shape[0]):
        if not domains.active[j]:
            continue
        for a in range(graph.arity[j]):
            u = domains.root[graph.scopes[j, a]]
            if domains.size[u] == 1 or placement.component[u] != component:
                continue
            for b in range(a):
                v = domains.root[graph.scopes[j, b]]
                if v != u and domains.size[v] > 1:
                    _tie(search, placement.rank[u] - first, placement.rank[v] - first)
                    _tie(search, placement.rank[v] - first, placement.rank[u] - first)
    return m, words


@kernel
def _weigh(search: Search, v: int, m: int, words: int, attempt: int) -> None:
    """Set the key of v (smaller goes first) and the clique that eliminating it now would make."""
    missing, states = 0, search.bits[v]
    for u in range(m):
        if search.alive[u] and _tied(search, v, u):
            states += search.bits[u]
            missing -= 1
            for w in range(words):
                missing += _ones(search.adjacency[v, w] & ~search.adjacency[u, w])
    search.clique[v] = states
    fill = float(missing)
    tie = uint64(attempt * m + v) * _MIXER
    noise = float((tie ^ (tie >> _SHIFT)) & uint64(1023)) / 1024.0
    if attempt % 2 == 0:
        search.key[v] = fill + (noise if attempt > 1 else states / 128.0)
    else:
        search.key[v] = states + (0.5 * noise if attempt > 1 else fill / (8192.0 + fill))


@kernel
def _eliminate(search: Search, v: int, m: int, words: int) -> None:
    """Tie all neighbours of v to each other and take v away; ``touched`` gets the roots whose keys may have changed."""
    search.alive[v] = False
    for w in range(words):
        search.touched[w] = search.adjacency[v, w]
    for u in range(m):
        if search.alive[u] and _tied(search, v, u):
            for w in range(words):
                search.adjacency[u, w] |= search.adjacency[v, w]
                search.touched[w] |= search.adjacency[u, w]
            search.adjacency[u, u >> 6] &= ~(_ONE << uint64(u & 63))
            search.adjacency[u, v >> 6] &= ~(_ONE << uint64(v & 63))


@kernel
def _greedy(search: Search, m: int, words: int, attempt: int) -> tuple[float, float, int]:
    """Fill ``sequence`` by one rule; return the states of all cliques and separators, and states and members of the
    largest.
    """
    total, largest, members = 0.0, 0.0, 0
    for v in range(m):
        _weigh(search, v, m, words, attempt)
    for step in range(m):
        best = -1
        for v in range(m):
            if search.alive[v] and (best < 0 or search.key[v] < search.key[best]):
                best = v
        search.sequence[step] = best
        total += 2.0 ** search.clique[best] + 2.0 ** (search.clique[best] - search.bits[best])
        if search.clique[best] >= largest:
            largest, members = search.clique[best], 1
            for w in range(words):
                members += _ones(search.adjacency[best, w])
        _eliminate(search, best, m, words)
        for v in range(m):
            if search.alive[v] and (search.touched[v >> 6] >> uint64(v & 63)) & _ONE != uint64(0):
                _weigh(search, v, m, words, attempt)
    return total, 2.0**largest, members


@kernel
def find_order(graph: TableGraph, work: Workspace, component: int) -> tuple[float, float, int]:
    """Leave the best order found in ``search.best``; return the states of all its cliques and separators.

    Then those and the members of the largest clique.

    Cost: per attempt at most m**2 times the neighbours of a root, m the roots of the component.
    """
    search = work.search
    best, width, members = np.inf, np.inf, 0
    for attempt in range(_ATTEMPTS):
        m, words = _connect(graph, work.domains, work.placement, search, component)
        total, largest, count = _greedy(search, m, words, attempt)
        if total < best:
            best, width, members = total, largest, count
            for step in range(m):
                search.best[step] = search.sequence[step]
        if best < _ENOUGH or (attempt == 1 and best < _WIDE):
            break
    return best, width, members


@kernel
def clique_states(domains: Domains, placement: Placement, cliques: Cliques, first: int, rank: int) -> None:
    """Sort the members of a clique, count its states and hang it below the last rank of its separator."""
    members, count = cliques.members[rank], cliques.arity[rank]
    states = 1
    for b in range(count):
        low = b
        for c in range(b + 1, count):
            if members[c] < members[low]:
                low = c
        members[b], members[low] = members[low], members[b]
        states *= domains.size[placement.placed[members[b]]]
    members[count] = rank
    cliques.arity[rank] = count + 1
    cliques.states[rank] = states * domains.size[placement.placed[rank]]
    if count > 0:
        parent = members[count - 1]
        cliques.sibling[rank] = cliques.child[parent]
        cliques.child[parent] = rank


@kernel
def write_cliques(graph: TableGraph, work: Workspace, component: int) -> tuple[int, int]:
    """Renumber a component by ``search.best``, last eliminated first, and lay out its cliques from number 0 on.

    Only for orders whose cliques all have fewer than 2**LARGEST_CLIQUE states. Returns the numbers that tables and
    messages take and the states of the largest clique.
    """
    placement, search, cliques = work.placement, work.search, work.cliques
    first, end = placement.starts[component], placement.starts[component + 1]
    m, words = _connect(graph, work.domains, placement, search, component)
    for step in range(m):
        v, rank = search.best[step], end - 1 - step
        count = 0
        for u in range(m):
            if search.alive[u] and _tied(search, v, u):
                cliques.members[rank, count] = u
                count += 1
        cliques.arity[rank] = count
        _eliminate(search, v, m, words)
    for step in range(m):
        i, rank = search.latent[search.best[step]], end - 1 - step
        placement.placed[rank], placement.rank[i] = i, rank
        cliques.child[rank] = cliques.sibling[rank] = -1
    numbers, largest = 0, 1
    for rank in range(first, end):
        for b in range(cliques.arity[rank]):
            cliques.members[rank, b] = placement.rank[search.latent[cliques.members[rank, b]]]
        clique_states(work.domains, placement, cliques, first, rank)
        size = work.domains.size[placement.placed[rank]]
        cliques.table[rank] = numbers
        cliques.message[rank] = numbers + cliques.states[rank]
        numbers += cliques.states[rank] + cliques.states[rank] // size
        largest = max(largest, cliques.states[rank])
    placement.eliminated[component] = True
    return numbers, largest
