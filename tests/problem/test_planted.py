"""Planted and null ensembles: what is drawn, how often, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lo_theory.problem import Predicate, colouring, from_array, nae, sat, xor
from lo_theory.problem.planted import PlantedInstance, null_model, planted
from lo_theory.rng import Key

ALPHA = 1e-6  # for every p-value below; seeds are fixed

PREDICATES = [nae(3, 3), colouring(5), xor(3), sat(3), from_array([[0, 1, 1], [0, 0, 1], [1, 0, 0]], name="asymmetric")]


def parts(instance: PlantedInstance) -> tuple[np.ndarray, np.ndarray]:
    n = instance.distribution.layout.n_latents
    return instance.distribution.observations.scopes, instance.tokens[n:]


def evaluate(predicate: Predicate, assignment: np.ndarray, scopes: np.ndarray) -> np.ndarray:
    return predicate.table[tuple(assignment[scopes].T.astype(int))]


@pytest.mark.parametrize("size", ["poisson", "fixed"])
@pytest.mark.parametrize("observed", ["satisfied", "all"])
@pytest.mark.parametrize("predicate", PREDICATES, ids=lambda predicate: predicate.name)
def test_every_value_is_that_of_the_planted_assignment(predicate: Predicate, observed: str, size: str) -> None:
    instance = planted(predicate, 300, 6.0, key=Key(1), observed=observed, size=size)
    scopes, values = parts(instance)
    np.testing.assert_array_equal(values, evaluate(predicate, instance.assignment, scopes))
    assert (instance.tokens[:300] == -1).all()
    assert instance.distribution.log_prob(np.concatenate([instance.assignment, values])) == pytest.approx(
        -300 * math.log(predicate.q)
    )
    if observed == "satisfied":
        assert (values == 1).all()
    elif 0.05 < predicate.gamma < 0.95:
        assert 0 < values.mean() < 1
    if size == "fixed":
        assert instance.n_constraints == round(6.0 * 300 / predicate.k)


@pytest.mark.parametrize("size", ["poisson", "fixed"])
def test_scopes_are_distinct_tuples_of_distinct_variables(size: str) -> None:
    """Dense enough that a draw with replacement would repeat a tuple: 12 variables, a third of the ordered pairs."""
    instance = planted(colouring(3), 12, 5.0, key=Key(3), observed="all", size=size)
    scopes, _ = parts(instance)
    assert (scopes[:, 0] != scopes[:, 1]).all()
    assert len(np.unique(scopes, axis=0)) == len(scopes)
    assert scopes.min() >= 0
    assert scopes.max() < 12


def poisson_counts(predicate: Predicate, N: int, degree: float, runs: int) -> np.ndarray:
    return np.array([planted(predicate, N, degree, key=Key(5).fold(i)).n_constraints for i in range(runs)])


def test_the_number_of_constraints_is_poisson() -> None:
    """Mean and variance cN/k (at N = 500 neither the Bernoulli law nor the planted imbalance moves them visibly)."""
    runs, mean = 2000, 10.0 * 500 / 3
    counts = poisson_counts(nae(3, 3), 500, 10.0, runs)

    def p_values(values: np.ndarray) -> tuple[float, float]:
        z = (values.mean() - mean) / math.sqrt(mean / len(values))
        dispersion = ((values - values.mean()) ** 2).sum() / mean
        law = stats.chi2(len(values) - 1)
        return 2 * stats.norm.sf(abs(z)), 2 * min(law.cdf(dispersion), law.sf(dispersion))

    assert min(p_values(counts)) > ALPHA
    assert min(p_values(np.full(runs, round(mean)))) < ALPHA  # the fixed-size ensemble is another law
    assert min(p_values(np.random.default_rng(0).poisson(1.02 * mean, runs))) < ALPHA


def state_counts(instance: PlantedInstance, assignment: np.ndarray, q: int) -> np.ndarray:
    scopes, _ = parts(instance)
    states = assignment[scopes].astype(int) @ q ** np.arange(scopes.shape[1])[::-1]
    return np.bincount(states, minlength=q ** scopes.shape[1])


def test_planted_scopes_are_uniform_among_satisfied_tuples() -> None:
    """Given sigma, the local states of constraints follow the numbers of satisfied tuples; of the null model's, of all
    tuples.
    """
    predicate, n = nae(3, 3), 3000
    for size in ("poisson", "fixed"):
        instance = planted(predicate, n, 30.0, key=Key(8), size=size)
        share = np.bincount(instance.assignment, minlength=3) / n
        everything = np.einsum("a,b,c->abc", share, share, share).ravel()
        law = everything * predicate.table.ravel()
        counts = state_counts(instance, instance.assignment, 3)
        allowed = law > 0
        expected = law[allowed] / law.sum() * counts.sum()
        assert counts[~allowed].sum() == 0
        assert stats.chisquare(counts[allowed], expected).pvalue > ALPHA
        null = null_model(predicate, n, 30.0, key=Key(9), size=size)
        mixed = state_counts(null, instance.assignment, 3)
        assert stats.chisquare(mixed, everything * mixed.sum()).pvalue > ALPHA
        assert mixed[~allowed].sum() > 0  # the null model knows nothing of this assignment


def test_variables_of_a_scope_are_uniform() -> None:
    for size in ("poisson", "fixed"):
        scopes, _ = parts(null_model(nae(3, 3), 200, 300.0, key=Key(2), size=size))
        for argument in range(3):
            counts = np.bincount(scopes[:, argument], minlength=200)
            assert stats.chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("predicate", [nae(3, 3), colouring(3), xor(3)], ids=lambda predicate: predicate.name)
def test_null_values_are_independent_with_rate_gamma(predicate: Predicate) -> None:
    """Definition B.12 with all values observed: P(1) = gamma, and nothing is planted in them."""
    values = parts(null_model(predicate, 4000, 20.0, key=Key(4), observed="all"))[1]
    assert stats.binomtest(int(values.sum()), len(values), predicate.gamma).pvalue > ALPHA
    assert stats.binomtest(int(values.sum()), len(values), predicate.gamma - 0.05).pvalue < ALPHA
    assert null_model(predicate, 50, 5.0, key=Key(0)).assignment is None


def test_the_assignment_is_uniform() -> None:
    assignment = planted(colouring(5), 50_000, 1.0, key=Key(6)).assignment
    assert stats.chisquare(np.bincount(assignment, minlength=5)).pvalue > ALPHA


def test_same_key_same_instance() -> None:
    one, two, other = (planted(nae(3, 3), 100, 9.0, key=Key(seed)) for seed in (1, 1, 2))
    assert one.distribution.fingerprint() == two.distribution.fingerprint()
    assert one.distribution.fingerprint() != other.distribution.fingerprint()
    np.testing.assert_array_equal(one.assignment, two.assignment)


def test_three_units() -> None:
    instance = planted(nae(3, 3), 600, 28.0, key=Key(0), size="fixed")
    assert instance.n_constraints == 5600
    assert instance.degree == pytest.approx(28.0)
    assert instance.density == pytest.approx(28 / 3)
    assert instance.neighbours == pytest.approx(56.0)


@pytest.mark.parametrize("make", [planted, null_model])
def test_bad_input_says_what_is_wrong(make: object) -> None:
    for arguments, keywords, message in (
        ((nae(3, 3), 2, 3.0), {}, "N >= k = 3"),
        ((nae(3, 3), 100, 0.0), {}, "degree"),
        ((nae(3, 3), 100, float("nan")), {}, "degree"),
        ((nae(3, 3), 100, -2.0), {}, "degree"),
        ((nae(3, 3), 100, 3.0), {"observed": "some"}, "observed"),
        ((nae(3, 3), 100, 3.0), {"size": "binomial"}, "size"),
        ((colouring(3), 10, 19.0), {}, "raise N"),
        ((nae(3, 3), 10**9, 3.0), {}, "over the limit"),
        ((from_array([[0, 0], [0, 0]], name="never"), 10, 1.0), {}, "never is never 1"),
        ((nae(3, 3), 3, 1e-12), {}, "no constraint was drawn"),
    ):
        with pytest.raises(ValueError, match=message):
            make(*arguments, key=Key(0), **keywords)  # type: ignore[operator]


def test_an_assignment_that_satisfies_too_little_is_refused() -> None:
    """Fixed size on few variables: this key plants one colour on all four, which satisfies no edge."""
    with pytest.raises(ValueError, match="constraint 0 of 6 found no place"):
        planted(colouring(2), 4, 2.9, key=Key(23), size="fixed")
