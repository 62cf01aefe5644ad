"""Philox kernels: known answers, slow twins in plain integers, and the laws of what is drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from lo_theory.rng import Key, below, fill_words, philox, shuffle, unit
from lo_theory.testing import chi_square, z_test
from tests.budget import accept, reject

WORD = 2**64
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)

# The known-answer vectors of Random123 (kat_vectors, philox4x64 10): counter, key, result.
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    (
        (WORD - 1,) * 4,
        (WORD - 1,) * 2,
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]

words64 = st.integers(0, WORD - 1)


def slow_philox(counter, key):
    """Philox4x64-10 in plain integers, from the paper: ten rounds of two multiplications, keys bumped between rounds."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = MULTIPLIERS[0] * c[0], MULTIPLIERS[1] * c[2]
        c = [second // WORD ^ c[1] ^ k[0], second % WORD, first // WORD ^ c[3] ^ k[1], first % WORD]
        k = [(k[0] + WEYL[0]) % WORD, (k[1] + WEYL[1]) % WORD]
    return tuple(c)


@njit
def call_philox(counter0, counter1, key0, key1):
    return philox(counter0, counter1, key0, key1)


@njit
def call_below(words, bound):
    return np.array([below(word, bound) for word in words])


@njit
def call_unit(words):
    return np.array([unit(word) for word in words])


def kernel_philox(counter0, counter1, key0, key1):
    return tuple(int(word) for word in call_philox(*(np.uint64(x) for x in (counter0, counter1, key0, key1))))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_the_slow_twin_gives_the_known_answers(counter, key, result):
    assert slow_philox(counter, key) == result


def test_the_kernel_gives_the_known_answer_of_zeros():
    assert kernel_philox(0, 0, 0, 0) == KNOWN_ANSWERS[0][2]


@given(words64, words64, words64, words64)
def test_the_kernel_is_its_slow_twin(counter0, counter1, key0, key1):
    assert kernel_philox(counter0, counter1, key0, key1) == slow_philox((counter0, counter1, 0, 0), (key0, key1))


@given(st.integers(1, WORD - 1), words64, words64, words64)
def test_the_kernel_is_the_philox_of_numpy(counter0, counter1, key0, key1):
    before = counter0 - 1 | counter1 << 64  # numpy steps its counter before it draws
    generator = np.random.Philox(counter=before, key=key0 | key1 << 64)
    assert kernel_philox(counter0, counter1, key0, key1) == tuple(generator.random_raw(4).tolist())


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 11])
def test_fill_words_numbers_words_by_draw_and_lane_and_stops_at_the_end(size):
    out = np.full(size + 3, 7, np.uint64)
    fill_words(out[:size], 5, np.uint64(3), np.uint64(4))
    twin = [word for draw in range(3) for word in slow_philox((draw, 5, 0, 0), (3, 4))][:size]
    assert out.tolist() == [*twin, 7, 7, 7]


@given(words64, st.integers(1, 2**63 - 1))
def test_below_is_the_integer_part_of_the_share(word, bound):
    value = call_below(np.array([word], np.uint64), bound)[0]
    assert value == word * bound // WORD
    assert 0 <= value < bound


@given(words64)
def test_unit_keeps_53_bits(word):
    value = call_unit(np.array([word], np.uint64))[0]
    assert value == (word >> 11) / 2**53
    assert 0 <= value < 1


@given(st.integers(1, 12), st.data())
def test_shuffle_is_the_partial_fisher_yates_of_its_words(size, data):
    count = data.draw(st.integers(0, size))
    words = np.array(data.draw(st.lists(words64, min_size=count, max_size=count)), np.uint64)
    items, twin = np.arange(10, 10 + size), list(range(10, 10 + size))
    shuffle(items, count, words)
    for i, word in enumerate(words.tolist()):
        j = i + word * (size - i) // WORD
        twin[i], twin[j] = twin[j], twin[i]
    assert items.tolist() == twin


# --- laws -----------------------------------------------------------------------------------------------------------------------


def stream(key, n):
    """n words of one row."""
    words = np.empty(n, np.uint64)
    fill_words(words, 0, *key.words())
    return words


def test_every_bit_of_the_words_is_fair():
    words = stream(Key(1), 40_000)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    accept("philox bits", [z_test(bits[:, b].astype(float), 0.5) for b in range(64)])
    reject("philox bits", z_test((words % np.uint64(256) < 132).astype(float), 0.5))


@pytest.mark.parametrize("bound", [2, 3, 5, 6, 7, 100])
def test_below_is_uniform(bound):
    words = stream(Key(2).fold(bound), 60_000)
    law = np.full(bound, 1 / bound)
    accept("below", chi_square(np.bincount(call_below(words, bound), minlength=bound), law))
    bytes_first = (
        (words % np.uint64(256)).astype(int) * bound // 256
    )  # a word of eight bits is not enough for a bound of 3
    if bound in (3, 5, 6, 7, 100):
        biased = np.bincount(
            np.minimum(bytes_first, (words % np.uint64(251)).astype(int) * bound // 251), minlength=bound
        )
        reject("below", chi_square(biased, law))


def test_unit_is_uniform():
    values = call_unit(stream(Key(3), 60_000))
    cells = np.full(64, 1 / 64)
    accept("unit", chi_square(np.histogram(values, 64, (0, 1))[0], cells))
    reject("unit", chi_square(np.histogram(values**1.05, 64, (0, 1))[0], cells))


def permutation_counts(shuffled):
    kinds = {kind: cell for cell, kind in enumerate(itertools.permutations(range(4)))}
    counts = np.zeros(24, int)
    for items in shuffled:
        counts[kinds[tuple(items)]] += 1
    return counts


def test_shuffle_gives_every_order_equally_often():
    words = stream(Key(4), 4 * 24_000).reshape(-1, 4)
    right, naive = [], []
    for row in words:
        items, swapped = np.arange(4), np.arange(4)
        shuffle(items, 4, row)
        right.append(items.tolist())
        for i in range(4):  # the well-known mistake: swap with any place, not with one that is still to come
            j = int(row[i]) * 4 // WORD
            swapped[i], swapped[j] = swapped[j], swapped[i]
        naive.append(swapped.tolist())
    law = np.full(24, 1 / 24)
    accept("shuffle", chi_square(permutation_counts(right), law))
    reject("shuffle", chi_square(permutation_counts(naive), law))
    pairs = np.bincount([4 * items[0] + items[1] for items in right], minlength=16)
    accept("shuffle", chi_square(pairs, np.where(np.eye(4, dtype=bool), 0, 1 / 12).ravel()))


def exits(key, n=20_000):
    """Numbers of one address by its exits, and of neighbouring addresses and rows."""
    words, torch_like = stream(key, n), np.random.default_rng(key.torch_seed()).random(n)
    other = np.empty(n, np.uint64)
    fill_words(other, 1, *key.words())
    return [
        call_unit(words),
        key.generator().random(n),
        torch_like,
        call_unit(other),
        call_unit(stream(key.fold(0), n)),
        call_unit(stream(Key(key.seed + 1), n)),
    ]


def correlation(first, second):
    return z_test((first - 0.5) * (second - 0.5), 0.0)


def test_exits_rows_and_neighbouring_addresses_are_independent():
    numbers = exits(Key(5))
    accept("key exits", [correlation(numbers[0], other) for other in numbers[1:]])
    accept("key exits", correlation(numbers[1], numbers[2]))
    reject("key exits", correlation(numbers[0], 0.9 * numbers[1] + 0.1 * numbers[0]))
