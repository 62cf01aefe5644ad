"""Overlap of an estimate with a planted assignment, up to a global permutation of the values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from lo_theory.problem.layout import plain
from lo_theory.problem.seams import checked

__all__ = ["Overlap", "overlap"]


@dataclass(frozen=True, eq=False)
class Overlap:
    """How far marginals agree with a planted assignment.

    ``value`` = (A - 1/q)/(1 - 1/q), A = ``agreement`` in [0, 1], the share of variables guessed right under the best
    ``permutation`` (planted value v is read as ``permutation[v]``). ``confidence`` is the mean largest probability, 1/q
    for marginals that say nothing.
    """

    value: float
    agreement: float
    confidence: float
    permutation: NDArray[np.int64]


@checked
def overlap(marginals: ArrayLike, planted: ArrayLike, *, tie: float = 1e-4) -> Overlap:
    """Compare the most likely values of ``marginals`` float64[N, q] with ``planted`` int[N].

    Values within ``tie`` of the largest probability share the guess equally: an argmax would turn residues of 1e-7,
    left by messages that decay to uniform, into an overlap of order N**-1/2. The permutation is the best of all q!
    (linear assignment, q**3). Errors: ValueError for shapes, values or ``tie`` out of range.
    """
    beliefs, truth = plain(marginals, "marginals", np.float64), plain(planted, "planted")
    if beliefs.ndim != 2 or len(beliefs) < 1 or beliefs.shape[1] < 2:
        raise ValueError(f"marginals must have shape [N, q] with N >= 1 and q >= 2, got {beliefs.shape}")
    n, q = beliefs.shape
    if truth.shape != (n,) or truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() >= q:
        raise ValueError(f"planted must be {n} integers in 0..{q - 1}, got shape {truth.shape}, dtype {truth.dtype}")
    if not 0.0 <= tie < 1.0:
        raise ValueError(f"tie lies in [0, 1), got {tie}")
    largest = beliefs.max(axis=1)
    candidates = beliefs >= largest[:, None] - tie
    guesses = candidates / candidates.sum(axis=1, keepdims=True)
    counts = np.zeros((q, q))
    np.add.at(counts, truth.astype(np.intp), guesses)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    agreement = float(counts[rows, columns].sum() / n)
    return Overlap((agreement - 1 / q) / (1 - 1 / q), agreement, float(largest.mean()), columns.astype(np.int64))
