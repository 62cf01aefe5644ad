"""Mask laws of training proposals: what they hide, the loss their weights add up to, and the limits of each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from lo_theory import ExactPosterior, Key, check
from lo_theory.diffusion import (
    LAWS,
    AtRates,
    BellRates,
    Mirror,
    MirrorUniform,
    PlackettLuce,
    Rotation,
    Suffix,
    TableRates,
    Timesteps,
    TwoRates,
    Uniform,
    UniformRates,
    bell,
    bell_unweighted,
    draw_orders,
    exact_variances,
    mirror_p_pots,
    order_chances,
    p_pots,
)
from lo_theory.diffusion.masks import draw_masks
from lo_theory.diffusion.rates import draw_rates, factors, quadrature, row_units
from lo_theory.diffusion.satisfied import Satisfied
from lo_theory.lab.settings import mask_law
from lo_theory.problem import Layout, nae_sat
from lo_theory.testing import z_test
from tests.budget import accept, reject

LAYOUT = Layout(2, 3, 2, 2, np.array([3, 0, 4, 1, 2]))
LENGTH = LAYOUT.length
MASKS = ((np.arange(2**LENGTH)[:, None] >> np.arange(LENGTH)) & 1).astype(bool)
SIZES = MASKS.sum(axis=1)
OWN = (0.2, 3.0, 1.0, 0.5, 2.0)
TABLE = TableRates((0.5, 2.0, 1.0, 1.5))
UNBIASED = [bell(0.2), p_pots(0.2), AtRates(TABLE), AtRates(UniformRates()), MirrorUniform()]
UNBIASED += [Mirror(), Mirror(BellRates(0.3)), mirror_p_pots(0.2)]
ORDERED = [PlackettLuce(), PlackettLuce(4.0), PlackettLuce(weights=OWN)]
EVERY = [*UNBIASED, *ORDERED, bell_unweighted(0.15)]
N = 40_000


def named(law):
    return law.name


KEY = Key(5)


def draw(law, n, *, start=0, key=KEY):
    return draw_masks(law, key, np.zeros((n, LENGTH), np.int8), LAYOUT, start=start)


@pytest.fixture(scope="module")
def predictor():
    """Cross-entropies of a predictor that is not Bayes, [mask, position]: any function of both, small where one alone
    is hidden, since the weight of such a mask has a heavy tail, and curved in the rate.
    """
    return np.random.default_rng(2).exponential(size=MASKS.shape) * MASKS.mean(axis=1, keepdims=True) ** 2


def plain(losses):
    """The plain loss per token by enumeration: size uniform, a uniform set of that size, weight 1/size."""
    return sum(losses[m][MASKS[m]].mean() / LENGTH / math.comb(LENGTH, n) for m, n in enumerate(SIZES) if n)


def along_orders(losses, weights):
    """Sum over all orders of their Plackett-Luce probability times the autoregressive loss along them, per token."""
    total = 0.0
    for order in itertools.permutations(range(LENGTH)):
        left = [sum(weights[i] for i in order[place:]) for place in range(LENGTH)]
        chance = math.prod(weights[i] / rest for i, rest in zip(order, left, strict=True))
        hidden = [sum(1 << i for i in order[place:]) for place in range(LENGTH)]
        total += chance * sum(losses[m, i] for m, i in zip(hidden, order, strict=True)) / LENGTH
    return total


def drawn_losses(law, losses, n=N):
    masked, weight = draw(law, n)
    return (weight * losses[masked @ (1 << np.arange(LENGTH))]).sum(axis=2)


@dataclass(frozen=True)
class Changed:
    """A law whose answer is changed."""

    law: object
    change: object
    name: str = "changed"

    def sample(self, key, tokens, layout, *, start=0):
        return self.change(*self.law.sample(key, tokens, layout, start=start))


# --- form -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", EVERY, ids=named)
@settings(max_examples=10, deadline=None)
@given(n=st.integers(0, 40), start=st.integers(0, 100), cut=st.integers(0, 40))
def test_rows_depend_on_their_number_only(law, n, start, cut):
    whole, whole_weight = draw(law, 141)
    cut = min(cut, n)
    parts = [draw(law, cut, start=start), draw(law, n - cut, start=start + cut)]
    assert np.array_equal(np.concatenate([part[0] for part in parts], axis=1), whole[:, start : start + n])
    assert np.array_equal(np.concatenate([part[1] for part in parts], axis=1), whole_weight[:, start : start + n])


@pytest.mark.parametrize("law", EVERY, ids=named)
def test_hidden_positions_weigh_and_the_normalisation_is_kept(law):
    masked, weight = draw(law, 1000)
    assert np.array_equal(weight > 0, masked)
    for n, seed in itertools.product((1, 64, 200, 1024), range(20)):
        draw(law, n, key=Key(seed))


@pytest.mark.parametrize("law", [*EVERY, Timesteps(3)], ids=named)
@pytest.mark.parametrize("length", [LENGTH - 1, LENGTH + 1])
def test_sequences_of_another_length_are_refused(law, length):
    with pytest.raises(ValueError, match=rf"shape \[n, 5\] .*, got \(3, {length}\)"):
        law.sample(KEY, np.zeros((3, length), np.int8), LAYOUT)


def test_weights_of_an_order_are_kept_as_numbers():
    """A checkpoint knows a law by its text."""
    given = [PlackettLuce(weights=values) for values in (OWN, list(OWN), np.array(OWN))]
    assert len({repr(law) for law in given}) == 1
    assert given[0] == given[2]


@dataclass(frozen=True)
class Rare(Changed):
    """A law that says how much its rows' sums of weights vary."""

    spread: float = 0.0

    def weight_spread(self, length):
        return self.spread


