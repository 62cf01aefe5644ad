"""Sums that add, and intervals: exact values, coverage by simulation with rules that must be rejected, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lo_theory.diffusion.statistics import Estimate, Runs, Sums, between, difference, pooled, welch

Z = 1.959963984540054


def share_of(ones: int, n: int) -> Sums:
    return Sums.of([1] * ones + [0] * (n - ones))


# --- sums -------------------------------------------------------------------------------------------------------------


def test_a_large_mean_does_not_swallow_the_spread() -> None:
    values = 1e8 + np.random.default_rng(0).normal(0, 1, 10_000)
    expected = values.std(ddof=1) / 100
    parts = [Sums.of(part) for part in np.array_split(values, 7)]
    for sums in (Sums.of(values), sum(parts, Sums(0, 0.0, 0.0)), sum(parts[::-1], Sums(0, 0.0, 0.0))):
        assert sums.standard_error == pytest.approx(expected, rel=1e-6)
        assert f"{sums.standard_error:.4f}" == "0.0100"
    lost = Sums.from_squares(10_000, values.sum(), np.square(values).sum())
    assert lost.standard_error != pytest.approx(expected, rel=0.01), "sums of squares had lost it"


@given(st.lists(st.integers(-1000, 1000), max_size=30), st.data())
def test_sums_are_the_exact_ones_in_whatever_order_they_are_added(values: list[int], data: st.DataObject) -> None:
    offset = data.draw(st.sampled_from([0, 2**20, -(2**30)]))
    numbers = [value + offset for value in values]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(numbers)), max_size=5)))
    parts = [numbers[a:b] for a, b in zip([0, *cuts], [*cuts, len(numbers)], strict=True)]
    order = data.draw(st.permutations(parts))
    found = sum((Sums.of(np.array(part, np.int64)) for part in order), Sums(0, 0.0, 0.0))
    mean = Fraction(sum(numbers), max(1, len(numbers)))
    deviations = sum((number - mean) ** 2 for number in numbers)
    assert (found.n, found.total) == (len(numbers), sum(numbers))
    assert found.deviations == pytest.approx(float(deviations), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("value", [0.5, 0.7, 1.0, 0.0, 1e8 / 3])
def test_equal_values_have_no_variance_to_the_bit(value: float) -> None:
    both = Sums.of([value] * 1_000) + Sums.of([value] * 1_000)
    for sums in (Sums.of([value] * 2_000), both):
        assert sums.deviations == 0
        assert sums.standard_error == 0
    squares = float(np.square([value] * 2_000).sum())
    assert Sums.from_squares(2_000, both.total, squares).deviations == 0, "nor as older rows hold them"


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_has_no_error_and_is_not_hidden(bad: float) -> None:
    whole = Sums.of([1.0, bad, 2.0])
    for sums in (whole, Sums.of([1.0]) + Sums.of([bad, 2.0]), Sums.of([1.0, 2.0]) + Sums.single(bad), whole + whole):
        assert math.isnan(sums.mean) if math.isnan(bad) else sums.mean == bad
        assert math.isnan(sums.standard_error)
        assert all(math.isnan(end) for end in sums.interval())
        assert all(math.isnan(end) for end in sums.interval(share=True))
    assert math.isnan(Sums.from_squares(3, bad, math.inf).standard_error)
    runs = Runs({0: Sums.of([1.0, 2.0]), 1: Sums.of([bad, 2.0])})
    assert not math.isfinite(runs.mean)
    assert math.isnan(runs.estimate().half)


def test_one_value_is_kept_as_it_is_and_has_no_error() -> None:
    one = Sums.single(3.0)
    assert (one.n, one.total, one.mean, one.deviations) == (1, 3.0, 3.0, 0.0)
    assert math.isnan(one.standard_error)
    assert all(math.isnan(end) for end in (*one.interval(), *one.interval(share=False)))
    both = one + Sums.single(5.0)
    assert (both.mean, both.standard_error) == (4.0, 1.0)
    assert math.isnan(Sums.of([]).mean)


@pytest.mark.parametrize("values", [["1", "2"], [None], [1j], "ab", np.ma.masked_array([1.0, 2.0], [0, 1]), [{}]])
def test_values_of_wrong_kinds_are_refused(values: object) -> None:
    with pytest.raises(TypeError, match="values are plain numbers, one a sequence"):
        Sums.of(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [(-1, 0.0, 0.0), (2, 1.0, -0.5), (1, 1.0, 1.0), (0, 0.0, 2.0)])
def test_sums_that_no_values_have_are_refused(content: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match=r"negative|squared deviations"):
        Sums(*content)


def test_older_statistics_become_centred() -> None:
    values = np.random.default_rng(1).beta(2, 1, 300)
    found = Sums.from_squares(300, values.sum(), np.square(values).sum())
    assert found.deviations == pytest.approx(Sums.of(values).deviations, rel=1e-12)
    assert Sums.from_squares(1, 0.3, 0.09) == Sums.single(0.3)


def test_a_shift_moves_the_mean_alone() -> None:
    values = np.array([0.3, 0.5, 0.4])
    found, expected = Sums.of(values).shifted(-0.25), Sums.of(values - 0.25)
    assert (found.mean, found.standard_error) == pytest.approx((expected.mean, expected.standard_error))


# --- over sequences ---------------------------------------------------------------------------------------------------


def test_an_interval_is_students() -> None:
    for values in ([1.0, 2.0, 4.0], np.random.default_rng(2).normal(2, 3, 500)):
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert Sums.of(values).interval() == pytest.approx(expected)


@pytest.mark.parametrize(("ones", "n"), [(0, 2_000), (2_000, 2_000), (1, 30), (17, 40), (999, 1_000), (3, 5)])
def test_of_zeros_and_ones_it_is_wilsons(ones: int, n: int) -> None:
    expected = stats.binomtest(ones, n).proportion_ci(method="wilson")
    assert share_of(ones, n).interval(share=True) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("value", [0.1, 0.5, 0.7, 0.815, 0.99])
def test_of_one_repeated_share_it_has_the_width_of_one_in_n(value: float) -> None:
    """Neither as wide as coin flips ([.478, .522] of 2,000 times .5) nor of no width."""
    low, high = Sums.of([value] * 2_000).interval(share=True)
    assert low < value < high
    assert high - low == pytest.approx(2 * Z**2 / math.sqrt(12) / 2_000, rel=0.06)
    assert f"{100 * (high - low) / 2:.1f}" == "0.1", "no table shows ±0.0"


def test_it_is_continuous_up_to_where_all_values_are_one() -> None:
    whole = Sums.of(np.ones(2_000)).interval(share=True)
    assert whole == pytest.approx((2_000 / (2_000 + Z**2), 1), abs=1e-12)
    ends = [Sums.of([1.0] * 1_999 + [1 - apart]).interval(share=True)[0] for apart in (1e-12, 1e-6, 1e-3, 0.1, 1.0)]
    assert ends[0] == pytest.approx(whole[0], abs=1e-9)
    assert ends[1] == pytest.approx(whole[0], abs=1e-6)
    assert ends[-1] == pytest.approx(stats.binomtest(1_999, 2_000).proportion_ci(method="wilson").low, abs=1e-12)


def test_it_is_continuous_in_the_measured_variance() -> None:
    base = np.full(2_000, 0.7)
    flat = Sums.of(base).interval(share=True)
    widths = []
    for spread in (1e-15, 1e-9, 1e-4, 0.005, 0.02, 0.1, 0.29):
        values = base + spread * (-1) ** np.arange(2_000)
        low, high = Sums.of(values).interval(share=True)
        widths.append(high - low)
        assert (low, high) == pytest.approx(flat, abs=2.5 * spread / math.sqrt(2_000) + 1e-12)
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(2 * Z * 0.29 / math.sqrt(2_000), rel=0.01), "z standard errors"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(1, 4))
def test_an_interval_of_shares_holds_its_mean_and_lies_in_0_and_1(values: list[float], runs: int) -> None:
    low, high = Sums.of(values).interval(share=True)
    assert 0 <= low <= min(1.0, Sums.of(values).mean) <= high <= 1
    assert low < high
    estimate = Runs({run: Sums.of(values) for run in range(runs)}).estimate(share=True)
    assert 0 <= estimate.low <= estimate.value + 1e-15
    assert estimate.value <= estimate.high <= 1 + 1e-15


def test_values_outside_of_0_and_1_are_no_shares() -> None:
    for values in ([0.0, 2.0, 0.0], [-1.0, 1.0], [1.5, 1.5]):
        assert not Sums.of(values).fits_share
        with pytest.raises(ValueError, match="no shares"):
            Sums.of(values).interval(share=True)
    assert Sums.of([0.1 + 0.2] * 3 + [1.0]).fits_share


Law = tuple[float, Callable[[np.random.Generator, int], np.ndarray]]
_LAWS: dict[str, Law] = {
    "constant but for one in n": (0.7 - 0.7 / 200, lambda g, n: np.where(g.random(n) < 1 / n, 0.0, 0.7)),
    "constant but for three in n": (0.7 - 0.9 / 200, lambda g, n: np.where(g.random(n) < 3 / n, 0.4, 0.7)),
    "one, but for two halves in n": (1 - 1 / 200, lambda g, n: np.where(g.random(n) < 2 / n, 0.5, 1.0)),
    "narrow, but for three in n": (
        0.4 * (1 - 3 / 200),
        lambda g, n: np.where(g.random(n) < 3 / n, 0.0, 0.4 + 0.01 * g.choice([-1, 1], n)),
    ),
    "coin": (0.5, lambda g, n: g.integers(0, 2, n)),
    "rare": (0.03, lambda g, n: g.random(n) < 0.03),
    "means of ten": (0.97, lambda g, n: g.binomial(10, 0.97, n) / 10),
    "means of four": (0.6, lambda g, n: g.binomial(4, 0.6, n) / 4),
    "means of forty": (0.6, lambda g, n: g.binomial(40, 0.6, n) / 40),
    "skewed": (0.3 / 3.3, lambda g, n: g.beta(0.3, 3.0, n)),
}


def _coverage(name: str, rule: Callable[[Sums], tuple[float, float]], repeats: int = 2_000) -> float:
    mean, draw = _LAWS[name]
    generator = np.random.default_rng(5)
    ends = [rule(Sums.of(draw(generator, 200))) for _ in range(repeats)]
    return sum(low <= mean <= high for low, high in ends) / repeats


def ours(sums: Sums) -> tuple[float, float]:
    return sums.interval(share=True)


def scaled(sums: Sums) -> tuple[float, float]:
    """Wilson's with the measured variance as it is, however small."""
    if not sums.deviations:
        return sums.mean, sums.mean
    k = Z**2 * sums.deviations / sums.n**2 / (spread := sums.mean * (1 - sums.mean))
    centre, half = (sums.mean + k / 2) / (1 + k), math.sqrt(k * spread + k * k / 4) / (1 + k)
    return centre - half, centre + half


