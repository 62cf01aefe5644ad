"""Numba kernels for the joint law of classes that share a component but no clique.

In the elimination order every class is drawn given its separator, so functions P(carried classes | separator) are moved
towards the clique where all branches meet, and summed there with its law. The same steps, without numbers, give the
cost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import kernel
from lo_theory.posterior._elimination_kernels import separator_axes, span_clique, within_clique
from lo_theory.posterior._table_kernels import multiply, project
from lo_theory.posterior.workspace import Workspace

__all__ = ["join_part", "lies_in_clique"]


@kernel
def lies_in_clique(work: Workspace, t: int) -> bool:
    """Say whether all classes of part t lie in the clique of the one eliminated first."""
    parts, rank = work.parts, work.placement.rank
    first = rank[parts.at[t, parts.arity[t] - 1]]
    inside = True
    for a in range(parts.arity[t]):
        inside = inside and within_clique(work, first, rank[parts.at[t, a]]) >= 0
    return inside


@kernel
def _holds_separator(work: Workspace, rank: int, child: int) -> bool:
    for b in range(work.cliques.arity[child] - 1):
        if within_clique(work, rank, work.cliques.members[child, b]) < 0:
            return False
    return True


@kernel
def _next_rank(work: Workspace, t: int) -> tuple[int, bool]:
    """Return the rank eliminated first of all that is left, and whether its clique holds all that is left."""
    carried, parts, cliques, place = work.carried, work.parts, work.cliques, work.placement.rank
    rank = -1
    for f in range(carried.used.shape[0]):
        if carried.used[f] and cliques.arity[carried.rank[f]] > 1:
            rank = max(rank, cliques.members[carried.rank[f], cliques.arity[carried.rank[f]] - 2])
    for a in range(parts.arity[t]):
        if not carried.done[a]:
            rank = max(rank, place[parts.at[t, a]])
    meets = True
    for f in range(carried.used.shape[0]):
        if carried.used[f]:
            meets = meets and _holds_separator(work, rank, carried.rank[f])
    for a in range(parts.arity[t]):
        if not carried.done[a]:
            meets = meets and within_clique(work, rank, place[parts.at[t, a]]) >= 0
    return rank, meets


@kernel
def _ends_at(work: Workspace, f: int, rank: int) -> bool:
    """Say whether the separator of function f is passed on at ``rank``."""
    cliques, child = work.cliques, work.carried.rank[f]
    return work.carried.used[f] and cliques.members[child, cliques.arity[child] - 2] == rank


@kernel
def _states_carried(work: Workspace, f: int, t: int) -> int:
    states = 1
    for a in range(work.parts.arity[t]):
        if work.carried.holds[f, a]:
            states *= work.domains.size[work.parts.at[t, a]]
    return states


@kernel
def _place_in(work: Workspace, f: int, t: int) -> int:
    """Return where function f begins for the carried values in ``digit``, in multiples of its separator's states."""
    at = 0
    for a in range(work.parts.arity[t]):
        if work.carried.holds[f, a]:
            at = at * work.domains.size[work.parts.at[t, a]] + work.carried.digit[a]
    return at


@kernel
def _separator_states(work: Workspace, rank: int) -> int:
    return work.cliques.states[rank] // work.domains.size[work.placement.placed[rank]]


@kernel
def _next_digits(work: Workspace, f: int, t: int, own: int) -> bool:
    """Advance ``digit`` over the classes that function f carries, all but ``own``; False after the last."""
    for a in range(work.parts.arity[t] - 1, -1, -1):
        if work.carried.holds[f, a] and a != own:
            work.carried.digit[a] += 1
            if work.carried.digit[a] < work.domains.size[work.parts.at[t, a]]:
                return True
            work.carried.digit[a] = 0
    return False


