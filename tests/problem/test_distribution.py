"""log_prob, entropies and single-token marginals against the joint law by counting, and the paper's table of floors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from lo_theory.problem import (
    LODistribution,
    SlabObservations,
    TableObservations,
    all_k_subsets,
    colouring,
    nae,
    nae_sat,
    random_slab,
    sparse_parity,
)
from lo_theory.rng import Key
from lo_theory.testing import joint_law
from lo_theory.testing.strategies import problems, table_problems

SOME = settings(max_examples=60)
EMISSION = nae().emission()[None]
UNIFORM = np.full((3, 2), 0.5)


def entropy(probabilities):
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


@SOME
@given(problems())
def test_log_prob_is_the_joint_law(problem):
    layout, law = problem.layout, dict.fromkeys(itertools.product(*map(range, problem.layout.values)), 0.0)
    rows, p = joint_law(problem)
    law |= zip(map(tuple, rows.tolist()), p.tolist(), strict=True)
    assert len(law) == layout.q**layout.n_latents * layout.r**layout.n_observations
    found = problem.log_prob(list(law))
    assert math.isclose(math.fsum(law.values()), 1, rel_tol=1e-12)
    assert math.isclose(np.exp(found).sum(), 1, rel_tol=1e-12)
    for log_p, p in zip(found, law.values(), strict=True):
        assert log_p == -math.inf if p == 0 else math.isclose(log_p, math.log(p), rel_tol=1e-12, abs_tol=1e-12)


@SOME
@given(problems())
def test_entropies_and_marginals_are_those_of_the_joint_law(problem):
    (rows, p), layout = joint_law(problem), problem.layout
    assert problem.entropy() == pytest.approx(entropy(p), rel=1e-11, abs=1e-12)
    marginals = np.zeros((layout.length, layout.n_values))
    for sequence, weight in zip(rows, p, strict=True):
        marginals[np.arange(layout.length), sequence] += weight
    assert np.allclose(problem.token_marginals, marginals, atol=1e-12)
    assert problem.marginal_entropy() == pytest.approx(sum(entropy(row) for row in marginals), rel=1e-11, abs=1e-12)
    assert problem.marginal_entropy() >= problem.entropy() - 1e-12


@SOME
@given(table_problems())
def test_scope_weights_are_the_law_of_the_scope_states(problem):
    law, layout = problem.observations, problem.layout
    weights = np.zeros((layout.n_observations, law.q**law.k))
    for latents in itertools.product(range(layout.q), repeat=layout.n_latents):
        p = math.prod(problem.prior[i, x] for i, x in enumerate(latents))
        weights[np.arange(layout.n_observations), law.states([latents])[0]] += p
    assert np.allclose(problem.scope_weights, weights, atol=1e-12)


FLOORS = [  # (N, P), Bayes-optimal and marginals-only loss in nats per token
    ((20, 280), 0.0462, 0.5711),
    ((25, 275), 0.0578, 0.5732),
    ((30, 270), 0.0693, 0.5754),
    ((40, 260), 0.0924, 0.5798),
    ((50, 250), 0.1155, 0.5841),
    ((100, 200), 0.2310, 0.6059),
]


@pytest.mark.parametrize(("size", "floor", "marginals"), FLOORS)
def test_the_paper_s_floors(size, floor, marginals):
    problem = nae_sat(*size, seed=0)
    assert problem.entropy() / problem.layout.length == pytest.approx(floor, abs=5.1e-5)
    assert problem.marginal_entropy() / problem.layout.length == pytest.approx(marginals, abs=5.1e-5)
    assert problem.entropy() == pytest.approx(size[0] * math.log(2), rel=1e-14)


def test_the_floors_padded_to_512():
    problem = nae_sat(20, 280, seed=0)
    assert problem.entropy() / 512 == pytest.approx(0.02708, abs=5.1e-6)
    assert problem.marginal_entropy() / 512 == pytest.approx(0.33460, abs=5.1e-6)


@pytest.mark.parametrize(
    ("problem", "nats"),
    [
        (nae_sat(7, 9, seed=0, q=3), 7 * math.log(3)),
        (nae_sat(7, 9, seed=0, noise=0.1), 7 * math.log(2) + 9 * entropy([0.1, 0.9])),
        (nae_sat(7, 9, seed=0, repeats=True, noise=0.25), 7 * math.log(2) + 9 * entropy([0.25, 0.75])),
        (sparse_parity(8, 12, 4, 0.2, seed=0), 8 * math.log(2) + 12 * entropy([0.2, 0.8])),
        (all_k_subsets(colouring(4), 5), 5 * math.log(4)),
        (random_slab(6, 11, 0.5, seed=0), 6 * math.log(2)),
    ],
)
def test_families_have_their_entropy(problem, nats):
    assert problem.entropy() == pytest.approx(nats, rel=1e-13)


def test_marginals_of_nae_with_distinct_indices_are_three_quarters():
    problem = nae_sat(6, 20, seed=0)
    positions = problem.layout.observation_positions
    assert np.allclose(problem.token_marginals[positions], [0.25, 0.75])
    repeated = LODistribution(UNIFORM, TableObservations([[0, 0, 1], [2, 2, 2]], EMISSION))
    assert np.allclose(repeated.token_marginals[3:], [[0.5, 0.5], [1.0, 0.0]])


def test_a_problem_is_rebuilt_from_the_arrays_it_shows():
    for problem in (nae_sat(6, 9, seed=3, noise=0.1), random_slab(5, 6, 0.4, seed=1)):
        law = problem.observations
        if isinstance(law, SlabObservations):
            again = SlabObservations(law.vectors, law.width)
        else:
            again = TableObservations(law.scopes, law.tables, law.index)
        assert LODistribution(problem.prior, again, problem.order).fingerprint() == problem.fingerprint()


def test_fingerprints_tell_every_array_apart():
    law = TableObservations(
        [[0, 1, 2], [2, 1, 0]], np.concatenate([EMISSION, nae().emission([[0.9, 0.1], [0.1, 0.9]])[None]])
    )
    base = LODistribution(UNIFORM, law)
    others = [
        LODistribution(np.array([[0.5, 0.5], [0.5, 0.5], [0.4, 0.6]]), law),
        LODistribution(UNIFORM, law, [1, 0, 2, 3, 4]),
        LODistribution(UNIFORM, TableObservations([[0, 1, 2], [2, 0, 1]], law.tables)),
        LODistribution(UNIFORM, TableObservations(law.scopes, law.tables, [0, 1])),
        LODistribution(UNIFORM, TableObservations(law.scopes, law.tables[::-1])),
    ]
    names = {problem.fingerprint() for problem in (base, *others)}
    assert len(names) == 6
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
    assert base.fingerprint() == LODistribution(UNIFORM.tolist(), law, range(5)).fingerprint()


def test_prior_and_order_are_read_only_copies():
    prior = UNIFORM.copy()
    problem = LODistribution(prior, TableObservations([[0, 1, 2]], EMISSION))
    prior[:] = 7
    assert (problem.prior == 0.5).all()
    for array in (problem.prior, problem.order, problem.token_marginals):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda law: LODistribution(UNIFORM[:2], law), "need 3 latents, the prior has N = 2"),
        (lambda law: LODistribution(UNIFORM[:0], law), r"N >= 1, got \(0, 2\)"),
        (lambda law: LODistribution(UNIFORM[0], law), r"shape \[N, q\]"),
        (lambda law: LODistribution(np.full((3, 3), 1 / 3), law), "3 values, the observations read 2"),
        (lambda law: LODistribution(UNIFORM * 0.99, law), "sums to 0.99: divide it by its sum"),
        (lambda law: LODistribution(np.array([[1.5, -0.5]] * 3), law), "found -0.5"),
        (lambda law: LODistribution(UNIFORM * np.nan, law), "found nan"),
        (lambda law: LODistribution(UNIFORM, law, [0, 1, 2]), r"permutation of 0..3 .*shape \(3,\)"),
        (lambda law: LODistribution(UNIFORM, law, [0, 1, 2, 2]), "permutation of 0..3"),
        (
            lambda law: LODistribution(UNIFORM, SlabObservations(np.ones((4, 2)), 1.0)),
            "need 2 latents, the prior has N = 3",
        ),
        (lambda law: LODistribution(UNIFORM, law).log_prob([[0, 1, 0]]), r"shape \[B, 4\]"),
        (lambda law: LODistribution(UNIFORM, law).log_prob([[0, 1, 0, 2]]), "token 2 in row 0 at position 3"),
        (lambda law: LODistribution(UNIFORM, law).log_prob([[0, 1, -1, 1]]), "complete, without MASK"),
        (lambda law: random_slab(21, 5, 0.5, seed=0).token_marginals, "N = 21 is over the limit of 20"),
        (lambda law: random_slab(5, 5, 0.5, seed=0).scope_weights, "SlabObservations has no scopes"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(TableObservations([[0, 1, 2]], EMISSION))


def test_more_rows_than_memory_name_the_remedy() -> None:
    with pytest.raises(MemoryError, match=r"1,000,000,000,000,000 rows of 4 tokens .* draw fewer, with other"):
        nae_sat(3, 1, seed=0).sample(Key(0), 10**15)
