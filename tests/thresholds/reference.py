"""Slow, obvious twins of the kernel of population dynamics: one message at a time, sums over all states of a scope."""

from __future__ import annotations

import itertools
import math

import numpy as np

from lo_theory.rng import below, fill_words, unit
from lo_theory.thresholds._kernels import BLOCK, Law


def factor_message(table: np.ndarray, incoming: list[np.ndarray]) -> np.ndarray:
    """sum over the other arguments of table[x, others] prod_j incoming_j(x_j), by enumeration."""
    q = len(table)
    out = np.zeros(q)
    for x in range(q):
        for number, others in enumerate(itertools.product(range(q), repeat=len(incoming))):
            out[x] += table[x, number] * math.prod(message[y] for message, y in zip(incoming, others, strict=True))
    return out


def draw_message(word: int, value: int, messages: np.ndarray, law: Law, reveal: int) -> np.ndarray:
    n, q = messages.shape[1:]
    index, rest = word * n >> 64, word * n % 2**64
    n_images = law.images.shape[1]
    image, rest = rest * n_images >> 64, rest * n_images % 2**64
    if reveal > 0 and rest < reveal:
        return np.eye(q)[value]
    return messages[law.source[value], index][law.images[value, image]]


def sweep(
    messages: np.ndarray, degrees: np.ndarray, law: Law, reveal: int, key: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """New messages and the four sums over all of them, as ``sweep_blocks`` makes them."""
    n_values, n, q = messages.shape
    n_others, n_codes = law.values.shape[1], law.other.shape[1]
    out, sums = np.empty_like(messages), np.zeros(4)
    for block in range((n + BLOCK - 1) // BLOCK):
        rows = range(block * BLOCK, min(n, (block + 1) * BLOCK))
        for v in range(n_values):
            words = np.empty(sum(int(degrees[i]) * (n_others + 2) + 1 for i in rows), np.uint64)
            fill_words(words, block * n_values + v, key[0], key[1])
            stream = iter(int(word) for word in words)
            for i in rows:
                product, log_factors = np.full(q, 1 / q), 0.0
                for _ in range(degrees[i]):
                    word = next(stream)
                    code = word * n_codes >> 64
                    if word * n_codes % 2**64 >= int(law.accept[v, code]):
                        code = law.other[v, code]
                    incoming = [
                        draw_message(next(stream), law.values[code, j], messages, law, reveal) for j in range(n_others)
                    ]
                    factor = factor_message(law.tables[law.view_of[code]], incoming)
                    log_factors += math.log(factor @ draw_message(next(stream), v, messages, law, reveal))
                    product = product * factor
                message = product / product.sum()
                sums += (
                    math.log(product.sum()),
                    math.log(q * product[v]),
                    log_factors,
                    float(message @ message),
                )
                if n_values == 1:
                    left, value = unit(np.uint64(next(stream))), 0
                    while value < q - 1 and left >= message[value]:
                        left, value = left - message[value], value + 1
                    message = message[law.back[value]] if value > 0 else message
                else:
                    next(stream)
                out[v, i] = message
    return out, sums


assert below(np.uint64(2**63), 10) == 5  # the convention of ``word * n >> 64`` above
