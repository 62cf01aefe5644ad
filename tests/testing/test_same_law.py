"""``same_law``: its false-positive rate, the smallest deviation that it promises to find, and what it takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lo_theory.problem import nae_sat, sparse_parity
from lo_theory.rng import Key
from lo_theory.testing import assert_same_law, binomial, detectable, draws_needed, joint_law, same_law
from tests.budget import accept, reject

LAW = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])


def multinomial(law):
    """A sampler of outcomes 0, 1, ..., from a generator at the key."""
    return lambda key, n: key.generator().choice(len(law), n, p=law)


def moved(distance):
    """The law at this total variation from LAW that is hardest to tell from it: all odds change by one factor."""
    factor = np.where(np.isin(np.arange(len(LAW)), [0, 1]), 1 + 2 * distance, 1 - 2 * distance)
    changed = LAW * factor
    assert changed.sum() == pytest.approx(1)
    assert np.abs(changed - LAW).sum() / 2 == pytest.approx(distance)
    return changed


def reds(law, *, level, n, runs=400):
    return sum(not same_law(multinomial(law), LAW, seed=seed, n=n, level=level).ok for seed in range(runs))


def test_a_right_sampler_fails_at_the_stated_rate_and_one_at_the_smallest_distance_with_the_stated_power():
    level, power, n = 0.05, 0.9, 2_000
    smallest = detectable(n, len(LAW), level, power)
    accept("same law", binomial(reds(LAW, level=level, n=n), 400, level))
    accept("same law", binomial(reds(moved(smallest), level=level, n=n), 400, power))
    reject("same law", binomial(reds(moved(smallest / 2), level=level, n=n), 400, power))


def test_as_many_draws_as_a_distance_needs():
    for smallest in (0.01, 0.1):
        n = draws_needed(smallest, 256, 1e-6)
        assert detectable(n, 256, 1e-6) <= smallest < detectable(n - 1, 256, 1e-6) * (1 + 1e-9)
    found = same_law(multinomial(LAW), LAW, smallest=0.05)
    assert found.n == draws_needed(0.05, len(LAW), 1e-6)
    assert found.smallest == pytest.approx(0.05, rel=1e-3)


def test_kinds_of_laws_and_samplers():
    problem = sparse_parity(3, 3, 2, 0.2, seed=0)
    assert assert_same_law(problem, problem).cells == len(joint_law(problem)[1]) == 64
    assert_same_law(problem.sample, problem, n=5_000)
    generator = np.random.default_rng(0)
    assert_same_law(lambda n: generator.integers(0, 2, n), {0: 0.5, 1: 0.5})
    assert_same_law(lambda n: generator.integers(0, 2, (n, 2)), {(a, b): 0.25 for a in (0, 1) for b in (0, 1)})
    assert_same_law(lambda n: generator.choice([-1, 1], n), {-1: 0.5, 1: 0.5})
    found = same_law(lambda n: generator.choice([-3, 0, 10**18], n), {0: 0.5, 1: 0.5}, n=900)
    assert (found.p_value, found.n) == (0.0, 900)
    with pytest.raises(AssertionError, match=r"ANOTHER LAW: outcome \[0\] came .* times, expected 6,000"):
        assert_same_law(multinomial(moved(0.05)), LAW)
    with pytest.raises(AssertionError, match="an outcome that is impossible came"):
        assert_same_law(sparse_parity(3, 3, 2, 0.2, seed=0), nae_sat(3, 3, seed=0))


def gumbel(dtype):
    """Standard Gumbel numbers, as a decoder makes them of uniform ones."""

    def draw(key, n):
        uniform = key.generator().random(n, dtype=dtype)
        return -np.log(-np.log(np.maximum(uniform, np.finfo(dtype).tiny)))

    return draw


def test_gumbel_noise_in_float32_repeats_itself_and_in_float64_does_not():
    assert_same_law(gumbel(np.float64), stats.gumbel_r)
    with pytest.raises(AssertionError, match="numbers come twice, in a continuous law none do"):
        assert_same_law(gumbel(np.float32), stats.gumbel_r)
    with pytest.raises(AssertionError, match="came"):
        assert_same_law(gumbel(np.float64), stats.gumbel_r(0.2))


@pytest.mark.parametrize(
    ("sampler", "law", "words"),
    [
        (3, LAW, "a function of"),
        (lambda a, b, c: a, LAW, "needs 3 arguments"),
        (lambda n: np.zeros(3, int), LAW, "gave 3"),
        (lambda n: np.zeros(n), LAW, "whole numbers"),
        (lambda n: np.zeros(n, int), [0.5, 0.6], "sum 1.1"),
        (lambda n: np.zeros(n, int), {"a": 1.0}, r"whole numbers, or tuples of as many each; got \['a'\]"),
        (lambda n: np.zeros(n, int), {(0, 1): 0.5, (1,): 0.5}, "tuples of as many each"),
        (lambda key, n: nae_sat(3, 3, seed=0).sample(key, n), nae_sat(40, 3, seed=0), "smaller problem"),
    ],
)
def test_what_is_no_sampler_or_no_law_is_refused(sampler, law, words):
    with pytest.raises(ValueError, match=words):
        same_law(sampler, law)


def test_no_power_is_promised_for_nonsense():
    with pytest.raises(ValueError, match="two cells or more"):
        detectable(100, 1, 0.05)
    with pytest.raises(ValueError, match="lies in"):
        draws_needed(0, 3, 0.05)
    assert detectable(1, 10, 1e-6) == 1
    assert same_law(lambda key, n: Key(key.seed).generator().choice(7, n, p=LAW), LAW).power == 0.99
