"""Truth tables against closed forms and loops: gamma, Assumption B.11, pair channels and their eigenvalues."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lo_theory.problem import Predicate, colouring, flip, from_array, from_function, nae, pair_channels, sat, xor
from lo_theory.testing.strategies import truth_tables


@pytest.mark.parametrize(
    ("predicate", "gamma"),
    [(nae(q, k), 1 - q ** (1.0 - k)) for q in (2, 3, 5) for k in (2, 3, 4)]
    + [(xor(k), 0.5) for k in (1, 2, 3, 6)]
    + [(colouring(q), 1 - 1 / q) for q in (2, 3, 4, 5, 9)]
    + [(sat(k), 1 - 0.5**k) for k in (1, 2, 3, 5)],
    ids=lambda value: getattr(value, "name", None),
)
def test_gamma_has_its_closed_form(predicate, gamma):
    assert predicate.gamma == pytest.approx(gamma, rel=1e-15)


def test_tables_say_what_their_names_say():
    for state in itertools.product(range(3), repeat=3):
        assert nae(3, 3).table[state] == (len(set(state)) > 1)
        if max(state) < 2:
            assert xor(3).table[state] == sum(state) % 2
            assert sat(3, [True, False, True]).table[state] == (not state[0] or bool(state[1]) or not state[2])
    for x, y in itertools.product(range(4), repeat=2):
        assert colouring(4).table[x, y] == (x != y)


@pytest.mark.parametrize(
    "predicate",
    [nae(2, 3), nae(3, 3), nae(4, 2), xor(2), xor(3), xor(5), colouring(3), colouring(5)],
    ids=lambda p: p.name,
)
def test_assumption_b11_holds_for_nae_xor_and_colouring(predicate):
    assert predicate.satisfies_assumption_b11
    assert np.allclose(predicate.conditional_gamma(), predicate.gamma, rtol=1e-15)


@pytest.mark.parametrize(
    "predicate",
    [
        sat(2),
        sat(3),
        sat(3, [True, False, True]),
        xor(1),
        from_function(lambda x, y: x < y, 3, 2, name="less"),
        from_function(lambda x, y, z: x, 2, 3, name="first argument"),
        from_array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], name="two of three agree"),
    ],
    ids=lambda p: p.name,
)
def test_assumption_b11_fails_for_sat_and_others(predicate):
    assert not predicate.satisfies_assumption_b11


@given(truth_tables())
def test_assumption_b11_is_that_the_uniform_message_is_a_fixed_point(table):
    """Definition B.10 with uniform messages: the sum over the other arguments, for every argument and value."""
    q, k = table.shape[0], table.ndim
    sums = []
    for a in range(k):
        for value in range(q):
            states = [s for s in itertools.product(range(q), repeat=k) if s[a] == value]
            sums.append(sum(int(table[s]) for s in states))
    predicate = from_array(table)
    assert predicate.satisfies_assumption_b11 == (len(set(sums)) == 1)
    assert np.allclose(predicate.conditional_gamma().ravel() * q ** (k - 1), sums)


@pytest.mark.parametrize(
    ("predicate", "eigenvalue"),
    [
        (nae(2, 3), -1 / 3),
        (nae(2, 4), -1 / 7),
        (nae(2, 5), -1 / 15),
        (nae(3, 3), -1 / 8),
        (nae(4, 3), -1 / 15),
        (colouring(3), -1 / 2),
        (colouring(4), -1 / 3),
        (colouring(5), -1 / 4),
        (xor(3), 0.0),
        (xor(4), 0.0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_pair_channels_have_the_eigenvalues_of_the_paper(predicate, eigenvalue):
    channels = predicate.pair_channels()
    for a, b in itertools.permutations(range(predicate.k), 2):
        found = np.linalg.eigvals(channels[a, b])
        expected = np.array([1.0] + [eigenvalue] * (predicate.q - 1))
        assert np.allclose(np.sort(found.real), np.sort(expected), atol=1e-12)
        assert np.allclose(found.imag, 0, atol=1e-7)


@pytest.mark.parametrize(
    "predicate", [nae(2, 3), nae(3, 3), nae(3, 4), colouring(3), colouring(5), xor(3)], ids=lambda p: p.name
)
def test_channels_of_the_value_zero_are_those_of_one_times_minus_the_odds(predicate):
    """T_0 = -gamma / (1 - gamma) T_1 on zero-sum vectors, under Assumption B.11."""
    one, zero = predicate.pair_channels(1), predicate.pair_channels(0)
    vectors = np.eye(predicate.q)[1:] - np.eye(predicate.q)[0]  # a basis of the zero-sum vectors
    odds = predicate.gamma / (1 - predicate.gamma)
    for a, b in itertools.permutations(range(predicate.k), 2):
        assert np.allclose(vectors @ zero[a, b], -odds * vectors @ one[a, b], atol=1e-12)


@given(truth_tables(), st.integers(0, 1))
def test_pair_channels_against_counting(table, value):
    q, k = table.shape[0], table.ndim
    channels = from_array(table).pair_channels(value)
    states = [s for s in itertools.product(range(q), repeat=k) if table[s] == value]
    for a, b, x in itertools.product(range(k), range(k), range(q)):
        given_x = [s for s in states if s[a] == x]
        if not given_x:
            assert np.isnan(channels[a, b, x]).all()
            continue
        law = [sum(s[b] == y for s in given_x) / len(given_x) for y in range(q)]
        assert np.allclose(channels[a, b, x], law)


def test_pair_channels_take_any_likelihood():
    likelihood = np.array([[0.9, 0.1], [0.2, 0.8]])
    channels = pair_channels(likelihood)
    assert np.allclose(channels[0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert np.allclose(channels[1, 0], [[9 / 11, 2 / 11], [1 / 9, 8 / 9]])
    assert np.allclose(channels[0, 0], np.eye(2))


@given(truth_tables(), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_emission_counts_states_in_c_order(table, rate):
    emission = from_array(table).emission(flip(rate))
    q, k = table.shape[0], table.ndim
    for place, state in enumerate(itertools.product(range(q), repeat=k)):
        truth = int(table[state])
        assert np.allclose(emission[place, truth], 1 - rate)
        assert np.allclose(emission[place, 1 - truth], rate)


def test_emission_takes_a_channel_to_any_alphabet():
    erasure = np.array([[0.7, 0.0, 0.3], [0.0, 0.7, 0.3]])
    emission = xor(2).emission(erasure)
    assert emission.tolist() == [[0.7, 0, 0.3], [0, 0.7, 0.3], [0, 0.7, 0.3], [0.7, 0, 0.3]]


def test_from_function_and_from_array_agree():
    assert (from_function(lambda x, y, z: len({x, y, z}) > 1, 3, 3).table == nae(3, 3).table).all()
    assert from_array(nae(3, 3).table, name="copy").name == "copy"


def test_tables_are_read_only_copies():
    mine = np.zeros((2, 2), int)
    predicate = from_array(mine)
    mine[0, 0] = 1
    assert not predicate.table[0, 0]
    with pytest.raises(ValueError, match="read-only"):
        predicate.table[0, 0] = True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_array([[1, 0, 1], [0, 1, 0]]), "equal length"),
        (lambda: from_array(1), "k >= 1 axes"),
        (lambda: from_array([1]), "q >= 2"),
        (lambda: from_array([[2, 0], [0, 1]]), "only 0 and 1"),
        (lambda: from_array([[0.5, 0], [0, 1]]), "only 0 and 1"),
        (lambda: Predicate("g", np.array([["a", "b"], ["c", "d"]])), "only 0 and 1"),
        (lambda: nae(1, 3), "q must be at least 2, got 1"),
        (lambda: nae(2, 0), "k must be at least 1, got 0"),
        (lambda: colouring(1), "q must be at least 2, got 1"),
        (lambda: xor(0), "k must be at least 1, got 0"),
        (lambda: xor(25), "smaller q or k"),
        (lambda: from_function(lambda *x: 1, 10, 8), "smaller q or k"),
        (lambda: from_function(lambda x: 2, 2, 1), "only 0 and 1"),
        (lambda: from_function(lambda x: 0.5, 2, 1), "only 0 and 1"),
        (lambda: sat(3, [True]), "3 literals, got 1"),
        (lambda: nae().pair_channels(2), "values 0 and 1, not 2"),
        (lambda: nae().emission(np.eye(3)), r"shape \[2, r\], got \(3, 3\)"),
        (lambda: flip(1.5), r"\[0, 1\], got 1.5"),
        (lambda: flip(0.1, 1), "r must be at least 2, got 1"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
