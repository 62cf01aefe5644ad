"""Numba kernels of the samplers and of log_prob: arrays and scalars in, arrays out, no objects.

Every sampling kernel fills rows ``start .. start + len(out)`` of the stream named by two key words. A row's numbers
depend on its number only, so any split of the rows over calls and threads gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import uint8, uint64

from lo_theory.jit import jit
from lo_theory.rng import below, fill_words, philox

BLOCK_WORDS = 32
"""Machine words of rows evaluated together: enough for the loops over them to run in vector registers."""

BLOCK_ROWS = 64 * BLOCK_WORDS

LEAF_ARGUMENTS = 3
"""Scope bits that one pass over a truth table consumes; shorter scopes are padded to this many."""

LEVELS = 63
"""Bits of a probability: thresholds are multiples of 2**-63."""

_PAD = 64  # bytes of a vector register
_UNDECIDED, _BOUND, _RANDOM, _PARTIAL = (
    0,
    1,
    2,
    3,
)  # scratch rows of ``bits`` after its L roles; partial results fill the rest
_ALL = np.uint64(2**64 - 1)
_ROW_BITS = np.array(
    [1, 2, 4, 8, 16, 32, 64, 128], np.uint8
)  # looked up: seeing a shift, LLVM widens every byte to 64 bits


@jit(separately=True)
def _evaluate(bits, row, scopes, j, truth, plane):
    """Set ``bits[row]`` to truth table ``truth[plane]`` of scope j.

    A tree of selections, three scope bits at once, then one a level.

    Here and below whole arrays and row numbers are passed, and kernels called in the innermost loops call no others:
    numba counts references whenever a view is made or an array handed on, and that costs more than the arithmetic.
    """
    k = scopes.shape[1]
    x, y, z = scopes[j, k - 3], scopes[j, k - 2], scopes[j, k - 1]
    width = 1 << (k - LEAF_ARGUMENTS)
    partial = len(bits) - width
    for leaf in range(width):
        target, s = row if width == 1 else partial + leaf, 8 * leaf
        t0, t1, t2, t3 = truth[plane, s], truth[plane, s + 1], truth[plane, s + 2], truth[plane, s + 3]
        t4, t5, t6, t7 = truth[plane, s + 4], truth[plane, s + 5], truth[plane, s + 6], truth[plane, s + 7]
        for w in range(BLOCK_WORDS):
            a, b, c = bits[x, w], bits[y, w], bits[z, w]
            u0, u1, u2, u3 = t0 ^ (c & (t0 ^ t1)), t2 ^ (c & (t2 ^ t3)), t4 ^ (c & (t4 ^ t5)), t6 ^ (c & (t6 ^ t7))
            v0, v1 = u0 ^ (b & (u0 ^ u1)), u2 ^ (b & (u2 ^ u3))
            bits[target, w] = v0 ^ (a & (v0 ^ v1))
    for argument in range(k - LEAF_ARGUMENTS - 1, -1, -1):
        selector = scopes[j, argument]
        width //= 2
        for pair in range(width):
            low, high, target = partial + 2 * pair, partial + 2 * pair + 1, row if width == 1 else partial + pair
            for w in range(BLOCK_WORDS):
                bits[target, w] = bits[low, w] ^ (bits[selector, w] & (bits[low, w] ^ bits[high, w]))


@jit(separately=True)
def _compare_level(bits, role, scratch, level, key0, key1, block):
    """Compare bit ``level`` of the uniform number of every undecided row with its bound.

    Return whether a row is still undecided.

    A row whose number lies above its bound gets the value 1, one below keeps 0. The words drawn are addressed by role
    and level, so it changes no value that the loop over levels stops as soon as every row is decided.
    """
    random = scratch + _RANDOM
    for call in range(BLOCK_WORDS // 4):
        w0, w1, w2, w3 = philox(uint64((role * LEVELS + level) * (BLOCK_WORDS // 4) + call), uint64(block), key0, key1)
        bits[random, 4 * call] = w0
        bits[random, 4 * call + 1] = w1
        bits[random, 4 * call + 2] = w2
        bits[random, 4 * call + 3] = w3
    left = uint64(0)
    for w in range(BLOCK_WORDS):
        drawn, bound, undecided = bits[random, w], bits[scratch + _BOUND, w], bits[scratch + _UNDECIDED, w]
        bits[role, w] |= undecided & drawn & ~bound
        undecided &= ~(drawn ^ bound)
        bits[scratch + _UNDECIDED, w] = undecided
        left |= undecided
    return left != uint64(0)


@jit(separately=True)
def _draw_latents(bits, scratch, prior, key0, key1, block):
    """Draw every latent of a block: 1 where a 63-bit number reaches ``prior[i]``; fair coins take one level."""
    for i in range(len(prior)):
        for w in range(BLOCK_WORDS):
            bits[i, w] = uint64(0)
            bits[scratch + _UNDECIDED, w] = uint64(0) if prior[i] >> uint64(LEVELS) else _ALL
        rest, level, undecided = prior[i] << uint64(1), 0, True
        while rest != uint64(0) and undecided:
            word = _ALL if rest >> uint64(63) else uint64(0)
            for w in range(BLOCK_WORDS):
                bits[scratch + _BOUND, w] = word
            undecided = _compare_level(bits, i, scratch, level, key0, key1, block)
            rest <<= uint64(1)
            level += 1
        for w in range(BLOCK_WORDS):
            bits[i, w] |= bits[scratch + _UNDECIDED, w]


@jit(separately=True)
def _draw_observations(bits, scratch, scopes, truth, first, index, key0, key1, block):
    """Draw every observation for a block of rows; see ``sample_bits`` for the planes of ``truth``."""
    n_latents = scratch - scopes.shape[0]
    for j in range(scopes.shape[0]):
        role, plane, end = n_latents + j, first[index[j]], first[index[j] + 1]
        _evaluate(bits, role, scopes, j, truth, plane)
        if end - plane == 1:
            continue
        _evaluate(bits, scratch + _UNDECIDED, scopes, j, truth, plane + 1)
        for level in range(end - plane - 2):
            _evaluate(bits, scratch + _BOUND, scopes, j, truth, plane + 2 + level)
            if not _compare_level(bits, role, scratch, level, key0, key1, block):
                break
        for w in range(BLOCK_WORDS):
            bits[role, w] |= bits[scratch + _UNDECIDED, w]


@jit()
def _write_block(out, row, by_position, eight_rows):
    """Write the block that begins at row ``row`` of ``out`` (which may lie before it), bits to bytes.

    ``by_position`` uint64[BLOCK_WORDS, padded]; a byte of scratch ``eight_rows`` [padded] holds eight rows of a
    position. A row is written in whole registers: what it writes past its end is written again by the next one, and the
    last stops at the end.
    """
    n_rows, length = out.shape
    flat, padded = out.reshape(-1), len(eight_rows)
    for group in range(BLOCK_ROWS // 8):
        top = row + 8 * group
        if top + 8 <= 0 or top >= n_rows:
            continue
        word, shift = group // 8, uint64(8 * (group % 8))
        for position in range(padded):
            eight_rows[position] = uint8(by_position[word, position] >> shift)
        for b in range(max(0, -top), min(8, n_rows - top)):
            mask, begin = _ROW_BITS[b], (top + b) * length
            target = flat[begin : begin + padded]
            for position in range(len(target)):
                target[position] = (eight_rows[position] & mask) != 0


@jit()
def sample_bits(out, start, key0, key1, prior, scopes, truth, first, index, order):
    """Sample binary latents and binary observations, 2048 rows at a time, 64 rows a machine word.

    ``prior`` uint64[N] is P(0) x 2**63. Planes ``first[e] .. first[e + 1]`` of ``truth`` uint64[planes, 2**k], k >= 3,
    belong to table e: the states that surely give 1, the states that leave a choice, and the bits of their P(0) from
    the highest down (a table without noise has only the first). Bits are computed once per machine word, then turned
    into bytes in loops over adjacent positions. Rows are written in order, and nothing is written outside ``out``
    (C-contiguous).
    """
    n_rows, length = out.shape
    padded = (length + _PAD - 1) // _PAD * _PAD
    bits = np.empty((length + _PARTIAL + (1 << (scopes.shape[1] - LEAF_ARGUMENTS)), BLOCK_WORDS), np.uint64)
    by_position = np.zeros((BLOCK_WORDS, padded), np.uint64)
    eight_rows = np.empty(padded, np.uint8)
    for block in range(start // BLOCK_ROWS, (start + n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS):
        _draw_latents(bits, length, prior, key0, key1, block)
        _draw_observations(bits, length, scopes, truth, first, index, key0, key1, block)
        for tile in range(0, BLOCK_WORDS, 8):  # a cache line of words at a time
            for role in range(length):
                position = order[role]
                for w in range(tile, tile + 8):
                    by_position[w, position] = bits[role, w]
        _write_block(out, block * BLOCK_ROWS - start, by_position, eight_rows)


@jit(inline="always")
def _draw(word, thresholds):
    """Value drawn by one word.

    How many of the cumulative ``thresholds`` (times 2**63) lie at or below its upper 63 bits.
    """
    level = word >> uint64(1)
    value = 0
    while level >= thresholds[value]:
        value += 1
    return value


@jit()
def sample_tables(out, start, key0, key1, prior, scopes, tables, index, certain, order):
    """Sample any product prior with any emission tables, a row at a time.

    ``prior`` uint64[N, q] and ``tables`` uint64[E, q**k, r] are cumulative thresholds; ``certain`` int8[E, q**k] is the
    value of a state that leaves no choice, else -1. Word i of a row draws latent i; word N + j draws observation j
    where it needs one.
    """
    n_latents, q = prior.shape
    n_observations, k = scopes.shape
    words = np.empty(n_latents if (certain >= 0).all() else n_latents + n_observations, np.uint64)
    latents = np.empty(n_latents, np.int64)
    for row in range(out.shape[0]):
        fill_words(words, start + row, key0, key1)
        for i in range(n_latents):
            latents[i] = _draw(words[i], prior[i])
            out[row, order[i]] = latents[i]
        for j in range(n_observations):
            state = 0
            for a in range(k):
                state = state * q + latents[scopes[j, a]]
            value = np.int64(certain[index[j], state])
            if value < 0:
                value = _draw(words[n_latents + j], tables[index[j], state])
            out[row, order[n_latents + j]] = value


@jit()
def sample_slabs(out, start, key0, key1, prior, columns, bound, order):
    """Sample binary latents with random-slab observations.

    ``columns`` float64[N, P] is the transposed array of vectors.

    The sums run over latents in order, without reassociation, as in ``SlabObservations.values``.
    """
    n_latents, n_observations = columns.shape
    words = np.empty(n_latents, np.uint64)
    sums = np.empty(n_observations)
    for row in range(out.shape[0]):
        fill_words(words, start + row, key0, key1)
        sums[:] = 0.0
        for i in range(n_latents):
            value = _draw(words[i], prior[i])
            out[row, order[i]] = value
            sign = 2.0 * value - 1.0
            column = columns[i]
            for j in range(n_observations):
                sums[j] += sign * column[j]
        for j in range(n_observations):
            out[row, order[n_latents + j]] = abs(sums[j]) <= bound


@jit()
def log_prob_tables(out, tokens, log_prior, scopes, log_tables, index, order):
    """Fill float64 ``out`` [n] with ln p of complete sequences ``tokens`` int8[n, L]; impossible ones get -inf."""
    n_latents, q = log_prior.shape
    for row in range(tokens.shape[0]):
        total = 0.0
        for i in range(n_latents):
            total += log_prior[i, tokens[row, order[i]]]
        for j in range(scopes.shape[0]):
            state = 0
            for a in range(scopes.shape[1]):
                state = state * q + tokens[row, order[scopes[j, a]]]
            total += log_tables[index[j], state, tokens[row, order[n_latents + j]]]
        out[row] = total


@jit()
def draw_scopes(scopes, items, repeats, key0, key1):
    """Fill ``scopes`` [P, k] with entries of ``items`` = 0..N-1, distinct in a scope or with ``repeats`` independent.

    Row j uses the words of row j. A partial Fisher-Yates shuffle whose swaps are undone: O(k) a scope whatever N.
    """
    (p, k), n = scopes.shape, len(items)
    words, others = np.empty(k, np.uint64), np.empty(k, np.int64)
    for j in range(p):
        fill_words(words, j, key0, key1)
        for i in range(k):
            if repeats:
                scopes[j, i] = below(words[i], n)
                continue
            others[i] = i + below(words[i], n - i)
            items[i], items[others[i]] = items[others[i]], items[i]
            scopes[j, i] = items[i]
        if not repeats:
            for i in range(k - 1, -1, -1):
                items[i], items[others[i]] = items[others[i]], items[i]