def test_rare_rows_that_weigh_much_are_allowed_for():
    """64 rows without one of those are no fault of the law; a mean that such rows do not explain is."""
    heavier = Rare(Uniform(), lambda masked, weight: (masked, 1.2 * weight))
    with pytest.raises(ValueError, match=r"sum to 1\.2 a row"):
        draw(heavier, 64)
    with pytest.raises(ValueError, match=r"sum to 1\.2 a row"):
        draw(Rare(Uniform(), heavier.change, spread=0.2), 64)
    for spread in (0.4, math.inf):
        draw(Rare(Uniform(), heavier.change, spread=spread), 64)
        draw(Rotation((Rare(Uniform(), heavier.change, spread=spread), Uniform())), 64)
    for seed in range(400):
        draw(bell(0.2), 64, key=Key(seed))
    weight = draw(p_pots(0.2), N)[1]
    assert math.isclose(p_pots(0.2).weight_spread(LENGTH), weight.sum(axis=2).std(), rel_tol=0.02)
    assert math.isinf(Mirror().weight_spread(LENGTH))
    assert math.isinf(AtRates(TABLE, weighted=False).weight_spread(LENGTH))  # the integral of p(t)/t


@pytest.mark.parametrize("name", [law.name for law in EVERY if "(weights" not in law.name and "(table" not in law.name])
def test_a_law_is_named_as_it_is_written(name):
    if name not in ("uniform", "mirror_bell(0.3)"):
        assert mask_law(name).name == name


def test_the_checks_of_laws_hold_them_to_their_loss():
    problem = nae_sat(3, 3, seed=1)
    for law in (p_pots(0.2), PlackettLuce(4.0), MirrorUniform(), mirror_p_pots(0.2), bell_unweighted(0.3)):
        assert check(law, problem, n=4_000).ok, law.name
    per_hidden = Changed(
        Mirror(), lambda masked, weight: (masked, masked / np.maximum(masked.sum(-1, keepdims=True), 1))
    )
    assert not check(per_hidden, problem, n=4_000).ok


# --- T0: the drawn loss is the enumerated one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", UNBIASED, ids=named)
def test_the_loss_is_the_plain_loss(law, predictor):
    accept("mask proposals: plain loss", [z_test(copy, plain(predictor)) for copy in drawn_losses(law, predictor)])


@pytest.mark.parametrize("law", ORDERED, ids=named)
def test_the_plackett_luce_loss_is_the_average_over_orders(law, predictor):
    weights = law.at(LAYOUT)
    truth = along_orders(predictor, weights)
    accept("mask proposals: orders", z_test(drawn_losses(law, predictor)[0], truth))
    measure = exact_measure(weights)
    assert math.isclose((measure * predictor).sum(), truth, rel_tol=1e-12)


def test_a_law_that_drops_a_weight_is_rejected(predictor):
    truth = plain(predictor)
    for law in (AtRates(TABLE, weighted=False), AtRates(p_pots(0.2).rates, weighted=False), bell_unweighted(0.2)):
        reject("mask proposals: plain loss", z_test(drawn_losses(law, predictor)[0], truth))
    per_hidden = Changed(
        PlackettLuce(weights=OWN), lambda masked, weight: (masked, (masked / masked.sum(-1, keepdims=True)))
    )
    reject("mask proposals: orders", z_test(drawn_losses(per_hidden, predictor)[0], along_orders(predictor, OWN)))


