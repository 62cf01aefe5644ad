"""Oracle noise, budgets and their addresses: what each number is, where it comes from, and on what it depends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from lo_theory.diffusion import (
    BinomialRule,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    Suffix,
    TopK,
    TwoRates,
    Uniform,
    View,
    decode,
    margin,
    top_probability,
    vanilla,
)
from lo_theory.diffusion.masks import Pattern, Rotation
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import Layout, nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key
from tests.budget import accept, reject

KEY = Key(23)
PROBLEM = nae_sat(5, 10, seed=2)
EXACT = ExactPosterior(PROBLEM)


@dataclass(frozen=True)
class Coin:
    """Half and half for every token of a layout, so that scores are equal and noise alone decides."""

    layout: Layout

    def marginals(self, tokens):
        return Marginals(np.full((*tokens.shape, 2), 0.5), np.full(len(tokens), np.nan), np.ones(len(tokens), np.bool_))


def view(rows=3, *, step=0, steps=4, noise=None, key=KEY, **more):
    layout = PROBLEM.layout
    tokens = np.full((rows, layout.length), MASK, np.int8)
    return View(tokens, tokens == MASK, Coin(layout).marginals(tokens), layout, step, steps, key, 0, noise, **more)


def noisy_scores(noise, *, base=0.5, rows=2_000, **more):
    """The scores that ``TopK`` compares, read off a kernel put in the place of the choice."""
    from lo_theory.diffusion import policies

    seen = []

    class Kernels:
        fill_noise = staticmethod(policies._kernels.fill_noise)

        @staticmethod
        def reveal_highest(next_masked, scores, *rest):
            seen.append(scores.copy())

    real, policies._kernels = policies._kernels, Kernels
    try:
        score = TopK("flat", lambda v: np.full(v.masked.shape, base))
        score.plan(view(rows, noise=noise, **more), np.ones(rows, np.int64))
    finally:
        policies._kernels = real
    return seen[0]


@pytest.mark.parametrize(("law", "own", "other"), [("gumbel", "gumbel_r", "norm"), ("gaussian", "norm", "gumbel_r")])
def test_the_noise_on_the_scores_has_the_law_it_is_called_by(law, own, other):
    """And neither its mirror image nor the other law: gumbel has its long tail towards high scores."""
    added = (noisy_scores(Noise(2.0, law), base=0.25) - 0.25).ravel() / 2.0
    accept("noise on scores", stats.kstest(added, own).pvalue)
    reject("noise on scores", stats.kstest(added, other).pvalue)
    logarithmic = (noisy_scores(Noise(2.0, law, logarithmic=True), base=0.25) - np.log(0.25)).ravel() / 2.0
    np.testing.assert_allclose(logarithmic, added, atol=1e-9)
    if law == "gumbel":
        reject("noise on scores", stats.kstest(-added, own).pvalue)


def test_annealed_noise_is_whole_at_the_first_step_and_a_part_at_the_last():
    plain = noisy_scores(Noise(1.0)) - 0.5
    for step, steps in ((0, 4), (1, 4), (3, 4), (0, 1)):
        annealed = noisy_scores(Noise(1.0, annealed=True), step=step, steps=steps) - 0.5
        np.testing.assert_allclose(annealed, (steps - step) / steps * plain, atol=1e-12)
    own = np.array([4, 2, 1])
    rows = noisy_scores(Noise(1.0, annealed=True), rows=3, step=1, steps=4, row_steps=own) - 0.5
    np.testing.assert_allclose(rows, np.array([[3 / 4], [1 / 2], [0]]) * plain[:3], atol=1e-12)


def contexts(n):
    """True sequences with 0 to 15 positions hidden, so that rows take different numbers of steps."""
    tokens = PROBLEM.sample(KEY.fold("contexts"), n)
    hidden = np.arange(15) < (np.arange(n) * 7 % 16)[:, None]
    return np.where(hidden, np.int8(MASK), tokens)


@pytest.mark.parametrize("schedule", [OneAtATime(), FixedCount(4), BinomialRule(5)], ids=lambda s: s.name)
def test_annealed_noise_depends_on_no_other_row(schedule):
    given = contexts(48)
    options = DecodeOptions(noise=Noise(0.5, annealed=True, logarithmic=True))
    whole = decode(EXACT, margin(), schedule, key=KEY, n=48, given=given, options=options)
    for chunk in (1, 7, 20):
        split = decode(EXACT, margin(), schedule, key=KEY, n=48, given=given, options=replace(options, chunk=chunk))
        assert np.array_equal(split.step_revealed, whole.step_revealed)
        assert np.array_equal(split.tokens, whole.tokens)
    fewer = decode(EXACT, margin(), schedule, key=KEY, n=11, given=given[:11], options=options)
    assert np.array_equal(fewer.step_revealed, whole.step_revealed[:11])


def independent(one, two):
    """p-value of no rank correlation between two arrays of numbers."""
    return stats.spearmanr(np.ravel(one), np.ravel(two)).pvalue


def test_every_use_of_randomness_has_an_address_of_its_own():
    """Noise, ties, budgets and tokens of one step: reading two of them at one address would tie them together."""
    n, layout, step_key = 4_000, Layout(4, 8, 2, 2), KEY.fold(0)
    posterior = Coin(layout)
    ties = decode(posterior, vanilla(), OneAtATime(), key=KEY, n=n).step_revealed
    noise = decode(
        posterior, vanilla(), OneAtATime(), key=KEY, n=n, options=DecodeOptions(noise=Noise(1.0))
    ).step_revealed
    budget = BinomialRule(3).budget(0, np.ones((n, 12), np.bool_), step_key, 0)
    written = decode(posterior, vanilla(), BinomialRule(3), key=KEY, n=n)
    tokens = written.tokens[:, 0], written.tokens.sum(axis=1)
    first = ties == 0, noise == 0
    accept("addresses", independent(*first))
    accept("addresses", independent(first[0][:, 0], tokens[0]))
    accept("addresses", independent(budget, tokens[1]))
    accept("addresses", independent(written.step_revealed[:, 0] == 0, tokens[0]))
    shown = decode(posterior, vanilla(), FixedCount(3), key=KEY, n=n)
    early = (shown.step_revealed == 0).astype(int) @ np.arange(12)
    accept("addresses", independent(early, budget))
    reject("addresses", independent(first[0], first[0]))


def test_budgets_are_drawn_at_the_address_of_budgets():
    """The count is that of the words under ``budget`` below 1/(steps left), and no other key gives it."""
    masked = np.ones((400, 12), np.bool_)
    found = BinomialRule(3).budget(0, masked, KEY, 5)

    def drawn(key):
        return np.array([(unit_words(key, 5 + row, 12) < 1 / 3).sum() for row in range(400)])

    assert np.array_equal(found, drawn(KEY.fold("budget")))
    for other in (KEY, KEY.fold("ties"), KEY.fold("noise"), KEY.fold("tokens")):
        assert not np.array_equal(found, drawn(other))


def unit_words(key, row, count):
    from lo_theory.rng import fill_words

    words = np.empty(count, np.uint64)
    fill_words(words, row, *key.words())
    return (words >> np.uint64(11)) / 2.0**53


def test_noise_and_ties_do_not_share_their_words():
    """Where noise is scaled to nothing only ties decide; with noise the order is another."""
    posterior = Coin(PROBLEM.layout)
    orders = [
        decode(posterior, vanilla(), OneAtATime(), key=KEY, n=300, options=DecodeOptions(noise=noise)).step_revealed
        for noise in (None, Noise(0.0), Noise(1e-14), Noise(1.0))
    ]
    assert np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], orders[2]), "noise below the grid of ties decides nothing"
    accept("noise and ties", independent(orders[0][:, 0], orders[3][:, 0]))
    agreement = (orders[0] == 0).argmax(axis=1) == (orders[3] == 0).argmax(axis=1)
    accept("noise and ties", stats.binomtest(int(agreement.sum()), 300, 1 / 15).pvalue)


def test_logarithmic_noise_asks_about_hidden_positions_only():
    """What a score says of a revealed position is nobody's concern, negative or not."""
    tokens = PROBLEM.sample(KEY, 3)
    tokens[:, :5] = MASK
    masked = tokens == MASK

    def plan(scores):
        seen = View(tokens, masked, EXACT.marginals(tokens), PROBLEM.layout, 0, 5, KEY, 0, Noise(0.5, logarithmic=True))
        return TopK("mine", lambda v: scores).plan(seen, np.full(3, 2))

    assert (plan(np.where(masked, 0.5, -1.0)).sum(axis=1) == 3).all()
    with pytest.raises(
        ValueError, match=r"^mine has negative scores, and .* not negative, .*: take plain noise for it"
    ):
        plan(np.where(masked, -0.5, 1.0))
    assert (plan(np.where(masked, 0.5, np.nan)).sum(axis=1) == 3).all()
    with pytest.raises(ValueError, match=r"nan for row 1 at position 4"):
        plan(np.where((np.arange(15) == 4) & (np.arange(3) == 1)[:, None], np.nan, 0.5))
    with pytest.raises(ValueError, match="shape"):
        plan(np.full((1, 15), 0.5))


