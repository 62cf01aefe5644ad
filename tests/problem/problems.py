"""Random small problems for hypothesis, and the joint law by counting through every sequence.

Loops over the raw arrays.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from lo_theory.problem import LODistribution, SlabObservations, TableObservations


def laws(r):
    """Probability laws over r values, zeros and certainties among them."""
    weights = st.lists(st.sampled_from([0, 0, 1, 1, 2, 5, 97]), min_size=r, max_size=r).filter(any)
    return weights.map(lambda w: np.array(w, float) / sum(w))


@st.composite
def table_problems(draw, largest=5_000, q=None, r=None, largest_k=4):
    """A problem with tables, priors and order of every kind, with at most ``largest`` sequences in its joint table."""
    q, r = q or draw(st.integers(2, 3)), r or draw(st.integers(2, 3))
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, largest_k))
    most = max(1, int(math.log(largest / q**n, r)))
    p, kinds = draw(st.integers(1, min(6, most))), draw(st.integers(1, 3))
    scopes = draw(st.lists(st.lists(st.integers(0, n - 1), min_size=k, max_size=k), min_size=p, max_size=p))
    tables = [[draw(laws(r)) for _ in range(q**k)] for _ in range(kinds)]
    index = draw(st.lists(st.integers(0, kinds - 1), min_size=p, max_size=p))
    prior = [draw(laws(q)) for _ in range(n)]
    order = draw(st.none() | st.permutations(range(n + p)))
    return LODistribution(
        np.array(prior), TableObservations(np.array(scopes), np.array(tables), np.array(index)), order
    )


@st.composite
def slab_problems(draw):
    """A random slab with a prior and an order."""
    n, p = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    seed, width = draw(st.integers(0, 1000)), draw(st.sampled_from([0.3, 0.7, 1.5]))
    vectors = np.random.default_rng(seed).standard_normal((p, n))
    order = draw(st.none() | st.permutations(range(n + p)))
    return LODistribution(np.array([draw(laws(2)) for _ in range(n)]), SlabObservations(vectors, width), order)


problems = st.one_of(table_problems(), slab_problems())


def chance(problem, j, value, latents):
    """P(observation j = value | latents), read off the raw arrays."""
    law = problem.observations
    if isinstance(law, SlabObservations):
        total = sum(float(law.vectors[j, i]) * (2 * x - 1) for i, x in enumerate(latents))
        return float(value == int(abs(total) <= law.width * math.sqrt(len(latents))))
    state = 0
    for i in law.scopes[j]:
        state = state * law.q + latents[i]
    return float(law.tables[law.index[j], state, value])


def joint(problem):
    """Every sequence (a tuple over positions) with its probability, impossible ones included."""
    layout = problem.layout
    result = {}
    for latents in itertools.product(range(layout.q), repeat=layout.n_latents):
        prior = math.prod(float(problem.prior[i, x]) for i, x in enumerate(latents))
        for observed in itertools.product(range(layout.r), repeat=layout.n_observations):
            sequence = [None] * layout.length
            for role, value in enumerate((*latents, *observed)):
                sequence[problem.order[role]] = value
            result[tuple(sequence)] = prior * math.prod(chance(problem, j, o, latents) for j, o in enumerate(observed))
    return result
