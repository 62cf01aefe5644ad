"""Numba kernels that find what the revealed tokens force, and what stays undetermined and hangs together.

All work on one row at a time, in memory that the caller owns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import inlined_kernel, kernel
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Domains, Placement

__all__ = ["gather", "next_state", "place", "propagate", "restrict"]

_CLOSING = 8  # how much more than a further neighbour a latent counts that completes a factor


@kernel
def restrict(graph: TableGraph, domains: Domains, tokens: NDArray[np.int8]) -> bool:
    """Start a row: domains from its latents and the prior, factors from its observations. False if a latent is
    impossible.
    """
    n, q = graph.prior.shape
    for i in range(n):
        token = tokens[graph.order[i]]
        size = 0
        for x in range(q):
            if graph.prior[i, x] > 0.0 and (token < 0 or token == x):
                domains.values[i, size] = x
                size += 1
        domains.size[i] = size
        domains.root[i] = domains.follow[i] = i
        if size == 0:
            return False
    for j in range(graph.table.shape[0]):
        token = tokens[graph.order[n + j]]
        table = graph.table[j] * graph.r + token
        domains.offset[j] = table * graph.n_states if token >= 0 else -1
        domains.watched[j] = token >= 0 and graph.forbids[table]
        domains.active[j] = False
        domains.level[j] = 1.0
    return True


@inlined_kernel
def gather(graph: TableGraph, domains: Domains, j: int, start: int) -> tuple[int, int]:
    """Find the free classes of scope j; return how many, and where its table from ``start`` is read with all at index
    0.
    """
    state, free = start, 0
    for a in range(graph.arity[j]):
        i, stride = graph.scopes[j, a], graph.strides[j, a]
        lowest, size = domains.values[i, 0], domains.size[i]
        state += lowest * stride
        if size > 1:
            root, b = domains.root[i], 0
            while b < free and domains.at[b] != root:
                b += 1
            if b == free:
                domains.at[b], domains.counter[b] = root, 0
                domains.shift[b, :size] = 0
                free += 1
            for c in range(1, size):
                domains.shift[b, c] += (domains.values[i, c] - lowest) * stride
    return free, state


@inlined_kernel
def next_state(domains: Domains, free: int, state: int) -> tuple[bool, int]:
    """Advance the classes that ``gather`` found, the last one fastest; False after the last joint state."""
    for b in range(free - 1, -1, -1):
        c = domains.counter[b]
        if c + 1 < domains.size[domains.at[b]]:
            domains.counter[b] = c + 1
            return True, state + domains.shift[b, c + 1] - domains.shift[b, c]
        domains.counter[b] = 0
        state -= domains.shift[b, c]
    return False, state


@inlined_kernel
def _scan(graph: TableGraph, domains: Domains, j: int) -> int:
    """Read factor j on the remaining domains; return how many free classes it has, or -1 if no value needs to go.

    Sets ``active`` and ``level``; where values lack support, ``at`` and ``support`` say which.
    """
    free, state = gather(graph, domains, j, domains.offset[j])
    low = high = graph.tables[state]
    if free == 0:
        domains.active[j], domains.level[j] = False, low
        return -1
    missing = 0
    for b in range(free):
        size = domains.size[domains.at[b]]
        domains.support[b, :size] = False
        missing += size
    going = True
    while going:
        factor = graph.tables[state]
        low, high = min(low, factor), max(high, factor)
        if factor > 0.0:
            for b in range(free):
                if not domains.support[b, domains.counter[b]]:
                    domains.support[b, domains.counter[b]] = True
                    missing -= 1
        if missing == 0 and low != high:
            break
        going, state = next_state(domains, free, state)
    domains.active[j], domains.level[j] = low != high, low
    return free if missing > 0 else -1


@inlined_kernel
def _keep_supported(domains: Domains, b: int) -> bool:
    """Drop the indices of class ``at[b]`` without support from all its members; True if any was dropped."""
    root = domains.at[b]
    size, kept = domains.size[root], 0
    for c in range(size):
        kept += domains.support[b, c]
    if kept == size:
        return False
    i, first = root, True
    while first or i != root:
        first, kept = False, 0
        for c in range(size):
            if domains.support[b, c]:
                domains.values[i, kept] = domains.values[i, c]
                kept += 1
        domains.size[i] = kept
        i = domains.follow[i]
    return True


@kernel
def propagate(graph: TableGraph, domains: Domains) -> bool:
    """Remove values without support in some revealed factor until none is left (generalised arc consistency).

    False on a contradiction. Afterwards ``active`` and ``level`` hold for every revealed factor.
    """
    p = graph.table.shape[0]
    head, waiting = 0, 0
    for j in range(p):
        domains.queued[j] = domains.watched[j]
        if domains.watched[j]:
            domains.queue[waiting] = j
            waiting += 1
    while waiting > 0:
        j = domains.queue[head]
        head = head + 1 if head + 1 < p else 0
        waiting -= 1
        domains.queued[j] = False
        free = _scan(graph, domains, j)
        if free < 0:
            if domains.level[j] == 0.0 and not domains.active[j]:
                return False
            continue
        for b in range(free):
            if not _keep_supported(domains, b):
                continue
            root = domains.at[b]
            if domains.size[root] == 0:
                return False
            i, first = root, True
            while first or i != root:
                first = False
                for entry in range(graph.first[i], graph.first[i + 1]):
                    other = graph.incident[entry]
                    if domains.watched[other] and not domains.queued[other]:
                        tail = head + waiting
                        domains.queue[tail if tail < p else tail - p] = other
                        domains.queued[other] = True
                        waiting += 1
                i = domains.follow[i]
    for j in range(p):
        if domains.offset[j] >= 0 and not domains.watched[j]:
            _scan(graph, domains, j)
    return True


@kernel
def place(graph: TableGraph, domains: Domains, placement: Placement) -> int:
    """Order the roots of the undetermined classes component by component; return the number of components.

    Within one, the next latent is the one that active factors tie most to those already placed: factors close early and
    prune.
    """
    n = domains.size.shape[0]
    for i in range(n):
        placement.rank[i], placement.score[i] = -1, 0
    for j in range(graph.table.shape[0]):
        if domains.active[j]:
            placement.open[j] = 0
            for a in range(graph.arity[j]):
                placement.open[j] += domains.size[graph.scopes[j, a]] > 1
    count, components = 0, 0
    for root in range(n):
        if domains.size[root] == 1 or placement.rank[root] >= 0 or domains.root[root] != root:
            continue
        placement.starts[components], placement.eliminated[components] = count, False
        placement.frontier[0] = root
        waiting = 1
        while waiting > 0:
            best = 0
            for w in range(1, waiting):
                if placement.score[placement.frontier[w]] > placement.score[placement.frontier[best]]:
                    best = w
            i = placement.frontier[best]
            waiting -= 1
            placement.frontier[best] = placement.frontier[waiting]
            placement.placed[count], placement.rank[i], placement.component[i] = i, count, components
            count += 1
            waiting = _touch(graph, domains, placement, i, waiting)
        components += 1
    placement.starts[components] = count
    return components


@kernel
def _touch(graph: TableGraph, domains: Domains, placement: Placement, root: int, waiting: int) -> int:
    """Raise the scores of the classes that share an active factor with ``root``, just placed; return the new size of
    the frontier.
    """
    i, first = root, True
    while first or i != root:
        first = False
        for entry in range(graph.first[i], graph.first[i + 1]):
            j = graph.incident[entry]
            if not domains.active[j]:
                continue
            placement.open[j] -= 1
            for a in range(graph.arity[j]):
                u = domains.root[graph.scopes[j, a]]
                if domains.size[u] > 1 and placement.rank[u] < 0:
                    if placement.score[u] == 0:
                        placement.frontier[waiting] = u
                        waiting += 1
                    placement.score[u] += _CLOSING if placement.open[j] == 1 else 1
        i = domains.follow[i]
    return waiting
