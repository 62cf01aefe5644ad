"""Mask laws: shapes, addresses, the law itself, and the loss their weights add up to (Proposition 2.1)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.diffusion import (
    LAWS,
    Bernoulli,
    LatentsOnly,
    ObservationsFirst,
    Pattern,
    Suffix,
    TwoRates,
    Uniform,
    describe,
    per_hidden,
)
from lo_theory.diffusion import _kernels as kernels
from lo_theory.problem import Layout, nae_sat
from lo_theory.rng import Key, fill_words
from lo_theory.testing import BruteForcePosterior, chi_square, z_test
from tests.budget import accept, reject

LAYOUT = Layout(3, 6, 2, 2, np.array([4, 0, 8, 1, 2, 3, 5, 6, 7]))
EVERY_LAW = [
    Uniform(),
    Bernoulli(),
    Bernoulli(0.3),
    Pattern(2),
    TwoRates(0.2, 0.9),
    Suffix(),
    Suffix((8, 7, 6, 5, 4, 3, 2, 1, 0)),
    ObservationsFirst(),
    LatentsOnly(),
]


def draw(law, n, *, start=0, layout=LAYOUT):
    masked, weight = law.sample(Key(5), np.zeros((n, layout.length), np.int8), layout, start=start)
    assert masked.shape == weight.shape == (1, n, layout.length)
    assert masked.dtype == np.bool_
    assert weight.dtype == np.float32
    return masked[0], weight[0]


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law.name)
@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 40), start=st.integers(0, 100), cut=st.integers(0, 40))
def test_rows_depend_on_their_number_only(law, n, start, cut):
    whole, whole_weight = draw(law, 141)
    cut = min(cut, n)
    first, _ = draw(law, cut, start=start)
    second, second_weight = draw(law, n - cut, start=start + cut)
    assert np.array_equal(np.concatenate([first, second]), whole[start : start + n])
    assert np.array_equal(second_weight, whole_weight[start + cut : start + n])


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law.name)
def test_weights_are_zero_outside_the_mask_and_positive_somewhere_inside(law):
    masked, weight = draw(law, 500)
    assert (weight[~masked] == 0).all()
    assert (weight.sum(axis=1)[masked.any(axis=1)] > 0).all()


def test_weight_of_a_row_with_nothing_hidden_is_zero():
    masked, weight = draw(TwoRates(0.05, 0.05), 400)
    assert (~masked.any(axis=1)).any()
    assert (weight[~masked.any(axis=1)] == 0).all()
    assert np.allclose(weight.sum(axis=1)[masked.any(axis=1)], 1)


def test_pattern_hides_exactly_its_numbers():
    latents, observations = describe(draw(Pattern(2), 300)[0], LAYOUT)
    assert (latents == 2).all()
    assert (observations == 4).all()


def test_suffix_follows_its_reading_order():
    masked, weight = draw(Suffix(), 300)
    by_role = masked[:, LAYOUT.order]
    assert (np.diff(by_role.astype(int), axis=1) >= 0).all(), "once hidden, all later roles are hidden"
    assert np.array_equal(weight[:, LAYOUT.order].argmax(axis=1), (~by_role).sum(axis=1)), (
        "the weight is on the next position"
    )


def mask_probability(law_name, size, length):
    """Probability of one given mask of that size."""
    if law_name == "uniform":
        return 1 / length / math.comb(length, size) if size else 0.0
    return math.exp(
        math.lgamma(size + 1) + math.lgamma(length - size + 1) - math.lgamma(length + 2)
    )  # Bernoulli, alpha uniform


@pytest.mark.parametrize("name", ["uniform", "bernoulli"])
def test_law_of_masks_is_the_stated_one(name):
    layout, n = Layout(2, 3, 2, 2), 40_000
    codes = 2 ** np.arange(5)
    expected = np.array([mask_probability(name, bin(code).count("1"), 5) for code in range(32)])
    assert math.isclose(expected.sum(), 1)
    counts = np.bincount(draw(LAWS[name](), n, layout=layout)[0] @ codes, minlength=32)
    accept(f"masks {name}", chi_square(counts, expected))
    wrong = np.bincount(draw(Bernoulli(0.5), n, layout=layout)[0] @ codes, minlength=32)
    reject(f"masks {name}", chi_square(wrong, expected))


def random_loss(length, generator):
    """Any function CE_i(M), for all masks M and i in M: {(M, i): value}."""
    return {
        (mask, i): generator.exponential()
        for size in range(1, length + 1)
        for mask in itertools.combinations(range(length), size)
        for i in mask
    }


def looked_up(loss, masked):
    """The values of ``random_loss`` at all positions of masks bool[n, L], 0 at those that are not hidden."""
    length = masked.shape[1]
    table = np.zeros((2**length, length))
    for (mask, i), value in loss.items():
        table[sum(2**j for j in mask), i] = value
    return table[masked @ 2 ** np.arange(length)]


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_three_forms_of_the_mdm_loss_agree(length):
    """Proposition 2.1 by enumeration: weighted masks, mask sizes, and random autoregressive orders, nats per sequence."""
    loss = random_loss(length, np.random.default_rng(length))
    weighted = sum(value / length / math.comb(length - 1, len(mask) - 1) for (mask, _), value in loss.items())
    by_size = sum(
        np.mean([np.mean([loss[mask, i] for i in mask]) for mask in itertools.combinations(range(length), size)])
        for size in range(1, length + 1)
    )
    orders = [
        sum(loss[tuple(sorted(order[place:])), order[place]] for place in range(length))
        for order in itertools.permutations(range(length))
    ]
    assert math.isclose(weighted, by_size, rel_tol=1e-12)
    assert math.isclose(weighted, float(np.mean(orders)), rel_tol=1e-12)


@pytest.mark.parametrize("law", [Uniform(), Bernoulli()], ids=lambda law: law.name)
def test_weights_estimate_the_mdm_loss_per_token(law):
    """The weighted loss of random masks has the mean that enumeration gives; weights 1/L instead of 1/size do not."""
    length, n = 5, 20_000
    loss = random_loss(length, np.random.default_rng(1))
    truth = sum(value / length / math.comb(length - 1, len(mask) - 1) for (mask, _), value in loss.items()) / length
    masked, weight = draw(law, n, layout=Layout(2, 3, 2, 2))
    losses = looked_up(loss, masked)
    accept(f"mdm loss {law.name}", z_test((weight * losses).sum(axis=1), truth))
    reject(f"mdm loss {law.name}", z_test((losses / length).sum(axis=1), truth))


def test_observations_first_is_the_loss_of_such_decodes():
    """Mean over all orders of the observations, then all of the latents; weight 1/size on all hidden is another."""
    layout, n = Layout(2, 3, 2, 2, np.array([3, 0, 1, 4, 2])), 20_000
    loss = random_loss(5, np.random.default_rng(2))
    orders = [
        (*first, *last)
        for first in itertools.permutations(layout.observation_positions)
        for last in itertools.permutations(layout.latent_positions)
    ]
    decodes = [sum(loss[tuple(sorted(order[place:])), order[place]] for place in range(5)) for order in orders]
    truth = float(np.mean(decodes)) / 5
    masked, weight = draw(ObservationsFirst(), n, layout=layout)
    losses = looked_up(loss, masked)
    accept("observations first", z_test((weight * losses).sum(axis=1), truth))
    reject("observations first", z_test((per_hidden(masked)[1][0] * losses).sum(axis=1), truth))


def test_latents_only_is_the_loss_of_decodes_that_are_given_the_observations():
    """Mean over all orders of the latents, of three positions of five; a rate of 1/2 with weight 1/size is another."""
    layout, n = Layout(3, 2, 2, 2, np.array([3, 0, 1, 4, 2])), 20_000
    loss, latents = random_loss(5, np.random.default_rng(3)), layout.latent_positions
    orders = list(itertools.permutations(latents))
    decodes = [sum(loss[tuple(sorted(order[place:])), order[place]] for place in range(3)) for order in orders]
    truth = float(np.mean(decodes)) / 3
    masked, weight = draw(LatentsOnly(), n, layout=layout)
    assert not masked[:, layout.observation_positions].any()
    accept("latents only", z_test((weight * looked_up(loss, masked)).sum(axis=1), truth))
    masked, weight = draw(TwoRates(0.5, 0.0), n, layout=layout)
    reject("latents only", z_test((weight * looked_up(loss, masked)).sum(axis=1), truth))


def test_bernoulli_and_two_rates_hide_at_their_rates():
    masked, _ = draw(TwoRates(0.2, 0.9), 20_000)
    latents, observations = describe(masked, LAYOUT)
    accept("two rates", z_test(latents / 3, 0.2))
    accept("two rates", z_test(observations / 6, 0.9))
    reject("two rates", z_test(observations / 6, 0.88))


def test_hide_subsets_against_a_slow_twin():
    positions, counts = np.array([1, 4, 5, 7, 8], np.int32), np.array([0, 1, 3, 5], np.int64)
    masked = np.zeros((4, 9), bool)
    key0, key1 = Key(3).words()
    kernels.hide_subsets(masked, 10, key0, key1, positions, counts)
    for row, count in enumerate(counts):
        words, items = np.empty(count, np.uint64), list(positions)
        fill_words(words, 10 + row, key0, key1)
        for i in range(count):
            j = i + (int(words[i]) * (len(items) - i) >> 64)
            items[i], items[j] = items[j], items[i]
        assert set(np.flatnonzero(masked[row])) == set(items[:count])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Bernoulli(1.5), "alpha must lie in"),
        (lambda: Bernoulli(0.0), "alpha > 0"),
        (lambda: TwoRates(-0.1, 0.5), "rate of latents"),
        (lambda: draw(Pattern(4), 3), "l = 1..N"),
        (lambda: draw(Suffix((0, 0, 1)), 3), "permutation"),
        (lambda: Pattern(2.5), "whole number"),
        (lambda: Pattern(0), "l >= 1"),
        *[(lambda law=law: law.sample(Key(0), np.zeros((2, 5), np.int8), LAYOUT), r"\[n, 9\]") for law in EVERY_LAW],
        (lambda: describe(np.zeros((3, 50), bool), LAYOUT), r"\[n, 9\]"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_entropy_floor_is_what_masks_of_every_size_add_up_to():
    """h(n) for N = 3 and one triple, .375, .719361, .952820, .952820 in units of ln 2, adds up to the entropy."""
    distribution = nae_sat(3, 1, seed=0)
    truth = BruteForcePosterior(distribution)
    rows, p = truth.rows, truth.probabilities
    h = []
    for size in range(1, 5):
        values = []
        for mask in itertools.combinations(range(4), size):
            contexts = rows.copy()
            contexts[:, list(mask)] = -1
            probs = truth.marginals(contexts).probs
            nll = -np.log2(np.take_along_axis(probs, rows.astype(int)[:, :, None], axis=2)[:, list(mask), 0])
            values.append(p @ nll.mean(axis=1))
        h.append(np.mean(values))
    assert np.allclose(h, [0.375, 0.719361, 0.952820, 0.952820], atol=1e-6)
    assert math.isclose(sum(h), 3, rel_tol=1e-12)
