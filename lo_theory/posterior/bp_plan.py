"""Where belief propagation keeps its messages: one place an edge, for each schedule.

Built once a run from a ``FactorGraph``. Flooding keeps the messages of eight variables of about equal degree side by
side, so that products over their edges run in vector registers, and walks the factors in the order of the first
variable they meet, so that a third of the visits go to neighbouring addresses. Sweeps keep the messages of a variable
together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior.factor_graph import FactorGraph

__all__ = ["Blocks", "FloodPlan", "SweepPlan", "flood_plan", "sweep_plan"]

_LANES = 8


class FloodPlan(NamedTuple):
    """Places of the messages of every factor, factors in the order of ``order``."""

    positions: NDArray[np.uint32]  # [F, k]: first of q numbers
    groups: NDArray[np.int64]  # [T + 1]: factors of each table
    order: NDArray[np.int64]  # [F]: factor of the graph


class Blocks(NamedTuple):
    """Eight variables a block, one a lane."""

    start: NDArray[np.int64]  # [n_blocks + 1]: rows of eight messages
    field: NDArray[np.float64]  # [n_blocks, 8 q], ones where a lane has no variable
    pads: NDArray[np.uint32]  # places that no edge uses
    run: NDArray[np.float64]  # [8 q], working memory as what follows
    scratch: NDArray[np.float64]  # [8 q times rows of the longest block]
    mark: NDArray[np.float64]  # as large as all messages
    kept: NDArray[np.float64]  # the same with damping, else empty


class SweepPlan(NamedTuple):
    """Places of the messages by variable: edge e, counted by variable, is at e q."""

    positions: NDArray[np.uint32]  # [F, k]
    groups: NDArray[np.int64]  # [T + 1]
    order: NDArray[np.int64]  # [F]
    first: NDArray[np.int64]  # [n + 1]: edges of variable i are first[i]:first[i + 1]
    partners: NDArray[np.uint32]  # [E, k - 1]: places of the other messages to the factor, by argument
    argument: NDArray[np.int32]  # [E]
    table: NDArray[np.int32]  # [E]
    variables: NDArray[np.int64]  # [n], working memory as what follows
    words: NDArray[np.uint64]  # [n]
    received: NDArray[np.float64]  # [q times the largest degree]
    prefix: NDArray[np.float64]  # the same
    mark: NDArray[np.float64]  # [E q]


def _by_variable(graph: FactorGraph, owner: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Edges by owner; of several tables, those of a variable in the order of observations.

    One table after the other would multiply up all evidence for a value before the evidence against it, and underflow.
    """
    if len(graph.tables) <= 1:
        return np.argsort(owner, kind="stable")
    return np.lexsort((np.repeat(graph.observation[order], graph.k), owner))


def flood_plan(graph: FactorGraph, *, damped: bool) -> tuple[FloodPlan, Blocks]:
    """Lay a graph out for flooding. Cost: three sorts."""
    n, q, degree = graph.n_variables, graph.q, np.diff(graph.first)
    by_degree = np.argsort(-degree, kind="stable")
    place = np.empty(n, np.int64)
    place[by_degree] = np.arange(n)
    n_blocks = -(-n // _LANES)
    rows = degree[by_degree[::_LANES]]
    start = np.concatenate([[0], np.cumsum(rows)])
    met = place[graph.scopes].min(axis=1)
    order = np.argsort(graph.table.astype(np.int64) * n + met, kind="stable")
    owner = place[graph.scopes[order].ravel()]
    edges = _by_variable(graph, owner, order)
    row = np.empty(len(owner), np.int64)
    row[edges] = np.arange(len(owner)) - np.concatenate([[0], np.cumsum(degree[by_degree])])[owner[edges]]
    positions = ((start[owner // _LANES] + row) * _LANES + owner % _LANES) * q
    used = np.zeros(n_blocks * _LANES, np.int64)
    used[:n] = degree[by_degree]
    lane = np.arange(n_blocks * _LANES)
    spare = np.repeat(rows, _LANES) - used
    last = np.repeat(np.cumsum(spare), spare)
    missing = np.arange(spare.sum()) - last + np.repeat(np.repeat(rows, _LANES), spare)
    owner_of_pad = np.repeat(lane, spare)
    pads = ((start[owner_of_pad // _LANES] + missing) * _LANES + owner_of_pad % _LANES) * q
    field = np.ones((n_blocks * _LANES, q))
    field[:n] = graph.field[by_degree]
    plan = FloodPlan(positions.astype(np.uint32).reshape(graph.scopes.shape), graph.groups, order)
    size = int(start[-1]) * _LANES * q
    return plan, Blocks(
        start=start,
        field=field.reshape(n_blocks, _LANES * q),
        pads=pads.astype(np.uint32),
        run=np.empty(_LANES * q),
        scratch=np.empty(_LANES * q * int(rows.max())),
        mark=np.empty(size),
        kept=np.empty(size if damped else 0),
    )


def sweep_plan(graph: FactorGraph) -> SweepPlan:
    """Lay a graph out for sweeps over the variables. Cost: a sort."""
    k, every = graph.k, np.arange(graph.n_factors)
    edges = _by_variable(graph, graph.scopes.ravel().astype(np.int64), every)
    places = np.empty(len(edges), np.uint32)
    places[edges] = np.arange(len(edges)) * graph.q
    positions = places.reshape(graph.scopes.shape)
    factor, argument = edges // k, edges % k
    longest = int(np.diff(graph.first).max()) * graph.q
    others = np.array([[b for b in range(k) if b != a] for a in range(k)], np.int64).reshape(k, k - 1)
    return SweepPlan(
        positions=positions,
        groups=graph.groups,
        order=every,
        first=graph.first,
        partners=positions[factor[:, None], others[argument]],
        argument=argument.astype(np.int32),
        table=graph.table[factor],
        variables=np.empty(graph.n_variables, np.int64),
        words=np.empty(graph.n_variables, np.uint64),
        received=np.empty(longest),
        prefix=np.empty(longest),
        mark=np.empty(len(edges) * graph.q),
    )
