"""Numba kernels that prepare a row: what is undetermined, how each component is solved, and what that costs, before it
is done.

A component of few states is enumerated. For a larger one classes are contracted and an elimination order is sought; the
cheaper of elimination and enumeration is taken, by estimated operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import inlined_kernel, kernel
from lo_theory.posterior._contraction_kernels import contract
from lo_theory.posterior._enumeration_kernels import scaled_product
from lo_theory.posterior._joint_kernels import join_part, lies_in_clique
from lo_theory.posterior._order_kernels import find_order, write_cliques
from lo_theory.posterior._propagation_kernels import gather, place, propagate, restrict
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Domains, Placement, Rule, Terms, Workspace

__all__ = ["RowCost", "prepare"]

_NODE = 4.0  # operations a state of an enumeration, without pruning
_ROOT = 200.0  # operations that eliminating one root takes besides its table


class RowCost(NamedTuple):
    """What answering a row takes. Counts are floats: they may be astronomic."""

    possible: bool  # False where propagation already finds a contradiction
    fits: bool
    components: int
    undetermined: int  # latents
    states: float  # of the largest table, or of the largest enumeration
    width: int  # classes in it
    operations: float
    cells: float  # numbers that collect the laws of masked observations
    numbers: float  # all numbers held at once


@inlined_kernel
def _swap(terms: Terms, t: int, a: int, b: int) -> None:
    terms.at[t, a], terms.at[t, b] = terms.at[t, b], terms.at[t, a]
    terms.step[t, a], terms.step[t, b] = terms.step[t, b], terms.step[t, a]
    for c in range(terms.shift.shape[2]):
        terms.shift[t, a, c], terms.shift[t, b, c] = terms.shift[t, b, c], terms.shift[t, a, c]


@kernel
def _close(terms: Terms, rank: NDArray[np.int32], t: int) -> None:
    """Bring the root of term t that is placed last to its end, and chain the term to it."""
    last = terms.arity[t] - 1
    latest = last
    for a in range(last):
        if rank[terms.at[t, a]] > rank[terms.at[t, latest]]:
            latest = a
    if latest != last:
        _swap(terms, t, latest, last)
    i = terms.at[t, last]
    terms.next[t] = terms.head[i]
    terms.head[i] = t


@kernel
def bind_factors(graph: TableGraph, domains: Domains, placement: Placement, factors: Terms) -> None:
    """Chain every active factor to the root at which it closes."""
    factors.head[:] = -1
    for j in range(graph.table.shape[0]):
        if domains.active[j]:
            factors.arity[j], factors.base[j] = gather(graph, domains, j, domains.offset[j])
            for a in range(factors.arity[j]):
                factors.at[j, a], factors.step[j, a] = domains.at[a], 0
                for c in range(domains.size[domains.at[a]]):
                    factors.shift[j, a, c] = domains.shift[a, c]
            _close(factors, placement.rank, j)


@kernel
def bind_parts(
    graph: TableGraph, domains: Domains, placement: Placement, parts: Terms, first_part: NDArray[np.int32]
) -> float:
    """Make the parts of every masked observation, one a component its scope meets; return the cells they take."""
    parts.head[:] = -1
    t, cells = 0, 0
    for j in range(graph.table.shape[0]):
        first_part[j] = t
        if domains.offset[j] >= 0:
            continue
        free, base = gather(graph, domains, j, graph.table[j] * graph.r * graph.n_states)
        for b in range(free):
            i = domains.at[b]
            part = first_part[j]
            while part < t and placement.component[parts.at[part, 0]] != placement.component[i]:
                part += 1
            if part == t:
                parts.arity[t], parts.width[t] = 0, 1
                t += 1
            at = parts.arity[part]
            parts.at[part, at], parts.step[part, at] = i, parts.width[part]
            for c in range(domains.size[i]):
                parts.shift[part, at, c] = domains.shift[b, c]
            parts.width[part] *= domains.size[i]
            parts.arity[part] += 1
        for part in range(first_part[j], t):
            direct = t == first_part[j] + 1 and not placement.eliminated[placement.component[parts.at[part, 0]]]
            parts.base[part] = base if direct else -1
            parts.width[part] = graph.r if direct else parts.width[part]
            parts.cells[part] = cells
            cells += parts.width[part]
            _close(parts, placement.rank, part)
    first_part[graph.table.shape[0]] = t
    return float(cells)


@kernel
def _weigh_classes(graph: TableGraph, work: Workspace, components: int) -> None:
    """Multiply the priors of the members of every undetermined class."""
    domains, walk = work.domains, work.walk
    for at in range(work.placement.starts[components]):
        root = work.placement.placed[at]
        for c in range(domains.size[root]):
            weight, exponent = graph.prior[root, domains.values[root, c]], 0
            i = domains.follow[root]
            while i != root:
                weight, exponent = scaled_product(weight, exponent, graph.prior[i, domains.values[i, c]])
                i = domains.follow[i]
            walk.prior[root, c], walk.prior_exponent[root, c] = weight, exponent


@kernel
def _states(domains: Domains, placement: Placement, component: int) -> float:
    states = 1.0
    for at in range(placement.starts[component], placement.starts[component + 1]):
        states *= domains.size[placement.placed[at]]
    return states


@kernel
def _choose(graph: TableGraph, work: Workspace, component: int, rule: Rule) -> tuple[float, int, float, float]:
    """Choose how a component is solved; return states and classes of its largest table, operations and numbers."""
    placement = work.placement
    roots = placement.starts[component + 1] - placement.starts[component]
    states = _states(work.domains, placement, component)
    operations = _NODE * states
    if states <= rule.few:
        return states, roots, operations, 0.0
    total, largest, width = find_order(graph, work, component)
    elimination = 4.0 * total + _ROOT * roots
    numbers = np.rint(total) + max(np.rint(largest), float(graph.n_states))
    if states <= rule.limit and (rule.node * states <= elimination or numbers > rule.limit):
        return states, roots, operations, 0.0
    if numbers <= rule.limit:
        placement.joint[component], placement.largest[component] = write_cliques(graph, work, component)
    return largest, width, elimination, numbers


@kernel
def _solved_by_tables(work: Workspace, arena: NDArray[np.float64], component: int) -> tuple[float, float]:
    """Return the operations of an eliminated component, and the numbers its parts that span cliques need at once."""
    placement, parts, factors, cliques = work.placement, work.parts, work.factors, work.cliques
    operations, numbers = 0.0, 0.0
    for rank in range(placement.starts[component], placement.starts[component + 1]):
        walks, t = 4, factors.head[placement.placed[rank]]
        while t >= 0:
            walks, t = walks + 1, factors.next[t]
        child = cliques.child[rank]
        while child >= 0:
            walks, child = walks + 2, cliques.sibling[child]
        t = parts.head[placement.placed[rank]]
        while t >= 0:
            if lies_in_clique(work, t):
                walks += 1
            else:
                more, most = join_part(work, arena, t, 0, 0, False)
                operations += more
                numbers = max(numbers, most)
            t = parts.next[t]
        operations += float(walks) * cliques.states[rank]
    return operations, numbers


@kernel
def _move_tables(placement: Placement, work: Workspace, component: int, cells: int) -> None:
    """Let the tables of a component begin after the cells."""
    placement.joint[component] += cells
    for rank in range(placement.starts[component], placement.starts[component + 1]):
        work.cliques.table[rank] += cells
        work.cliques.message[rank] += cells


@kernel
def prepare(
    graph: TableGraph, work: Workspace, arena: NDArray[np.float64], tokens: NDArray[np.int8], rule: Rule
) -> RowCost:
    """Restrict, propagate, contract, split and plan a row. A row that does not fit must not be solved."""
    domains, placement = work.domains, work.placement
    if not (restrict(graph, domains, tokens) and propagate(graph, domains)):
        return RowCost(False, True, 0, 0, 1.0, 0, 0.0, 0.0, 0.0)
    components, small = place(graph, domains, placement), True
    for component in range(components):
        small = small and _states(domains, placement, component) <= rule.few
    if not small:
        if not contract(graph, domains):
            return RowCost(False, True, 0, 0, 1.0, 0, 0.0, 0.0, 0.0)
        components = place(graph, domains, placement)
    undetermined, largest, width, operations, tables = 0, 1.0, 0, 0.0, 0.0
    for i in range(domains.size.shape[0]):
        undetermined += domains.size[i] > 1
    fits = True
    for component in range(components):
        states, members, more, numbers = _choose(graph, work, component, rule)
        if states > largest or width == 0:
            largest, width = states, members
        operations += 0.0 if placement.eliminated[component] else more
        tables = max(tables, numbers)
        fits = fits and numbers <= rule.limit and (states <= rule.limit or placement.eliminated[component])
    if not fits:
        held = max(tables, largest)
        return RowCost(True, False, components, undetermined, largest, width, operations, 0.0, held)
    _weigh_classes(graph, work, components)
    bind_factors(graph, domains, placement, work.factors)
    cells = bind_parts(graph, domains, placement, work.parts, work.first_part)
    for component in range(components):
        if placement.eliminated[component]:
            more, most = _solved_by_tables(work, arena, component)
            operations += more
            room = placement.joint[component] + max(placement.largest[component], graph.n_states)
            tables = max(tables, room + most)
            _move_tables(placement, work, component, int(cells))
    fits = cells + tables <= max(rule.limit, rule.room)
    return RowCost(True, fits, components, undetermined, largest, width, operations, cells, cells + tables)
