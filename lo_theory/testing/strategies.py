"""Hypothesis strategies: small problems of every kind, and the predicates, laws, orders and contexts they are made of.

Needs hypothesis, which the extra ``testing`` brings. Everything shrinks: latents,
observations, values and masks are drawn one by one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from lo_theory.problem import MASK, Layout, LODistribution, Predicate, SlabObservations, TableObservations, from_array

__all__ = [
    "contexts",
    "laws",
    "layouts",
    "orders",
    "predicates",
    "priors",
    "problems",
    "sequences",
    "slab_problems",
    "table_problems",
    "truth_tables",
]


def laws(values: int) -> SearchStrategy[NDArray[np.float64]]:
    """Probability laws float64[values], zeros, certainties and odds of 1 to 97 among them."""
    weights = st.lists(st.sampled_from([0, 0, 1, 1, 2, 5, 97]), min_size=values, max_size=values).filter(any)
    return weights.map(lambda drawn: np.array(drawn, float) / sum(drawn))


def priors(latents: int, q: int) -> SearchStrategy[NDArray[np.float64]]:
    """Priors float64[latents, q], each row one of ``laws``."""
    return st.lists(laws(q), min_size=latents, max_size=latents).map(np.array)


def orders(length: int) -> SearchStrategy[Any]:
    """The paper's permutation pi of ``length`` positions, or None: the identity."""
    return st.none() | st.permutations(range(length))


def truth_tables(q: int | None = None, *, largest_k: int = 4) -> SearchStrategy[NDArray[np.int8]]:
    """Truth tables of 0 and 1, int8[q, ..., q] with 1 to ``largest_k`` axes; q is 2 or 3 when left out."""
    sizes = st.integers(2, 3) if q is None else st.just(q)
    shapes = st.tuples(sizes, st.integers(1, largest_k)).map(lambda qk: (qk[0],) * qk[1])
    return shapes.flatmap(lambda shape: arrays(np.int8, shape, elements=st.integers(0, 1)))


def predicates(q: int | None = None, *, largest_k: int = 4) -> SearchStrategy[Predicate]:
    """Predicates with any truth table: constant, asymmetric and blind to an argument among them."""
    return truth_tables(q, largest_k=largest_k).map(from_array)


@st.composite
def layouts(
    draw: st.DrawFn, largest_latents: int = 6, largest_observations: int = 8, largest_values: int = 5
) -> Layout:
    """Layouts of any order, with different alphabets of latents and observations."""
    n, p = draw(st.integers(1, largest_latents)), draw(st.integers(1, largest_observations))
    order = draw(orders(n + p))
    values = st.integers(2, largest_values)
    return Layout(n, p, draw(values), draw(values), order)


@st.composite
def table_problems(
    draw: st.DrawFn, largest: int = 5_000, q: int | None = None, r: int | None = None, largest_k: int = 4
) -> LODistribution:
    """Problems with tables, priors and order of every kind, with at most ``largest`` sequences in the joint table.

    Up to 4 latents, 6 observations and 3 tables; scopes may read a latent twice.
    """
    q, r = q or draw(st.integers(2, 3)), r or draw(st.integers(2, 3))
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, largest_k))
    most = max(1, int(math.log(largest / q**n, r)))
    p, kinds = draw(st.integers(1, min(6, most))), draw(st.integers(1, 3))
    scopes = draw(st.lists(st.lists(st.integers(0, n - 1), min_size=k, max_size=k), min_size=p, max_size=p))
    tables = [[draw(laws(r)) for _ in range(q**k)] for _ in range(kinds)]
    index = draw(st.lists(st.integers(0, kinds - 1), min_size=p, max_size=p))
    prior, order = draw(priors(n, q)), draw(orders(n + p))
    observations = TableObservations(np.array(scopes), np.array(tables), np.array(index))
    return LODistribution(prior, observations, order)


@st.composite
def slab_problems(draw: st.DrawFn) -> LODistribution:
    """Random slabs with a prior and an order: up to 4 latents and 5 observations."""
    n, p = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    seed, width = draw(st.integers(0, 1000)), draw(st.sampled_from([0.3, 0.7, 1.5]))
    vectors = np.random.default_rng(seed).standard_normal((p, n))
    order = draw(orders(n + p))
    return LODistribution(draw(priors(n, 2)), SlabObservations(vectors, width), order)


def problems() -> SearchStrategy[LODistribution]:
    """Small problems of both kinds, tables first."""
    return st.one_of(table_problems(), slab_problems())


@st.composite
def sequences(draw: st.DrawFn, problem: LODistribution) -> NDArray[np.int8]:
    """One complete sequence int8[L] of positive probability."""
    latents = [draw(st.sampled_from(np.flatnonzero(law).tolist())) for law in problem.prior]
    chances = problem.observations.probabilities([latents])[0]
    observed = [draw(st.sampled_from(np.flatnonzero(law).tolist())) for law in chances]
    return problem.layout.join(latents, observed)


@st.composite
def contexts(draw: st.DrawFn, problem: LODistribution, rows: int = 1, possible: bool | None = None) -> NDArray[np.int8]:
    """Contexts int8[rows, L], MASK where hidden, any subset: all and nothing hidden among them.

    ``possible``: True for sequences of positive probability, False for any tokens (often impossible), None for both.
    """
    drawn = []
    for _ in range(rows):
        known = draw(st.booleans()) if possible is None else possible
        anything = st.tuples(*(st.integers(0, int(values) - 1) for values in problem.layout.values)).map(np.array)
        tokens = draw(sequences(problem) if known else anything)
        hidden = draw(arrays(np.bool_, problem.layout.length))
        drawn.append(np.where(hidden, MASK, tokens))
    return np.array(drawn, np.int8)