def coins(sums: Sums) -> tuple[float, float]:
    """As if n shares were n coin flips."""
    return share_of(round(sums.total), sums.n).interval(share=True)


@pytest.mark.parametrize("name", _LAWS)
def test_intervals_of_shares_cover(name: str) -> None:
    """In at least 93 % of 2,000 repetitions: four standard errors below 95 %."""
    assert _coverage(name, ours) > 0.93


def test_rules_that_trust_a_small_variance_or_none_are_rejected() -> None:
    for rule in (Sums.interval, scaled):
        assert _coverage("constant but for one in n", rule) < 0.75
        assert _coverage("constant but for three in n", rule) < 0.9
    assert _coverage("means of four", coins) > 0.999, "twice too wide"
    assert _coverage("means of four", ours) < 0.98


# --- over runs --------------------------------------------------------------------------------------------------------


def three(*per_cent: float) -> Runs:
    return Runs({seed: share_of(round(10 * value), 1_000) for seed, value in enumerate(per_cent)})


def test_several_runs_have_students_interval_over_them() -> None:
    runs, means = three(88.5, 82.7, 65.1), [0.885, 0.827, 0.651]
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert runs.estimate() == pytest.approx((np.mean(means), low, high))
    assert high > 1
    estimate = runs.estimate(share=True)
    assert estimate == pytest.approx((np.mean(means), low, 1.0)), "a share is cut at 1"
    assert estimate.half == pytest.approx(0.3027, abs=1e-4), "and ± is the larger half"
    assert runs.sums.interval(share=True)[1] - runs.mean < 0.02, "over sequences it would be ten times narrower"


