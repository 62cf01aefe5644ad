"""Numba kernels of masks, policies and decoding: arrays and scalars in, arrays out.

Row ``i`` of an array is row ``start + i`` of the stream named by two key words, so any split of the rows over calls and
threads gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from lo_theory.jit import jit
from lo_theory.posterior._answer_kernels import fault_of_law
from lo_theory.rng import below, fill_words, philox, shuffle, unit

TIE = 2.0**40
"""Scores and probabilities that agree to within 1/TIE (1e-12) are ties.

Rounding in a posterior must not decide an order.
"""


_PRIME = 2147483629  # below 2**31


@jit()
def draw_below(out, start, key0, key1, bound):
    """Fill int64 ``out`` [n] with uniform integers in [0, bound)."""
    for i in range(out.shape[0]):
        out[i] = below(philox(uint64(0), uint64(start + i), key0, key1)[0], bound)


@jit()
def draw_units(out, start, key0, key1):
    """Fill float64 ``out`` [n] with uniform numbers in [0, 1)."""
    for i in range(out.shape[0]):
        out[i] = unit(philox(uint64(0), uint64(start + i), key0, key1)[0])


@jit()
def draw_rows_of_units(out, start, key0, key1):
    """Fill float64 ``out`` [n, m] with uniform numbers in [0, 1), one word each."""
    words = np.empty(out.shape[1], np.uint64)
    for i in range(out.shape[0]):
        fill_words(words, start + i, key0, key1)
        for j in range(out.shape[1]):
            out[i, j] = unit(words[j])


@jit()
def hide_subsets(masked, start, key0, key1, positions, counts):
    """Hide ``counts[i]`` uniformly chosen ``positions`` in row i of bool ``masked`` [n, L]."""
    words = np.empty(positions.shape[0], np.uint64)
    items = np.empty(positions.shape[0], np.int64)
    for i in range(masked.shape[0]):
        fill_words(words[: counts[i]], start + i, key0, key1)
        for item in range(len(items)):
            items[item] = positions[item]
        shuffle(items, counts[i], words)
        for item in items[: counts[i]]:
            masked[i, item] = True


@jit()
def hide_at_rates(masked, start, key0, key1, row_rate, position_rate):
    """Hide each position independently with probability ``row_rate[i] * position_rate[position]``."""
    words = np.empty(masked.shape[1], np.uint64)
    for i in range(masked.shape[0]):
        fill_words(words, start + i, key0, key1)
        for position in range(masked.shape[1]):
            masked[i, position] = unit(words[position]) < row_rate[i] * position_rate[position]


@jit()
def draw_binomial(out, start, key0, key1, trials, rate):
    """Fill int64 ``out`` [n] with Binomial(trials[i], rate) counts, one word a trial."""
    for i in range(out.shape[0]):
        words = np.empty(trials[i], np.uint64)
        fill_words(words, start + i, key0, key1)
        out[i] = 0
        for word in words:
            out[i] += unit(word) < rate


@jit()
def confidence(out, probs, masked, values, kind):
    """Fill float64 ``out`` [B, L] at hidden positions.

    Largest probability (kind 0), its margin (1), minus the entropy (2). Return (row, position, what) of the first law
    that is none, what = 0 if all are.
    """
    for i in range(probs.shape[0]):
        for position in range(probs.shape[1]):
            if not masked[i, position]:
                continue
            what = fault_of_law(probs, i, position, values[position])
            if what:
                return i, position, what
            first, second, entropy = 0.0, 0.0, 0.0
            for value in range(values[position]):
                p = np.float64(probs[i, position, value])
                if p > first:
                    first, second = p, first
                elif p > second:
                    second = p
                if kind == 2 and p > 0:
                    entropy -= p * np.log(p)
            out[i, position] = first if kind == 0 else (first - second if kind == 1 else -entropy)
    return 0, 0, 0


@jit()
def count_stable(stable, before, probs, masked, active, values, kappa):
    """Count in int64 ``stable`` [B, L] the steps in a row whose law moved by KL(now || before) < ``kappa``.

    At hidden positions of ``active`` rows; -1 where there was no law before. ``before`` float64 [B, L, V] becomes
    ``probs``.
    """
    for i in range(probs.shape[0]):
        if not active[i]:
            continue
        for position in range(probs.shape[1]):
            if not masked[i, position]:
                continue
            moved = 0.0
            for value in range(values[position]):
                p, q = np.float64(probs[i, position, value]), before[i, position, value]
                if p > 0.0:
                    moved += p * np.log(p / q) if q > 0.0 else np.inf
                before[i, position, value] = p
            still = stable[i, position] >= 0 and max(moved, 0.0) < kappa
            stable[i, position] = stable[i, position] + 1 if still else 0


@jit()
def first_equal(first, tokens):
    """Fill int64 ``first`` [n] with the number of the first row of int8 ``tokens`` [n, L] that is equal to each row.

    A hash table with open addressing; rows that it finds are compared. Cost: n L, where rows of one hash are equal.
    """
    slots = 2
    while slots < 2 * tokens.shape[0]:
        slots *= 2
    table = np.full(slots, -1, np.int64)
    for i in range(tokens.shape[0]):
        mixed, block = np.int64(1), np.int64(0)
        for position in range(tokens.shape[1]):
            block = 131 * block + np.int64(tokens[i, position]) + 2
            if position % 8 == 7:  # 131**8 < 2**63: a remainder for each eight tokens is enough
                mixed, block = (131071 * mixed + block) % _PRIME, np.int64(0)
        slot = (131071 * mixed + block) % _PRIME % slots
        while True:
            j = table[slot]
            if j < 0:
                table[slot], first[i] = i, i
                break
            equal = True
            for position in range(tokens.shape[1]):
                if tokens[i, position] != tokens[j, position]:
                    equal = False
                    break
            if equal:
                first[i] = j
                break
            slot = (slot + 1) % slots


@jit()
def fill_noise(out, start, key0, key1, gaussian):
    """Fill float64 ``out`` [B, L] with standard Gaussian noise (Box and Muller, two words each), or standard Gumbel."""
    words = np.empty(2 * out.shape[1], np.uint64)
    for i in range(out.shape[0]):
        fill_words(words, start + i, key0, key1)
        for position in range(out.shape[1]):
            # Kept away from 0, where the logarithm has no value.
            exponential = -np.log(max(unit(words[2 * position]), 1 / TIE**2))
            if gaussian:
                angle = 2 * np.pi * unit(words[2 * position + 1])
                out[i, position] = np.sqrt(2 * exponential) * np.cos(angle)
            else:
                out[i, position] = -np.log(exponential)


@jit()
def remask(next_masked, hide, show, start, key0, key1):
    """One step of a chain in bool ``next_masked`` [B, L], in place, one word a position.

    What is revealed is hidden with probability ``hide`` float64[B, L], what is hidden is revealed with ``show``
    float64[B].
    """
    words = np.empty(next_masked.shape[1], np.uint64)
    for i in range(next_masked.shape[0]):
        fill_words(words, start + i, key0, key1)
        for position in range(next_masked.shape[1]):
            drawn = unit(words[position])
            next_masked[i, position] = drawn >= show[i] if next_masked[i, position] else drawn < hide[i, position]


@jit()
def size_factors(factors):
    """Fill float64 ``factors`` [steps + 1, L + 1] with g(k, n): see ``RandomSizes``. Row 0 is not used."""
    for n in range(factors.shape[1]):
        factors[1, n] = 1.0 if n > 1 else 0.0
        for k in range(2, factors.shape[0]):
            total, spent = 0.0, 0.0
            for size in range(1, n):
                after = factors[k - 1, n - size]
                chance = (1.0 - spent) / (1.0 + (n - size - 1) * after)
                total += chance
                spent += chance * (1.0 - after)
            factors[k, n] = 1.0 - 1.0 / total if total > 1.0 else 0.0


@jit()
def draw_sizes(out, hidden, factors, start, key0, key1):
    """Fill int64 ``out`` [n] with how many of ``hidden`` tokens a step reveals; ``factors`` g(k - 1, 0..L).

    Each row needs a second pass over its sizes, as their chances are known up to their sum.
    """
    for i in range(out.shape[0]):
        n = hidden[i]
        level, out[i] = 0.0, min(n, 1)
        for draw in range(2):
            total, spent = 0.0, 0.0
            for size in range(1, n):
                chance = (1.0 - spent) / (1.0 + (n - size - 1) * factors[n - size])
                total += chance
                spent += chance * (1.0 - factors[n - size])
                if draw and chance > 0.0 and total - chance <= level:
                    out[i] = size
            level = unit(philox(uint64(0), uint64(start + i), key0, key1)[0]) * total


@jit()
def reveal_highest(next_masked, scores, budget, start, key0, key1):
    """Clear ``budget[i]`` entries of bool ``next_masked`` [B, L], those of highest score; ties at random.

    Scores are compared in steps of 1/TIE; among equals the larger random word wins, one word a position. Cost per row:
    budget x hidden positions.
    """
    length = scores.shape[1]
    words = np.empty(length, np.uint64)
    hidden = np.empty(length, np.int64)
    level = np.empty(length)
    for i in range(scores.shape[0]):
        if budget[i] <= 0:
            continue
        fill_words(words, start + i, key0, key1)
        count = 0
        for position in range(length):
            if next_masked[i, position]:
                hidden[count] = position
                level[position] = np.floor(scores[i, position] * TIE + 0.5)
                count += 1
        for _ in range(min(budget[i], count)):
            best = 0
            for candidate in range(1, count):
                here, there = hidden[candidate], hidden[best]
                if level[here] > level[there] or (level[here] == level[there] and words[here] > words[there]):
                    best = candidate
            next_masked[i, hidden[best]] = False
            count -= 1
            hidden[best] = hidden[count]


@jit()
def reveal(tokens, steps, masked, next_masked, probs, values, step, temperature, argmax, start, key0, key1):
    """Go from ``masked`` to ``next_masked`` in place.

    Draw a token where a position is revealed, put MASK (-1) where it is hidden.

    Draws are from probs ** (1 / temperature) over the values of the position's role, in float64, one word a position;
    with ``argmax`` the most likely value, uniformly among ties.
    """
    length = tokens.shape[1]
    words = np.empty(length, np.uint64)
    weights = np.empty(probs.shape[2])
    for i in range(tokens.shape[0]):
        fill_words(words, start + i, key0, key1)
        for position in range(length):
            if next_masked[i, position]:
                tokens[i, position] = -1
                continue
            if not masked[i, position]:
                continue
            size, total, largest = values[position], 0.0, 0.0
            for value in range(size):
                largest = max(largest, np.float64(probs[i, position, value]))
            for value in range(size):
                relative = probs[i, position, value] / largest if largest > 0 else 1.0
                if argmax:
                    weights[value] = 1.0 if relative >= 1.0 - 1.0 / TIE else 0.0
                else:
                    weights[value] = relative ** (1.0 / temperature) if temperature != 1.0 else relative
                total += weights[value]
            level, chosen = unit(words[position]) * total, -1
            for value in range(size):
                if weights[value] > 0 and (chosen < 0 or level >= 0):
                    chosen = value
                level -= weights[value]
            tokens[i, position] = chosen
            steps[i, position] = step