def test_the_unweighted_bell_has_a_loss_of_its_own(predictor):
    """The integral of p(t) g(t), g by enumeration of masks at rate t."""
    law = bell_unweighted(0.2)
    summed = (predictor * MASKS).sum(axis=1)

    def at(t):
        chances = t**SIZES * (1 - t) ** (LENGTH - SIZES)
        return float(law.rates.density(np.array([t]))[0] * (chances @ summed) / (t * LENGTH))

    truth = quad(at, 0, 1, epsabs=1e-12)[0]
    accept("mask proposals: unweighted bell", z_test(drawn_losses(law, predictor)[0], truth))
    reject("mask proposals: unweighted bell", z_test(drawn_losses(Uniform(), predictor)[0], truth))


# --- Plackett-Luce ---------------------------------------------------------------------------------------------------------------


def exact_measure(weights):
    """P(mask) x weight of every position, by size and subset."""
    hidden = MASKS * np.asarray(weights)
    shares = hidden / np.maximum(hidden.sum(axis=1, keepdims=True), min(weights))
    return shares * order_chances(weights)[::-1][:, None] / LENGTH


def test_the_prefix_form_is_the_rate_form_with_t_integrated_out():
    """Position i hidden with probability t**w_i, weight w_i/(t L)."""
    weights = np.array(OWN)
    measure = exact_measure(OWN)
    for m, i in [(1, 0), (2, 1), (6, 2), (13, 3), (31, 4), (24, 3)]:

        def at(t, mask=MASKS[m], i=i):
            rates = t**weights
            return np.where(mask, rates, 1 - rates).prod() * weights[i] / (t * LENGTH)

        assert math.isclose(measure[m, i], quad(at, 0, 1, epsabs=1e-13, epsrel=1e-11, limit=200)[0], rel_tol=1e-8)


def test_equal_weights_are_the_uniform_law():
    for weights in ((1.0,) * LENGTH, (7.0,) * LENGTH):
        np.testing.assert_allclose(order_chances(weights)[::-1], [1 / math.comb(LENGTH, int(n)) for n in SIZES])
    masked, weight = draw(PlackettLuce(), 500)
    np.testing.assert_allclose(weight[masked], np.repeat(1 / masked.sum(axis=2), masked.sum(axis=2)[0]), rtol=1e-6)


def test_ratios_to_infinity_are_one_order():
    reading = (2, 4, 0, 3, 1)
    weights = np.empty(LENGTH)
    weights[list(reading)] = 1e15 ** np.arange(2, -3, -1.0)
    masked, weight = draw(PlackettLuce(weights=tuple(weights)), 2000)
    assert np.isin(masked.sum(axis=2), range(1, LENGTH + 1)).all()
    by_reading = masked[0][:, reading]
    assert (np.diff(by_reading.astype(int), axis=1) >= 0).all(), "what is revealed is a prefix"
    np.testing.assert_allclose(weight[0][np.arange(2000), np.array(reading)[by_reading.argmax(axis=1)]], 1, rtol=1e-6)
    counts = np.bincount(masked[0].sum(axis=1), minlength=LENGTH + 1)
    suffix = np.bincount(draw(Suffix(reading), 2000)[0][0].sum(axis=1), minlength=LENGTH + 1)
    assert abs(counts - suffix).max() < 200


def test_with_the_exact_posterior_every_order_has_the_same_loss():
    problem = nae_sat(3, 3, seed=1)
    laws = [PlackettLuce(w) for w in (0.01, 1.0, 50.0)]
    found = exact_variances(ExactPosterior(problem), problem, laws)
    np.testing.assert_allclose(
        [each.mean.mean for each in found], problem.entropy() / problem.layout.length, rtol=1e-12
    )


def test_latents_are_revealed_first_where_they_weigh_more():
    problem = nae_sat(3, 3, seed=1)
    masked = draw_masks(PlackettLuce(50.0), Key(0), problem.sample(Key(1), 4000), problem.layout)[0][0]
    latents, observations = (part.mean() for part in problem.layout.split(masked))
    assert latents < 0.35 < 0.75 < observations


# --- names -----------------------------------------------------------------------------------------------------------------------

RATE = st.floats(0, 1)
NUMBERS = {
    "bernoulli": [st.floats(0, 1, exclude_min=True)],
    "pattern": [st.integers(1, 10**6)],
    "two_rates": [RATE, RATE],
    "plackett_luce": [st.floats(1e-99, 1e99)],
    "bell": [st.floats(0.2, 1e6)],
    "bell_unweighted": [st.floats(1e-3, 1e6)],
    "p_pots": [st.floats(1e-6, 1e6)],
    "mirror_p_pots": [st.floats(1e-6, 1e6)],
}
WITHOUT = {"uniform", "suffix", "observations_first", "latents_only", "mirror", "mirror_uniform"}


