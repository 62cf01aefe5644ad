"""Slow, obvious twins of the sampling kernels: one token at a time, plain integers, words from numpy's Philox."""

from __future__ import annotations

import math

import numpy as np

from lo_theory.problem import SlabObservations

BLOCK_ROWS = 2048
BLOCK_CALLS = 8  # Philox calls that fill 2048 bits
LEVELS = 63


def words(key, draw, row):
    """The four words at counter (draw, row) of a key, by numpy's Philox."""
    first, second = (int(word) for word in key.words())
    before = (draw | row << 64) - 1  # numpy steps its counter before it draws
    return np.random.Philox(counter=before % 2**256, key=first | second << 64).random_raw(4).tolist()


def bounds(law):
    """Cumulative probabilities times 2**63 as integers; all of it from the last possible value on."""
    last = max(value for value, p in enumerate(law) if p)
    shares = [1.0 if value >= last else math.fsum(law[: value + 1]) / math.fsum(law) for value in range(len(law))]
    return [round(share * 2**LEVELS) for share in shares]


def place(number, thresholds):
    """The value whose interval of thresholds holds ``number``."""
    return next(value for value, threshold in enumerate(thresholds) if number < threshold)


def state_of(law, j, latents):
    state = 0
    for i in law.scopes[j]:
        state = state * law.q + latents[i]
    return state


def bit_row(problem, key, row):
    """A row of the bit-sliced kernel.

    A token is 1 if the 63-bit number of its role, highest bit first, reaches its bound.
    """
    block, word, bit = row // BLOCK_ROWS, row % BLOCK_ROWS // 64, row % 64

    def number(role):
        drawn = [
            words(key, (role * LEVELS + level) * BLOCK_CALLS + word // 4, block)[word % 4] for level in range(LEVELS)
        ]
        return sum((random >> bit & 1) << LEVELS - 1 - level for level, random in enumerate(drawn))

    law, layout = problem.observations, problem.layout
    latents = [place(number(i), bounds(problem.prior[i])) for i in range(layout.n_latents)]
    observed = [
        place(number(layout.n_latents + j), bounds(law.tables[law.index[j], state_of(law, j, latents)]))
        for j in range(layout.n_observations)
    ]
    return layout.join(latents, observed)


def table_row(problem, key, row):
    """A row of the table kernel: word i draws latent i by its upper 63 bits, word N + j observation j."""
    law, layout = problem.observations, problem.layout
    drawn = [word >> 1 for draw in range(layout.length // 4 + 1) for word in words(key, draw, row)]
    latents = [place(drawn[i], bounds(problem.prior[i])) for i in range(layout.n_latents)]
    observed = [
        place(drawn[layout.n_latents + j], bounds(law.tables[law.index[j], state_of(law, j, latents)]))
        for j in range(layout.n_observations)
    ]
    return layout.join(latents, observed)


def slab_row(problem, key, row):
    """A row of the slab kernel: latents as in the table kernel, observations by the definition."""
    law, layout = problem.observations, problem.layout
    drawn = [word >> 1 for draw in range(layout.n_latents // 4 + 1) for word in words(key, draw, row)]
    latents = [place(drawn[i], bounds(problem.prior[i])) for i in range(layout.n_latents)]
    return layout.join(latents, law.values([latents])[0])


def twin_row(problem, key, row):
    """The row by the twin of the kernel that samples this problem."""
    law = problem.observations
    if isinstance(law, SlabObservations):
        return slab_row(problem, key, row)
    return (bit_row if (law.q, law.r) == (2, 2) and law.k <= 8 else table_row)(problem, key, row)
