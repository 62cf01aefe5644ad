"""Numba kernels of a network's forward pass on a processor: what lies between its matrix products, in float32.

The last array is the answer. ``LANES`` queries of attention lie side by side: nothing is summed across a vector.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lo_theory.jit import jit

LANES = 64
_KERNEL: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}  # nan stays nan
_ZERO, _HALF, _ONE, _LOWEST = np.float32(0), np.float32(0.5), np.float32(1), np.float32(-125)
_LOG2E = np.float32(1 / math.log(2))
_SERIES = tuple(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(7))


@jit(**_KERNEL)
def _power_of_two(x):
    """2**x of float32 x <= 0 to 2e-7, by its series around the nearest whole number; 2**-125 for any x below -125."""
    x = max(x, _LOWEST)
    whole = np.int32(x - _HALF)
    rest = x - np.float32(whole)
    value = _SERIES[6] * rest + _SERIES[5]
    value = value * rest + _SERIES[4]
    value = value * rest + _SERIES[3]
    value = value * rest + _SERIES[2]
    value = value * rest + _SERIES[1]
    value = value * rest + _SERIES[0]
    return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@jit(**_KERNEL)
def _multiply(a, b, out):
    """out[r, i] = sum over t of a[r, t] b[t, i] for LANES columns i, in tiles: r by sixes, t by threes."""
    out[:] = _ZERO
    for r in range(0, a.shape[0], 6):
        for t in range(0, a.shape[1], 3):
            a00, a01, a02 = a[r, t], a[r, t + 1], a[r, t + 2]
            a10, a11, a12 = a[r + 1, t], a[r + 1, t + 1], a[r + 1, t + 2]
            a20, a21, a22 = a[r + 2, t], a[r + 2, t + 1], a[r + 2, t + 2]
            a30, a31, a32 = a[r + 3, t], a[r + 3, t + 1], a[r + 3, t + 2]
            a40, a41, a42 = a[r + 4, t], a[r + 4, t + 1], a[r + 4, t + 2]
            a50, a51, a52 = a[r + 5, t], a[r + 5, t + 1], a[r + 5, t + 2]
            for i in range(LANES):
                b0, b1, b2 = b[t, i], b[t + 1, i], b[t + 2, i]
                out[r, i] += a00 * b0 + a01 * b1 + a02 * b2
                out[r + 1, i] += a10 * b0 + a11 * b1 + a12 * b2
                out[r + 2, i] += a20 * b0 + a21 * b1 + a22 * b2
                out[r + 3, i] += a30 * b0 + a31 * b1 + a32 * b2
                out[r + 4, i] += a40 * b0 + a41 * b1 + a42 * b2
                out[r + 5, i] += a50 * b0 + a51 * b1 + a52 * b2


@jit(**_KERNEL)
def _weigh(scores, keys, highest, total):
    """Put 2**(score - highest) in place of the first ``keys`` rows of scores, zero in the others; add them up."""
    scores[keys:] = scores[0]
    highest[:] = scores[0]
    for j in range(0, scores.shape[0], 6):
        for i in range(LANES):
            first, second = max(scores[j, i], scores[j + 1, i]), max(scores[j + 2, i], scores[j + 3, i])
            third = max(scores[j + 4, i], scores[j + 5, i])
            highest[i] = max(max(highest[i], first), max(second, third))
    total[:] = _ZERO
    for j in range(keys):
        for i in range(LANES):
            weight = _power_of_two(scores[j, i] - highest[i])
            scores[j, i] = weight
            total[i] += weight
    scores[keys:] = _ZERO


@jit(**_KERNEL)
def attend(heads, query, parts, out):
    """softmax(query key^T / sqrt(d)) value for each head of width d: float32 ``out`` [B, Q, width].

    ``parts`` [B, L, 3 width] has queries, which are not read, keys and values. ``query`` [B, Q, .] has the queries that
    are asked in its first columns.
    """
    keys, width = parts.shape[1], out.shape[2]
    d = width // heads
    scale = _LOG2E / np.float32(np.sqrt(d))
    d_whole, keys_whole = -(-d // 6) * 6, -(-keys // 6) * 6  # in whole tiles
    key, value = np.zeros((keys_whole, d_whole), np.float32), np.zeros((d_whole, keys_whole), np.float32)
    asked, mixed = np.zeros((d_whole, LANES), np.float32), np.empty((d_whole, LANES), np.float32)
    scores = np.empty((keys_whole, LANES), np.float32)
    highest, total = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for b in range(out.shape[0]):
        for head in range(heads):
            own = slice(head * d, head * d + d)
            own_key, own_value = parts[b, :, width:][:, own], parts[b, :, 2 * width :][:, own]
            for j in range(keys):
                for c in range(d):
                    key[j, c] = own_key[j, c]
                    value[c, j] = own_value[j, c]
            for first in range(0, out.shape[1], LANES):
                question, answer = query[b, first : first + LANES, own], out[b, first : first + LANES, own]
                for i in range(answer.shape[0]):
                    for c in range(d):
                        asked[c, i] = question[i, c] * scale
                _multiply(key, asked, scores)
                _weigh(scores, keys, highest, total)
                _multiply(value, scores, mixed)
                for i in range(answer.shape[0]):
                    share = _ONE / total[i]
                    for c in range(d):
                        answer[i, c] = mixed[c, i] * share


@jit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def add_and_normalise(weight, epsilon, x, change, out):
    """Add ``change`` to float32 ``x`` [n, width] in place; out = x / sqrt(mean(x**2) + epsilon) * weight."""
    width = x.shape[1]
    for row in range(x.shape[0]):
        squares = _ZERO
        for c in range(width):
            value = x[row, c] + change[row, c]
            x[row, c] = value
            squares += value * value
        factor = np.float32(1 / np.sqrt(squares / width + epsilon))
        for c in range(width):
            out[row, c] = x[row, c] * factor * weight[c]


@jit(**_KERNEL)
def gate(pair, out):
    """out = g / (1 + exp(-g)) * u [n, inner]: g is the first half of the columns of float32 ``pair``, u the second."""
    inner = out.shape[1]
    for row in range(out.shape[0]):
        gates, values, answer = pair[row][:inner], pair[row][inner:], out[row]
        for c in range(inner):
            g = gates[c]
            small = _power_of_two(-abs(g) * _LOG2E)  # exp(-|g|) does not overflow
            answer[c] = (max(g, _ZERO) + min(g, _ZERO) * small) / (_ONE + small) * values[c]