def test_every_law_that_has_a_name_is_looked_at():
    assert NUMBERS.keys() | WITHOUT == LAWS.keys()


@pytest.mark.parametrize("name", NUMBERS)
@settings(max_examples=25)
@given(st.data())
def test_a_name_says_exactly_which_law_it_is(name, data):
    """By its name a law is made again; neighbouring numbers have other names; of numpy's numbers nothing is left."""
    numbers = [data.draw(each) for each in NUMBERS[name]]
    law = LAWS[name](*numbers)
    assert mask_law(law.name).name == law.name
    assert mask_law(law.name) == law
    above = [n + 1 if isinstance(n, int) else math.nextafter(n, 0 if n == 1 else math.inf) for n in numbers]
    assert LAWS[name](*above).name != law.name
    of_numpy = LAWS[name](*np.array(numbers))
    assert (of_numpy.name, repr(of_numpy)) == (law.name, repr(law))


def test_laws_by_an_order_timesteps_and_rates_have_exact_names_too():
    others = [
        (PlackettLuce(weights=OWN), PlackettLuce(weights=tuple(reversed(OWN)))),
        (Suffix((0, 1, 2, 3, 4)), Suffix((1, 0, 2, 3, 4))),
        (Mirror(BellRates(0.3)), Mirror(BellRates(math.nextafter(0.3, 1)))),
        (Rotation((TwoRates(0.1, 0.9),)), Rotation((TwoRates(0.1, math.nextafter(0.9, 1)),))),
        (Satisfied(0.3), Satisfied(math.nextafter(0.3, 1))),
    ]
    assert all(one.name != other.name for one, other in others)
    for made in (
        Timesteps(np.int64(4)),
        Suffix(tuple(np.arange(5))),
        Satisfied(np.float64(0.3)),
        PlackettLuce(weights=np.array(OWN)),
        Mirror(BellRates(np.float32(0.25))),
        AtRates(TABLE, np.bool_(False)),
        TwoRates(np.float64(0.1), 1),
    ):
        assert "np." not in repr(made)
        assert "np." not in made.name
    assert [TwoRates(0, 1).name, TwoRates(-0.0, 1.0).name, bell(0.25).name] == [
        "two_rates(0,1)",
        "two_rates(0,1)",
        "bell(0.25)",
    ]


# --- rates and mirrors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rates", [UniformRates(), BellRates(0.05), BellRates(0.5), TABLE, p_pots(0.1).rates], ids=named
)
def test_a_density_of_rates_is_one(rates):
    chances = quadrature(rates)[1]
    assert math.isclose(chances.sum(), 1, rel_tol=1e-9)
    shares = np.array([1e-6, 0.01, 0.3, 0.5, 0.77, 1.0])
    quantiles = rates.quantiles(shares)
    assert (np.diff(quantiles) > 0).all()
    assert (quantiles > 0).all()
    assert quantiles[-1] == 1
    inside = [i / len(rates.edges) for i in range(1, len(rates.edges))]
    below = [
        quad(lambda s: 2 * s * float(rates.density(np.array([s * s]))[0]), 0, math.sqrt(q), points=inside, limit=500)[0]
        for q in quantiles
    ]
    np.testing.assert_allclose(below, shares, atol=2e-6)


@pytest.mark.parametrize("width", [1e-5, 1e-3, 0.05, 0.2, 3.0])
def test_the_quadrature_finds_narrow_bells(width):
    rates = BellRates(width)
    at, chances = quadrature(rates)
    assert math.isclose(chances.sum(), 1, rel_tol=1e-9)
    assert math.isclose(chances @ at, 0.5, rel_tol=1e-9)
    ratio = 0.5 / width  # the variance of a normal law that is cut off at 1/2 +- ratio widths
    cut = 2 * ratio * math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi) / math.erf(ratio / math.sqrt(2))
    assert math.isclose(chances @ np.square(at - 0.5), width**2 * (1 - cut), rel_tol=1e-6)


