"""Which kernel samples a problem, and the integer tables it needs.

Probabilities become cumulative thresholds in units of 2**-63, compared as integers, so that the tokens drawn depend on
no floating-point unit. A sampler holds read-only arrays; ``fill(out, start, key)`` writes rows of the stream named by
the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import _kernels
from lo_theory.problem.layout import Layout, frozen
from lo_theory.problem.observations import Observations, SlabObservations, TableObservations
from lo_theory.rng import Key

__all__ = ["Sampler", "make_sampler", "thresholds"]

_LARGEST_BIT_SCOPE = 8  # bit-slicing costs 2**k operations an observation and machine word, a row of the table kernel k


@dataclass(frozen=True, eq=False)
class Sampler:
    """A kernel with its arrays; ``fill`` runs it."""

    kernel: Callable[..., None]
    arrays: tuple[object, ...]

    def fill(self, out: NDArray[np.int8], start: int, key: Key) -> None:
        """Write rows ``start .. start + len(out)`` into C-contiguous int8 ``out`` [n, L].

        Releases the interpreter lock.
        """
        self.kernel(out, start, *key.words(), *self.arrays)


def thresholds(probabilities: NDArray[np.float64]) -> NDArray[np.uint64]:
    """uint64[..., r]: cumulative probabilities x 2**63; a value of probability zero is never drawn.

    From the last value of positive probability on the threshold is 2**63 itself, above every 63-bit number.
    """
    flat = np.asarray(probabilities, dtype=np.float64).reshape(-1, probabilities.shape[-1])
    levels = np.empty(flat.shape, np.uint64)
    for row, law in enumerate(flat):
        total, last = math.fsum(law), int(np.flatnonzero(law)[-1])
        for value in range(len(law)):
            share = 1.0 if value >= last else min(1.0, math.fsum(law[: value + 1]) / total)
            levels[row, value] = round(share * 2**63)
    return frozen(levels.reshape(probabilities.shape), np.uint64)


def _certain(tables: NDArray[np.float64]) -> NDArray[np.int8]:
    """int8[E, q**k]: the value of every scope state that has only one, else -1."""
    return np.where((tables > 0).sum(axis=-1) == 1, tables.argmax(axis=-1), -1).astype(np.int8)


def _planes(bounds: NDArray[np.uint64]) -> list[NDArray[np.bool_]]:
    """Truth tables bool[q**k] that draw a bit.

    States that surely give 1, states that leave a choice, bits of their bounds.

    ``bounds`` uint64[q**k] is P(0) x 2**63. A table without noise is its first plane; bits that are zero in every bound
    and all below them are left out.
    """
    sure = (bounds == 0) | (bounds == 2**_kernels.LEVELS)
    if sure.all():
        return [bounds == 0]
    lowest = min(int(bound) & -int(bound) for bound in bounds[~sure]).bit_length() - 1
    levels = range(_kernels.LEVELS - 1, lowest - 1, -1)
    return [bounds == 0, ~sure, *(~sure & ((bounds >> np.uint64(level)) & np.uint64(1) == 1) for level in levels)]


def _bit_sampler(layout: Layout, prior: NDArray[np.float64], law: TableObservations) -> Sampler:
    """The bit-sliced sampler.

    Scopes of fewer than three bits are padded with their first latent, which the table then ignores.
    """
    missing = max(0, _kernels.LEAF_ARGUMENTS - law.k)
    scopes = np.concatenate([law.scopes] + [law.scopes[:, :1]] * missing, axis=1)
    planes = [_planes(bounds) for bounds in thresholds(law.tables)[:, :, 0]]
    truth = np.repeat(np.concatenate(planes), 2**missing, axis=1)
    first = np.cumsum([0, *(len(own) for own in planes)])
    arrays = (
        frozen(thresholds(prior)[:, 0], np.uint64),
        frozen(scopes, np.int32),
        frozen(np.where(truth, ~np.uint64(0), np.uint64(0)), np.uint64),
        frozen(first, np.int32),
        law.index,
        layout.order,
    )
    return Sampler(_kernels.sample_bits, arrays)


def make_sampler(layout: Layout, prior: NDArray[np.float64], law: Observations) -> Sampler:
    """Choose the fastest kernel that samples this problem exactly."""
    if isinstance(law, SlabObservations):
        columns = frozen(law.vectors.T, np.float64)
        return Sampler(_kernels.sample_slabs, (thresholds(prior), columns, law.bound, layout.order))
    if not isinstance(law, TableObservations):
        raise ValueError(
            f"no sampler for observations of type {type(law).__name__}: use TableObservations or SlabObservations"
        )
    if law.q == 2 and law.r == 2 and law.k <= _LARGEST_BIT_SCOPE:
        return _bit_sampler(layout, prior, law)
    certain = frozen(_certain(law.tables), np.int8)
    arrays = (thresholds(prior), law.scopes, thresholds(law.tables), law.index, certain, layout.order)
    return Sampler(_kernels.sample_tables, arrays)
