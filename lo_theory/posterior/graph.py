"""A problem with table observations as flat arrays, and the memory a kernel works in: what the posterior kernels take.

The named tuples hold arrays and scalars only, so numba compiles them to plain fields. ``TableGraph`` is read-only and shared by
threads; a ``Workspace`` belongs to one call of one kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import LODistribution, TableObservations
from lo_theory.problem.layout import frozen

__all__ = ["Domains", "Placement", "TableGraph", "Terms", "Walk", "Workspace", "table_graph", "workspace"]


class TableGraph(NamedTuple):
    """N latents and P table observations. Scopes list distinct latents; a repeated one has the sum of its strides.

    Observation j in state ``sum_a x[scopes[j, a]] strides[j, a]`` takes value v with probability
    ``tables[(table[j] r + v) n_states + state]``.
    """

    order: NDArray[np.int32]  # [L]
    prior: NDArray[np.float64]  # [N, q]
    tables: NDArray[np.float64]  # [E r n_states]
    table: NDArray[np.int32]  # [P]
    scopes: NDArray[np.int32]  # [P, k], the first arity[j] entries
    strides: NDArray[np.int64]  # [P, k]
    arity: NDArray[np.int32]  # [P]
    first: NDArray[np.int32]  # [N + 1]: observations that read latent i are incident[first[i]:first[i + 1]]
    incident: NDArray[np.int32]
    forbids: NDArray[np.bool_]  # [E r]: some scope state excludes this value of this table
    r: int
    n_states: int


class Domains(NamedTuple):
    """Values each latent can still take, and the observed factors that still matter."""

    size: NDArray[np.int32]  # [N]
    values: NDArray[np.int32]  # [N, q], the first size[i] entries, increasing
    offset: NDArray[np.int64]  # [P]: where the factor of a revealed observation begins in the tables, -1 if masked
    watched: NDArray[np.bool_]  # [P]: revealed and able to exclude a state
    active: NDArray[np.bool_]  # [P]: revealed and not constant on the remaining domains
    level: NDArray[np.float64]  # [P]: the constant of a revealed factor that is not active
    queue: NDArray[np.int32]  # [P]
    queued: NDArray[np.bool_]  # [P]
    at: NDArray[np.int32]  # [k]: free latents of the scope being scanned
    stride: NDArray[np.int64]  # [k]
    counter: NDArray[np.int32]  # [k]
    support: NDArray[np.bool_]  # [k, q]


class Placement(NamedTuple):
    """Connected components of the undetermined latents, each in the order in which it is enumerated."""

    placed: NDArray[np.int32]  # [N]: component c is placed[starts[c]:starts[c + 1]]
    starts: NDArray[np.int32]  # [N + 1]
    rank: NDArray[np.int32]  # [N]: place of a latent, -1 if determined
    component: NDArray[np.int32]  # [N]
    score: NDArray[np.int32]  # [N]
    frontier: NDArray[np.int32]  # [N]
    open: NDArray[np.int32]  # [P]: latents of an active factor not yet placed


class Terms(NamedTuple):
    """Functions of a few latents of one component, chained to the latent that is placed last; that latent comes last in a term.

    A factor multiplies the weight. A part of a masked observation collects mass in ``cells``: by observed value where the component
    holds all free latents of the scope (``base`` >= 0), else by joint state of the latents it holds.
    """

    head: NDArray[np.int32]  # [N]
    next: NDArray[np.int32]
    base: NDArray[np.int64]  # where the tables are read with all free latents at value 0
    arity: NDArray[np.int32]
    at: NDArray[np.int32]  # [terms, k]
    stride: NDArray[np.int64]  # [terms, k]: steps in the tables
    step: NDArray[np.int64]  # [terms, k]: steps in the cells, by index into the domain
    cells: NDArray[np.int64]  # first cell
    width: NDArray[np.int64]  # number of cells


class Walk(NamedTuple):
    """State of the depth-first enumeration; weights are mantissas with an exponent in units of 2**256."""

    weight: NDArray[np.float64]  # [N, q]: weight of each child of the node open at a place
    exponent: NDArray[np.int64]  # [N, q]
    total: NDArray[np.float64]  # [N, q]: mass below each child, in units of the component's exponent
    cursor: NDArray[np.int32]  # [N]
    value: NDArray[np.int32]  # [N]
    choice: NDArray[np.int32]  # [N]: index of the value in the domain
    mass: NDArray[np.float64]  # [N, q]: marginals of the latents, by index into the domain


class Workspace(NamedTuple):
    """All memory of one kernel call."""

    domains: Domains
    placement: Placement
    factors: Terms
    parts: Terms
    first_part: NDArray[np.int32]  # [P + 1]
    walk: Walk
    law: NDArray[np.float64]  # [r]


def table_graph(distribution: LODistribution) -> TableGraph:
    """Flatten a problem with ``TableObservations``; ValueError for any other law."""
    law = distribution.observations
    if not isinstance(law, TableObservations):
        raise ValueError(f"{type(law).__name__} has no scopes: a factor graph needs TableObservations")
    n, (p, k) = len(distribution.prior), law.scopes.shape
    powers = law.q ** np.arange(k - 1, -1, -1, dtype=np.int64)
    scopes, strides, arity = np.zeros((p, k), np.int32), np.zeros((p, k), np.int64), np.zeros(p, np.int32)
    for a in range(k):
        # A latent seen at an earlier argument adds to the stride it has there.
        earlier = np.arange(k) < arity[:, None]
        same = earlier & (scopes == law.scopes[:, a : a + 1])
        repeated = same.any(axis=1)
        place = np.where(repeated, same.argmax(axis=1), arity)
        rows = np.arange(p)
        scopes[rows, place] = law.scopes[:, a]
        strides[rows, place] += powers[a]
        arity += ~repeated
    used = np.arange(k) < arity[:, None]
    readers, latents = np.nonzero(used)[0], scopes[used]
    first = np.searchsorted(np.sort(latents), np.arange(n + 1))
    by_value = law.tables.transpose(0, 2, 1)
    return TableGraph(
        order=distribution.order,
        prior=distribution.prior,
        tables=frozen(by_value.ravel(), np.float64),
        table=law.index,
        scopes=frozen(scopes, np.int32),
        strides=frozen(strides, np.int64),
        arity=frozen(arity, np.int32),
        first=frozen(first, np.int32),
        incident=frozen(readers[np.argsort(latents, kind="stable")], np.int32),
        forbids=frozen((by_value == 0).any(axis=2).ravel(), np.bool_),
        r=law.r,
        n_states=law.q**k,
    )


def _terms(n: int, count: int, k: int) -> Terms:
    return Terms(
        head=np.empty(n, np.int32),
        next=np.empty(count, np.int32),
        base=np.empty(count, np.int64),
        arity=np.empty(count, np.int32),
        at=np.empty((count, k), np.int32),
        stride=np.empty((count, k), np.int64),
        step=np.empty((count, k), np.int64),
        cells=np.empty(count, np.int64),
        width=np.empty(count, np.int64),
    )


def workspace(graph: TableGraph) -> Workspace:
    """Allocate the memory of one kernel call: about 100 k bytes an observation, whatever the number of rows."""
    (n, q), (p, k) = graph.prior.shape, graph.scopes.shape
    domains = Domains(
        size=np.empty(n, np.int32),
        values=np.empty((n, q), np.int32),
        offset=np.empty(p, np.int64),
        watched=np.empty(p, np.bool_),
        active=np.empty(p, np.bool_),
        level=np.empty(p),
        queue=np.empty(p, np.int32),
        queued=np.empty(p, np.bool_),
        at=np.empty(k, np.int32),
        stride=np.empty(k, np.int64),
        counter=np.empty(k, np.int32),
        support=np.empty((k, q), np.bool_),
    )
    placement = Placement(
        placed=np.empty(n, np.int32),
        starts=np.empty(n + 1, np.int32),
        rank=np.empty(n, np.int32),
        component=np.empty(n, np.int32),
        score=np.empty(n, np.int32),
        frontier=np.empty(n, np.int32),
        open=np.empty(p, np.int32),
    )
    walk = Walk(
        weight=np.empty((n, q)),
        exponent=np.empty((n, q), np.int64),
        total=np.empty((n, q)),
        cursor=np.empty(n, np.int32),
        value=np.empty(n, np.int32),
        choice=np.empty(n, np.int32),
        mass=np.empty((n, q)),
    )
    return Workspace(domains, placement, _terms(n, p, k), _terms(n, p * k, k), np.empty(p + 1, np.int32), walk, np.empty(graph.r))