# --- rotation and names ---------------------------------------------------------------------------------------------------------


def test_laws_in_a_rotation_have_addresses_of_their_own():
    """Twice the same law is a law of independent rows: row i of the second is not row i of the first."""
    tokens = PROBLEM.sample(KEY, 64)
    for law in (Uniform(), Pattern(2), TwoRates(0.5, 0.5)):
        rotated = Rotation((law, law)).sample(KEY, tokens, PROBLEM.layout)[0][0]
        for i, own in enumerate(law.sample(KEY.fold(i), tokens, PROBLEM.layout)[0][0] for i in range(2)):
            assert np.array_equal(rotated[i::2], own[i::2])
        alone = law.sample(KEY, tokens, PROBLEM.layout)[0][0]
        assert not np.array_equal(rotated[::2], alone[::2])
        assert not np.array_equal(rotated[1::2], alone[1::2])


def test_a_row_of_a_rotation_follows_the_law_of_its_number():
    tokens = PROBLEM.sample(KEY, 60)
    law = Rotation((Suffix(), Pattern(1), Pattern(3)))
    whole, weight = law.sample(KEY, tokens, PROBLEM.layout)
    assert (whole[0, 1::3, :5].sum(axis=1) == 1).all()
    assert (whole[0, 2::3, :5].sum(axis=1) == 3).all()
    for start in (1, 2, 30):
        part, own = law.sample(KEY, tokens[start:], PROBLEM.layout, start=start)
        assert np.array_equal(part, whole[:, start:])
        assert np.array_equal(own, weight[:, start:])
    with pytest.raises(ValueError, match="at least one law"):
        Rotation(())


