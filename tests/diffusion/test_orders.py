"""Reading orders: their law, exact conditional losses against enumeration, closed forms, learners along an order."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import Suffix
from lo_theory.diffusion.orders import (
    ORDERS,
    AlongOrder,
    closed_form,
    order_losses,
    reading_order,
    usual_swaps,
)
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import LODistribution, TableObservations, nae_sat, random_slab
from lo_theory.problem.layout import MASK, Layout
from lo_theory.rng import Key, fill_words
from lo_theory.testing import chi_square
from tests.budget import accept, reject

MIXED = np.array([4, 0, 8, 1, 2, 3, 5, 6, 7], np.int32)
KEY = Key(3).fold("orders")


def biased() -> LODistribution:
    """Latents that are not fair, a scope that names a latent twice, noise, three values, mixed positions."""
    noisy = [[0.9, 0.05, 0.05]] * 3 + [[0.05, 0.05, 0.9]]
    other = [[0.5, 0.5, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]]
    scopes = [[0, 1], [1, 2], [2, 0], [1, 1], [0, 2], [0, 1]]
    law = TableObservations(scopes, [noisy, other], [0, 1, 0, 1, 1, 0])
    return LODistribution([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], law, MIXED)


PROBLEMS = [nae_sat(4, 6, seed=2), biased(), random_slab(3, 4, 0.7, seed=1)]


def orders_of(distribution: LODistribution) -> list[tuple[int, ...]]:
    return [reading_order(name, distribution.layout, KEY.fold(name)) for name in ORDERS]


# --- the orders themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_a_permutation_that_its_key_decides(name: str) -> None:
    layout = Layout(10, 30, 2, 2)
    first = reading_order(name, layout, KEY)
    assert sorted(first) == list(range(40))
    assert all(type(place) is int for place in first)
    assert first == reading_order(name, layout, Key(3).fold("orders"))
    others = {reading_order(name, layout, KEY.fold(i)) for i in range(5)}
    assert len(others) == (1 if name in ("latents_first", "reversed") else 5)


def test_latents_first_follows_the_roles_and_reversed_is_it_backwards() -> None:
    layout = Layout(3, 6, 2, 2, MIXED)
    assert reading_order("latents_first", layout, KEY) == tuple(MIXED)
    assert reading_order("reversed", layout, KEY) == tuple(MIXED[::-1])


def test_every_random_order_of_three_is_equally_likely() -> None:
    layout = Layout(2, 1, 2, 2)
    every = list(itertools.permutations(range(3)))

    def counts(make: Any) -> np.ndarray:
        drawn = [make(KEY.fold(i)) for i in range(12_000)]
        return np.array([drawn.count(order) for order in every])

    def naive(key: Key) -> tuple[int, ...]:
        """The well-known wrong shuffle: swap every entry with any other."""
        items, words = [0, 1, 2], np.empty(3, np.uint64)
        fill_words(words, 0, *key.words())
        for i in range(3):
            j = int(words[i] >> np.uint64(33)) % 3
            items[i], items[j] = items[j], items[i]
        return tuple(items)

    accept("random order", chi_square(counts(lambda key: reading_order("random", layout, key)), np.full(6, 1 / 6)))
    reject("random order", chi_square(counts(naive), np.full(6, 1 / 6)))


def test_a_swap_exchanges_two_different_places_and_every_pair_is_equally_likely() -> None:
    layout = Layout(2, 3, 2, 2, np.array([4, 3, 2, 1, 0]))
    pairs = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for i in range(2000):
        order = reading_order("closer", layout, KEY.fold(i), swaps=1)
        moved = tuple(t for t in range(5) if order[t] != 4 - t)
        assert len(moved) == 2
        assert order[moved[0]] == 4 - moved[1]
        pairs[moved] += 1
    accept("random swaps", chi_square(list(pairs.values()), np.full(10, 0.1)))
    neighbours = [2000 // 4 if b == a + 1 else 0 for a, b in pairs]
    reject("random swaps", chi_square(neighbours, np.full(10, 0.1)))


@pytest.mark.parametrize("swaps", [1, 2, 5])
def test_swaps_are_made_one_after_another_at_rows_of_the_key(swaps: int) -> None:
    layout = Layout(10, 30, 2, 2)
    more, fewer = (reading_order("much_closer", layout, KEY, swaps=count) for count in (swaps + 1, swaps))
    assert sum(a != b for a, b in zip(more, fewer, strict=True)) == 2
    moved = sum(place != t for t, place in enumerate(fewer))
    assert 0 < moved <= 2 * swaps


def test_the_usual_numbers_of_swaps_are_the_papers() -> None:
    assert (usual_swaps("closer", 2048), usual_swaps("much_closer", 2048)) == (205, 45)
    assert (usual_swaps("closer", 300), usual_swaps("much_closer", 300)) == (30, 17)
    assert (usual_swaps("closer", 4), usual_swaps("much_closer", 4)) == (1, 2)
    layout = Layout(20, 280, 2, 2)
    usual = reading_order("closer", layout, KEY)
    assert usual == reading_order("closer", layout, KEY, swaps=30)
    assert usual != reading_order("closer", layout, KEY, swaps=29)


@pytest.mark.parametrize(
    ("name", "swaps", "message"),
    [("identity", None, "unknown order"), ("random", 3, "no swaps"), ("closer", 0, "at least one swap, got 0")],
)
def test_wrong_orders_are_named(name: str, swaps: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reading_order(name, Layout(4, 6, 2, 2), KEY, swaps=swaps)
    with pytest.raises(ValueError, match="closer"):
        usual_swaps("random", 10)


# --- exact conditional losses -----------------------------------------------------------------------------------------


def every_sequence(distribution: LODistribution) -> tuple[np.ndarray, np.ndarray]:
    """All sequences and their probabilities."""
    layout = distribution.layout
    rows = np.array(list(itertools.product(*(range(count) for count in layout.values))), np.int8)
    return rows, np.exp(distribution.log_prob(rows))


def enumerated_losses(distribution: LODistribution, reading: tuple[int, ...]) -> np.ndarray:
    """H(x at reading[t] | x at reading[:t]) = H(reading[:t+1]) - H(reading[:t]), from the table of all sequences."""
    rows, weights = every_sequence(distribution)
    entropies = [0.0]
    for t in range(1, len(reading) + 1):
        _, group = np.unique(rows[:, list(reading[:t])], axis=0, return_inverse=True)
        mass = np.bincount(group.ravel(), weights)
        mass = mass[mass > 0]
        entropies.append(float(-(mass * np.log(mass)).sum()))
    return np.diff(entropies)


@pytest.mark.parametrize("distribution", PROBLEMS, ids=["nae", "biased", "slab"])
def test_exact_conditional_losses_are_the_enumerated_entropies(distribution: LODistribution) -> None:
    rows, weights = every_sequence(distribution)
    rows, weights = rows[weights > 0], weights[weights > 0]
    for reading in orders_of(distribution):
        exact = AlongOrder(ExactPosterior(distribution), reading)
        measured = order_losses(exact, exact.conditionals(rows), rows)
        assert measured.exact is not None
        assert measured.kl is not None
        np.testing.assert_allclose(weights @ measured.exact, enumerated_losses(distribution, reading), atol=1e-12)
        np.testing.assert_allclose(measured.exact.sum(axis=1), -distribution.log_prob(rows), atol=1e-10)
        np.testing.assert_array_equal(measured.model, measured.exact)
        np.testing.assert_allclose(measured.kl, 0, atol=1e-12)


@pytest.mark.parametrize("distribution", PROBLEMS, ids=["nae", "biased", "slab"])
def test_closed_forms_are_the_enumerated_entropies_and_latents_first_has_them_all(distribution: LODistribution) -> None:
    known = 0
    for reading in orders_of(distribution):
        found, truth = closed_form(distribution, reading), enumerated_losses(distribution, reading)
        given = np.isfinite(found)
        np.testing.assert_allclose(found[given], truth[given], atol=1e-12)
        known += int((~given).sum())
    assert known > 0, "some order must have positions without a formula"
    assert closed_form(distribution).sum() == pytest.approx(distribution.entropy(), abs=1e-12)


def test_closed_form_of_latents_first_is_ln_q_and_the_noise() -> None:
    noisy = nae_sat(5, 9, seed=0, q=3, noise=0.2)
    expected = [math.log(3)] * 5 + [-0.2 * math.log(0.2) - 0.8 * math.log(0.8)] * 9
    np.testing.assert_allclose(closed_form(noisy), expected)
    first = closed_form(noisy, reading_order("reversed", noisy.layout, KEY))[0]
    share = 3 * 3**-3 * 0.8 + (1 - 3 * 3**-3) * 0.2  # P(observation = 0)
    assert first == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))


def test_a_latent_that_an_observation_told_about_has_no_formula() -> None:
    distribution = nae_sat(3, 1, seed=0)  # one observation of all three
    found = closed_form(distribution, (0, 3, 1, 2))
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, True])
    assert found[1] == pytest.approx(math.log(4) - 0.75 * math.log(3))


# --- learners along an order ------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A posterior that answers at random and remembers what it was asked."""

    layout: Layout
    asked: list[np.ndarray]

    def marginals(self, tokens: np.ndarray) -> Marginals:
        self.asked.append(np.array(tokens))
        shares = np.random.default_rng(len(self.asked)).dirichlet(np.ones(self.layout.n_values), tokens.shape)
        return Marginals(shares, np.zeros(len(tokens)), np.ones(len(tokens), bool))


