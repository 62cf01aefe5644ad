"""The paper's families by name: sizes, scopes and tables, and that a seed names one problem for good."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from lo_theory.problem import (
    all_k_subsets,
    colouring,
    nae,
    nae_sat,
    predicate_observations,
    random_scopes,
    random_slab,
    sparse_parity,
    xor,
)
from lo_theory.rng import Key
from lo_theory.testing import chi_square, z_test
from tests.budget import accept, reject


@pytest.mark.parametrize(
    ("predicate", "n"), [(nae(), 3), (nae(), 6), (xor(2), 4), (colouring(3), 5), (nae(3, 3), 5), (xor(1), 3)]
)
def test_all_k_subsets_are_every_ordered_subset_once(predicate, n):
    problem = all_k_subsets(predicate, n)
    law = problem.observations
    assert law.n_observations == math.perm(n, predicate.k)
    assert [tuple(scope) for scope in law.scopes.tolist()] == sorted(itertools.permutations(range(n), predicate.k))
    assert (law.tables[0, :, 1] == predicate.table.ravel()).all()
    assert (problem.prior == 1 / predicate.q).all()


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_random_scopes_are_distinct_unless_repeats_are_asked_for(k):
    distinct = np.sort(random_scopes(6, 500, k, seed=3), axis=1)
    assert (np.diff(distinct, axis=1) > 0).all()
    assert distinct.min() == 0
    assert distinct.max() == 5
    if k > 1:
        assert (np.diff(np.sort(random_scopes(6, 500, k, seed=3, repeats=True), axis=1), axis=1) == 0).any()


def test_random_scopes_are_uniform():
    scopes = random_scopes(5, 30_000, 2, seed=1)
    pairs = np.bincount(5 * scopes[:, 0] + scopes[:, 1], minlength=25)
    law = np.where(np.eye(5, dtype=bool), 0, 1 / 20).ravel()
    accept("random scopes", chi_square(pairs, law))
    repeated = random_scopes(5, 30_000, 2, seed=1, repeats=True)
    free = np.bincount(5 * repeated[:, 0] + repeated[:, 1], minlength=25)
    accept("random scopes", chi_square(free, np.full(25, 1 / 25)))
    reject("random scopes", chi_square(free, law))
    ordered = np.sort(scopes, axis=1)
    reject("random scopes", chi_square(np.bincount(5 * ordered[:, 0] + ordered[:, 1], minlength=25), law))
    following = 5 * scopes[:-1, 0] + scopes[1:, 0]
    accept("random scopes", chi_square(np.bincount(following[::2], minlength=25), np.full(25, 1 / 25)))


def test_scopes_of_many_latents_do_not_shuffle_them_all():
    """A million scopes of ten million latents: with N operations a scope this would take hours."""
    scopes = np.sort(random_scopes(10**7, 10**6, 3, seed=0), axis=1)
    assert (np.diff(scopes, axis=1) > 0).all()
    assert 0 <= scopes.min() < 100
    assert 10**7 - 100 < scopes.max() < 10**7


def test_slab_vectors_are_standard_normal():
    vectors = random_slab(50, 400, 0.5, seed=2).observations.vectors.ravel()
    accept("slab vectors", [z_test(vectors, 0.0), z_test(vectors**2, 1.0)])
    reject("slab vectors", z_test((1.05 * vectors) ** 2, 1.0))


def test_scopes_come_from_the_words_of_their_address():
    """Row j of Key(seed).fold("scopes") shuffles the latents of scope j: rebuilt here from numpy's Philox."""
    first, second = (int(word) for word in Key(9).fold("scopes").words())
    repeated = random_scopes(7, 5, 3, seed=9, repeats=True).tolist()
    for j, scope in enumerate(random_scopes(7, 5, 3, seed=9)):
        words = np.random.Philox(counter=(j << 64) - 1 if j else 2**256 - 1, key=first | second << 64).random_raw(3)
        items = list(range(7))
        for i, word in enumerate(words.tolist()):
            other = i + (word * (7 - i) >> 64)
            items[i], items[other] = items[other], items[i]
        assert scope.tolist() == items[:3]
        assert repeated[j] == [word * 7 >> 64 for word in words.tolist()]


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: nae_sat(8, 24, seed=seed),
        lambda seed: nae_sat(8, 24, seed=seed, q=3, repeats=True),
        lambda seed: sparse_parity(9, 20, 4, 0.1, seed=seed),
        lambda seed: random_slab(6, 20, 0.5, seed=seed),
    ],
)
def test_a_seed_names_one_problem(make):
    assert make(4).fingerprint() == make(4).fingerprint()
    assert make(4).fingerprint() != make(5).fingerprint()


