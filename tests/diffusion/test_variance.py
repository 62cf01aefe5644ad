"""The variance of a masked loss by source: slow twins, the closed form of mirrored masks, measured against exact."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc

from lo_theory import ExactPosterior, Key
from lo_theory.diffusion import (
    AtRates,
    Bernoulli,
    Mirror,
    MirrorUniform,
    Pattern,
    PlackettLuce,
    TableRates,
    Uniform,
    bell,
    bell_unweighted,
    exact_variances,
    loss_variances,
    p_pots,
    pots_rates,
    variance,
)
from lo_theory.diffusion.masks import draw_masks
from lo_theory.diffusion.rates import row_units, table_rates
from lo_theory.diffusion.variance import _form, _mirrored_sizes, _paired, _walk
from lo_theory.posterior import MarginalsOnly, Mixed, Sharpened
from lo_theory.problem import Layout, nae_sat, sparse_parity
from lo_theory.testing import joint_law, z_test
from tests.budget import accept, reject

PROBLEM = nae_sat(3, 2, seed=2, noise=0.1)
LAYOUT, LENGTH = PROBLEM.layout, PROBLEM.layout.length
WRONG = Sharpened(Mixed(ExactPosterior(PROBLEM), MarginalsOnly(PROBLEM), 0.3), 2.0)
TABLE = TableRates((0.5, 2.0, 1.0))
OWN = PlackettLuce(weights=(0.2, 3.0, 1.0, 0.5, 2.0))
MASKS = ((np.arange(2**LENGTH)[:, None] >> np.arange(LENGTH)) & 1).astype(bool)
SIZES = MASKS.sum(axis=1)
BY_SIZE = [Uniform(), MirrorUniform(), OWN]
EVERY = [*BY_SIZE, AtRates(TABLE), Mirror(TABLE), Bernoulli(0.3)]


def named(law):
    return law.name


@pytest.fixture(scope="module")
def truth():
    """All sequences, their probabilities, and the losses [sequence, mask, position] of a predictor that is not Bayes."""
    rows, p = joint_law(PROBLEM)
    contexts = np.where(MASKS, np.int8(-1), rows[:, None]).reshape(-1, LENGTH)
    probs = WRONG.marginals(contexts).probs.reshape(len(rows), len(MASKS), LENGTH, -1)
    at = np.take_along_axis(probs, rows[:, None, :, None].astype(int), axis=3)[..., 0]
    return rows, p, np.where(MASKS, -np.log(at), 0.0)


def stages(law):
    """(probability of the rate, P(masks) [2**L, ...], loss of each [sequences -> 2**L, ...]) of a law, slowly."""
    if isinstance(law, (Uniform, MirrorUniform)):
        for n in range(1, LENGTH + 1):
            yield 1 / LENGTH, [(frozenset(o[:n]), frozenset(o[LENGTH - n :])) for o in ORDERS], None, 1 / n
    elif isinstance(law, PlackettLuce):
        chances = []
        for order in ORDERS:
            left = [sum(law.weights[i] for i in order[place:]) for place in range(LENGTH)]
            chances.append(math.prod(law.weights[i] / rest for i, rest in zip(order, left, strict=True)))
        for n in range(1, LENGTH + 1):
            yield 1 / LENGTH, [(frozenset(order[LENGTH - n :]), None) for order in ORDERS], chances, law.weights
    else:
        for t, chance, weight in rates_of(law):
            pairs, of = [], []
            for signs in itertools.product((0, 1, 2), repeat=LENGTH):  # first only, second only, neither or both
                one = frozenset(i for i, sign in enumerate(signs) if sign == 0 or (sign == 2 and t > 0.5))
                other = frozenset(i for i, sign in enumerate(signs) if sign == 1 or (sign == 2 and t > 0.5))
                pairs.append((one, other))
                of.append(math.prod(abs(1 - 2 * t) if sign == 2 else min(t, 1 - t) for sign in signs))
            yield chance, pairs, of, weight


ORDERS = list(itertools.permutations(range(LENGTH)))


def rates_of(law):
    """(t, probability, weight of a hidden position), by the midpoint rule in sqrt(t) for a table."""
    if isinstance(law, Bernoulli):
        return [(law.alpha, 1.0, 1 / (law.alpha * LENGTH))]
    count = 300
    roots = (np.arange(count) + 0.5) / count
    heights = np.repeat(law.rates.heights, count // len(law.rates.heights))
    return [(s * s, h / count, 2 * s / (h * s * s * LENGTH)) for s, h in zip(roots, heights, strict=True)]


def slow(law, p, losses):
    """A, B, C and the covariance of the copies, by their definitions."""
    two = isinstance(law, (Mirror, MirrorUniform))
    masks, squared, mean, covariance = (np.zeros(len(p)) for _ in range(4))
    for chance, pairs, of, weight in stages(law):
        of = np.full(len(pairs), 1 / len(pairs)) if of is None else np.asarray(of)

        def loss(hidden, weight=weight):
            number = sum(1 << i for i in hidden)
            if isinstance(weight, tuple):
                return sum(weight[i] * losses[:, number, i] for i in hidden) / sum(weight[i] for i in hidden)
            return weight * losses[:, number].sum(axis=1)

        one = np.stack([loss(pair[0]) for pair in pairs])
        drawn = one
        if two:
            other = np.stack([loss(pair[1]) for pair in pairs])
            drawn = (one + other) / 2
            covariance += chance * (of @ (one * other) - (of @ one) * (of @ other))
        g = of @ drawn
        masks, squared, mean = masks + chance * (of @ drawn**2 - g**2), squared + chance * g**2, mean + chance * g
    return p @ masks, p @ (squared - mean**2), p @ mean**2 - (p @ mean) ** 2, p @ covariance


@pytest.mark.parametrize("law", EVERY, ids=named)
def test_exact_variances_equal_their_slow_twin(law, truth):
    _, p, losses = truth
    (found,) = exact_variances(WRONG, PROBLEM, [law])
    parts = slow(law, p, losses)
    tolerance = 2e-4 if hasattr(law, "rates") else 1e-10
    np.testing.assert_allclose(
        [found.masks.mean, found.rates.mean, found.data.mean], parts[:3], rtol=tolerance, atol=1e-12
    )
    assert math.isclose(found.total.mean, sum(parts[:3]), rel_tol=tolerance)
    assert (found.copies == 2) == (found.covariance.n == 1)
    if found.copies == 2:
        assert math.isclose(found.covariance.mean, parts[3], rel_tol=tolerance)


# --- measured -----------------------------------------------------------------------------------------------------------------------


def scores(measured, exact):
    """Two-sided p-values of the parts of a measurement against their exact values."""
    names = ("mean", "masks", "rates", "data", "total", *(["covariance"] if exact.copies == 2 else []))
    sums = [(getattr(measured, name), getattr(exact, name).mean) for name in names]
    return [float(erfc(abs(s.mean - x) / s.standard_error / math.sqrt(2))) for s, x in sums if s.standard_error > 1e-9]


def test_measured_variances_have_the_exact_means():
    laws = [*EVERY, bell_unweighted(0.2)]
    exact = exact_variances(WRONG, PROBLEM, laws)
    for one, other in zip(loss_variances(WRONG, PROBLEM, laws, key=Key(3), n=4000), exact, strict=True):
        accept("loss variance: measured", scores(one, other))
    (one,) = loss_variances(WRONG, PROBLEM, [MirrorUniform()], key=Key(3), n=4000)
    reject("loss variance: measured", scores(one, exact[EVERY.index(OWN)]))


@pytest.mark.parametrize("law", [*BY_SIZE, Bernoulli(0.3)], ids=named)
def test_the_parts_add_up_to_the_variance_of_drawn_losses(law, truth):
    rows, p, losses = truth
    (exact,) = exact_variances(WRONG, PROBLEM, [law])
    n = 40_000
    which = np.searchsorted(np.cumsum(p), row_units(Key(8), (n, 1))[:, 0])
    masked, weight = draw_masks(law, Key(9), rows[which], LAYOUT)
    drawn = (weight * losses[which, masked @ (1 << np.arange(LENGTH))]).sum(axis=2).mean(axis=0)
    squares = (drawn - exact.mean.mean) ** 2
    accept("loss variance: drawn", z_test(squares, exact.total.mean))
    reject("loss variance: drawn", z_test(squares, exact.total.mean - exact.rates.mean - exact.data.mean / 2))


# --- the table of P-POTS ------------------------------------------------------------------------------------------------------------


def best_table(truth):
    """p(t) ~ sqrt(g**2 + v), mean and variance of the loss at rate t over sequences and masks, by its definition."""
    _, p, losses = truth

    def squares(rates):
        pmf = rates[..., None] ** SIZES * (1 - rates[..., None]) ** (LENGTH - SIZES)
        loss = losses.sum(axis=2) / LENGTH / rates[..., None, None]  # [rate, sequence, mask]
        g = np.einsum("...sm,s,...m", loss, p, pmf)
        v = np.einsum("...sm,s,...m", (loss - g[..., None, None]) ** 2, p, pmf)
        return 4 * rates * (g**2 + v)

    return table_rates(squares, "best")


def averaged(axes):
    """A walk in which losses are averaged over sequences, orders or ends before anything squares them."""

    def walk(*arguments):
        values = _walk(*arguments)
        return np.broadcast_to(values.mean(axis=axes, keepdims=True), values.shape)

    return walk


AVERAGED = [(0, 1, 2), (1, 2)]


def test_a_measured_table_is_that_of_enumeration_and_averages_before_squares_are_not(truth, monkeypatch):
    bins, best = (0, 31, 63), best_table(truth).heights

    def tests():
        tables = [pots_rates(WRONG, PROBLEM, key=Key(5).fold(i), n=100).heights for i in range(100)]
        return [z_test(np.array(tables)[:, k], best[k]) for k in bins]

    accept("loss variance: table", tests())
    for axes in AVERAGED:
        monkeypatch.setattr(variance, "_walk", averaged(axes))
        reject("loss variance: table", tests())


@pytest.fixture(scope="module")
def of_wrong():
    """The measured table of ``WRONG``, and the variance that it leaves."""
    table = pots_rates(WRONG, PROBLEM, key=Key(5), n=4000)
    (found,) = exact_variances(WRONG, PROBLEM, [AtRates(table)])
    return table, found.total.mean


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.3, 3), min_size=64, max_size=64))
def test_no_table_is_better_than_the_measured_one(of_wrong, factors):
    table, least = of_wrong
    (other,) = exact_variances(WRONG, PROBLEM, [AtRates(TableRates(tuple(np.array(table.heights) * factors)))])
    assert least <= other.total.mean * (1 + 1e-4)


def test_the_measured_table_is_the_best_and_averages_before_squares_are_worse(of_wrong, truth, monkeypatch):
    _, least = of_wrong
    (best,) = exact_variances(WRONG, PROBLEM, [AtRates(best_table(truth))])
    assert best.total.mean <= least <= best.total.mean * (1 + 1e-4)
    for axes in AVERAGED:
        monkeypatch.setattr(variance, "_walk", averaged(axes))
        table = pots_rates(WRONG, PROBLEM, key=Key(5), n=4000)
        (worse,) = exact_variances(WRONG, PROBLEM, [AtRates(table)])
        assert worse.total.mean > best.total.mean * 1.01


# --- mirrored masks -----------------------------------------------------------------------------------------------------------------


def centred(values, t):
    """c_S of f = sum over S of c_S prod over i in S of (b_i - t): the difference quotient in S, averaged over the rest."""
    found = values.copy()
    for bit in range(int(np.log2(len(values)))):
        low = np.flatnonzero(~(np.arange(len(values)) >> bit) & 1)
        high = low | (1 << bit)
        found[low], found[high] = (1 - t) * found[low] + t * found[high], found[high] - found[low]
    return found


def closed_form(values, t):
    """(variance of f, covariance of two mirrored copies) at rate t."""
    squares, orders = centred(values, t)[1:] ** 2, SIZES[1:]
    return squares @ (t * (1 - t)) ** orders, squares @ (-(min(t, 1 - t) ** 2)) ** orders.astype(float)


def test_the_covariance_of_the_copies_is_that_of_the_closed_form(truth):
    """Sum over sets S of c_S**2 (-min(t, 1-t)**2)**|S|, over all rates of the law."""
    _, p, losses = truth
    (found,) = exact_variances(WRONG, PROBLEM, [Mirror(TABLE)])
    (alone,) = exact_variances(WRONG, PROBLEM, [AtRates(TABLE)])
    variance = covariance = 0.0
    for t, chance, weight in rates_of(Mirror(TABLE)):
        parts = np.array([closed_form(weight * row.sum(axis=1), t) for row in losses])
        variance, covariance = variance + chance * (p @ parts[:, 0]), covariance + chance * (p @ parts[:, 1])
    assert math.isclose(found.covariance.mean, covariance, rel_tol=2e-4)
    assert math.isclose(alone.masks.mean, variance, rel_tol=2e-4)
    assert math.isclose(found.masks.mean, (variance + covariance) / 2, rel_tol=2e-4)
    assert covariance < 0


@dataclass(frozen=True)
class Fixed:
    """One rate t for all, weight 1/(t L)."""

    t: float
    name: str = "fixed"
    edges: tuple = (0.0, 1.0)

    def quantiles(self, shares):
        return np.full_like(shares, self.t)

    def density(self, rates):
        return np.ones_like(rates)


@dataclass(frozen=True)
class Independent:
    """The second mask drawn by itself, as released code has it."""

    rates: Fixed
    name: str = "independent"

    def sample(self, key, tokens, layout, *, start=0):
        parts = [AtRates(self.rates).sample(key.fold(i), tokens, layout, start=start) for i in range(2)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@pytest.mark.parametrize("t", [0.3, 0.5, 0.8])
def test_drawn_copies_have_the_closed_covariance_and_independent_ones_do_not(t):
    generator = np.random.default_rng(7)
    values = MASKS @ generator.exponential(size=LENGTH) + 0.3 * generator.normal(size=len(MASKS)) * (SIZES > 0)
    mean = t**SIZES * (1 - t) ** (LENGTH - SIZES) @ values
    covariance = closed_form(values, t)[1]

    def products(law):
        masked, weight = draw_masks(law, Key(4), np.zeros((20_000, LENGTH), np.int8), LAYOUT)
        np.testing.assert_allclose(weight[masked], 1 / (t * LENGTH), rtol=1e-6)
        return np.prod(values[masked @ (1 << np.arange(LENGTH))] - mean, axis=0)

    accept("mirror: covariance", z_test(products(Mirror(Fixed(t))), covariance))
    reject("mirror: covariance", z_test(products(Independent(Fixed(t))), covariance))


@given(st.floats(0.2, 0.8), st.integers(1, LENGTH), st.integers(0, 2**16))
def test_odd_orders_help_and_even_orders_hurt(t, order, seed):
    """A loss with interactions of one order only: the covariance of mirrored masks has the sign of (-1)**order, and the
    correlation is that power of -t/(1 - t) or its inverse; at order 1, independent tokens.
    """
    sets = np.flatnonzero(order == SIZES)
    weights = np.random.default_rng(seed).normal(size=len(sets))
    values = sum(w * np.where(MASKS, 1 - t, -t)[:, MASKS[s]].prod(axis=1) for w, s in zip(weights, sets, strict=True))
    pmf = t**SIZES * (1 - t) ** (LENGTH - SIZES)
    mean = pmf @ values
    variance = pmf @ values**2 - mean**2
    values = np.where(SIZES > 0, values - values[0], 0.0)  # _paired is about losses, zero where nothing is hidden
    mean = pmf @ values
    covariance = _paired(values[None], SIZES, _mirrored_sizes(t, LENGTH))[0] - mean**2
    assert math.copysign(1, covariance) == (-1) ** order
    assert math.isclose(covariance / variance, (-min(t / (1 - t), (1 - t) / t)) ** order, rel_tol=1e-6)


def test_pairs_of_sets_by_subset_sums_equal_their_enumeration():
    generator = np.random.default_rng(1)
    values, length = generator.normal(size=(2, 16)), 4
    sizes = np.array([bin(i).count("1") for i in range(16)])
    for k, m in itertools.product(range(1, 5), repeat=2):
        pair = np.zeros((5, 5))
        pair[k, m] = 1
        pairs = [
            (a, b)
            for a, b in itertools.product(range(16), repeat=2)
            if sizes[a] == k and sizes[b] == m and (a & b == 0 if k + m <= length else a | b == 15)
        ]
        expected = np.mean([values[:, a] * values[:, b] for a, b in pairs], axis=0)
        np.testing.assert_allclose(_paired(values, sizes, pair), expected)


# --- known answers ------------------------------------------------------------------------------------------------------------------


def test_fair_independent_tokens():
    """Every token loses ln 2 whatever is hidden: nothing is random but how many are hidden."""
    problem = sparse_parity(4, 3, 3, 0.0, seed=0)
    length, bits = problem.layout.length, MarginalsOnly(problem)
    ratio = 1 / (length - 1)
    half = Bernoulli(0.5)
    uniform, mirrored, binomial, best = exact_variances(
        bits, problem, [Uniform(), MirrorUniform(), half, p_pots(ratio)]
    )
    for found in (uniform, mirrored):
        np.testing.assert_allclose([found.masks.mean, found.rates.mean, found.data.mean], 0, atol=1e-15)
    assert math.isclose(binomial.total.mean, math.log(2) ** 2 * (0.5 * 0.5 / length) / 0.5**2, rel_tol=1e-12)
    measured = pots_rates(bits, problem, key=Key(0), n=2)
    np.testing.assert_allclose(measured.heights, p_pots(ratio).rates.heights, rtol=1e-9)
    roots = np.linspace(0, 1, 100_001)[1:]
    least = np.mean(2 * roots * np.sqrt((1 - 1 / length) + 1 / length / roots**2)) ** 2 - 1
    assert math.isclose(best.total.mean, math.log(2) ** 2 * least, rel_tol=1e-3)


@pytest.mark.parametrize("law", [Uniform(), MirrorUniform(), PlackettLuce(), AtRates(TABLE)], ids=named)
def test_of_the_data_the_exact_posterior_leaves_the_variance_of_ln_p(law, truth):
    """E over masks of its loss of a sequence is -ln p(x)/L (the chain rule along a random order)."""
    _, p, _ = truth
    (found,) = exact_variances(ExactPosterior(PROBLEM), PROBLEM, [law])
    expected = (p @ np.log(p) ** 2 - (p @ np.log(p)) ** 2) / LENGTH**2
    assert expected > 1e-3
    assert math.isclose(found.data.mean, expected, rel_tol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.3, 3), min_size=64, max_size=64))
def test_no_table_is_better_than_p_pots(factors):
    problem = sparse_parity(4, 3, 3, 0.0, seed=0)
    bits = MarginalsOnly(problem)
    best = pots_rates(bits, problem, key=Key(0), n=2)
    other = TableRates(tuple(np.array(best.heights) * factors))
    least, more = exact_variances(bits, problem, [AtRates(best), AtRates(other)])
    assert least.total.mean <= more.total.mean * (1 + 1e-9)


def test_a_weight_of_one_over_t_has_infinite_variance_unless_single_tokens_are_certain():
    laws = [Bernoulli(), Mirror(), bell(0.2), bell_unweighted(0.2), AtRates(TABLE, weighted=False), p_pots(0.2)]
    found = exact_variances(WRONG, PROBLEM, laws)
    assert [math.isinf(each.masks.mean) for each in found] == [True] * 5 + [False]
    assert all(math.isinf(each.total.mean) for each in loss_variances(WRONG, PROBLEM, laws[:5], key=Key(0), n=3))
    known = sparse_parity(3, 3, 2, 0.0, seed=1)  # each token is a function of the others
    exact = exact_variances(ExactPosterior(known), known, laws)
    assert all(math.isfinite(each.total.mean) for each in exact)


def test_equal_weights_of_plackett_luce_are_uniform():
    one, other = exact_variances(WRONG, PROBLEM, [Uniform(), PlackettLuce()])
    for name in ("mean", "masks", "rates", "data", "total"):
        assert math.isclose(getattr(one, name).mean, getattr(other, name).mean, rel_tol=1e-9)


def test_forms_are_probabilities():
    """Of every law, E l of a loss that is 1/L for each hidden position is 1, and its copies' sizes have a law."""
    layout = Layout(4, 8, 2, 2)
    for law in (*EVERY, bell(0.3), Mirror(), p_pots(0.1)):
        if law is OWN:
            continue
        form = _form(law, layout)
        sizes = np.arange(13) / 12
        assert math.isclose(form.mean @ sizes, 1, rel_tol=1e-8)
        if form.pair is not None:
            np.testing.assert_allclose(form.pair, form.pair.T, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: loss_variances(WRONG, PROBLEM, [Pattern(1)], key=Key(0), n=3),
            r"pattern\(1\) has no variance by size",
        ),
        (lambda: loss_variances(WRONG, PROBLEM, ["uniform"], key=Key(0), n=3), "uniform has no variance by size"),
        (lambda: loss_variances(WRONG, PROBLEM, [Uniform()], key=Key(0), n=1), "at least two sequences, got n = 1"),
        (lambda: exact_variances(MarginalsOnly(LONG), LONG, [Uniform()]), "such as 10 bits: L = 24"),
        (lambda: pots_rates(WRONG, PROBLEM, key=Key(0), n=0), "at least one sequence, got n = 0"),
        (lambda: exact_variances(CERTAIN, PROBLEM, [Uniform()]), "ExactPosterior excludes a token of the sequence"),
        (lambda: loss_variances(CERTAIN, PROBLEM, [Uniform()], key=Key(0), n=50), "infinite, and has no variance"),
        (lambda: pots_rates(CERTAIN, PROBLEM, key=Key(0), n=50), "infinite, and has no variance"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


LONG = nae_sat(6, 18, seed=0)
CERTAIN = ExactPosterior(nae_sat(3, 2, seed=2))  # of the problem without noise
