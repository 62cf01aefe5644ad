"""Numba kernels that enumerate one connected component depth-first, collecting masses at the nodes of the walk.

A node at depth d has chosen the d latents placed before; its children are the values of the next one. Weights are
mantissas in units of 2**(256 e), so that hundreds of noisy factors neither underflow nor cost a logarithm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import inlined_kernel, kernel
from lo_theory.posterior.graph import TableGraph
from lo_theory.posterior.workspace import Workspace

__all__ = ["enumerate_component", "scaled_product"]

_TINY = 2.0**-256  # mantissas below it are multiplied by its inverse
_HUGE = 2.0**256


@kernel
def _rescued_product(weight: float, exponent: int, factor: float) -> tuple[float, int]:
    while weight < _TINY:
        weight *= _HUGE
        exponent -= 1
    while factor < _TINY:
        factor *= _HUGE
        exponent -= 1
    product = weight * factor
    if product < _TINY:
        product *= _HUGE
        exponent -= 1
    return product, exponent


@inlined_kernel
def scaled_product(weight: float, exponent: int, factor: float) -> tuple[float, int]:
    """Multiply ``weight`` 2**(256 ``exponent``) by ``factor``, both in [0, 1] or so: mantissa and exponent."""
    product = weight * factor
    if product < _TINY and weight > 0.0 and factor > 0.0:
        return _rescued_product(weight, exponent, factor)
    return product, exponent


@inlined_kernel
def _open(graph: TableGraph, work: Workspace, i: int, d: int) -> None:
    """Weigh the children of the node at depth d, latent i: prior times the factors that close there."""
    domains, factors, walk = work.domains, work.factors, work.walk
    size = domains.size[i]
    weight, exponent = 1.0, 0
    if d > 0:
        weight, exponent = walk.weight[d - 1, walk.cursor[d - 1]], walk.exponent[d - 1, walk.cursor[d - 1]]
    for c in range(size):
        lifted = exponent + walk.prior_exponent[i, c]
        walk.weight[d, c], walk.exponent[d, c] = scaled_product(weight, lifted, walk.prior[i, c])
        walk.total[d, c] = 0.0
    walk.cursor[d] = -1
    t = factors.head[i]
    while t >= 0:
        last = factors.arity[t] - 1
        state = factors.base[t]
        for a in range(last):
            state += factors.shift[t, a, walk.choice[factors.at[t, a]]]
        for c in range(size):
            factor = graph.tables[state + factors.shift[t, last, c]]
            walk.weight[d, c], walk.exponent[d, c] = scaled_product(walk.weight[d, c], walk.exponent[d, c], factor)
        t = factors.next[t]


@inlined_kernel
def _collect(graph: TableGraph, work: Workspace, arena: NDArray[np.float64], i: int, d: int) -> None:
    """Give the masses below the children of the node at depth d to latent i and to the parts that close there."""
    domains, parts, walk = work.domains, work.parts, work.walk
    size = domains.size[i]
    for c in range(size):
        walk.mass[i, c] += walk.total[d, c]
    t = parts.head[i]
    while t >= 0:
        last = parts.arity[t] - 1
        if parts.base[t] < 0:
            cell = parts.cells[t]
            for a in range(last):
                cell += walk.choice[parts.at[t, a]] * parts.step[t, a]
            for c in range(size):
                arena[cell + c * parts.step[t, last]] += walk.total[d, c]
        else:
            state = parts.base[t]
            for a in range(last):
                state += parts.shift[t, a, walk.choice[parts.at[t, a]]]
            for c in range(size):
                if walk.total[d, c] > 0.0:
                    here = state + parts.shift[t, last, c]
                    for v in range(graph.r):
                        arena[parts.cells[t] + v] += walk.total[d, c] * graph.tables[here + v * graph.n_states]
        t = parts.next[t]


@kernel
def _rescale(work: Workspace, arena: NDArray[np.float64], component: int, factor: float) -> None:
    """Multiply everything collected for a component by ``factor``."""
    placement, parts, walk = work.placement, work.parts, work.walk
    first = placement.starts[component]
    for place in range(first, placement.starts[component + 1]):
        i = placement.placed[place]
        for c in range(work.domains.size[i]):
            walk.mass[i, c] *= factor
            walk.total[place - first, c] *= factor
        t = parts.head[i]
        while t >= 0:
            for cell in range(parts.cells[t], parts.cells[t] + parts.width[t]):
                arena[cell] *= factor
            t = parts.next[t]


@kernel
def enumerate_component(
    graph: TableGraph, work: Workspace, arena: NDArray[np.float64], component: int
) -> tuple[float, int]:
    """Sum the weights of all assignments of a component; normalise what was collected. Returns mantissa and exponent, 0
    if none.

    Cost: the nodes of the tree whose prefix has positive weight, times the factors and parts that close at them.
    """
    domains, walk, placed = work.domains, work.walk, work.placement.placed
    first = work.placement.starts[component]
    last = work.placement.starts[component + 1] - first - 1
    unit, reached = 0, False
    d = 0
    _open(graph, work, placed[first], 0)
    while True:
        i = placed[first + d]
        if d == last:
            for c in range(domains.size[i]):
                if walk.weight[d, c] > 0.0:
                    lift = walk.exponent[d, c] - unit
                    if lift > 0 or not reached:
                        if reached:
                            _rescale(work, arena, component, _TINY if lift == 1 else 0.0)
                        unit, reached, lift = walk.exponent[d, c], True, 0
                    if lift >= -1:
                        walk.total[d, c] = walk.weight[d, c] * (1.0 if lift == 0 else _TINY)
        else:
            c = walk.cursor[d] + 1
            while c < domains.size[i] and walk.weight[d, c] == 0.0:
                c += 1
            if c < domains.size[i]:
                walk.cursor[d] = walk.choice[i] = c
                d += 1
                _open(graph, work, placed[first + d], d)
                continue
        mass = 0.0
        for c in range(domains.size[i]):
            mass += walk.total[d, c]
        if mass > 0.0:
            _collect(graph, work, arena, i, d)
        if d == 0:
            break
        d -= 1
        walk.total[d, walk.cursor[d]] = mass
    if mass > 0.0:
        _rescale(work, arena, component, 1.0 / mass)
    return mass, unit
