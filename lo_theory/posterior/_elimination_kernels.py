"""Numba kernels that solve one component by elimination along its cliques: forward to the evidence, backward to all
marginals.

The root of rank x is summed out of the table over its clique (x and its separator), which leaves P(x | separator) in
place and a message to the clique of the next root of the separator. Messages are scaled to a largest number of 1. Where
a product could fall below the smallest double, the forward pass is repeated with logarithms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import kernel
from lo_theory.posterior._enumeration_kernels import scaled_product
from lo_theory.posterior._table_kernels import add, multiply, project, smallest_positive
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Workspace

__all__ = ["backward", "forward", "separator_axes", "span_clique", "within_clique"]

_SAFE = 1e-280  # products above it are normal numbers whatever else is multiplied or divided
_LN_UNIT = 256.0 * math.log(2.0)


@kernel
def span_clique(work: Workspace, rank: int) -> int:
    """Make the axes those of the clique of ``rank``, all strides 0; return their number."""
    cliques, axes = work.cliques, work.axes
    count = cliques.arity[rank]
    for b in range(count):
        axes.extent[b] = work.domains.size[work.placement.placed[cliques.members[rank, b]]]
        axes.stride[b] = 0
    return count


@kernel
def separator_axes(work: Workspace, rank: int, child: int) -> int:
    """Make the axes those of the clique of ``rank``, with the strides of the separator of ``child``, which lies within
    it.
    """
    cliques, axes = work.cliques, work.axes
    count, b, stride = span_clique(work, rank), cliques.arity[child] - 2, 1
    for at in range(count - 1, -1, -1):
        if b >= 0 and cliques.members[rank, at] == cliques.members[child, b]:
            axes.stride[at] = stride
            stride *= axes.extent[at]
            b -= 1
    return count


@kernel
def within_clique(work: Workspace, rank: int, member: int) -> int:
    """Return the axis of ``member`` in the clique of ``rank``, or -1."""
    for b in range(work.cliques.arity[rank]):
        if work.cliques.members[rank, b] == member:
            return b
    return -1


@kernel
def _lay_out_factor(
    graph: TableGraph, work: Workspace, arena: NDArray[np.float64], rank: int, t: int, scratch: int
) -> int:
    """Copy factor t to ``scratch`` as a dense table and set the axes to the clique of ``rank``; return the states it
    has.
    """
    factors, counter, placement = work.factors, work.domains.counter, work.placement
    span_clique(work, rank)
    states = 1
    for a in range(factors.arity[t] - 1, -1, -1):
        i = factors.at[t, a]
        work.axes.stride[within_clique(work, rank, placement.rank[i])] = states
        states *= work.domains.size[i]
        counter[a] = 0
    for state in range(states):
        at = factors.base[t]
        for a in range(factors.arity[t]):
            at += factors.shift[t, a, counter[a]]
        arena[scratch + state] = graph.tables[at]
        a = factors.arity[t] - 1
        while a >= 0 and counter[a] + 1 == work.domains.size[factors.at[t, a]]:
            counter[a] = 0
            a -= 1
        if a >= 0:
            counter[a] += 1
    return states


@kernel
def _start_table(work: Workspace, arena: NDArray[np.float64], rank: int, logs: bool) -> tuple[float, int]:
    """Fill the table of a rank by the prior of its class; return the smallest positive number and the exponent taken
    out.
    """
    walk, i, table = work.walk, work.placement.placed[rank], work.cliques.table[rank]
    size, top, least = work.domains.size[i], -(1 << 60), 1.0
    for c in range(size):
        if walk.prior[i, c] > 0.0:
            top = max(top, walk.prior_exponent[i, c])
    for c in range(size):
        weight, lift = walk.prior[i, c], walk.prior_exponent[i, c] - top
        if logs:
            arena[table + c] = math.log(weight) + lift * _LN_UNIT if weight > 0.0 else -math.inf
        else:
            arena[table + c] = weight if lift == 0 else 0.0
            if weight > 0.0:
                least = min(least, weight if lift == 0 else 0.0)
    for state in range(size, work.cliques.states[rank]):
        arena[table + state] = arena[table + state - size]
    return least, top


@kernel
def _sum_out(work: Workspace, arena: NDArray[np.float64], rank: int) -> float:
    """Divide the table of a rank by its sums over the rank, and send them scaled to a largest of 1; return what was
    divided by.
    """
    table, message = work.cliques.table[rank], work.cliques.message[rank]
    size = work.domains.size[work.placement.placed[rank]]
    separators, largest = work.cliques.states[rank] // size, 0.0
    for s in range(separators):
        total, first = 0.0, table + s * size
        for c in range(size):
            total += arena[first + c]
        arena[message + s] = total
        largest = max(largest, total)
        if total > 0.0:
            for c in range(size):
                arena[first + c] /= total
    if largest > 0.0:
        for s in range(separators):
            arena[message + s] /= largest
    work.cliques.least[rank] = smallest_positive(arena, message, separators)
    return largest


@kernel
def _sum_out_logs(work: Workspace, arena: NDArray[np.float64], rank: int) -> float:
    """Do the same on logarithms; the table ends as probabilities, the message as logarithms with a largest of 0."""
    table, message = work.cliques.table[rank], work.cliques.message[rank]
    size = work.domains.size[work.placement.placed[rank]]
    separators, largest = work.cliques.states[rank] // size, -math.inf
    for s in range(separators):
        first, top, total = table + s * size, -math.inf, 0.0
        for c in range(size):
            top = max(top, arena[first + c])
        for c in range(size):
            arena[first + c] = math.exp(arena[first + c] - top) if top > -math.inf else 0.0
            total += arena[first + c]
        arena[message + s] = top + math.log(total) if total > 0.0 else -math.inf
        largest = max(largest, arena[message + s])
        if total > 0.0:
            for c in range(size):
                arena[first + c] /= total
    if largest > -math.inf:
        for s in range(separators):
            arena[message + s] -= largest
    return largest


@kernel
def _gather_clique(
    graph: TableGraph, work: Workspace, arena: NDArray[np.float64], rank: int, scratch: int, logs: bool
) -> tuple[float, int]:
    """Multiply everything that closes at a rank into its table; return a lower bound of its positive numbers and the
    exponent.
    """
    cliques, factors = work.cliques, work.factors
    count, table = cliques.arity[rank], cliques.table[rank]
    least, exponent = _start_table(work, arena, rank, logs)
    t = factors.head[work.placement.placed[rank]]
    while t >= 0:
        states = _lay_out_factor(graph, work, arena, rank, t, scratch)
        if logs:
            for c in range(scratch, scratch + states):
                arena[c] = math.log(arena[c]) if arena[c] > 0.0 else -math.inf
            add(arena, table, work.axes, count, scratch)
        else:
            least *= smallest_positive(arena, scratch, states)
            multiply(arena, table, work.axes, count, scratch)
        t = factors.next[t]
    child = cliques.child[rank]
    while child >= 0:
        separator_axes(work, rank, child)
        if logs:
            add(arena, table, work.axes, count, cliques.message[child])
        else:
            least *= cliques.least[child]
            multiply(arena, table, work.axes, count, cliques.message[child])
        child = cliques.sibling[child]
    return least, exponent


@kernel
def forward(
    graph: TableGraph, work: Workspace, arena: NDArray[np.float64], component: int, scratch: int
) -> tuple[float, int]:
    """Eliminate every root of a component; return its mass, mantissa (0 if impossible) and exponent in units of 2**256.

    ``scratch`` is the first of q**k free numbers. Cost: the states of each clique, once for every factor and message
    that closes there.
    """
    first, end = work.placement.starts[component], work.placement.starts[component + 1]
    for logs in (False, True):
        weight, exponent, nats, rank = 1.0, 0, 0.0, end - 1
        while rank >= first:
            least, lift = _gather_clique(graph, work, arena, rank, scratch, logs)
            exponent += lift
            if logs:
                nats += _sum_out_logs(work, arena, rank)
                if nats == -math.inf:
                    return 0.0, 0
            else:
                if not least > _SAFE:
                    break
                weight, exponent = scaled_product(weight, exponent, _sum_out(work, arena, rank))
                if weight == 0.0:
                    return 0.0, 0
            rank -= 1
        if rank < first:
            break
    units = math.floor(nats / _LN_UNIT)
    return weight * math.exp(nats - units * _LN_UNIT), exponent + int(units)


@kernel
def _read_parts(work: Workspace, arena: NDArray[np.float64], rank: int, joint: int) -> None:
    """Sum the law of the clique of ``rank``, at ``joint``, onto the parts that close there and lie within it."""
    parts = work.parts
    t = parts.head[work.placement.placed[rank]]
    while t >= 0:
        count, inside = span_clique(work, rank), True
        for a in range(parts.arity[t]):
            axis = within_clique(work, rank, work.placement.rank[parts.at[t, a]])
            if axis < 0:
                inside = False
            else:
                work.axes.stride[axis] = parts.step[t, a]
        if inside:
            project(arena, joint, work.axes, count, parts.cells[t])
        t = parts.next[t]


@kernel
def backward(work: Workspace, arena: NDArray[np.float64], component: int, joint: int) -> None:
    """After ``forward``: the law of every separator, of every root, and of every part that lies within a clique.

    ``joint`` is the first of as many free numbers as the largest clique has states.
    """
    placement, cliques, walk = work.placement, work.cliques, work.walk
    for rank in range(placement.starts[component], placement.starts[component + 1]):
        i = placement.placed[rank]
        size, table, law = work.domains.size[i], cliques.table[rank], cliques.message[rank]
        if cliques.arity[rank] == 1:
            arena[law] = 1.0
        walk.mass[i, :size] = 0.0
        for s in range(cliques.states[rank] // size):
            for c in range(size):
                share = arena[table + s * size + c] * arena[law + s]
                arena[joint + s * size + c] = share
                walk.mass[i, c] += share
        child = cliques.child[rank]
        while child >= 0:
            start = cliques.message[child]
            arena[start : start + cliques.states[child] // work.domains.size[placement.placed[child]]] = 0.0
            project(arena, joint, work.axes, separator_axes(work, rank, child), start)
            child = cliques.sibling[child]
        _read_parts(work, arena, rank, joint)