@kernel
def _fill(work: Workspace, arena: NDArray[np.float64], t: int, rank: int, scratch: int, law: bool) -> None:
    """Write P(rank | separator) times the functions that end at ``rank`` to ``scratch``, at the carried values in
    ``digit``.

    With ``law`` the law of the whole clique, times all functions.
    """
    cliques, carried = work.cliques, work.carried
    size, table, message = work.domains.size[work.placement.placed[rank]], cliques.table[rank], cliques.message[rank]
    for state in range(cliques.states[rank]):
        arena[scratch + state] = arena[table + state] * (arena[message + state // size] if law else 1.0)
    for f in range(carried.used.shape[0]):
        if carried.used[f] and (law or _ends_at(work, f, rank)):
            child = carried.rank[f]
            count = separator_axes(work, rank, child)
            start = carried.at[f] + _place_in(work, f, t) * _separator_states(work, child)
            multiply(arena, scratch, work.axes, count, start)


@kernel
def _pass_on(work: Workspace, arena: NDArray[np.float64], t: int, rank: int, own: int, slot: int, scratch: int) -> None:
    """Make function ``slot`` from those that end at ``rank``; that class is place ``own`` of the part, -1: summed."""
    carried, size = work.carried, work.domains.size[work.placement.placed[rank]]
    separators = _separator_states(work, rank)
    carried.digit[:] = 0
    going = True
    while going:
        _fill(work, arena, t, rank, scratch, False)
        for c in range(size):
            if own >= 0:
                carried.digit[own] = c
            target = carried.at[slot] + _place_in(work, slot, t) * separators
            for s in range(separators):
                before = arena[target + s] if own < 0 and c > 0 else 0.0
                arena[target + s] = before + arena[scratch + s * size + c]
        going = _next_digits(work, slot, t, own)


@kernel
def _meet(work: Workspace, arena: NDArray[np.float64], t: int, rank: int, slot: int, scratch: int) -> None:
    """Sum the law of the clique of ``rank`` times all functions onto the cells of part t."""
    carried, parts = work.carried, work.parts
    carried.digit[:] = 0
    going = True
    while going:
        _fill(work, arena, t, rank, scratch, True)
        count, cells = span_clique(work, rank), parts.cells[t]
        for a in range(parts.arity[t]):
            if carried.done[a]:
                cells += carried.digit[a] * parts.step[t, a]
            else:
                axis = within_clique(work, rank, work.placement.rank[parts.at[t, a]])
                work.axes.stride[axis] = parts.step[t, a]
        project(arena, scratch, work.axes, count, cells)
        going = _next_digits(work, slot, t, -1)


@kernel
def _take_up(work: Workspace, t: int, rank: int, meets: bool) -> tuple[int, int, int]:
    """Choose a slot for the product of the functions that end at ``rank`` (all of them if they meet there).

    Returns the slot, the number of functions and the place of the class of ``rank`` in the part, -1 if it is not of the
    part.
    """
    carried, parts = work.carried, work.parts
    slot, merged, own = 0, 0, -1
    while carried.used[slot]:
        slot += 1
    carried.holds[slot, :] = False
    for f in range(carried.used.shape[0]):
        if carried.used[f] and (meets or _ends_at(work, f, rank)):
            merged += 1
            for a in range(parts.arity[t]):
                carried.holds[slot, a] |= carried.holds[f, a]
    for a in range(parts.arity[t]):
        if not carried.done[a] and work.placement.rank[parts.at[t, a]] == rank:
            own = a
    return slot, merged, own


@kernel
def join_part(
    work: Workspace, arena: NDArray[np.float64], t: int, scratch: int, free: int, compute: bool
) -> tuple[float, float]:
    """Collect part t, which spans several cliques, in its cells; return the operations and the numbers used from
    ``free`` on.

    ``scratch`` has room for the largest clique. Without ``compute`` only the steps are gone through: the cost,
    beforehand.
    """
    carried, parts = work.carried, work.parts
    carried.used[:], carried.done[:] = False, False
    operations, numbers = 0.0, 0.0
    while True:
        rank, meets = _next_rank(work, t)
        slot, merged, own = _take_up(work, t, rank, meets)
        states = float(_states_carried(work, slot, t))
        operations += states * work.cliques.states[rank] * (2 + merged)
        if meets:
            if compute:
                _meet(work, arena, t, rank, slot, scratch)
            return operations, numbers
        if own >= 0:
            carried.holds[slot, own] = True
            states *= work.domains.size[parts.at[t, own]]
        if compute:
            carried.at[slot] = free + int(numbers)
            _pass_on(work, arena, t, rank, own, slot, scratch)
        numbers += states * _separator_states(work, rank)
        for f in range(carried.used.shape[0]):
            if carried.used[f] and _ends_at(work, f, rank):
                carried.used[f] = False
        carried.used[slot], carried.rank[slot] = True, rank
        if own >= 0:
            carried.done[own] = True
