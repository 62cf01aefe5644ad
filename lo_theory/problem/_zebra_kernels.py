"""Numba kernels of Zebra puzzles: the houses that a value may still have as bits, propagation, and search.

A state int64[N] holds those of each latent, bit h for house h; of H houses, latent i is a value of attribute i // H. A
clue reads three latents, ``scopes`` int64[M, 3], its last again where it names fewer; ``tables`` int64[M, H, H] holds,
for the houses of the first two, those of the third that make it true, as bits.
"""

from __future__ import annotations

import numpy as np

from lo_theory.jit import jit
from lo_theory.problem._sudoku_kernels import count_bits
from lo_theory.rng import below, fill_words

SINGLE, DIFFERENT = 0, 1
"""Techniques, each with all before it: see ``propagate``."""


@jit()
def _revise(state, scope, table):
    """Keep of the three latents of a clue the houses that some houses of the others support; whether any went."""
    a, b, c = scope
    n, first, second, third = len(table), 0, 0, 0
    for x in range(n):
        if not state[a] >> x & 1:
            continue
        for y in range(n):
            true = state[c] & table[x, y] if state[b] >> y & 1 else 0
            if true:
                first, second, third = first | 1 << x, second | 1 << y, third | true
    before = state[a], state[b], state[c]
    state[a] &= first
    state[b] &= second
    state[c] &= third
    return (state[a], state[b], state[c]) != before


@jit()
def _separate(values, most):
    """Where s values of an attribute have s houses between them, take those from its other values; whether any went.

    Sets of up to ``most`` values are looked at. Values with fewer houses than they are lose all.
    """
    n, changed = len(values), False
    for chosen in range(1, 1 << n):
        size, houses = count_bits(chosen), 0
        if size > most:
            continue
        for v in range(n):
            houses |= values[v] if chosen >> v & 1 else 0
        room = count_bits(houses)
        for v in range(n):
            inside = chosen >> v & 1
            if (room < size and inside) or (room == size and not inside):
                changed |= values[v] & houses != 0
                values[v] &= ~houses
    return changed


@jit()
def propagate(state, scopes, tables, level):
    """Remove from ``state`` the houses that nothing supports, until none goes; False where a value has none left.

    SINGLE: each clue on its own, and a value that has one house takes it from the others of its attribute. DIFFERENT:
    any s values of an attribute that have s houses between them do, so that a house stays if a permutation has it.
    """
    n = tables.shape[1]
    changed = True
    while changed:
        changed = False
        for clue in range(len(scopes)):
            changed |= _revise(state, scopes[clue], tables[clue])
        for first in range(0, len(state), n):
            changed |= _separate(state[first : first + n], 1)
        if not changed and level >= DIFFERENT:
            for first in range(0, len(state), n):
                changed |= _separate(state[first : first + n], n)
        if state.min() == 0:
            return False
    return True


@jit()
def _open_latent(state):
    """The first of the latents with fewest houses, of those that have several; -1 where none has."""
    best, least = -1, 1 << 30
    for latent in range(len(state)):
        size = count_bits(state[latent])
        if 1 < size < least:
            best, least = latent, size
    return best


@jit()
def search(state, scopes, tables, limit, found):
    """Count the solutions that ``state`` holds, up to ``limit``: (solutions, houses tried).

    Depth first, in the latent with fewest houses, houses ascending. The first len(``found``) solutions go there.
    """
    length, n = len(state), tables.shape[1]
    stack = np.empty((length * n + 1, length), np.int64)
    stack[0] = state
    solutions, tried, top = 0, -1, 1
    while top > 0 and solutions < limit:
        top -= 1
        current = stack[top].copy()
        tried += 1
        if not propagate(current, scopes, tables, DIFFERENT):
            continue
        latent = _open_latent(current)
        if latent < 0:
            if solutions < len(found):
                for i in range(length):
                    found[solutions, i] = count_bits(current[i] - 1)
            solutions += 1
            continue
        for house in range(n - 1, -1, -1):
            if current[latent] >> house & 1:
                stack[top] = current
                stack[top, latent] = 1 << house
                top += 1
    return solutions, tried


@jit()
def draw_choices(out, attributes, start, key0, key1, orders, edges):
    """Write what the rows ``start .. start + len(out)`` choose: for every attribute one of ``orders`` permutations,
    then for every clue one of the K kinds and one of its own, ``edges[kind] .. edges[kind + 1]``; all uniform.

    ``out`` int64[n, A + M]; a row takes a word an attribute, then two a clue.
    """
    clues, kinds = out.shape[1] - attributes, len(edges) - 1
    words = np.empty(attributes + 2 * clues, np.uint64)
    for row in range(len(out)):
        fill_words(words, start + row, key0, key1)
        for attribute in range(attributes):
            out[row, attribute] = below(words[attribute], orders)
        for clue in range(clues):
            word = attributes + 2 * clue
            kind = below(words[word], kinds)
            out[row, attributes + clue] = edges[kind] + below(words[word + 1], edges[kind + 1] - edges[kind])
