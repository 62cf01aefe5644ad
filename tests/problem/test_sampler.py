"""Samplers: bit for bit their slow twins, and the same rows for any split over calls, threads and starts."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.problem import (
    LODistribution,
    TableObservations,
    all_k_subsets,
    colouring,
    nae_sat,
    random_slab,
    sat,
    sparse_parity,
    xor,
)
from lo_theory.problem import _kernels as kernels
from lo_theory.problem.sampler import thresholds
from lo_theory.rng import Key
from lo_theory.testing.strategies import laws, slab_problems, table_problems
from tests.problem.twins import bit_row, table_row, twin_row

KEY = Key(11).fold("samplers")
EDGES = [0, 1, 63, 64, 65, 511, 512, 2047, 2048, 2049, 4095, 4096, 6143]


def skewed(problem, seed=0):
    """The same problem with uneven priors, some of them certain, and a random order."""
    generator = np.random.default_rng(seed)
    prior = generator.dirichlet(np.ones(problem.layout.q), problem.layout.n_latents)
    prior[0] = np.eye(problem.layout.q)[1]
    return LODistribution(prior, problem.observations, generator.permutation(problem.layout.length))


def mixed_tables(k, seed=0):
    """Binary problem with tables of every kind: sure, noisy, fair, dyadic, nearly sure."""
    generator = np.random.default_rng(seed)
    p_zero = generator.choice([0, 1, 0.5, 0.25, 0.1, 1e-9, 1 - 1e-12, 0.7], (3, 2**k))
    p_zero[0] = generator.integers(0, 2, 2**k)
    tables = np.stack([p_zero, 1 - p_zero], axis=-1)
    scopes = generator.integers(0, 5, (6, k))
    return LODistribution(np.full((5, 2), 0.5), TableObservations(scopes, tables, generator.integers(0, 3, 6)))


PROBLEMS = {
    "nae": nae_sat(5, 7, seed=0),
    "nae in another order": skewed(nae_sat(5, 7, seed=0)),
    "nae of 4": nae_sat(6, 5, seed=0, k=4),
    "nae of 6, repeats": nae_sat(4, 5, seed=1, k=6, repeats=True),
    "xor of 1": sparse_parity(3, 4, 1, 0.0, seed=0),
    "xor of 2": all_k_subsets(xor(2), 4),
    "noisy parity": sparse_parity(6, 5, 4, 0.1, seed=0),
    "noise one half": sparse_parity(6, 5, 3, 0.5, seed=0),
    "sat, noisy and skewed": skewed(all_k_subsets(sat(2), 4, noise=0.3)),
    "xor of 9": sparse_parity(10, 3, 9, 0.2, seed=0),
    "colouring": all_k_subsets(colouring(3), 4),
    "nae of 3 values, skewed": skewed(nae_sat(4, 6, seed=0, q=3, noise=0.05)),
    "slab": random_slab(5, 8, 0.6, seed=0),
    "slab, skewed": skewed(random_slab(5, 8, 0.6, seed=0)),
    **{f"tables of {k}": mixed_tables(k) for k in range(1, 7)},
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_rows_are_those_of_the_slow_twin(name):
    problem = PROBLEMS[name]
    rows = problem.sample(KEY, 6200)
    for row in (0, 65, 2047, 2048, 6199):
        assert rows[row].tolist() == twin_row(problem, KEY, row).tolist()


@settings(max_examples=40)
@given(st.one_of(table_problems(), table_problems(q=2, r=2, largest_k=6), slab_problems()), st.integers(0, 10_000))
def test_any_row_of_any_problem_is_that_of_its_slow_twin(problem, row):
    assert problem.sample(KEY, 1, start=row)[0].tolist() == twin_row(problem, KEY, row).tolist()


def test_the_twins_are_told_apart():
    """The two kernels draw different rows from one key, so a comparison with the wrong twin would show."""
    problem = PROBLEMS["noisy parity"]
    rows = range(8)
    assert [bit_row(problem, KEY, row).tolist() for row in rows] != [
        table_row(problem, KEY, row).tolist() for row in rows
    ]


@pytest.mark.parametrize("name", PROBLEMS)
def test_any_start_and_number_gives_the_rows_of_the_stream(name):
    problem = PROBLEMS[name]
    whole = problem.sample(KEY, 6200)
    for start in EDGES:
        for n in (0, 1, 2, 7, 8, 9, 63, 64, 65, 100, 2048, 2050):
            if start + n <= len(whole):
                assert (problem.sample(KEY, n, start=start) == whole[start : start + n]).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_any_number_of_threads_gives_the_same_rows(name):
    problem = PROBLEMS[name]
    for n in (1, 2, 100, 5000):
        alone = problem.sample(KEY, n, start=77)
        for threads in (2, 3, 16):
            assert (problem.sample(KEY, n, start=77, threads=threads) == alone).all()


@given(st.sampled_from(sorted(PROBLEMS)), st.lists(st.integers(0, 6200), max_size=6))
def test_any_split_into_batches_gives_the_same_rows(name, cuts):
    problem, edges = PROBLEMS[name], [0, *sorted(cuts), 6200]
    parts = [problem.sample(KEY, b - a, start=a) for a, b in itertools.pairwise(edges)]
    assert (np.concatenate(parts) == problem.sample(KEY, 6200)).all()


def test_a_far_start_is_as_good_as_a_near_one():
    for problem in (PROBLEMS["nae"], PROBLEMS["colouring"], PROBLEMS["slab"]):
        start = 2**40 + 5
        rows = problem.sample(KEY, 70, start=start)
        assert rows[3].tolist() == twin_row(problem, KEY, start + 3).tolist()


@pytest.mark.parametrize("name", ["nae", "noisy parity", "nae of 3 values, skewed", "slab"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 64, 129, 2049])
def test_nothing_is_written_outside_of_out(name, threads, n):
    problem = PROBLEMS[name]
    length = problem.layout.length
    for offset in (0, 1, 37):
        memory = np.full(offset + n * length + 200, 99, np.int8)
        out = memory[offset : offset + n * length].reshape(n, length)
        assert problem.sample(KEY, n, start=2040, out=out, threads=threads) is out
        assert (memory[:offset] == 99).all()
        assert (memory[offset + n * length :] == 99).all()
        assert (out == problem.sample(KEY, n, start=2040)).all()


@pytest.mark.parametrize("length", [2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 512])
def test_every_length_of_sequence_is_written_whole(length):
    problem = nae_sat(1, length - 1, seed=0, k=1, repeats=True) if length < 4 else nae_sat(3, length - 3, seed=0)
    rows = problem.sample(KEY, 130, start=2000)
    assert np.isfinite(problem.log_prob(rows)).all()
    assert (rows == problem.sample(KEY, 130, start=2000, threads=7)).all()


def test_orders_only_move_tokens():
    problem = PROBLEMS["nae"]
    order = np.random.default_rng(1).permutation(12)
    moved = LODistribution(problem.prior, problem.observations, order)
    assert (moved.sample(KEY, 3000)[:, order] == problem.sample(KEY, 3000)).all()


def test_streams_of_different_keys_differ():
    problem = PROBLEMS["nae"]
    shared = (problem.sample(KEY, 2000) == problem.sample(KEY.fold(0), 2000)).mean()
    assert shared < 0.7


@settings(max_examples=60)
@given(st.one_of(table_problems(), slab_problems()))
def test_impossible_sequences_are_never_drawn(problem):
    rows = problem.sample(KEY, 3000)
    assert np.isfinite(problem.log_prob(rows)).all()


@pytest.mark.parametrize("q", [2, 3, 4])
def test_values_of_probability_zero_are_never_drawn(q):
    """Zeros at the front, in the middle and at the end, in priors and tables, for the bit and the table kernel."""
    prior = np.array(
        [np.eye(q)[i % q] for i in range(q)] + [[0.0] + [1 / (q - 1)] * (q - 1), [1 / (q - 1)] * (q - 1) + [0.0]]
    )
    tables = np.array([[[0.0, 1.0], [1.0, 0.0]] * q])[:, :q]
    problem = LODistribution(prior, TableObservations([[i] for i in range(q + 2)], tables))
    rows = problem.sample(KEY, 50_000)
    for i, law in enumerate(prior):
        assert set(np.unique(rows[:, i])) == set(np.flatnonzero(law))
        assert (rows[:, q + 2 + i] == 1 - rows[:, i] % 2).all()


def test_the_bit_kernel_is_chosen_for_bits_and_the_table_kernel_for_the_rest():
    kinds = {name: problem._sampler.kernel for name, problem in PROBLEMS.items()}
    assert kinds["nae"] is kinds["noisy parity"] is kinds["sat, noisy and skewed"] is kernels.sample_bits
    assert kinds["xor of 9"] is kinds["colouring"] is kernels.sample_tables
    assert kinds["slab"] is kernels.sample_slabs


@given(st.integers(2, 5).flatmap(lambda r: st.lists(laws(r), min_size=1, max_size=3)))
def test_thresholds_are_the_cumulative_probabilities(rows):
    """To the 53 bits of a float, against fractions; ending in 2**63 from the last possible value on."""
    for law, found in zip(rows, thresholds(np.array(rows)).tolist(), strict=True):
        weights = [Fraction(float(p)) for p in law]
        last = max(value for value, p in enumerate(weights) if p)
        assert found[last:] == [2**63] * (len(law) - last)
        for value, threshold in enumerate(found):
            assert abs(threshold - sum(weights[: value + 1]) / sum(weights) * 2**63) <= 2**10
            assert threshold >= ([0, *found])[value]


@pytest.mark.parametrize(
    ("law", "levels"),
    [
        ([0.5, 0.5], [2**62, 2**63]),
        ([1.0, 0.0], [2**63, 2**63]),
        ([0.0, 1.0], [0, 2**63]),
        ([0.0, 0.25, 0.75, 0.0], [0, 2**61, 2**63, 2**63]),
        ([2.0**-60, 1 - 2.0**-60], [8, 2**63]),
    ],
)
def test_thresholds_at_the_edges(law, levels):
    assert thresholds(np.array([law]))[0].tolist() == levels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "got n=-1"),
        ({"n": 2, "start": -1}, "start=-1"),
        ({"n": 2, "threads": 0}, "threads .* got 0"),
        ({"n": 2, "threads": 10**9}, "1 to 1024, got 1000000000"),
        ({"n": 2, "start": 2**64}, "2\\*\\*63"),
        ({"n": 2, "start": 2**63 - 1}, "2\\*\\*63"),
        ({"n": 2, "key": 0}, r"such as Key\(0\); got 0"),
        ({"n": 2, "out": np.zeros((3, 12), np.int8)}, r"shape \(2, 12\), got int8 \(3, 12\)"),
        ({"n": 2, "out": np.zeros((2, 12), np.int16)}, "got int16"),
        ({"n": 2, "out": np.zeros((2, 24), np.int8)[:, ::2]}, "C-contiguous"),
        ({"n": 2, "out": np.zeros((12, 2), np.int8).T}, "C-contiguous"),
        ({"n": 2, "out": np.frombuffer(b"\0" * 24, np.int8).reshape(2, 12)}, "writeable"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PROBLEMS["nae"].sample(**{"key": KEY, **arguments})


def test_kernels_for_one_kind_of_problem_compile_once():
    """Read-only and writable arrays are different types to numba; frozen arrays everywhere keep it at one (two.

    Odd outs).
    """
    for problem in PROBLEMS.values():
        problem.sample(KEY, 3)
    assert len(kernels.sample_bits.signatures) == 1
    assert len(kernels.sample_tables.signatures) == 1
    assert len(kernels.sample_slabs.signatures) == 1