@pytest.mark.parametrize("make", [lambda a: TwoRates(a, 0.25), lambda a: TwoRates(0.25, a)])
def test_different_rates_have_different_names(make):
    """Also where six digits are the same; and a name gives the rate back."""
    rates = [
        0,
        1,
        0.5,
        0.1,
        1 / 3,
        1 / 3 + 1e-9,
        0.1234567,
        0.1234568,
        1e-7,
        1 - 1e-12,
        np.float64(0.75),
        np.float32(0.1),
    ]
    names = [make(rate).name for rate in rates]
    assert len(set(names)) == len(names)
    for rate, name in zip(rates, names, strict=True):
        numbers = [float(part) for part in name.removeprefix("two_rates(").removesuffix(")").split(",")]
        assert sorted(numbers) == sorted([float(rate), 0.25])
    assert TwoRates(1.0, 0.0).name == "two_rates(1,0)"


def test_confidence_of_the_most_likely_value_is_what_top_probability_reads():
    """The largest, not the first or last: a peaked middle value wins over flat ones."""
    layout = nae_sat(3, 2, seed=0, q=3).layout
    probs = np.array([[0.3, 0.4, 0.3], [0.05, 0.9, 0.05], [0.34, 0.33, 0.33], [0.6, 0.4, 0], [0.55, 0.45, 0]])
    tokens = np.full((1, 5), MASK, np.int8)
    marginals = Marginals(probs[None], np.zeros(1), np.ones(1, bool))
    seen = View(tokens, tokens == MASK, marginals, layout, 0, 5, KEY)
    assert list(np.flatnonzero(~top_probability().plan(seen, np.array([2]))[0])) == [1, 3]
    assert list(np.flatnonzero(~margin().plan(seen, np.array([2]))[0])) == [1, 3]
