"""The factor graph of a context, belief propagation behind the posterior protocol, and the overlap."""

from __future__ import annotations

import numpy as np
import pytest

from lo_theory.posterior.bp import BPOptions, run
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.posterior.factor_graph import condition, to_networkx
from lo_theory.posterior.overlap import overlap
from lo_theory.problem import LODistribution, TableObservations, nae_sat, random_slab
from lo_theory.rng import Key
from lo_theory.testing import brute_force
from tests.posterior.trees import random_prior, random_table


def repeating(seed: int) -> LODistribution:
    """Scopes that name a latent twice or three times, without cycles otherwise."""
    rng = np.random.default_rng(seed)
    scopes = np.array([[0, 1, 0], [2, 2, 1], [3, 3, 3], [2, 4, 4]])
    tables = np.stack([random_table("hard", 2, 3, 2, rng), random_table("soft", 2, 3, 2, rng)])
    return LODistribution(random_prior(5, 2, rng), TableObservations(scopes, tables, rng.integers(0, 2, 4)))


@pytest.mark.parametrize("schedule", ["flooding", "sequential"])
def test_a_latent_named_twice_is_one_latent(schedule: str) -> None:
    for seed in range(40):
        distribution = repeating(seed)
        tokens = distribution.sample(Key(seed), 1)
        tokens[0, :5] = -1
        tokens[0, 5 + seed % 5 :] = np.where(seed % 3, tokens[0, 5 + seed % 5 :], -1)
        options = BPOptions(schedule, noise=0.1, tolerance=1e-13)
        answer = BPPosterior(distribution, options=options).marginals(tokens)
        probs, evidence = brute_force(distribution, tokens)
        np.testing.assert_allclose(answer.log_evidence, evidence, atol=1e-11)
        np.testing.assert_allclose(answer.probs, probs, atol=1e-11)


def test_the_graph_has_the_weight_of_the_joint_law() -> None:
    distribution = repeating(3)
    complete = distribution.sample(Key(0), 1)[0]
    tokens = complete.copy()
    tokens[[0, 3]] = -1
    graph = condition(distribution, tokens)
    for x0 in (0, 1):
        for x3 in (0, 1):
            filled = complete.copy()
            filled[[0, 3]] = x0, x3
            x = np.append(filled[:5], 0)  # the fixed variable of later mentions
            weight = graph.field[np.arange(6), x].prod()
            for scope, table in zip(graph.scopes, graph.table, strict=True):
                weight *= graph.tables[table].reshape(2, 2, 2)[tuple(x[scope])]
            assert weight == pytest.approx(np.exp(distribution.log_prob(filled)[0]), rel=1e-12)


def test_graph_arrays_agree_with_each_other() -> None:
    distribution = nae_sat(9, 14, seed=2, q=3)
    tokens = distribution.sample(Key(0), 1)[0].copy()
    tokens[:9], tokens[12:15] = -1, -1
    graph = condition(distribution, tokens)
    assert sorted(graph.observation) == [j for j in range(14) if not 3 <= j < 6]
    np.testing.assert_array_equal(graph.scopes, distribution.observations.scopes[graph.observation])
    assert (graph.degree, graph.density, graph.neighbours) == pytest.approx((33 / 9, 11 / 9, 66 / 9))
    for i in range(9):
        mine = graph.edges[graph.first[i] : graph.first[i + 1]]
        assert (graph.scopes.ravel()[mine] == i).all()
    with pytest.raises(ValueError, match="read-only"):
        graph.field[0, 0] = 1.0


def test_networkx_graph_is_the_factor_graph() -> None:
    distribution = nae_sat(6, 4, seed=1)
    graph = condition(distribution, [-1, 0, -1, -1, -1, -1, 1, 1, -1, 0])
    drawn = to_networkx(graph)
    assert drawn.number_of_nodes() == 6 + 3
    assert drawn.number_of_edges() == 9
    for j in (0, 1, 3):
        assert {i for _, i in drawn[("factor", j)]} == set(distribution.observations.scopes[j])
    assert drawn.nodes[("factor", 3)]["table"][1, 1, 1] == 1.0
    np.testing.assert_array_equal(drawn.nodes[("variable", 1)]["field"], [0.5, 0.0])


