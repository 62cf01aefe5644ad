"""Numba kernels of laws that are lists of sequences: which entry a row draws, and a value of a law for each row."""

from __future__ import annotations

from numba import uint64

from lo_theory.jit import jit
from lo_theory.rng import philox, unit


@jit()
def draw_entries(out, start, key0, key1, bounds, sequences):
    """Write the sequence that each row ``start .. start + len(out)`` draws, by its word 0.

    ``bounds`` uint64[S] are cumulative probabilities times 2**63. Cost: log2(S) comparisons a row and a copy.
    """
    for row in range(out.shape[0]):
        number = philox(uint64(0), uint64(start + row), key0, key1)[0] >> uint64(1)
        low, high = 0, len(bounds) - 1
        while low < high:
            middle = (low + high) // 2
            if number < bounds[middle]:
                high = middle
            else:
                low = middle + 1
        for position in range(out.shape[1]):
            out[row, position] = sequences[low, position]


@jit()
def draw_values(out, draw, start, key0, key1, laws):
    """Draw ``out`` [n] from ``laws`` float64[n, q], by word 0 of ``draw``; a value of probability 0 never comes."""
    for row in range(len(out)):
        number = unit(philox(uint64(draw), uint64(start + row), key0, key1)[0])
        reached, last = 0.0, -1
        for value in range(laws.shape[1]):
            if laws[row, value] > 0.0 and (last < 0 or number >= reached):
                last = value
            reached += laws[row, value]
        out[row] = last