def test_contexts_are_those_of_the_suffix_law_and_the_next_position_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distribution = biased()
    layout = distribution.layout
    reading = reading_order("random", layout, KEY)
    monkeypatch.setattr("lo_theory.diffusion.orders._CONTEXTS", 20)  # two sequences a call
    rows = distribution.sample(KEY, 5)
    recorder = Recorder(layout, [])
    answer = AlongOrder(recorder, reading).conditionals(rows)
    assert [len(part) for part in recorder.asked] == [18, 18, 9]
    contexts = np.concatenate(recorder.asked).reshape(5, 9, 9)
    again = np.concatenate(
        [Recorder(layout, [None] * i).marginals(part).probs for i, part in enumerate(recorder.asked)]
    )
    for i, t in np.ndindex(5, 9):
        expected = rows[i].copy()
        expected[list(reading[t:])] = MASK
        np.testing.assert_array_equal(contexts[i, t], expected)
        np.testing.assert_array_equal(answer[i, t], again[9 * i + t, reading[t]])
    masked, weight = Suffix(reading).sample(KEY, rows, layout)
    for i in range(5):
        t = 9 - int(masked[0, i].sum())
        np.testing.assert_array_equal(contexts[i, t] == MASK, masked[0, i])
        assert weight[0, i].argmax() == reading[t]