def test_families_hold_their_tables():
    noisy = nae_sat(8, 24, seed=0, noise=0.1)
    assert np.allclose(noisy.observations.tables[0, :, 1], np.where(nae().table.ravel(), 0.9, 0.1))
    assert noisy.observations.scopes.tolist() == nae_sat(8, 24, seed=0).observations.scopes.tolist()
    parity = sparse_parity(9, 20, 4, 0.2, seed=1)
    assert np.allclose(parity.observations.tables[0, :, 1], np.where(xor(4).table.ravel(), 0.8, 0.2))
    assert parity.layout.length == 29
    assert nae_sat(5, 7, seed=0, q=4, k=2).layout.q == 4
    slab = random_slab(6, 20, 0.5, seed=0)
    assert slab.observations.vectors.shape == (20, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nae_sat(10**9, 5, seed=0), "N = 1000000000 latents are over the limit of 10000000"),
        (lambda: random_slab(10**5, 10**6, 0.5, seed=0), r"N \* P = 100000000000 numbers .* limit of 268435456: lower"),
        (lambda: nae_sat(2, 5, seed=0), "3 distinct latents cannot be drawn from N = 2: raise N or allow repeats"),
        (lambda: nae_sat(0, 5, seed=0, repeats=True), "N = 0"),
        (lambda: nae_sat(5, 0, seed=0), "P >= 1, got k=3, P=0"),
        (lambda: nae_sat(5, 5, seed=0, noise=1.1), r"\[0, 1\], got 1.1"),
        (lambda: nae_sat(5, 5, seed=0, q=1), "q must be at least 2, got 1"),
        (lambda: nae_sat(5, 5, seed=0, k=0), "k must be at least 1"),
        (lambda: nae_sat(5, 5, seed=0.5), "seed must be a whole number"),
        (lambda: all_k_subsets(nae(), 2), "needs N >= k = 3 latents, got N = 2"),
        (lambda: all_k_subsets(nae(2, 5), 100), "over the limit"),
        (lambda: sparse_parity(3, 5, 4, 0.1, seed=0), "4 distinct latents cannot be drawn from N = 3"),
        (lambda: sparse_parity(5, 5, 3, -0.1, seed=0), r"\[0, 1\], got -0.1"),
        (lambda: random_slab(0, 5, 0.5, seed=0), "N=0"),
        (lambda: random_slab(5, 0, 0.5, seed=0), "P=0"),
        (lambda: random_slab(5, 5, -1, seed=0), "positive, got -1"),
        (lambda: predicate_observations(nae(), np.array([[0, 1]])), "takes 3 arguments, the scopes have 2"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_of_observations_that_would_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="P = 10000000000 observations are over the limit"):
        nae_sat(10, 10**10, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nae_sat(200, 10**7, seed=0, k=120, repeats=True), r"2\*\*120 entries"),
        (lambda: sparse_parity(200, 10**7, 120, 0.1, seed=0), r"2\*\*120 entries"),
        (lambda: nae_sat(200, 10**7, seed=0, k=24), r"P \* k = 240000000 numbers .* limit of 134217728"),
        (lambda: random_scopes(200, 10**7, 120, seed=0, repeats=True), r"P \* k = 1200000000 numbers"),
        (lambda: all_k_subsets(nae(), 10**4), "over the limit"),
    ],
)
def test_too_large_families_are_refused_before_memory_is_taken(make, message):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            make()
        assert tracemalloc.get_traced_memory()[1] < 2**27  # a truth table of 2**24 entries may be made before
    finally:
        tracemalloc.stop()


def test_all_k_subsets_take_little_more_memory_than_their_arrays():
    """A list of tuples would take some twenty times as much."""
    tracemalloc.start()
    try:
        problem = all_k_subsets(nae(), 40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * problem.observations.scopes.nbytes
