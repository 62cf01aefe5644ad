"""Planted and null ensembles: what is drawn, how often, and what is refused."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from lo_theory.problem import Predicate, colouring, from_array, nae, sat, xor
from lo_theory.problem.planted import PlantedInstance, null_model, planted
from lo_theory.rng import Key
from lo_theory.testing import binomial, chi_square, z_test
from tests.budget import accept, reject
from tests.problem.twins import words

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


# --- slow twins -----------------------------------------------------------------------------------------------------------------


def word_stream(key: Key, row: int) -> Iterator[int]:
    return (word for draw in itertools.count() for word in words(key, draw, row))


def slow_scope(stream: Iterator[int], first: list[int], k: int, n: int) -> list[int]:
    """Whole tuples are drawn until one names no variable twice."""
    while True:
        scope = first + [next(stream) * n >> 64 for _ in range(k - len(first))]
        if len(set(scope)) == k:
            return scope


def slow_value(stream: Iterator[int], predicate: Predicate, scope: list[int], assignment: np.ndarray | None) -> int:
    """The predicate at the planted values, or at fresh uniform ones."""
    q = predicate.q
    values = [next(stream) * q >> 64 for _ in scope] if assignment is None else assignment[scope].tolist()
    return int(predicate.table[tuple(values)])


def slow_fixed(
    predicate: Predicate, n: int, count: int, observed: str, assignment: np.ndarray | None, key: Key
) -> list[tuple[list[int], int]]:
    """Constraint j by rejection from row j of the words: distinct from those before, and of value 1 if asked for."""
    constraints: list[tuple[list[int], int]] = []
    for j in range(count):
        stream = word_stream(key, j)
        while len(constraints) == j:
            scope = slow_scope(stream, [], predicate.k, n)
            value = slow_value(stream, predicate, scope, assignment)
            if (value == 1 or observed == "all") and scope not in [other for other, _ in constraints]:
                constraints.append((scope, value))
    return constraints


def slow_poisson(
    predicate: Predicate, n: int, degree: float, observed: str, assignment: np.ndarray | None, key: Key
) -> list[tuple[list[int], int]]:
    """For each first variable a Poisson number of candidates from its row of the words, repetitions left out."""
    k, share = predicate.k, predicate.gamma if observed == "satisfied" else 1.0
    p = degree * n / (k * share * math.perm(n, k))
    law = stats.poisson(-math.log(1 - p) * math.perm(n - 1, k - 1))
    constraints: list[tuple[list[int], int]] = []
    for i in range(n):
        stream = word_stream(key, i)
        uniform, number = next(stream) / 2.0**64, 0
        while uniform >= law.cdf(number):
            number += 1
        for _ in range(number):
            scope = slow_scope(stream, [i], k, n)
            value = slow_value(stream, predicate, scope, assignment)
            if scope not in [other for other, _ in constraints]:
                constraints.append((scope, value))
    return [(scope, value) for scope, value in constraints if value == 1 or observed == "all"]


@pytest.mark.parametrize("size", ["poisson", "fixed"])
@pytest.mark.parametrize("observed", ["satisfied", "all"])
@pytest.mark.parametrize("make", [planted, null_model])
@pytest.mark.parametrize(("predicate", "n"), [(nae(3, 3), 9), (colouring(4), 12), (PREDICATES[-1], 7), (sat(1), 5)])
def test_constraints_are_those_of_the_slow_twin(
    predicate: Predicate, n: int, make: object, observed: str, size: str
) -> None:
    """Few variables, so that tuples repeat."""
    degree, key = 0.3 * math.perm(n - 1, predicate.k - 1), Key(7).fold(n)
    instance = make(predicate, n, degree, key=key, observed=observed, size=size)  # type: ignore[operator]
    assignment, here = None, key.fold("constraints")
    if make is planted:
        stream = word_stream(key.fold("assignment"), 0)
        assignment = np.array([next(stream) * predicate.q >> 64 for _ in range(n)])
        np.testing.assert_array_equal(instance.assignment, assignment)
    count = max(1, round(degree * n / predicate.k))
    twin = {
        "fixed": lambda: slow_fixed(predicate, n, count, observed, assignment, here),
        "poisson": lambda: slow_poisson(predicate, n, degree, observed, assignment, here),
    }
    scopes, values = parts(instance)
    assert list(zip(scopes.tolist(), values.tolist(), strict=True)) == twin[size]()


# --- laws -----------------------------------------------------------------------------------------------------------------------


def test_the_number_of_constraints_is_poisson() -> None:
    """Mean and variance cN/k (at N = 500 neither the Bernoulli law nor the planted imbalance moves them visibly)."""
    runs, mean = 2000, 10.0 * 500 / 3
    drawn = [planted(nae(3, 3), 500, 10.0, key=Key(5).fold(i)).n_constraints for i in range(runs)]

    def p_values(counts: np.ndarray) -> list[float]:
        return [z_test(counts, mean), z_test((counts - mean) ** 2, mean)]

    accept("constraint numbers", p_values(np.array(drawn)))
    generator = np.random.default_rng(0)
    reject("constraint numbers", p_values(np.full(runs, round(mean)))[1])  # the fixed-size ensemble is another law
    reject("constraint numbers", p_values(generator.poisson(1.02 * mean, runs))[0])
    reject("constraint numbers", p_values(generator.binomial(round(4 * mean), 1 / 4, runs))[1])


def state_counts(scopes: np.ndarray, assignment: np.ndarray, q: int) -> np.ndarray:
    states = assignment[scopes].astype(int) @ q ** np.arange(scopes.shape[1])[::-1]
    return np.bincount(states, minlength=q ** scopes.shape[1])


def mended_scopes(predicate: Predicate, assignment: np.ndarray, count: int) -> np.ndarray:
    """A wrong sampler: of a tuple with value 0 only the last variable is drawn again."""
    generator = np.random.default_rng(1)
    scopes = generator.integers(0, len(assignment), (count, predicate.k))
    while (wrong := ~evaluate(predicate, assignment, scopes)).any():
        scopes[wrong, -1] = generator.integers(0, len(assignment), wrong.sum())
    return scopes


@pytest.mark.parametrize("size", ["poisson", "fixed"])
def test_planted_scopes_are_uniform_among_satisfied_tuples(size: str) -> None:
    """Given sigma, the local states of constraints follow the numbers of satisfied tuples; of the null model's, of all
    tuples.
    """
    predicate, n = nae(3, 3), 3000
    instance = planted(predicate, n, 30.0, key=Key(8), size=size)
    share = np.bincount(instance.assignment, minlength=3) / n
    everything = np.einsum("a,b,c->abc", share, share, share).ravel()
    law = everything * predicate.table.ravel()
    counts = state_counts(parts(instance)[0], instance.assignment, 3)
    accept("planted scopes", chi_square(counts, law / law.sum()))
    mended = mended_scopes(predicate, instance.assignment, int(counts.sum()))
    reject("planted scopes", chi_square(state_counts(mended, instance.assignment, 3), law / law.sum()))
    null = null_model(predicate, n, 30.0, key=Key(9), size=size)  # it knows nothing of this assignment
    accept("planted scopes", chi_square(state_counts(parts(null)[0], instance.assignment, 3), everything))
    reject("planted scopes", chi_square(counts, everything))


@pytest.mark.parametrize("size", ["poisson", "fixed"])
def test_variables_of_a_scope_are_uniform(size: str) -> None:
    scopes, _ = parts(null_model(nae(3, 3), 200, 300.0, key=Key(2), size=size))
    sets = np.sort(scopes, axis=1)  # a wrong sampler: it draws sets of variables in place of tuples
    for argument in range(3):
        uniform = np.full(200, 1 / 200)
        accept("variables of scopes", chi_square(np.bincount(scopes[:, argument], minlength=200), uniform))
        reject("variables of scopes", chi_square(np.bincount(sets[:, argument], minlength=200), uniform))


@pytest.mark.parametrize("predicate", [nae(3, 3), colouring(3), xor(3)], ids=lambda predicate: predicate.name)
def test_null_values_are_independent_with_rate_gamma(predicate: Predicate) -> None:
    """Definition B.12 with all values observed: P(1) = gamma, and neighbours (mostly of one first variable) agree no
    more often than chance has it.
    """
    values = parts(null_model(predicate, 4000, 20.0, key=Key(4), observed="all"))[1]

    def together(values: np.ndarray) -> float:
        pairs = values[: len(values) // 2 * 2].reshape(-1, 2) - predicate.gamma
        return z_test(pairs[:, 0] * pairs[:, 1], 0.0)

    accept("null values", binomial(int(values.sum()), len(values), predicate.gamma))
    reject("null values", binomial(int(values.sum()), len(values), predicate.gamma - 0.02))
    accept("null values", together(values))
    copied = values.copy()
    copied[1::20] = copied[0::20][: len(copied[1::20])]  # one pair in ten shares its value
    reject("null values", together(copied))
    assert null_model(predicate, 50, 5.0, key=Key(0)).assignment is None


def test_the_assignment_is_uniform() -> None:
    counts = np.bincount(planted(colouring(5), 50_000, 1.0, key=Key(6)).assignment, minlength=5)
    accept("planted assignment", chi_square(counts, np.full(5, 1 / 5)))
    tilted = np.random.default_rng(2).multinomial(50_000, [0.21, 0.19, 0.2, 0.2, 0.2])
    reject("planted assignment", chi_square(tilted, np.full(5, 1 / 5)))


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
        ((nae(3, 3), 2, 3.0), {}, "N >= k = 3 variables, got N = 2"),
        ((nae(3, 3), 0, 3.0), {}, "got N = 0"),
        ((nae(3, 3), -5, 3.0), {}, "got N = -5"),
        ((nae(3, 3), 100, 0.0), {}, "must be positive, got 0.0"),
        ((nae(3, 3), 100, float("nan")), {}, "must be positive, got nan"),
        ((nae(3, 3), 100, math.inf), {}, "must be positive, got inf"),
        ((nae(3, 3), 100, -2.0), {}, "must be positive, got -2.0"),
        ((nae(3, 3), 100, 3.0), {"observed": "some"}, "observed"),
        ((nae(3, 3), 100, 3.0), {"size": "binomial"}, "size"),
        ((colouring(3), 10, 19.0), {}, "raise N"),
        ((nae(3, 3), 10**9, 3.0), {}, "over the limit"),
        ((from_array([[0, 0], [0, 0]], name="never"), 10, 1.0), {}, "never is never 1"),
        ((nae(3, 3), 3, 1e-12), {}, "no constraint was drawn"),
    ):
        with pytest.raises(ValueError, match=message):
            make(*arguments, key=Key(0), **keywords)  # type: ignore[operator]


def test_too_large_a_request_is_refused_before_memory_is_taken() -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"candidates are over the limit of 50000000: lower N or the degree"):
        planted(nae(3, 3), 10**9, 28.0, key=Key(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_an_assignment_that_satisfies_too_little_is_refused() -> None:
    """Fixed size on few variables: this key plants one colour on all four, which satisfies no edge."""
    with pytest.raises(ValueError, match="constraint 0 of 6 found no place"):
        planted(colouring(2), 4, 2.9, key=Key(23), size="fixed")


def test_the_cost_of_a_constraint_does_not_grow_with_the_degree() -> None:
    """Candidates of a variable are looked up, not compared one by one: that would be a hundred times slower here."""

    def seconds(degree: float, key: int) -> float:
        began = time.process_time()
        instance = planted(nae(2, 3), 400, degree, key=Key(key))
        return (time.process_time() - began) / instance.n_constraints

    seconds(30.0, 0)
    few, many = (min(seconds(degree, key) for key in range(5)) for degree in (30.0, 3000.0))
    assert many < 10 * few
