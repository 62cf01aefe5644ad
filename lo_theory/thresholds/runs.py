"""Runs of population dynamics: at a fixed degree, and at a fixed overlap.

At fixed degree a planted population either survives or collapses, slowly near the threshold. At fixed overlap the
degree that holds the overlap is found in every sweep; this follows the whole curve c(overlap) of fixed points, unstable
parts included, so it neither collapses below a dynamic threshold nor slows down near it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln

from lo_theory.problem.seams import checked
from lo_theory.rng import Key
from lo_theory.thresholds.population import Dynamics

__all__ = ["Series", "poisson_degrees", "run_at_degree", "run_at_overlap"]

_STEP = 1.3  # largest factor by which the degree changes in one sweep at fixed overlap
_LARGEST_DEGREE = 1e4


@dataclass(frozen=True, eq=False)
class Series:
    """What a run recorded, one entry for each measured sweep, and the messages float64[V, n, q] it ended with."""

    c: NDArray[np.float64]
    excess: NDArray[np.float64]
    slope: NDArray[np.float64]
    overlap: NDArray[np.float64]
    messages: NDArray[np.float64]


def _series(rows: list[tuple[float, float, float, float]], messages: NDArray[np.float64]) -> Series:
    c, excess, slope, overlap = np.array(rows).T
    return Series(c, excess, slope, overlap, messages)


@checked
def poisson_degrees(c: float, size: int, offset: float) -> NDArray[np.int64]:
    """int64[size], ascending: Poisson(c) degrees, the quantiles (i + offset)/size with offset in [0, 1).

    Every degree appears its expected number of times, rounded up or down, so the mean degree is c to about 1/size.
    """
    top = int(c + 12 * math.sqrt(c) + 30)
    below = np.cumsum(_poisson(c, np.arange(top)))
    return np.searchsorted(below, (np.arange(size) + offset) / size, side="right").astype(np.int64)


def _poisson(c: float, degrees: NDArray[np.int64]) -> NDArray[np.float64]:
    """Poisson(c) probabilities of the given degrees, normalised over them."""
    logarithms = degrees * math.log(c) - gammaln(degrees + 1)
    weights = np.exp(logarithms - logarithms.max())
    return weights / weights.sum()


def _check_run(c: float, sweeps: int, discard: int) -> None:
    if not (math.isfinite(c) and 0 < c <= _LARGEST_DEGREE):
        raise ValueError(f"a mean degree lies in (0, {_LARGEST_DEGREE:g}], got {c}")
    if sweeps < 1 or discard < 0:
        raise ValueError(f"a run measures at least 1 sweep after discarding at least 0, got {sweeps} and {discard}")


@checked
def run_at_degree(
    dynamics: Dynamics, c: float, messages: NDArray[np.float64], key: Key, *, sweeps: int, discard: int
) -> Series:
    """Run ``discard`` sweeps, then ``sweeps`` measured ones, at mean degree c from the given messages.

    Cost (discard + sweeps) x V x size x c x (k + 1) draws; some 40 ns a draw.
    """
    _check_run(c, sweeps, discard)
    rows = []
    for t in range(discard + sweeps):
        here = key.fold(t)
        degrees = poisson_degrees(c, dynamics.size, float(here.fold("degrees").words()[0]) / 2.0**64)
        messages, measured = dynamics.sweep(messages, degrees, here)
        rows.append((c, measured.excess, measured.slope, measured.overlap))
    return _series(rows[discard:], messages)


def _degree_at_overlap(overlap: float, c: float, degrees: NDArray[np.int64], overlaps: NDArray[np.float64]) -> float:
    """Degree near c at which messages reweighted from their degrees to Poisson have the given mean overlap."""
    present, first = np.unique(degrees, return_index=True)
    means = np.add.reduceat(overlaps, first) / np.diff(np.append(first, len(degrees)))

    def surplus(trial: float) -> float:
        return float(_poisson(trial, present) @ means) - overlap

    low, high = c / _STEP, min(c * _STEP, _LARGEST_DEGREE)
    if surplus(low) > 0:
        return low
    if surplus(high) < 0:
        return high
    return float(brentq(surplus, low, high, xtol=1e-10 * c))


def _reweight(degrees: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices int64[n] of messages whose degrees are ``wanted``, or the nearest that exist; both ascending."""
    present, first = np.unique(degrees, return_index=True)
    counts = np.diff(np.append(first, len(degrees)))
    stratum = np.minimum(np.searchsorted(present, wanted), len(present) - 1)
    rank = np.arange(len(wanted)) - np.searchsorted(stratum, stratum)
    return first[stratum] + rank % counts[stratum]


@checked
def run_at_overlap(
    dynamics: Dynamics, overlap: float, c: float, messages: NDArray[np.float64], key: Key, *, sweeps: int, discard: int
) -> Series:
    """Run at fixed overlap of the messages from degree c; ``Series.c`` is the degree that holds it, by sweep.

    After each sweep the degree is found at which the new messages, reweighted by their degrees, have the wanted
    overlap, and the population is resampled to it. A fixed point of this is one of population dynamics at c = mean of
    ``Series.c``, whether stable there or not.
    """
    if not 0 < overlap < 1:
        raise ValueError(f"an overlap to hold lies in (0, 1), got {overlap}")
    _check_run(c, sweeps, discard)
    rows, begin = [], float(dynamics.overlaps(messages).mean())
    for t in range(discard + sweeps):
        here, wanted = key.fold(t), overlap + (begin - overlap) * max(0.0, 1 - (t + 1) / (0.5 * discard + 1))
        offset = float(here.fold("degrees").words()[0]) / 2.0**64
        degrees = poisson_degrees(c, dynamics.size, offset)
        made, measured = dynamics.sweep(messages, degrees, here)
        found = _degree_at_overlap(wanted, c, degrees, dynamics.overlaps(made))
        messages = made[:, _reweight(degrees, poisson_degrees(found, dynamics.size, offset))]
        # A sweep at c of messages that are stationary at `found`: the free entropy is brought to the same degree.
        rows.append((found, measured.excess + measured.slope * (found - c), measured.slope, measured.overlap))
        c = found
    return _series(rows[discard:], messages)
