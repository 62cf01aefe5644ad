"""Numba kernels of Sudoku: candidates of the cells as bits, propagation, search, techniques, and removal of clues.

A state int64[L] holds the digits that each cell may still take, bit d for token d, and ``DONE`` once a cell with one
digit has been taken from its peers. ``members`` [3n, n] lists the cells of rows, columns and boxes, ``peers`` [L, m]
those that share a unit with a cell.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from lo_theory.jit import jit
from lo_theory.rng import below, fill_words, philox, shuffle

DONE = 1 << 20

NAKED, HIDDEN, LOCKED, PAIRS = 0, 1, 2, 3
"""Techniques, each with all before it: see ``deduce``."""


@jit()
def count_bits(mask):
    """How many bits of ``mask`` are set."""
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@jit()
def propagate(state, members, peers, level):
    """Place naked singles, from ``level`` HIDDEN on hidden singles too, until none is left; False on a contradiction.

    A contradiction: a cell without a digit, a digit without a cell in a unit (seen from HIDDEN on).
    """
    n = members.shape[1]
    changed = True
    while changed:
        changed = False
        for cell in range(len(state)):
            mask = state[cell]
            if mask & DONE:
                continue
            if mask == 0:
                return False
            if mask & (mask - 1):
                continue
            state[cell] = mask | DONE
            changed = True
            for i in range(peers.shape[1]):
                peer = peers[cell, i]
                if state[peer] & mask:
                    state[peer] ^= mask
                    if state[peer] == 0 or state[peer] == DONE:
                        return False
        if changed or level < HIDDEN:
            continue
        for unit in range(len(members)):
            once, twice = 0, 0
            for i in range(n):
                mask = state[members[unit, i]]
                twice |= once & mask
                once |= mask
            if (once | DONE) != (DONE | ((1 << n) - 1)):
                return False
            single = once & ~twice & ~DONE
            if single == 0:
                continue
            for i in range(n):
                cell = members[unit, i]
                own = state[cell] & single
                if own == 0 or state[cell] & DONE:
                    continue
                if own & (own - 1):
                    return False
                if state[cell] != own:
                    state[cell] = own
                    changed = True
    return True


@jit()
def _open_cell(state):
    """The first of the open cells with fewest candidates, -1 where all are done."""
    best, least = -1, 1 << 30
    for cell in range(len(state)):
        if state[cell] & DONE:
            continue
        size = count_bits(state[cell])
        if size < least:
            best, least = cell, size
    return best


@jit()
def _pick(left, draw, row, key0, key1, randomly):
    """One bit of ``left``: the lowest, or with ``randomly`` any, by word 0 of ``draw``."""
    skip = below(philox(uint64(draw), uint64(row), key0, key1)[0], count_bits(left)) if randomly else 0
    for _ in range(skip):
        left &= left - 1
    return left & -left


@jit()
def search(allowed, members, peers, limit, found, counts, row, key0, key1, randomly):
    """Count the ways to fill the cells from ``allowed`` int64[L], up to ``limit``: (solutions, digits tried).

    Depth first, in the cell with fewest candidates, digits ascending or with ``randomly`` in random order by address.
    The first len(``found``) solutions are written there, ``counts`` [L, n] adds up digits of all (nothing where it is
    empty).
    """
    length = len(allowed)
    states, at = np.empty((length + 1, length), np.int64), np.empty(length, np.int64)
    left = np.empty(length + 1, np.int64)
    solutions, tried, depth = 0, 0, 0
    states[0] = allowed
    if not propagate(states[0], members, peers, HIDDEN):
        return 0, 0
    fresh = True
    while depth >= 0:
        if fresh:
            cell = _open_cell(states[depth])
            if cell < 0:
                for i in range(length):
                    digit = count_bits((states[depth, i] & ~DONE) - 1)
                    if solutions < len(found):
                        found[solutions, i] = digit
                    if len(counts):
                        counts[i, digit] += 1
                solutions += 1
                if solutions >= limit:
                    break
                depth -= 1
                fresh = False
                continue
            at[depth], left[depth] = cell, states[depth, cell]
        if left[depth] == 0:
            depth -= 1
            fresh = False
            continue
        bit = _pick(left[depth], tried, row, key0, key1, randomly)
        left[depth] ^= bit
        tried += 1
        states[depth + 1] = states[depth]
        states[depth + 1, at[depth]] = bit
        fresh = propagate(states[depth + 1], members, peers, HIDDEN)
        if fresh:
            depth += 1
    return solutions, tried


@jit()
def count_rows(tokens, members, peers, limit, counts, totals):
    """Completions of every row of ``tokens`` [B, L] (-1 where empty), up to ``limit``: ``totals`` [B], and of which
    digits: ``counts`` [B, L, n].
    """
    n = members.shape[1]
    allowed, found = np.empty(tokens.shape[1], np.int64), np.empty((0, tokens.shape[1]), np.int8)
    for b in range(len(tokens)):
        for cell in range(tokens.shape[1]):
            allowed[cell] = (1 << n) - 1 if tokens[b, cell] < 0 else 1 << tokens[b, cell]
        totals[b] = search(allowed, members, peers, limit, found, counts[b], 0, uint64(0), uint64(0), False)[0]


@jit()
def _lock(state, members, unit_of):
    """Remove candidates that are locked: a digit whose places in one unit all lie in another one, from the rest of
    that; return whether any was.
    """
    n, changed = members.shape[1], False
    for unit in range(len(members)):
        for digit in range(n):
            bit = 1 << digit
            for kind in range(3):
                other, places = -1, 0
                for i in range(n):
                    cell = members[unit, i]
                    if state[cell] & bit:
                        places += 1
                        other = unit_of[kind, cell] if places == 1 or other == unit_of[kind, cell] else -2
                if other < 0 or other == unit:
                    continue
                for i in range(n):
                    cell, inside = members[other, i], False
                    for k in range(3):
                        inside |= unit_of[k, cell] == unit
                    if not inside and state[cell] & bit:
                        state[cell] ^= bit
                        changed = True
    return changed


@jit()
def _pair(state, members):
    """Remove what pairs exclude: two cells of a unit that hold the same two candidates, or two digits that have the
    same two places; return whether any was.
    """
    n, changed = members.shape[1], False
    for unit in range(len(members)):
        for i in range(n):
            mask = state[members[unit, i]]
            for j in range(i + 1, n):
                if mask & DONE or count_bits(mask) != 2 or state[members[unit, j]] != mask:
                    continue
                for k in range(n):
                    cell = members[unit, k]
                    if k not in (i, j) and state[cell] & mask:
                        state[cell] &= ~mask
                        changed = True
        for one in range(n):
            for two in range(one + 1, n):
                both, mask, first, second, apart = 0, (1 << one) | (1 << two), 0, 0, 0
                for i in range(n):
                    cell = members[unit, i]
                    first += (state[cell] >> one) & 1
                    second += (state[cell] >> two) & 1
                    both += state[cell] & mask == mask
                    apart += state[cell] & mask == mask and state[cell] != mask
                if first == 2 and second == 2 and both == 2 and apart > 0:
                    for i in range(n):
                        cell = members[unit, i]
                        if state[cell] & mask:
                            state[cell] &= mask
                            changed = True
    return changed


@jit()
def deduce(state, members, peers, unit_of, level):
    """Apply the techniques up to ``level`` until none helps: 1 solved, 0 stuck, -1 a contradiction.

    NAKED: a cell has one candidate. HIDDEN: a digit one place in a unit. LOCKED: its places in a unit lie in another.
    PAIRS: two cells of the same two candidates, two digits of the same two places.
    """
    while True:
        if not propagate(state, members, peers, level):
            return -1
        if _open_cell(state) < 0:
            return 1
        if level >= LOCKED and _lock(state, members, unit_of):
            continue
        if level >= PAIRS and _pair(state, members):
            continue
        return 0


@jit()
def remove_clues(puzzle, order, clues, members, peers):
    """Empty cells of the full grid ``puzzle`` [L], in ``order``, while it has one solution and more than ``clues``
    clues; return how many it keeps.

    A cell is emptied where no other digit in it has a solution: the puzzle before has one, so the one after has too.
    """
    n, kept = members.shape[1], len(puzzle)
    everything = (1 << n) - 1
    found, counts, allowed = np.empty((0, kept), np.int8), np.empty((0, n), np.int64), np.empty(kept, np.int64)
    for cell in range(len(puzzle)):
        allowed[cell] = 1 << puzzle[cell]
    for cell in order:
        if kept <= clues:
            break
        allowed[cell] = everything & ~(1 << puzzle[cell])
        if search(allowed, members, peers, 1, found, counts, 0, uint64(0), uint64(0), False)[0]:
            allowed[cell] = 1 << puzzle[cell]
        else:
            allowed[cell], puzzle[cell] = everything, -1
            kept -= 1
    return kept


@jit()
def draw_rows(grids, puzzles, kept, rows, clues, members, peers, grid0, grid1, order0, order1):
    """For every number in ``rows`` draw a full grid and a puzzle of it: ``grids``, ``puzzles`` [n, L], clues ``kept``.

    No puzzle where ``puzzles`` is empty.
    """
    length, n = grids.shape[1], members.shape[1]
    everything, counts = np.full(length, (1 << n) - 1, np.int64), np.empty((0, n), np.int64)
    words, order = np.empty(length, np.uint64), np.empty(length, np.int64)
    for i in range(len(rows)):
        search(everything, members, peers, 1, grids[i : i + 1], counts, rows[i], grid0, grid1, True)
        if len(puzzles) == 0:
            continue
        fill_words(words, rows[i], order0, order1)
        for cell in range(length):
            order[cell] = cell
            puzzles[i, cell] = grids[i, cell]
        shuffle(order, length, words)
        kept[i] = remove_clues(puzzles[i], order, clues, members, peers)