def quadrature_factors(rates):
    return factors(rates, quadrature(rates)[0])


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.floats(1e-9, 1))
def test_weights_of_a_table_are_exactly_one_over_the_density(heights, share):
    rates = TableRates(tuple(heights))
    at = rates.quantiles(np.array([share]))
    (root,) = np.sqrt(at)
    place = min(math.ceil(root * len(heights)) - 1, len(heights) - 1)
    expected = heights[max(place, 0)] / np.mean(heights) / (2 * root)
    assert math.isclose(rates.density(at)[0], expected, rel_tol=1e-9)
    assert math.isclose(factors(rates, at)[0], 1 / (expected * at[0]), rel_tol=1e-9)


def test_the_limits_of_the_closed_table():
    """p(t) ~ sqrt(1 + ratio/t): uniform at ratio 0, 1/(2 sqrt(t)) at infinity."""
    at = np.array([0.1, 0.3, 0.9])
    np.testing.assert_allclose(p_pots(1e-9).rates.density(at), 1, rtol=0.05)
    np.testing.assert_allclose(p_pots(1e9).rates.density(at), 0.5 / np.sqrt(at), rtol=1e-6)
    density = p_pots(0.2).rates.density(at)
    np.testing.assert_allclose(density / density[0], np.sqrt((1 + 0.2 / at) / (1 + 0.2 / at[0])), rtol=0.05)


def test_mirrored_masks_are_disjoint_until_one_half_and_cover_from_there_on():
    for rates in (UniformRates(), BellRates(0.2), TABLE):
        masked, _ = draw(Mirror(rates), N)
        t = draw_rates(rates, KEY.fold("rate"), N)
        both, neither = (masked[0] & masked[1]).any(axis=1), (~masked[0] & ~masked[1]).any(axis=1)
        assert not both[t <= 0.5].any()
        assert not neither[t >= 0.5].any()
        assert both[t > 0.7].any()
        assert neither[t < 0.3].any()
        accept("mirror: rates", [z_test(t * (copy.mean(axis=1) - t), 0.0) for copy in masked])
        reject("mirror: rates", z_test(t * ((~masked[0]).mean(axis=1) - t), 0.0))


class Unpaired(MirrorUniform):
    """A broken copy: the second mask has the size of the first, and an order of its own."""

    def sample(self, key, tokens, layout, *, start=0):
        masked, weight = super().sample(key, tokens, layout, start=start)
        own = np.argsort(row_units(key.fold("own"), tokens.shape, start=start), axis=1)
        return tuple(np.stack([part[0], np.take_along_axis(part[1], own, axis=1)]) for part in (masked, weight))


def mirrored(masked):
    """Whether both masks of every row have one size, and share and leave out as few positions as such masks can."""
    sizes, shared = masked.sum(axis=2), (masked[0] & masked[1]).sum(axis=1)
    return np.array_equal(sizes[0], sizes[1]) and np.array_equal(shared, np.maximum(2 * sizes[0] - LENGTH, 0))


def test_the_mirror_of_sizes_is_the_uniform_law_twice():
    masked, weight = draw(MirrorUniform(), 2000)
    alone, its_weight = draw(Uniform(), 2000)
    assert np.array_equal(masked[0], alone[0])
    assert np.array_equal(weight[0], its_weight[0])
    assert mirrored(masked)
    assert not mirrored(draw(Unpaired(), 2000)[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LAWS["bell"](0.1), "at least 0.2, got 0.1: take a wider one, or bell_unweighted"),
        (lambda: bell_unweighted(0.0), "positive number, got 0.0"),
        (lambda: p_pots(-1.0), "positive number, got -1.0"),
        (lambda: TableRates((1.0, 0.0)), "positive numbers"),
        (lambda: TableRates(()), "positive numbers"),
        (lambda: AtRates("uniform"), r"such as UniformRates\(\)"),
        (lambda: Mirror(0.5), r"such as UniformRates\(\)"),
        (lambda: PlackettLuce(0.0), "positive numbers"),
        (lambda: draw(PlackettLuce(weights=(1.0, 2.0)), 3), "2 weights, sequences have length 5"),
        (lambda: PlackettLuce(weights=(1e308,) * 5), r"from 1e-100 to 1e\+100"),
        (lambda: draw_orders(KEY, 3, [1.0, -2.0]), r"positive numbers.* got \[1\.0, -2\.0\]"),
        (lambda: order_chances([1.0, 0.0]), r"positive numbers.* got \[1\.0, 0\.0\]"),
        (lambda: quadrature_factors(BellRates(0.01)), r"bell\(0\.01\) has a density of zero .* take a wider one"),
        (lambda: mask_law("mirror(0.3)"), "a density of rates"),
        (lambda: mask_law("bell"), r"bell takes 1 numbers \(width\), got 0"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
