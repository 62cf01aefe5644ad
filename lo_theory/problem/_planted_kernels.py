"""Numba kernels of the planted and null ensembles: addressed draws of constraints.

Poisson ensembles split over the first argument: row i holds the candidates whose first variable is i. Fixed-size
ensembles: row j holds the attempts for constraint j.
"""

from __future__ import annotations

from numba import uint64

from lo_theory.jit import jit
from lo_theory.rng import below, philox

_LANES = 4


@jit()
def _word(counter, row, key0, key1):
    """Word ``counter`` of ``row``."""
    words = philox(uint64(counter // _LANES), uint64(row), key0, key1)
    return words[counter % _LANES]


@jit()
def uniform_values(out, q, key0, key1):
    """Fill ``out`` [N] with independent uniform values 0..q-1; word i makes value i of row 0."""
    for i in range(out.shape[0]):
        out[i] = below(_word(i, 0, key0, key1), q)


@jit()
def _draw_scope(scope, fixed, n, counter, row, key0, key1):
    """Draw ``scope[fixed:]`` uniformly among tuples of distinct variables, by rejection. Return the words used so
    far.
    """
    k = scope.shape[0]
    distinct = False
    while not distinct:
        distinct = True
        for a in range(fixed, k):
            scope[a] = below(_word(counter, row, key0, key1), n)
            counter += 1
            for b in range(a):
                distinct = distinct and scope[a] != scope[b]
    return counter


@jit()
def _value(scope, truth, assignment, q, counter, row, key0, key1):
    """Value of the predicate under ``assignment``, or (if that is empty) a fresh uniform local one. Return it and the
    words used.
    """
    state = 0
    for a in range(scope.shape[0]):
        if assignment.shape[0] > 0:
            state = state * q + assignment[scope[a]]
        else:
            state = state * q + below(_word(counter, row, key0, key1), q)
            counter += 1
    return truth[state], counter


@jit()
def _insert(slots, scopes, j):
    """Put scope j into the open-addressing table ``slots`` (-1 empty); return whether it was new."""
    mask, digest = uint64(slots.shape[0] - 1), uint64(0)
    for a in range(scopes.shape[1]):
        digest = (digest ^ uint64(scopes[j, a])) * uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> uint64(29)
    at = digest & mask
    while slots[at] >= 0:
        if (scopes[slots[at]] == scopes[j]).all():
            return False
        at = (at + uint64(1)) & mask
    slots[at] = j
    return True


@jit()
def poisson_candidates(scopes, values, slots, thresholds, problem, key0, key1):
    """Candidates of Bernoulli ensembles: for each first variable a Poisson number, uniform other arguments, repetitions
    dropped.

    ``slots`` int32[2**m], at least twice the largest number of candidates of a variable: where they are looked up.

    ``thresholds`` uint64: cumulative Poisson probabilities x 2**64; ``problem`` = (truth int8[q**k], assignment int8[N]
    or empty, q, N). Fill ``scopes`` [capacity, k] and ``values`` [capacity]; return how many, or -1 if they did not
    fit.
    """
    truth, assignment, q, n = problem
    capacity = len(scopes)
    count = 0
    for i in range(n):
        number, level = 0, _word(0, i, key0, key1)
        while number < thresholds.shape[0] and level >= thresholds[number]:
            number += 1
        counter, size = 1, 2
        while size < 2 * number:
            size *= 2
        seen = slots[:size]
        seen[:] = -1
        for _ in range(number):
            if count == capacity:
                return -1
            scopes[count, 0] = i
            counter = _draw_scope(scopes[count], 1, n, counter, i, key0, key1)
            values[count], counter = _value(scopes[count], truth, assignment, q, counter, i, key0, key1)
            count += _insert(seen, scopes, count)
    return count


@jit()
def fixed_constraints(scopes, values, slots, satisfied, attempts, problem, key0, key1):
    """Fill ``scopes`` [M, k] and ``values`` [M] with distinct uniform constraints, of value 1 if ``satisfied``.

    Return -1, or the first constraint that found no place in ``attempts`` attempts.
    """
    truth, assignment, q, n = problem
    for j in range(scopes.shape[0]):
        placed, counter = False, 0
        for _ in range(attempts):
            counter = _draw_scope(scopes[j], 0, n, counter, j, key0, key1)
            values[j], counter = _value(scopes[j], truth, assignment, q, counter, j, key0, key1)
            if (values[j] == 1 or not satisfied) and _insert(slots, scopes, j):
                placed = True
                break
        if not placed:
            return j
    return -1
