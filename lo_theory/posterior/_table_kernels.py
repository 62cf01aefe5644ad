"""Numba kernels on dense tables that lie one after another in one array: multiply by, and sum onto, a table with fewer
axes.

A walk visits all states of a table, last axis fastest, beside another table in which an axis has some stride, or 0
where it is missing. The fastest axes are walked as one block without carries.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior._compile import inlined_kernel, kernel
from lo_theory.posterior.workspace import BLOCK, Axes

__all__ = ["add", "multiply", "project", "smallest_positive"]


@kernel
def _block(axes: Axes, count: int) -> tuple[int, int]:
    """Lay out the block of the fastest axes; return its states and the number of slower axes, whose counters are
    cleared.
    """
    axes.block[0] = 0
    length, axis = 1, count - 1
    while axis >= 0 and length * axes.extent[axis] <= BLOCK:
        for v in range(1, axes.extent[axis]):
            for c in range(length):
                axes.block[v * length + c] = axes.block[c] + v * axes.stride[axis]
        length *= axes.extent[axis]
        axis -= 1
    axes.counter[: axis + 1] = 0
    return length, axis + 1


@inlined_kernel
def _carry(axes: Axes, slower: int, other: int) -> tuple[bool, int]:
    """Move to the next block; return False after the last one, and where it begins in the other table."""
    for axis in range(slower - 1, -1, -1):
        if axes.counter[axis] + 1 < axes.extent[axis]:
            axes.counter[axis] += 1
            return True, other + axes.stride[axis]
        other -= axes.counter[axis] * axes.stride[axis]
        axes.counter[axis] = 0
    return False, other


@kernel
def multiply(arena: NDArray[np.float64], table: int, axes: Axes, count: int, other: int) -> None:
    """Multiply the table at ``table`` by the other one."""
    length, slower = _block(axes, count)
    going = True
    while going:
        for c in range(length):
            arena[table + c] *= arena[other + axes.block[c]]
        table += length
        going, other = _carry(axes, slower, other)


@kernel
def add(arena: NDArray[np.float64], table: int, axes: Axes, count: int, other: int) -> None:
    """Add the other table to the one at ``table``: multiplication of logarithms."""
    length, slower = _block(axes, count)
    going = True
    while going:
        for c in range(length):
            arena[table + c] += arena[other + axes.block[c]]
        table += length
        going, other = _carry(axes, slower, other)


@kernel
def project(arena: NDArray[np.float64], table: int, axes: Axes, count: int, other: int) -> None:
    """Add every number of the table at ``table`` to its place in the other one."""
    length, slower = _block(axes, count)
    going = True
    while going:
        for c in range(length):
            arena[other + axes.block[c]] += arena[table + c]
        table += length
        going, other = _carry(axes, slower, other)


@kernel
def smallest_positive(arena: NDArray[np.float64], table: int, states: int) -> float:
    """Return the smallest positive number of a table, infinity if there is none."""
    least = math.inf
    for c in range(table, table + states):
        if 0.0 < arena[c] < least:
            least = arena[c]
    return least
