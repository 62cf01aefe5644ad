"""Every sampler against the exact joint law at small length, each beside a wrong sampler that the same test must
reject.

What is asked of each: the law of a row (chi-square over all sequences), the independence of rows (chi-square over pairs
of rows a lag apart: neighbours, the next machine word, the next block), the rate of the noise. The long versions draw
forty times the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from lo_theory.problem import (
    LODistribution,
    SlabObservations,
    TableObservations,
    all_k_subsets,
    colouring,
    flip,
    nae,
    nae_sat,
    random_slab,
    sat,
    sparse_parity,
    xor,
)
from lo_theory.rng import Key
from lo_theory.testing import binomial, chi_square, chi_square_of_rows, joint_law, z_test
from tests.budget import accept, reject

KEY = Key(2024).fold("laws of samplers")
ROWS, LONG = 200_000, 8_000_000


def with_prior(problem: LODistribution, prior: object) -> LODistribution:
    return LODistribution(np.asarray(prior), problem.observations, problem.order)


def with_order(problem: LODistribution, seed: int) -> LODistribution:
    order = np.random.default_rng(seed).permutation(problem.layout.length)
    return LODistribution(problem.prior, problem.observations, order)


def with_scopes(problem: LODistribution, scopes: object) -> LODistribution:
    law = problem.observations
    return LODistribution(problem.prior, TableObservations(scopes, law.tables, law.index), problem.order)


def shifted(problem: LODistribution, share: float) -> LODistribution:
    """The same problem with a share of the probability of latent 0 moved to its value 0."""
    prior = problem.prior.copy()
    prior[0] = (1 - share) * prior[0] + share * np.eye(len(prior[0]))[0]
    return with_prior(problem, prior)


def random_tables(q: int, r: int, k: int, seed: int) -> LODistribution:
    """Random tables, priors, scopes with repeats, and order."""
    generator = np.random.default_rng(seed)
    tables = generator.dirichlet(np.full(r, 0.5), (2, q**k))
    law = TableObservations(generator.integers(0, 3, (3, k)), tables, np.array([0, 1, 0]))
    return LODistribution(generator.dirichlet(np.full(q, 2.0), 3), law, generator.permutation(6))


@dataclass(frozen=True)
class Case:
    """A problem, and a wrong sampler of it: another problem whose rows are taken for those of the first."""

    right: LODistribution
    wrong: LODistribution


def cases() -> dict[str, Case]:
    triples = nae_sat(4, 3, seed=5)
    noisy = sparse_parity(4, 3, 3, 0.2, seed=1)
    pairs = all_k_subsets(xor(2), 3)
    quartic = nae_sat(5, 2, seed=0, k=4, noise=0.3)
    colours, slab = all_k_subsets(colouring(3), 3), random_slab(4, 3, 0.7, seed=3)
    skew = [[0.7, 0.3], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]
    moved = triples.observations.scopes.copy()
    moved[0] = next(scope for scope in ([0, 1, 2], [1, 2, 3]) if sorted(moved[0]) != scope)
    uneven = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.0, 0.5, 0.5]])
    edge = SlabObservations(slab.observations.vectors * np.array([1.3, 1, 1, 1]), slab.observations.width)
    signed = np.stack([sat(3, negated).emission(flip(0.1)) for negated in ([0, 1, 0], [1, 1, 0])])
    clauses = TableObservations([[0, 1, 2], [3, 1, 0]], signed, [0, 1])
    formula = LODistribution(np.full((4, 2), 0.5), clauses, [3, 5, 0, 2, 1, 4])
    other_signs = TableObservations(clauses.scopes, clauses.tables, [1, 0])
    return {
        "bits: nae": Case(triples, with_scopes(triples, moved)),
        "bits: nae, biased prior": Case(triples, shifted(triples, 0.03)),
        "bits: nae in another order": Case(with_order(triples, 1), with_order(triples, 2)),
        "bits: xor of pairs": Case(pairs, with_prior(pairs, [[0.48, 0.52], [0.5, 0.5], [0.5, 0.5]])),
        "bits: parity, noise 5 % off": Case(noisy, sparse_parity(4, 3, 3, 0.21, seed=1)),
        "bits: nae of 4, noisy": Case(quartic, shifted(quartic, 0.03)),
        "bits: skewed priors": Case(with_prior(triples, skew), with_prior(triples, [[0.68, 0.32], *skew[1:]])),
        "bits: priors with zeros": Case(
            with_prior(triples, [[1, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]]),
            with_prior(triples, [[1, 0], [0, 1], [0.5, 0.5], [0.27, 0.73]]),
        ),
        "bits: clauses with signs": Case(formula, LODistribution(formula.prior, other_signs, formula.order)),
        "bits: random tables": Case(random_tables(2, 2, 3, 7), shifted(random_tables(2, 2, 3, 7), 0.02)),
        "tables: colouring": Case(colours, shifted(colours, 0.03)),
        "tables: colouring, skewed": Case(with_prior(colours, uneven), shifted(with_prior(colours, uneven), 0.03)),
        "tables: nae of 3 values, noise 5 % off": Case(
            nae_sat(3, 3, seed=0, q=3, noise=0.2), nae_sat(3, 3, seed=0, q=3, noise=0.21)
        ),
        "tables: random, 3 values each": Case(random_tables(3, 3, 2, 8), shifted(random_tables(3, 3, 2, 8), 0.03)),
        "slab": Case(slab, LODistribution(slab.prior, edge)),
        "slab, skewed": Case(
            with_order(with_prior(slab, skew), 3), shifted(with_order(with_prior(slab, skew), 3), 0.03)
        ),
    }


CASES = cases()


def hold_law(register: str, name: str, n: int) -> None:
    case, key = CASES[name], KEY.fold(name).fold(n)
    support, probabilities = joint_law(case.right)
    accept(register, chi_square_of_rows(case.right.sample(key, n), support, probabilities))
    reject(register, chi_square_of_rows(case.wrong.sample(key, n), support, probabilities))


@pytest.mark.parametrize("name", CASES)
def test_rows_have_the_joint_law(name):
    hold_law("sampler law", name, ROWS)


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_rows_have_the_joint_law_long(name):
    hold_law("sampler law, long", name, LONG)


# --- independence of rows -------------------------------------------------------------------------------------------------------

SMALL = {
    "bits": nae_sat(2, 1, seed=0, k=2),
    "bits, noisy": sparse_parity(2, 1, 2, 0.25, seed=0),
    "tables": LODistribution(
        np.array([[0.5, 0.3, 0.2]] * 2), TableObservations([[0, 1]], colouring(3).emission(flip(0.1))[None])
    ),
    "slab": random_slab(2, 1, 0.7, seed=4),
}
LAGS = (1, 64, 2048)


def pair_p_value(rows: np.ndarray, law: tuple[np.ndarray, np.ndarray], lag: int) -> float:
    """P-value that rows a lag apart are independent draws; no row stands in two pairs."""
    support, probabilities = law
    number = (rows[:, None, :] == support).all(axis=2).argmax(axis=1)
    usable = len(rows) // (2 * lag) * 2 * lag
    first, second = number[:usable].reshape(-1, 2, lag).transpose(1, 0, 2).reshape(2, -1)
    counts = np.bincount(first * len(support) + second, minlength=len(support) ** 2)
    return chi_square(counts, np.outer(probabilities, probabilities))


def hold_independence(register: str, name: str, n: int) -> None:
    problem, key = SMALL[name], KEY.fold("pairs").fold(name).fold(n)
    law, rows = joint_law(problem), problem.sample(key, n)
    accept(register, [pair_p_value(rows, law, lag) for lag in LAGS])
    for lag in LAGS:  # a sampler that uses one random number again a lag later, one time in twenty
        copied = rows.copy()
        again = np.flatnonzero((np.arange(n - lag) // lag % 2 == 0) & (np.arange(n - lag) % 20 == 0))
        copied[again + lag] = copied[again]
        reject(register, pair_p_value(copied, law, lag))


@pytest.mark.parametrize("name", SMALL)
def test_rows_are_independent(name):
    hold_independence("sampler rows independent", name, 100_000)


@pytest.mark.soak
@pytest.mark.parametrize("name", SMALL)
def test_rows_are_independent_long(name):
    hold_independence("sampler rows independent, long", name, LONG)


# --- larger problems ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.4])
def test_noise_has_its_rate(rate):
    """The share of flipped observations among half a million, with a rate wrong by a few percent beside it."""
    problem, clean = sparse_parity(20, 100, 3, rate, seed=0), sparse_parity(20, 100, 3, 0.0, seed=0)
    rows = problem.sample(KEY.fold("noise"), 5_000)
    latents, observed = problem.layout.split(rows)
    flips = int((observed != clean.observations.probabilities(latents).argmax(axis=2)).sum())
    accept("sampler noise rate", binomial(flips, observed.size, rate))
    reject("sampler noise rate", binomial(flips, observed.size, rate * (1.1 if rate < 0.05 else 1.03)))


LARGE: dict[str, Callable[[], LODistribution]] = {
    "nae (25, 275)": lambda: nae_sat(25, 275, seed=0),
    "noisy parity (25, 275)": lambda: sparse_parity(25, 275, 3, 0.1, seed=0),
    "nae of 3 values (25, 275)": lambda: nae_sat(25, 275, seed=0, q=3),
    "slab (16, 64)": lambda: random_slab(16, 64, 0.6, seed=0),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGE)
def test_means_and_pairs_of_large_problems_long(name):
    """The smallest p-value over all tokens, and over all pairs of latents, times how many there are."""
    problem = LARGE[name]()
    rows = problem.sample(KEY.fold(name), 400_000)
    expected = problem.token_marginals @ np.arange(problem.layout.n_values)
    ones = [z_test(rows[:, i], expected[i]) for i in range(problem.layout.length)]
    centred = problem.layout.split(rows)[0] - expected[problem.layout.latent_positions]
    n = centred.shape[1]
    pairs = [z_test(centred[:, i] * centred[:, j], 0.0) for i in range(n) for j in range(i)]
    accept("sampler moments, long", [min(1.0, len(values) * min(values)) for values in (ones, pairs)])
    reject("sampler moments, long", min(1.0, len(ones) * z_test(rows[:, 0], expected[0] + 0.02)))


def test_nae_is_what_the_table_says():
    """The predicate used throughout: guards the cases above against a common mistake in truth and sampler."""
    assert nae().table.sum() == 6
    assert {len(set(case)) for case in zip(*np.nonzero(~nae().table), strict=True)} == {1}
