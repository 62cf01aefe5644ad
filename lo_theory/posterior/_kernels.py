"""Numba kernels of the exact posterior with table observations: whole rows, from tokens to probabilities.

A row is restricted, propagated, split into components and enumerated; then every masked token is read off what was collected.
"""

from __future__ import annotations

import math

import numpy as np

from lo_theory.posterior._compile import kernel
from lo_theory.posterior._enumeration_kernels import enumerate_component, scaled_product
from lo_theory.posterior._propagation_kernels import place, propagate, restrict

_LN_UNIT = 256.0 * math.log(2.0)


@kernel
def largest_components(graph, work, tokens, states, undetermined):
    """Fill, per row, the states of its largest component (float64, 1 if all is determined) and its undetermined latents."""
    for row in range(tokens.shape[0]):
        states[row], undetermined[row] = 1.0, 0
        if not (restrict(graph, work.domains, tokens[row]) and propagate(graph, work.domains)):
            continue
        placement = work.placement
        for component in range(place(graph, work.domains, placement)):
            size = 1.0
            for at in range(placement.starts[component], placement.starts[component + 1]):
                size *= work.domains.size[placement.placed[at]]
                undetermined[row] += 1
            states[row] = max(states[row], size)


@kernel
def _close(terms, rank, t):
    """Bring the latent of term t that is placed last to its end, and chain the term to it."""
    last = terms.arity[t] - 1
    latest = last
    for a in range(last):
        if rank[terms.at[t, a]] > rank[terms.at[t, latest]]:
            latest = a
    for array in (terms.stride, terms.step):
        array[t, latest], array[t, last] = array[t, last], array[t, latest]
    terms.at[t, latest], terms.at[t, last] = terms.at[t, last], terms.at[t, latest]
    i = terms.at[t, last]
    terms.next[t] = terms.head[i]
    terms.head[i] = t


@kernel
def _bind_factors(graph, domains, placement, factors):
    """Chain every active factor to the latent at which it closes."""
    factors.head[:] = -1
    for j in range(graph.table.shape[0]):
        if not domains.active[j]:
            continue
        factors.base[j], factors.arity[j] = domains.offset[j], 0
        for a in range(graph.arity[j]):
            i, stride = graph.scopes[j, a], graph.strides[j, a]
            if domains.size[i] == 1:
                factors.base[j] += domains.values[i, 0] * stride
            else:
                at = factors.arity[j]
                factors.at[j, at], factors.stride[j, at], factors.step[j, at] = i, stride, 0
                factors.arity[j] += 1
        _close(factors, placement.rank, j)


@kernel
def _bind_parts(graph, domains, placement, parts, first_part):
    """Make the parts of every masked observation, one for each component its scope meets; return the cells they take."""
    parts.head[:] = -1
    t, cells = 0, 0
    for j in range(graph.table.shape[0]):
        first_part[j] = t
        if domains.offset[j] >= 0:
            continue
        base = graph.table[j] * graph.r * graph.n_states
        for a in range(graph.arity[j]):
            i = graph.scopes[j, a]
            if domains.size[i] == 1:
                base += domains.values[i, 0] * graph.strides[j, a]
                continue
            part = first_part[j]
            while part < t and placement.component[parts.at[part, 0]] != placement.component[i]:
                part += 1
            if part == t:
                parts.arity[t], parts.width[t] = 0, 1
                t += 1
            at = parts.arity[part]
            parts.at[part, at], parts.stride[part, at], parts.step[part, at] = i, graph.strides[j, a], parts.width[part]
            parts.width[part] *= domains.size[i]
            parts.arity[part] += 1
        alone = t == first_part[j] + 1
        for part in range(first_part[j], t):
            parts.base[part] = base if alone else -1
            parts.width[part] = graph.r if alone else parts.width[part]
            parts.cells[part] = cells
            cells += parts.width[part]
            _close(parts, placement.rank, part)
    first_part[graph.table.shape[0]] = t
    return cells


