"""Numba kernel of population dynamics: one sweep over the messages of a planted ensemble.

A message is the law of a latent given the observations below it on a tree whose latents are planted. Messages,
float64[V, n, q], are kept for every planted value (V = q) or, where the ensemble is symmetric, for value 0 only (V =
1). Messages are made in blocks of ``BLOCK``; what happens in a block depends on its number and the key only, so blocks
may be spread over threads in any way.

Signatures here are longer than elsewhere: what differs between calls (arrays in, arrays out, key, range of blocks)
stays outside ``Law`` so that an ensemble's arrays are packed once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import uint64
from numba.core.options import DefaultOptions
from numpy.typing import NDArray

from lo_theory.jit import jit, packed
from lo_theory.rng import below, fill_words, unit

BLOCK = 512
"""Messages made from one row of random words and summed together."""

_UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}  # see posterior/_compile.py

_RESCALE = 16  # factors between two rescalings of a product of messages


_inline = jit(forceinline=True, **_UNCOUNTED)
"""Compile a part of the sweep into its caller.

Without reference counts (``_nrt=False``): counting a reference to every array of a tuple at every call costs fifteen
times the work itself.
"""


@packed
class Law(NamedTuple):
    """Arrays of an ensemble as the kernel reads them.

    A *code* names a view (a kind of observation and the receiving argument) and the planted values of the other k-1
    latents.
    """

    accept: NDArray[
        np.uint64
    ]  # [q, codes] Walker's alias table of the codes for each planted value of the receiving latent
    other: NDArray[np.int64]  # [q, codes]
    view_of: NDArray[np.int64]  # [codes]
    values: NDArray[np.int64]  # [codes, k-1]
    tables: NDArray[np.float64]  # [views, q, q**(k-1)] likelihood over gamma, receiving argument first
    equality: NDArray[np.float64]  # [views, 2] (a, b) where every table is a + b 1[all equal]; empty where some is not
    source: NDArray[np.int64]  # [q] population that serves a planted value
    images: NDArray[
        np.int64
    ]  # [q, G, q] permutations that turn a message of that population into one for the planted value
    back: NDArray[
        np.int64
    ]  # [q, q] permutations that turn a message for the planted value into one for value 0; empty if V = q


@_inline
def _draw_message(out, row, word, value, messages, law, reveal):
    """Set ``out[row]`` to a random message for planted ``value``; a sure one with probability ``reveal`` / 2**64.

    One word serves three draws: its upper part chooses the message, what is left the permutation, what is left then the
    revealing.
    """
    n, q = messages.shape[1], messages.shape[2]
    index = below(word, n)
    rest = uint64(word) * uint64(n)
    n_images = law.images.shape[1]
    image = below(rest, n_images)
    if reveal > uint64(0) and rest * uint64(n_images) < reveal:
        for y in range(q):
            out[row, y] = 0.0
        out[row, value] = 1.0
        return
    source = law.source[value]
    for y in range(q):
        out[row, y] = messages[source, index, law.images[value, image, y]]


@_inline
def _factor_message(out, incoming, view, law, work):
    """Fill ``out`` [q] with the unnormalised message of a factor to its receiving argument (uniform gives ones)."""
    n_others, q = incoming.shape[0] - 1, incoming.shape[1]
    if law.equality.shape[0] > 0:
        a, b = law.equality[view, 0], law.equality[view, 1]
        for y in range(q):
            product = b
            for j in range(n_others):
                product *= incoming[j, y]
            out[y] = a + product
        return
    size = law.tables.shape[2]
    for x in range(q):
        width = size // q
        last = n_others - 1
        for s in range(width):
            total = 0.0
            for y in range(q):
                total += law.tables[view, x, s * q + y] * incoming[last, y]
            work[s] = total
        for j in range(last - 1, -1, -1):
            width //= q
            for s in range(width):
                total = 0.0
                for y in range(q):
                    total += work[s * q + y] * incoming[j, y]
                work[s] = total
        out[x] = work[0]


@_inline
def _normalise(product):
    """Divide by the sum and return the sum."""
    total = 0.0
    for y in range(len(product)):
        total += product[y]
    for y in range(len(product)):
        product[y] /= total
    return total


@_inline
def _update_message(target, degree, planted, messages, law, reveal, words, work):
    """Write a new message for value ``planted`` to ``target`` [q]; return ln Z_i, its revealed form, and sum ln Z_a.

    Z_i = (1/q) sum_x prod m(x); revealed, prod m(planted). Z_a pairs every factor message with a fresh variable
    message. All are one from uniform messages.
    """
    q = len(target)
    n_others = law.values.shape[1]
    incoming, factor = work[: n_others + 1, :q], work[n_others + 1, :q]
    scratch = work[n_others + 2]
    target[:] = 1.0 / q
    log_scale, log_factors, factors = 0.0, 0.0, 1.0
    position = 0
    for t in range(degree):
        word = words[position]
        code = below(word, law.other.shape[1])
        if uint64(word) * uint64(law.other.shape[1]) >= law.accept[planted, code]:
            code = law.other[planted, code]
        for j in range(n_others):
            _draw_message(incoming, j, words[position + 1 + j], law.values[code, j], messages, law, reveal)
        _factor_message(factor, incoming, law.view_of[code], law, scratch)
        _draw_message(incoming, n_others, words[position + 1 + n_others], planted, messages, law, reveal)
        position += n_others + 2
        weight = 0.0
        for y in range(q):
            weight += factor[y] * incoming[n_others, y]
            target[y] *= factor[y]
        factors *= weight
        if t % _RESCALE == _RESCALE - 1:
            log_scale += np.log(_normalise(target))
            log_factors += np.log(factors)
            factors = 1.0
    log_variable = log_scale + np.log(_normalise(target))
    return log_variable, log_variable + np.log(q * target[planted]), log_factors + np.log(factors)


@_inline
def _redraw_planted(message, word, law, work):
    """Draw the planted value anew from the message itself, and turn the message into one for planted value 0."""
    q = len(message)
    left, value = unit(word), 0
    while value < q - 1 and left >= message[value]:
        left -= message[value]
        value += 1
    if value > 0:
        for y in range(q):
            work[y] = message[y]
        for y in range(q):
            message[y] = work[law.back[value, y]]


@jit()
def sweep_blocks(out, sums, messages, degrees, law, reveal, key, first, last):
    """Make blocks ``first .. last`` of every population from the old ``messages``; ``out`` has their shape [V, n, q].

    ``degrees`` int64[n] is the number of factors of each new message. ``sums`` float64[V, blocks, 4] gets, per block,
    the sums of ln Z_i, of its revealed form, of ln Z_a over the factors, and of the squared messages. With one
    population (V = 1) the planted value of every message is redrawn from it, which keeps the population on the
    Nishimori line.
    """
    n_values, n, q = messages.shape
    n_others = law.values.shape[1]
    words = np.empty((degrees.max() * (n_others + 2) + 1) * BLOCK, np.uint64)
    work = np.empty((n_others + 3, max(q, law.tables.shape[2] // q)))
    for block in range(first, last):
        start, end = block * BLOCK, min(n, (block + 1) * BLOCK)
        for v in range(n_values):
            used = 0
            for i in range(start, end):
                used += degrees[i] * (n_others + 2) + 1
            fill_words(words[:used], block * n_values + v, key[0], key[1])
            used = 0
            for i in range(start, end):
                terms = _update_message(out[v, i], degrees[i], v, messages, law, reveal, words[used:], work)
                used += degrees[i] * (n_others + 2)
                sums[v, block, 0] += terms[0]
                sums[v, block, 1] += terms[1]
                sums[v, block, 2] += terms[2]
                for y in range(q):
                    sums[v, block, 3] += out[v, i, y] * out[v, i, y]
                if n_values == 1:
                    _redraw_planted(out[v, i], words[used], law, work[0])
                used += 1