def test_a_difference_is_taken_run_by_run() -> None:
    first, second = three(88.5, 82.7, 65.1), three(85.0, 80.9, 61.2)
    apart = [0.035, 0.018, 0.039]
    low, high = stats.t.interval(0.95, 2, np.mean(apart), stats.sem(apart))
    assert first.minus(second, share=True) == pytest.approx((np.mean(apart), low, high))
    shuffled = Runs(dict(reversed(second.parts.items())))
    assert first.minus(shuffled) == pytest.approx(first.minus(second))
    missing = Runs({seed: sums for seed, sums in second.parts.items() if seed})
    assert first.minus(missing) == pytest.approx(between(apart[1:])), "over the runs that both have"


def test_one_run_has_the_interval_over_sequences() -> None:
    one, other = Runs.of(share_of(700, 1_000)), Runs.of(share_of(650, 1_000))
    assert one.interval(share=True) == share_of(700, 1_000).interval(share=True)
    both = [Estimate(runs.mean, *runs.interval(share=True)) for runs in (one, other)]
    assert one.minus(other, share=True) == difference(*both)
    assert pooled([both[0]]) == both[0]
    assert pooled(both) == between([0.7, 0.65])


def test_runs_of_one_mean_fall_back_on_their_sequences() -> None:
    runs = Runs({seed: share_of(100, 100) for seed in range(4)})
    assert runs.interval(share=True) == share_of(400, 400).interval(share=True)
    low, high = runs.minus(runs, share=True)[1:]
    assert low < 0 < high