@kernel
def _spanning_law(graph, work, arena, j):
    """Combine the parts of observation j, whose scope meets several components, into ``law``."""
    domains, parts, law, counter = work.domains, work.parts, work.law, work.domains.counter
    state = graph.table[j] * graph.r * graph.n_states
    for a in range(graph.arity[j]):
        state += domains.values[graph.scopes[j, a], 0] * graph.strides[j, a]
    first, end = work.first_part[j], work.first_part[j + 1]
    counter[:] = 0
    law[:] = 0.0
    going = True
    while going:
        weight, free = 1.0, 0
        for part in range(first, end):
            cell = parts.cells[part]
            for a in range(parts.arity[part]):
                cell += counter[free] * parts.step[part, a]
                free += 1
            weight *= arena[cell]
        if weight > 0.0:
            for v in range(graph.r):
                law[v] += weight * graph.tables[state + v * graph.n_states]
        free, going = 0, False
        for part in range(first, end):  # the next joint state
            for a in range(parts.arity[part]):
                if going:
                    break
                i, c = parts.at[part, a], counter[free]
                going = c + 1 < domains.size[i]
                counter[free] = c + 1 if going else 0
                state += (domains.values[i, counter[free]] - domains.values[i, c]) * parts.stride[part, a]
                free += 1


@kernel
def _write(graph, work, arena, tokens, probabilities):
    """Write a possible row: one-hot where revealed, else what was collected."""
    domains, parts = work.domains, work.parts
    n = graph.prior.shape[0]
    probabilities[:] = 0.0
    for i in range(n):
        out = probabilities[graph.order[i]]
        if domains.size[i] == 1:
            out[domains.values[i, 0]] = 1.0
        else:
            for c in range(domains.size[i]):
                out[domains.values[i, c]] = work.walk.mass[i, c]
    for j in range(graph.table.shape[0]):
        position = graph.order[n + j]
        out = probabilities[position]
        first, count = work.first_part[j], work.first_part[j + 1] - work.first_part[j]
        if tokens[position] >= 0:
            out[tokens[position]] = 1.0
        elif count == 0:
            state = graph.table[j] * graph.r * graph.n_states
            for a in range(graph.arity[j]):
                state += domains.values[graph.scopes[j, a], 0] * graph.strides[j, a]
            for v in range(graph.r):
                out[v] = graph.tables[state + v * graph.n_states]
        elif count == 1:
            for v in range(graph.r):
                out[v] = arena[parts.cells[first] + v]
        else:
            _spanning_law(graph, work, arena, j)
            for v in range(graph.r):
                out[v] = work.law[v]


@kernel
def write_impossible(order, sizes, tokens, probabilities):
    """Write an impossible row: one-hot where revealed, else uniform over the ``sizes`` (n_latents, q, r) of the role."""
    n_latents, q, r = sizes
    probabilities[:] = 0.0
    for role in range(order.shape[0]):
        position = order[role]
        if tokens[position] >= 0:
            probabilities[position, tokens[position]] = 1.0
        else:
            values = q if role < n_latents else r
            for v in range(values):
                probabilities[position, v] = 1.0 / values


@kernel
def _evidence(graph, work, arena, tokens, components):
    """Enumerate all components and return the probability of the revealed tokens: mantissa (0 if impossible) and exponent."""
    domains = work.domains
    weight, exponent = 1.0, 0
    for i in range(domains.size.shape[0]):
        work.walk.mass[i] = 0.0
        if domains.size[i] == 1:
            weight, exponent = scaled_product(weight, exponent, graph.prior[i, domains.values[i, 0]])
    for j in range(graph.table.shape[0]):
        if domains.offset[j] >= 0 and not domains.active[j] and domains.level[j] != 1.0:
            weight, exponent = scaled_product(weight, exponent, domains.level[j])
    for component in range(components):
        mass, unit = enumerate_component(graph, work, arena, component)
        if mass == 0.0:
            return 0.0, 0
        weight, exponent = scaled_product(weight, exponent, mass)
        exponent += unit
    return weight, exponent


@kernel
def marginals_of_rows(graph, work, arena, tokens, start, probabilities, log_evidence):
    """Answer rows ``start ..``; return the first row not answered and the cells it needs more than ``arena`` has (0 at the end)."""
    sizes = (graph.prior.shape[0], graph.prior.shape[1], graph.r)
    for row in range(start, tokens.shape[0]):
        weight, exponent = 0.0, 0
        if restrict(graph, work.domains, tokens[row]) and propagate(graph, work.domains):
            components = place(graph, work.domains, work.placement)
            _bind_factors(graph, work.domains, work.placement, work.factors)
            cells = _bind_parts(graph, work.domains, work.placement, work.parts, work.first_part)
            if cells > arena.shape[0]:
                return row, cells
            arena[:cells] = 0.0
            weight, exponent = _evidence(graph, work, arena, tokens[row], components)
        if weight > 0.0:
            log_evidence[row] = math.log(weight) + exponent * _LN_UNIT
            _write(graph, work, arena, tokens[row], probabilities[row])
        else:
            log_evidence[row] = -np.inf
            write_impossible(graph.order, sizes, tokens[row], probabilities[row])
    return tokens.shape[0], 0
