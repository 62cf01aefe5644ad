"""Numba kernels that look at a posterior's answer before other compiled code reads it: arrays in, verdicts out."""

from __future__ import annotations

import numpy as np

from lo_theory.jit import jit

TOLERANCE = 1e-4
"""By how much the probabilities of a token may miss one: a softmax in float32 over 127 values misses by 1e-5."""

NO_NUMBER, NOT_ONE, ELSEWHERE = 1, 2, 3
"""What is wrong with a law: a value (negative, inf, nan), the sum, or that all of it is on values of another role."""


@jit()
def fault_of_law(probs, row, position, size):
    """0 if ``probs[row, position]`` is a law with positive weight on its first ``size`` values, else what is wrong."""
    total, inside, good = 0.0, 0.0, True
    for value in range(probs.shape[2]):
        p = np.float64(probs[row, position, value])
        good = good and p >= 0.0 and p < np.inf
        total += p
        inside += p if value < size else 0.0
    if not good:
        return NO_NUMBER
    if not abs(total - 1.0) <= TOLERANCE:
        return NOT_ONE
    return 0 if inside > 0.0 else ELSEWHERE


@jit()
def find_fault(probs, values):
    """First law of ``probs`` [B, L, V] that is none, as (row, position, what), what = 0 if all are.

    ``values`` [L]: how many values the token at a position takes.
    """
    for row in range(probs.shape[0]):
        good = True  # rows of good laws are seen without a branch, six times as fast
        if probs.shape[2] == 2:
            for position in range(probs.shape[1]):
                p, q = np.float64(probs[row, position, 0]), np.float64(probs[row, position, 1])
                inside = p + q * (values[position] > 1)
                good = good & (p >= 0.0) & (q >= 0.0) & (inside > 0.0) & (abs(p + q - 1.0) <= TOLERANCE)
        else:
            for position in range(probs.shape[1]):
                total, least, inside = 0.0, 0.0, 0.0
                for value in range(probs.shape[2]):
                    p = np.float64(probs[row, position, value])
                    total += p
                    least = min(least, p)
                    inside += p * (value < values[position])
                good = good & (least >= 0.0) & (inside > 0.0) & (abs(total - 1.0) <= TOLERANCE)
        if good:
            continue
        for position in range(probs.shape[1]):
            what = fault_of_law(probs, row, position, values[position])
            if what:
                return row, position, what
    return 0, 0, 0