@pytest.mark.parametrize("options", [BPOptions("sequential", noise=0.0), BPOptions(damping=0.5)])
def test_a_row_does_not_depend_on_its_batch(options: BPOptions) -> None:
    distribution = nae_sat(12, 30, seed=4)
    tokens = distribution.sample(Key(1), 40).copy()
    tokens[np.random.default_rng(0).random(tokens.shape) < 0.5] = -1
    posterior = BPPosterior(distribution, options=options)
    whole = posterior.marginals(tokens)
    threaded = posterior.marginals(tokens, threads=3)
    alone = [posterior.marginals(row) for row in tokens]
    np.testing.assert_array_equal(whole.probs, threaded.probs)
    np.testing.assert_array_equal(whole.probs, np.concatenate([one.probs for one in alone]))
    np.testing.assert_array_equal(whole.log_evidence, np.concatenate([one.log_evidence for one in alone]))
    np.testing.assert_allclose(whole.probs.sum(axis=2), 1.0, atol=1e-12)


def test_symmetry_is_kept_without_noise() -> None:
    distribution = nae_sat(20, 60, seed=0)
    tokens = distribution.sample(Key(0), 1).copy()
    tokens[0, :20] = -1
    answer = BPPosterior(distribution).marginals(tokens)
    assert answer.converged[0]
    np.testing.assert_allclose(answer.probs[0, :20], 0.5, atol=1e-12)


def test_an_impossible_row_is_flagged_and_loses_no_other() -> None:
    distribution = nae_sat(6, 8, seed=0)
    tokens = np.tile(distribution.sample(Key(0), 1), (3, 1))
    tokens[1, 6:] = 1
    tokens[1, :6] = 0
    tokens[:, 0] = -1
    tokens[:, 13] = -1
    answer = BPPosterior(distribution).marginals(tokens)
    assert np.isneginf(answer.log_evidence).tolist() == [False, True, False]
    np.testing.assert_array_equal(answer.probs[1, [0, 13]], 0.5)
    np.testing.assert_array_equal(answer.probs[1, 1:6], np.tile([1.0, 0.0], (5, 1)))


def test_bad_calls_say_what_is_wrong() -> None:
    distribution = nae_sat(6, 8, seed=0)
    with pytest.raises(ValueError, match="planted"):
        BPPosterior(distribution, options=BPOptions(start="planted"))
    with pytest.raises(ValueError, match="threads"):
        BPPosterior(distribution, threads=0)
    with pytest.raises(ValueError, match="shape"):
        BPPosterior(distribution).marginals(np.zeros((2, 3), np.int8))
    with pytest.raises(ValueError, match="SlabObservations"):
        BPPosterior(random_slab(5, 5, 1.0, seed=0))
    with pytest.raises(ValueError, match="2 rows"):
        condition(distribution, np.zeros((2, 14), np.int8))


def test_overlap_is_the_best_over_permutations() -> None:
    rng = np.random.default_rng(0)
    planted = rng.integers(0, 3, 300)
    renamed = np.eye(3)[np.array([2, 0, 1])[planted]]
    result = overlap(renamed, planted)
    assert (result.value, result.agreement, result.confidence) == pytest.approx((1.0, 1.0, 1.0))
    assert result.permutation.tolist() == [2, 0, 1]
    half = renamed.copy()
    half[:150] = 1 / 3
    assert overlap(half, planted).agreement == pytest.approx(0.5 + 0.5 / 3, abs=0.05)


def test_overlap_treats_near_ties_as_ties() -> None:
    """Residues of 1e-7 are no guess: as an argmax they would score about N**-1/2, or all if they leak the truth."""
    planted = np.random.default_rng(1).integers(0, 3, 3000)
    leaking = np.full((3000, 3), 1 / 3) + 1e-7 * np.eye(3)[planted]
    assert abs(overlap(leaking, planted).value) < 1e-12
    assert overlap(leaking, planted, tie=0.0).value == pytest.approx(1.0)
    for arguments, message in (
        ((np.ones(3), planted), "shape"),
        ((leaking, planted[:5]), "3000 integers"),
        ((leaking, planted + 1), r"0\.\.2"),
    ):
        with pytest.raises(ValueError, match=message):
            overlap(*arguments)
    with pytest.raises(ValueError, match="tie"):
        overlap(leaking, planted, tie=1.0)


def test_no_observation_revealed_leaves_the_prior() -> None:
    distribution = repeating(1)
    graph = condition(distribution, np.full(9, -1))
    result = run(graph, key=Key(0))
    np.testing.assert_allclose(result.marginals, distribution.prior)
    assert result.free_entropy == pytest.approx(0.0, abs=1e-12)
    answer = BPPosterior(distribution).marginals(np.full((1, 9), -1))
    np.testing.assert_allclose(answer.probs[0], distribution.token_marginals, atol=1e-12)