def test_losses_of_a_wrong_learner_and_their_difference_from_the_exact_one() -> None:
    distribution = biased()
    rows, weights = every_sequence(distribution)
    rows, weights = rows[weights > 0], weights[weights > 0]
    reading = reading_order("reversed", distribution.layout, KEY)
    exact = AlongOrder(ExactPosterior(distribution), reading).conditionals(rows)

    class Flat:
        def __init__(self) -> None:
            self.reading = reading

        def conditionals(self, tokens: np.ndarray) -> np.ndarray:
            return np.full((*tokens.shape, 3), 1 / 3, np.float32)

    measured = order_losses(Flat(), exact, rows)
    assert measured.exact is not None
    assert measured.kl is not None
    np.testing.assert_allclose(measured.model, math.log(3), rtol=1e-6)
    np.testing.assert_allclose(weights @ measured.kl, weights @ (measured.model - measured.exact), atol=1e-6)
    assert order_losses(Flat(), None, rows).kl is None
    with pytest.raises(ValueError, match="exact conditionals"):
        order_losses(Flat(), exact[:, :4], rows)


def test_a_reading_that_is_no_permutation_is_refused() -> None:
    exact = ExactPosterior(PROBLEMS[0])
    with pytest.raises(ValueError, match="permutation"):
        AlongOrder(exact, (0,) * 10)
    with pytest.raises(ValueError, match="MASK"):
        AlongOrder(exact, tuple(range(10))).conditionals(np.full((1, 10), MASK, np.int8))