def test_estimates_of_one_value_keep_the_widest_of_their_intervals() -> None:
    runs = [Estimate(0.9, 0.85, 0.92), Estimate(0.9, 0.8, 1.0), Estimate(0.9, math.nan, math.nan)]
    assert pooled(runs) == runs[1]
    assert pooled([Estimate(0.9, 0.8, 1.0), Estimate(0.8, 0.7, 0.9)]).half > 0.5


def test_runs_of_single_values_are_the_values() -> None:
    flips = Runs({i: Sums.single(float(i < 15)) for i in range(20)})
    assert flips.interval(share=True) == share_of(15, 20).interval(share=True)


def test_sequences_of_a_run_add_and_runs_stay_apart() -> None:
    first, second = Runs({"a": Sums.of([1.0, 2.0])}), Runs({"a": Sums.of([3.0]), "b": Sums.of([5.0, 7.0])})
    assert (first + second).parts == {"a": Sums.of([1.0, 2.0, 3.0]), "b": Sums.of([5.0, 7.0])}
    assert (first + second).mean == 4.0, "runs weigh the same"
    assert (first + second).n == 5
    assert len((first.renamed(0) + second.renamed(1)).parts) == 3
    assert Runs({"a": Sums.of([]), "b": Sums.of([1.0, 3.0])}).mean == 2.0, "a run without values is none"
    assert math.isnan(Runs({}).mean)


def test_welch_is_that_of_scipy() -> None:
    first, second = [0.1, 0.4, 0.3], [0.5, 0.65]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert welch(first, second)[1:] == pytest.approx((expected.low, expected.high))
    assert math.isnan(welch([0.5], first).half)
    assert math.isnan(between([0.5]).low)
    assert math.isnan(between([]).value)
