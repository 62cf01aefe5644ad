"""What a user gets wrong, by both posteriors: isolated variables, contradictions, runs that end too soon, requests too
large.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior, Posterior
from lo_theory.posterior.bp import BPOptions, run
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.posterior.factor_graph import FactorGraph, condition
from lo_theory.problem import LODistribution, TableObservations, colouring, nae, nae_sat, random_slab
from lo_theory.problem.planted import planted
from lo_theory.rng import Key
from lo_theory.testing import brute_force

POSTERIORS: dict[str, Callable[[LODistribution], Posterior]] = {
    "enumeration": lambda distribution: ExactPosterior(distribution, method="enumeration"),
    "elimination": lambda distribution: ExactPosterior(distribution, method="elimination"),
    "flooding": lambda distribution: BPPosterior(distribution, options=BPOptions(noise=0.1)),
    "sequential": BPPosterior,
}


# --- isolated variables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSTERIORS)
def test_latents_that_nothing_observes_keep_their_prior(name: str) -> None:
    """Latents 2 and 3 stand in no scope, latent 4 only in a masked one; beside them a tree, so that all are exact."""
    prior = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    law = TableObservations([[0, 1], [1, 4]], nae(2, 2).emission()[None])
    distribution = LODistribution(prior, law)
    tokens = np.full((4, 7), -1)
    tokens[1, 5], tokens[2, 3], tokens[3, [2, 5]] = 1, 0, (1, 0)
    answer = POSTERIORS[name](distribution).marginals(tokens)
    assert answer.converged.all()
    expected, evidence = brute_force(distribution, tokens)
    np.testing.assert_allclose(answer.probs, expected, atol=1e-12)
    np.testing.assert_allclose(answer.log_evidence, evidence, atol=1e-12)
    for row, probs in zip(tokens, answer.probs, strict=True):
        for i in np.flatnonzero(row[2:4] < 0) + 2:
            np.testing.assert_allclose(probs[i], prior[i], atol=1e-15)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_graph_of_isolated_variables_only(name: str) -> None:
    distribution = LODistribution(np.full((40, 3), 1 / 3), TableObservations([[0, 1]], colouring(3).emission()[None]))
    answer = POSTERIORS[name](distribution).marginals(np.full((1, 41), -1))
    np.testing.assert_allclose(answer.probs[0, :40], 1 / 3, atol=1e-15)
    np.testing.assert_allclose(answer.probs[0, 40, :2], [1 / 3, 2 / 3], atol=1e-14)
    assert answer.log_evidence[0] == pytest.approx(0.0, abs=1e-13)


def test_isolated_variables_of_a_planted_instance_are_uniform() -> None:
    """A Poisson degree of one leaves every third variable alone."""
    instance = planted(nae(3, 3), 300, 1.0, key=Key(3))
    scopes = instance.distribution.observations.scopes  # type: ignore[union-attr]
    alone = np.setdiff1d(np.arange(300), scopes)
    assert len(alone) > 60
    for posterior in (ExactPosterior(instance.distribution), BPPosterior(instance.distribution)):
        answer = posterior.marginals(np.array(instance.tokens))
        assert answer.converged[0]
        np.testing.assert_allclose(answer.probs[0, alone], 1 / 3, atol=1e-14)


# --- contradictory evidence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSTERIORS)
def test_contradictory_rows_are_flagged_and_spare_the_others(name: str) -> None:
    """A revealed pair against its observation, a contradiction that only propagation finds, and a possible row."""
    law = TableObservations([[0, 1], [1, 2], [0, 2]], colouring(2).emission()[None])
    distribution = LODistribution(np.full((3, 2), 0.5), law)
    tokens = np.array([[0, 0, -1, 1, -1, -1], [-1, -1, -1, -1, -1, -1], [0, -1, 0, 1, 1, -1], [0, 1, -1, -1, -1, 1]])
    tokens[1] = [-1, 0, -1, 1, 1, 1]
    answer = POSTERIORS[name](distribution).marginals(tokens)
    assert np.isneginf(answer.log_evidence).tolist() == [True, True, False, False]
    assert answer.log_evidence[2] == pytest.approx(3 * np.log(0.5))
    expected = np.where(tokens[:2, :, None] < 0, 0.5, np.eye(2)[tokens[:2]])
    np.testing.assert_array_equal(answer.probs[:2], expected)
    np.testing.assert_allclose(answer.probs.sum(axis=2), 1.0, atol=1e-12)


# --- no convergence -------------------------------------------------------------------------------------------------------------


def test_rows_that_did_not_converge_are_flagged_and_only_those() -> None:
    """Flooding oscillates where all constraints are revealed; with everything hidden there is nothing to do."""
    instance = planted(nae(3, 3), 300, 28.0, key=Key(2))
    length = instance.distribution.layout.length
    tokens = np.stack([instance.tokens, np.full(length, -1, np.int8)])
    cut = BPOptions(iterations=50, noise=0.02)
    answer = BPPosterior(instance.distribution, options=cut, key=Key(1)).marginals(tokens)
    assert answer.converged.tolist() == [False, True]
    assert np.isfinite(answer.probs).all()
    patient = BPOptions("sequential", noise=0.02)
    assert BPPosterior(instance.distribution, options=patient, key=Key(1)).marginals(tokens).converged.all()


def test_a_run_cut_short_says_so() -> None:
    distribution = nae_sat(20, 60, seed=0, noise=0.1)
    tokens = distribution.sample(Key(1), 1)[0]
    tokens[:20] = -1
    graph = condition(distribution, tokens)
    cut, whole = (run(graph, key=Key(0), options=BPOptions("sequential", iterations=n)) for n in (4, 1000))
    assert (cut.iterations, cut.converged, cut.contradictory) == (4, False, False)
    assert max(cut.residual, cut.residual_two) > 1e-8
    assert whole.converged
    assert max(whole.residual, whole.residual_two) <= 1e-8


# --- requests too large ---------------------------------------------------------------------------------------------------------


def peak_of_refusal(request: Callable[[], object], message: str) -> int:
    """Bytes taken on the way to a ValueError."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            request()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def huge_graph(graph: FactorGraph) -> FactorGraph:
    """Messages of 2**33 numbers, in a graph whose arrays are one entry seen many times."""
    scopes = np.broadcast_to(np.int32(0), (2**33 // 6, 3))
    return FactorGraph(graph.field, scopes, graph.table, graph.tables, graph.observation, graph.n_latents)


def test_too_large_requests_are_refused_before_memory_is_taken() -> None:
    wide, slab = nae_sat(60, 300, seed=1, noise=0.1), random_slab(40, 5, 1.0, seed=1)
    graph = condition(nae_sat(4, 1, seed=0), [-1, -1, -1, -1, 1])
    hidden = wide.sample(Key(0), 1)
    hidden[:, :60] = -1
    exact, walked = ExactPosterior(wide), ExactPosterior(slab)
    exact.estimate_cost(hidden)  # compiled
    assert peak_of_refusal(lambda: exact.marginals(hidden), r"row 0: .* over the limit of 67108864: use belief") < 2**21
    assert (
        peak_of_refusal(lambda: walked.marginals(np.full((1, 45), -1)), r"row 0: its 40 masked .* assignments") < 2**21
    )
    assert peak_of_refusal(lambda: huge_graph(graph), r"64 GiB.*over the limit of 2\*\*31: split") < 2**16
