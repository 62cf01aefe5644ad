"""Observation laws: tables and slabs against loops, and every array that makes no law refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given

from lo_theory.problem import SlabObservations, TableObservations, flip, nae
from lo_theory.testing import emissions
from lo_theory.testing.strategies import problems, slab_problems, table_problems

EMISSION = nae().emission()[None]


@given(problems())
def test_probabilities_against_loops(problem):
    law, layout = problem.observations, problem.layout
    latents = np.array(list(itertools.product(range(layout.q), repeat=layout.n_latents)))
    found = law.probabilities(latents)
    assert found.shape == (len(latents), layout.n_observations, layout.r)
    assert (found == emissions(problem, latents)).all()


@given(table_problems())
def test_states_count_the_first_argument_slowest(problem):
    law = problem.observations
    latents = np.array([[i % law.q for i in range(problem.layout.n_latents)]])
    for j, scope in enumerate(law.scopes):
        digits = "".join(str(latents[0, i]) for i in scope)
        assert law.states(latents)[0, j] == int(digits, law.q)


@given(slab_problems())
def test_slab_values_are_their_probabilities(problem):
    law = problem.observations
    latents = np.array(list(itertools.product((0, 1), repeat=problem.layout.n_latents)))
    assert (law.values(latents) == law.probabilities(latents)[:, :, 1]).all()
    assert (law.values(latents) == law.values(1 - latents)).all()  # the slab does not see the global flip


def test_a_slab_holds_its_edge():
    law = SlabObservations(np.array([[0.5, 0.5]]), 1 / np.sqrt(2))
    assert law.bound == pytest.approx(1.0)
    assert SlabObservations(np.array([[1.0]]), 1.0).values([[0], [1]]).tolist() == [[1], [1]]
    assert SlabObservations(np.array([[1.0]]), 0.999).values([[0], [1]]).tolist() == [[0], [0]]


def test_a_law_names_its_sizes():
    law = TableObservations([[0, 4, 2], [1, 1, 0]], nae(3, 3).emission()[None])
    assert (law.q, law.k, law.r, law.n_observations, law.least_latents) == (3, 3, 2, 2, 5)
    assert law.index.tolist() == [0, 0]
    slab = SlabObservations(np.ones((4, 3)), 0.5)
    assert (slab.q, slab.r, slab.n_observations, slab.least_latents) == (2, 2, 4, 3)


@pytest.mark.parametrize("r", [2, 3, 5])
@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_flip_keeps_or_spreads(r, rate):
    channel = flip(rate, r)
    assert np.allclose(channel.sum(axis=1), 1)
    assert np.allclose(np.diag(channel), 1 - rate)
    assert np.allclose(channel[0, 1:], rate / (r - 1))


def test_laws_do_not_see_later_changes_and_are_read_only():
    scopes, tables = np.array([[0, 1, 2]]), EMISSION.copy()
    law = TableObservations(scopes, tables)
    scopes[:], tables[:] = 7, 0
    assert law.scopes.tolist() == [[0, 1, 2]]
    assert (law.tables == EMISSION).all()
    for array in (law.scopes, law.tables, law.index, SlabObservations(np.ones((1, 1)), 1.0).vectors):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TableObservations(np.zeros((0, 3), int), EMISSION), "P >= 1"),
        (lambda: TableObservations(np.zeros((3, 0), int), EMISSION), "k >= 1"),
        (lambda: TableObservations([0, 1, 2], EMISSION), r"integers \[P, k\]"),
        (lambda: TableObservations([[0.0, 1, 2]], EMISSION), "dtype float64"),
        (lambda: TableObservations([[0, 1, -1]], EMISSION), "0..N-1, found -1"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION[0]), r"shape \[E, q\*\*k, r\]"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION[:, :, :1]), r"r >= 2, got \(1, 8, 1\)"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION[:0]), "E >= 1"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION[:, :7]), r"7 scope states, which is no q\*\*k with k = 3"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION[:, :1]), "1 scope states"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION * 1.001), r"row \(0, 0\) sums to 1.001: divide it by its sum"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION - 0.1), "must hold probabilities, found -0.1"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION * np.nan), "must hold probabilities, found nan"),
        (lambda: TableObservations([[0, 1, 2]], np.full((1, 8, 2), np.inf)), "must hold probabilities, found inf"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION, [1]), r"tables 0..0, found 1..1"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION, [-1]), r"found -1..-1"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION, [0, 0]), r"\[P = 1\], got shape \(2,\)"),
        (lambda: TableObservations([[0, 1, 2]], EMISSION, [0.0]), "dtype float64"),
        (lambda: SlabObservations(np.ones(3), 1.0), r"\[P, N\]"),
        (lambda: SlabObservations(np.ones((0, 3)), 1.0), "P >= 1"),
        (lambda: SlabObservations(np.ones((3, 0)), 1.0), "N >= 1"),
        (lambda: SlabObservations(np.array([[np.nan]]), 1.0), "finite"),
        (lambda: SlabObservations(np.ones((1, 1)), 0.0), "positive, got 0.0"),
        (lambda: SlabObservations(np.ones((1, 1)), np.inf), "positive, got inf"),
        (lambda: SlabObservations(np.ones((1, 1)), np.nan), "positive, got nan"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
