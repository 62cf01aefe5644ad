"""The ledger and its p-values.

Sums, its refusals, and that its p-values are uniform for a right sampler and small for a wrong one.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lo_theory.testing import (
    Ledger,
    Share,
    binomial,
    chi_square,
    chi_square_of_rows,
    row_counts,
    t_test,
    totals,
    z_test,
)
from tests.budget import BUDGET, LEDGER, REGISTRY, accept, alpha_for, reject

LAW = np.array([0.4, 0.25, 0.2, 0.1, 0.03, 0.015, 0.004, 0.001])


def test_the_thresholds_sum_to_the_budget():
    spent = sum(share.p_values * alpha_for(name) for name, share in REGISTRY.items())
    assert np.isclose(spent, BUDGET, rtol=1e-12)


def test_weights_divide_the_budget():
    ledger = Ledger({"a": Share(2), "b": Share(1, weight=3.0)}, budget=0.05)
    assert np.isclose(ledger.alpha_for("a"), 0.01)
    assert np.isclose(ledger.alpha_for("b"), 0.03)


def test_an_unknown_name_points_to_the_registry():
    with pytest.raises(LookupError, match=r"'no such test' is not in REGISTRY of tests/budget\.py"):
        alpha_for("no such test")
    with pytest.raises(LookupError, match="REGISTRY"):
        accept("no such test", 0.5)


def test_comparing_more_than_registered_is_an_error():
    ledger = Ledger({"a": Share(3)})
    ledger.accept("a", [0.5, 0.4])
    ledger.accept("a", 0.5)
    with pytest.raises(LookupError, match="compares 4 p-values and registers 3"):
        ledger.accept("a", 0.5)


def test_a_test_that_runs_again_spends_its_share_again():
    ledger = Ledger({"a": Share(2)})
    ledger.spend("a", 2, "first")
    ledger.begin("first")
    ledger.spend("a", 2, "first")
    with pytest.raises(LookupError):
        ledger.spend("a", 1, "second")


def test_ledgers_of_several_processes_add():
    counts = totals([{"a": {"one": 2}}, {"a": {"two": 2}, "b": {"three": 1}}, {"a": {"one": 2}}])
    assert counts == {"a": 4, "b": 1}
    assert Ledger({"a": Share(4), "b": Share(1)}).overspent(counts) == []
    assert Ledger({"a": Share(3), "b": Share(1)}).overspent(counts) == [
        "'a' compared 4 p-values over all processes and registers 3"
    ]


def test_accept_and_reject_decide_at_the_threshold():
    ledger = Ledger({"a": Share(9)}, budget=0.09)
    ledger.accept("a", [0.0101, 1.0])
    with pytest.raises(AssertionError, match="below the threshold"):
        ledger.accept("a", [0.0099, 1.0])
    ledger.reject("a", [0.0099, 1.0])
    with pytest.raises(AssertionError, match="no power"):
        ledger.reject("a", [0.0101, 1.0])
    assert ledger.total("a") == 4  # rejecting spends nothing


@pytest.mark.parametrize("p", [np.nan, -0.1, 1.1])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="p-value lies in"):
        accept("budget helper", p)


@pytest.mark.parametrize("registry", [{"a": Share(0)}, {"a": Share(1, weight=0.0)}])
def test_an_empty_share_is_refused(registry):
    with pytest.raises(ValueError, match="at least one p-value"):
        Ledger(registry)


def uniformity(p_values):
    """P-value that p-values are uniform: 20 equal cells."""
    return chi_square(np.histogram(p_values, 20, (0, 1))[0], np.full(20, 1 / 20))


def test_p_values_of_a_right_sampler_are_uniform_and_of_a_wrong_one_small():
    generator = np.random.default_rng(1)
    biased = LAW + np.array([-0.03, 0.03, 0, 0, 0, 0, 0, 0])
    right = [chi_square(generator.multinomial(20_000, LAW), LAW) for _ in range(2_000)]
    wrong = [chi_square(generator.multinomial(20_000, biased), LAW) for _ in range(50)]
    accept("budget helper", uniformity(right))
    reject(
        "budget helper", uniformity([chi_square(generator.multinomial(20_000, LAW), LAW) / 1.2 for _ in range(2_000)])
    )
    accept("budget helper", uniformity([z_test(generator.exponential(size=2_000), 1.0) for _ in range(2_000)]))
    few = generator.normal(3, 2, (2_000, 8))
    accept("budget helper", uniformity([t_test(samples, 3.0) for samples in few]))
    z = (few.mean(axis=1) - 3) / (few.std(axis=1, ddof=1) / np.sqrt(8))
    reject("budget helper", uniformity(2 * stats.norm.sf(abs(z))))  # the normal law in place of Student's
    assert max(wrong) < alpha_for("budget helper")
    reject("budget helper", z_test(generator.exponential(size=20_000), 1.05))
    reject("budget helper", binomial(5_300, 10_000, 0.5))


@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_false_positives_stay_at_their_level(level):
    generator = np.random.default_rng(2)
    trials, n = 20_000, 20_000
    squares = [chi_square(counts, LAW) for counts in generator.multinomial(n, LAW, size=trials)]
    hits = generator.binomial(1_000, 0.3, size=trials)
    exact = {k: binomial(k, 1_000, 0.3) for k in np.unique(hits)}
    accept("budget helper", binomial(int(np.sum(np.array(squares) < level)), trials, level))
    assert np.mean([exact[k] < level for k in hits]) < 1.3 * level  # conservative, since it is discrete


def test_chi_square_is_the_textbook_one_where_no_cell_is_small():
    counts, law = np.array([260, 240, 300, 200]), np.full(4, 0.25)
    assert np.isclose(chi_square(counts, law), stats.chisquare(counts).pvalue, rtol=1e-12)


def test_chi_square_pools_small_cells_and_sees_impossible_ones():
    law = np.array([0.5, 0.48, 0.01, 0.005, 0.005])
    counts = np.array([500, 480, 12, 4, 4])
    pooled = stats.chisquare([500, 480, 20], [500, 480, 20]).pvalue
    assert np.isclose(chi_square(counts, law), pooled)
    assert chi_square([500, 499, 1], [0.5, 0.5, 0.0]) == 0.0
    with pytest.raises(ValueError, match="draw more than 30"):
        chi_square([20, 10], [0.5, 0.5])
    with pytest.raises(ValueError, match="summing to one"):
        chi_square([20, 10], [0.5, 0.4])


def test_binomial_is_exact_at_small_n():
    assert binomial(0, 4, 0.5) == pytest.approx(2 / 16)
    assert binomial(2, 4, 0.5) == 1.0
    assert binomial(4, 4, 0.5) == pytest.approx(2 / 16)


def test_z_test_of_a_constant_and_of_too_few():
    assert z_test(np.ones(100), 1.0) == 1.0
    assert z_test(np.ones(100), 1.1) == 0.0
    with pytest.raises(ValueError, match="at least 100"):
        z_test(np.ones(9), 1.0)


def test_t_test_is_student_s_and_refuses_too_few():
    samples = np.random.default_rng(3).normal(1.0, 0.5, 12)
    assert np.isclose(t_test(samples, 0.7), stats.ttest_1samp(samples, 0.7).pvalue, rtol=1e-10)
    assert t_test(np.ones(8), 1.0) == 1.0
    assert t_test(np.ones(8), 1.1) == 0.0
    with pytest.raises(ValueError, match="at least 8"):
        t_test(np.ones(7), 1.0)


def test_rows_are_counted_where_they_belong():
    support = np.array([[0, 1], [1, 1], [1, 0]], np.int8)
    rows = np.array([[1, 1], [0, 1], [1, 1], [0, 0]], np.int8)
    assert row_counts(rows, support).tolist() == [1, 2, 0, 1]
    assert chi_square_of_rows(np.tile(support, (40, 1)), support, np.full(3, 1 / 3)) == 1.0


def test_the_ledger_of_the_suite_counts_this_process():
    accept("budget helper", [0.5, 0.5])
    assert LEDGER.total("budget helper") >= 2
