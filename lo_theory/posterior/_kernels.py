"""Numba kernels of the exact posterior with table observations: whole rows, from tokens to probabilities.

A row is restricted, propagated, split into components and enumerated; then every masked token is read off what was
collected.
"""

from __future__ import annotations

import math

import numpy as np

from lo_theory.posterior._compile import kernel
from lo_theory.posterior._elimination_kernels import backward, forward
from lo_theory.posterior._enumeration_kernels import enumerate_component, scaled_product
from lo_theory.posterior._joint_kernels import join_part, lies_in_clique
from lo_theory.posterior._plan_kernels import prepare

_LN_UNIT = 256.0 * math.log(2.0)


@kernel
def _spanning_law(graph, work, arena, j):
    """Combine the joint laws that the parts of observation j have collected into ``law``."""
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
                state += parts.shift[part, a, counter[free]] - parts.shift[part, a, c]
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
                out[domains.values[i, c]] = work.walk.mass[domains.root[i], c]
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
        elif count == 1 and parts.base[first] >= 0:
            for v in range(graph.r):
                out[v] = arena[parts.cells[first] + v]
        else:
            _spanning_law(graph, work, arena, j)
            for v in range(graph.r):
                out[v] = work.law[v]


@kernel
def write_impossible(order, sizes, tokens, probabilities):
    """Write an impossible row: one-hot where revealed, else uniform over ``sizes`` (n_latents, q, r) of the role."""
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
def _eliminate(graph, work, arena, component):
    """Solve a component by elimination: mass and exponent, 0 if impossible."""
    placement, parts = work.placement, work.parts
    joint = placement.joint[component]
    mass, unit = forward(graph, work, arena, component, joint)
    if mass > 0.0:
        backward(work, arena, component, joint)
        free = joint + max(placement.largest[component], graph.n_states)
        for at in range(placement.starts[component], placement.starts[component + 1]):
            t = parts.head[placement.placed[at]]
            while t >= 0:
                if not lies_in_clique(work, t):
                    join_part(work, arena, t, joint, free, True)
                t = parts.next[t]
    return mass, unit


@kernel
def _evidence(graph, work, arena, tokens, components):
    """Solve all components and return P(revealed tokens): mantissa (0 if impossible) and exponent."""
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
        if work.placement.eliminated[component]:
            mass, unit = _eliminate(graph, work, arena, component)
        else:
            mass, unit = enumerate_component(graph, work, arena, component)
        if mass == 0.0:
            return 0.0, 0
        weight, exponent = scaled_product(weight, exponent, mass)
        exponent += unit
    return weight, exponent


@kernel
def answer_rows(graph, work, arena, tokens, start, rule, costs, probabilities, log_evidence):
    """Answer rows ``start ..``; return the first row not answered and the numbers it needs (0 at the end, -1 if it does
    not fit).

    If ``costs`` [B, 6] has rows, only fill them: undetermined latents, states and classes of the largest table,
    operations, numbers, fits.
    """
    sizes = (graph.prior.shape[0], graph.prior.shape[1], graph.r)
    for row in range(start, tokens.shape[0]):
        weight, exponent = 0.0, 0
        cost = prepare(graph, work, arena, tokens[row], rule)
        if costs.shape[0] > 0:
            costs[row, 0], costs[row, 1], costs[row, 2] = cost.undetermined, cost.states, cost.width
            costs[row, 3], costs[row, 4], costs[row, 5] = cost.operations, cost.numbers, cost.fits
            continue
        if cost.possible:
            if not cost.fits:
                return row, -1.0
            if cost.numbers > arena.shape[0]:
                return row, cost.numbers
            arena[: int(cost.cells)] = 0.0
            weight, exponent = _evidence(graph, work, arena, tokens[row], cost.components)
        if weight > 0.0:
            log_evidence[row] = math.log(weight) + exponent * _LN_UNIT
            _write(graph, work, arena, tokens[row], probabilities[row])
        else:
            log_evidence[row] = -np.inf
            write_impossible(graph.order, sizes, tokens[row], probabilities[row])
    return tokens.shape[0], 0.0
