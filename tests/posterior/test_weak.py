"""Weak denoisers: each is what its definition says, on answers that are known."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import Pattern, Uniform, losses
from lo_theory.posterior import (
    BPPosterior,
    ExactPosterior,
    Forgetful,
    MarginalsOnly,
    Mixed,
    Posterior,
    PropagationOnly,
    Screened,
    Sharpened,
    few_rounds,
)
from lo_theory.problem import MASK, LODistribution, TableObservations, nae_sat, random_slab, sparse_parity
from lo_theory.rng import Key
from tests.posterior.trees import make_forest

NAE = nae_sat(7, 16, seed=3)
EXACT = ExactPosterior(NAE)

WEAK: dict[str, Callable[[], Posterior]] = {
    "marginals": lambda: MarginalsOnly(NAE),
    "propagation": lambda: PropagationOnly(NAE),
    "few rounds": lambda: few_rounds(NAE, 2),
    "forgetful": lambda: Forgetful(EXACT, [0, 5, 11]),
    "mixed": lambda: Mixed(EXACT, MarginalsOnly(NAE), 0.3),
    "screened": lambda: Screened(BPPosterior(NAE), PropagationOnly(NAE)),
    "sharpened": lambda: Sharpened(EXACT, 0.05),
}


def contexts(problem: LODistribution, n: int, *, seed: int = 0, hide: float = 0.5) -> np.ndarray:
    tokens = problem.sample(Key(seed), n)
    tokens[np.random.default_rng(seed).random(tokens.shape) < hide] = MASK
    return tokens


def chain(n: int) -> LODistribution:
    """Latents in a row, each compared with the next one: a factor graph without cycles."""
    rng = np.random.default_rng(0)
    table = rng.random((4, 2)) + 0.1
    scopes = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    prior = rng.random((n, 2)) + 0.2
    tables = (table / table.sum(axis=1, keepdims=True))[None]
    return LODistribution(prior / prior.sum(axis=1, keepdims=True), TableObservations(scopes, tables))


@pytest.mark.parametrize("name", WEAK)
def test_every_one_follows_the_protocol_and_copies_answer_the_same(name: str) -> None:
    posterior, tokens = WEAK[name](), contexts(NAE, 40)
    answer = posterior.marginals(tokens)
    np.testing.assert_allclose(answer.probs.sum(axis=2), 1, atol=1e-12)
    shown = tokens != MASK
    assert (answer.probs[shown] == np.eye(2)[tokens[shown]]).all()
    assert np.isfinite(losses(posterior, EXACT, NAE, Uniform(), key=Key(1), n=50).exact.mean)
    for again in (copy.copy(posterior), copy.deepcopy(posterior), pickle.loads(pickle.dumps(posterior))):
        np.testing.assert_array_equal(again.marginals(tokens).probs, answer.probs)
    for row in range(5):  # an answer does not depend on the batch
        np.testing.assert_array_equal(posterior.marginals(tokens[row]).probs[0], answer.probs[row])


def test_marginals_only_are_the_laws_of_single_tokens_and_lose_the_known_line() -> None:
    tokens = contexts(NAE, 30)
    hidden = (tokens == MASK)[:, :, None]
    expected = np.where(hidden, NAE.token_marginals, np.eye(2)[tokens])
    np.testing.assert_array_equal(MarginalsOnly(NAE).marginals(tokens).probs, expected)
    problem = sparse_parity(6, 5, 2, 0.1, seed=0)  # fair coins: every token loses exactly ln 2
    found = losses(MarginalsOnly(problem), None, problem, Uniform(), key=Key(0), n=100).model
    assert found.mean == pytest.approx(problem.marginal_entropy() / problem.layout.length, abs=1e-7)  # float32 weights


def slow_propagation(problem: LODistribution, tokens: np.ndarray) -> np.ndarray | None:
    """Values left to the latents, bool[N, q], by trying every state of every scope until nothing changes."""
    layout, law = problem.layout, problem.observations
    latents, observed = layout.split(tokens)
    allowed = (problem.prior > 0) & ((latents == MASK)[:, None] | (latents[:, None] == np.arange(layout.q)))
    while True:
        before = allowed.copy()
        for j in np.flatnonzero(observed != MASK):
            scope, table = law.scopes[j], law.tables[law.index[j]]
            supported = np.zeros_like(allowed)
            for state, values in enumerate(itertools.product(range(layout.q), repeat=len(scope))):
                agrees = all(values[a] == values[b] for a, b in itertools.combinations(range(len(scope)), 2)
                             if scope[a] == scope[b])  # fmt: skip
                if agrees and table[state, observed[j]] > 0 and allowed[scope, values].all():
                    supported[scope, values] = True
            allowed[scope] &= supported[scope]
        if not allowed.any(axis=1).all():
            return None
        if (allowed == before).all():
            return allowed


@pytest.mark.parametrize(("q", "kind"), [(2, "nae"), (2, "xor"), (2, "hard"), (3, "nae"), (3, "hard")])
def test_propagation_leaves_the_values_that_a_slow_one_leaves(q: int, kind: str) -> None:
    contradictions = 0
    for seed in range(60):
        problem, tokens = make_forest(q, 3, kind, seed)
        answer, allowed = PropagationOnly(problem).marginals(tokens), slow_propagation(problem, tokens)
        if allowed is None:
            contradictions += 1
            assert answer.log_evidence[0] == -np.inf
            assert ExactPosterior(problem).marginals(tokens).log_evidence[0] == -np.inf
            continue
        laws = np.where(allowed, problem.prior, 0)
        laws /= laws.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answer.probs[0, problem.layout.latent_positions, :q], laws, atol=1e-15)
        assert np.isnan(answer.log_evidence[0])
    assert contradictions < 60


def test_propagation_is_exact_where_it_decides_and_never_excludes_what_is_possible() -> None:
    tokens = contexts(NAE, 300, hide=0.6)
    exact, weak = EXACT.marginals(tokens).probs, PropagationOnly(NAE).marginals(tokens).probs
    decided = weak.max(axis=2) == 1
    assert (exact[decided] >= 1 - 1e-12)[weak[decided] == 1].all()
    assert not ((weak == 0) & (exact > 1e-12)).any()
    open_latents = (exact.max(axis=2) > 1 - 1e-12) & ~decided
    assert open_latents.any(), "these contexts hold nothing that propagation alone misses"


def test_screened_rows_are_answered_as_without_and_impossible_ones_are_not_asked() -> None:
    asked = []

    class Counted(BPPosterior):
        def marginals(self, tokens, **more):
            asked.append(len(tokens))
            return super().marginals(tokens, **more)

    for seed in range(40):
        problem, tokens = make_forest(3, 3, "hard", seed)
        asked.clear()
        plain, screen = BPPosterior(problem).marginals(tokens), PropagationOnly(problem)
        answer, impossible = Screened(Counted(problem), screen).marginals(tokens), screen.marginals(tokens).log_evidence
        np.testing.assert_array_equal(answer.probs, plain.probs)
        np.testing.assert_array_equal(answer.log_evidence, plain.log_evidence)
        assert sum(asked) == (~np.isneginf(impossible)).sum()
    rows = contexts(NAE, 30)
    rows[::3, NAE.layout.latent_positions], rows[::3, NAE.layout.observation_positions] = 0, 1  # no clause is satisfied
    answer, plain = Screened(BPPosterior(NAE), PropagationOnly(NAE)).marginals(rows), BPPosterior(NAE).marginals(rows)
    for name in ("probs", "log_evidence"):
        np.testing.assert_array_equal(getattr(answer, name), getattr(plain, name))
    possible = np.isfinite(plain.log_evidence)
    assert possible.sum() == 20
    np.testing.assert_array_equal(answer.converged[possible], plain.converged[possible])


@pytest.mark.parametrize("n", [3, 5, 9])
def test_rounds_of_belief_propagation_are_exact_on_a_chain_once_they_span_it(n: int) -> None:
    problem = chain(n)
    tokens = np.full((1, problem.layout.length), MASK, np.int8)
    tokens[0, n:] = problem.sample(Key(2), 1)[0, n:]
    exact = ExactPosterior(problem).marginals(tokens).probs
    errors = [np.abs(few_rounds(problem, t).marginals(tokens).probs - exact).max() for t in range(1, n + 1)]
    assert errors[n - 2] < 1e-12  # n - 1 factors
    assert errors[-1] < 1e-12
    if n > 3:
        assert errors[0] > 1e-6


def test_few_rounds_read_factors_so_far_away_and_no_further() -> None:
    problem = chain(9)
    one = np.full((1, problem.layout.length), MASK, np.int8)
    one[0, 9:] = 0
    for rounds in (1, 2, 3, 4):
        for distance in range(8):  # of the factor from the first latent, which it is 1 from
            other = one.copy()
            other[0, 9 + distance] = 1
            both = [few_rounds(problem, rounds).marginals(tokens).probs[0, 0] for tokens in (one, other)]
            assert (np.abs(both[0] - both[1]).max() > 1e-12) == (distance <= rounds), (rounds, distance)


def test_forgetting_nothing_is_exact_and_forgetting_all_knows_what_latents_say() -> None:
    tokens = contexts(NAE, 60)
    exact = EXACT.marginals(tokens)
    for nothing in ([], np.array([], np.int64)):
        answer = Forgetful(EXACT, nothing).marginals(tokens)
        np.testing.assert_array_equal(answer.probs, exact.probs)
        np.testing.assert_array_equal(answer.log_evidence, exact.log_evidence)
    everything = Forgetful(EXACT, np.arange(16)).marginals(tokens)
    latents, laws = NAE.layout.split(tokens)[0], everything.probs[:, NAE.layout.latent_positions]
    np.testing.assert_allclose(laws[latents == MASK], 0.5, atol=1e-12)
    known = tokens.copy()
    known[:, NAE.layout.latent_positions] = NAE.sample(Key(9), 60)[:, NAE.layout.latent_positions]
    known[:, NAE.layout.observation_positions] = MASK  # the tables are not forgotten
    np.testing.assert_array_equal(Forgetful(EXACT, np.arange(16)).marginals(known).probs, EXACT.marginals(known).probs)


def test_forgetting_is_the_exact_posterior_of_the_problem_without_these_observations() -> None:
    law, kept = NAE.observations, [j for j in range(16) if j not in (0, 5, 11)]
    smaller = LODistribution(NAE.prior, TableObservations(law.scopes[kept], law.tables, law.index[kept]))
    assert (NAE.order == np.arange(NAE.layout.length)).all()
    tokens = contexts(NAE, 60)
    here = np.concatenate([np.arange(7), 7 + np.array(kept)])
    answer, truth = Forgetful(EXACT, [0, 5, 11]).marginals(tokens), ExactPosterior(smaller).marginals(tokens[:, here])
    np.testing.assert_allclose(answer.probs[:, here], truth.probs, atol=1e-12)
    revealed = (tokens[:, [7, 12, 18]] != MASK).any(axis=1)
    assert 0 < revealed.sum() < 60
    np.testing.assert_array_equal(np.isnan(answer.log_evidence), revealed)


def test_mixtures_go_from_one_posterior_to_the_other() -> None:
    tokens, prior = contexts(NAE, 60), MarginalsOnly(NAE)
    exact, marginals = EXACT.marginals(tokens), prior.marginals(tokens)
    np.testing.assert_array_equal(Mixed(EXACT, prior, 0).marginals(tokens).probs, exact.probs)
    np.testing.assert_array_equal(Mixed(EXACT, prior, 0).marginals(tokens).log_evidence, exact.log_evidence)
    np.testing.assert_array_equal(Mixed(EXACT, prior, 1).marginals(tokens).probs, marginals.probs)
    quarter = Mixed(EXACT, prior, 0.25).marginals(tokens)
    np.testing.assert_allclose(quarter.probs, 0.75 * exact.probs + 0.25 * marginals.probs, atol=1e-15)
    assert np.isnan(quarter.log_evidence).all()


@pytest.mark.parametrize("excess", [0.05, 1.0, -0.5, 300.0])
def test_sharpened_odds_are_powers_of_the_odds(excess: float) -> None:
    tokens = contexts(NAE, 60)
    exact, sharp = EXACT.marginals(tokens).probs, Sharpened(EXACT, excess).marginals(tokens).probs
    open_ = (exact > 0).all(axis=2)
    with np.errstate(divide="ignore"):
        odds, new = (np.log(p[open_][:, 0]) - np.log(p[open_][:, 1]) for p in (exact, sharp))
    np.testing.assert_allclose(new, (1 + excess) * odds, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(sharp[~open_], exact[~open_])
    np.testing.assert_array_equal(Sharpened(EXACT, 0).marginals(tokens).probs, exact)


def test_the_weaker_of_a_kind_loses_more() -> None:
    def excess(posterior: Posterior) -> float:
        return losses(posterior, EXACT, NAE, Pattern(5), key=Key(3), n=400).kl.mean

    assert 0 == excess(EXACT) < excess(Forgetful(EXACT, [0])) < excess(Forgetful(EXACT, range(8)))
    assert excess(few_rounds(NAE, 2)) < excess(PropagationOnly(NAE)) < excess(MarginalsOnly(NAE))
    mixed = [excess(Mixed(EXACT, MarginalsOnly(NAE), share)) for share in (0.1, 0.5, 0.9)]
    assert mixed == sorted(mixed)
    assert 0 < excess(Sharpened(EXACT, 0.05)) < excess(Sharpened(EXACT, 0.5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PropagationOnly(random_slab(4, 4, 1.0, seed=0)), "TableObservations"),
        (lambda: few_rounds(NAE, 0), "at least 1, got 0"),
        (lambda: Forgetful(EXACT, [16]), r"observation 16: this problem has 0\.\.15"),
        (lambda: Forgetful(EXACT, [-1]), "observation -1"),
        (lambda: Forgetful(EXACT, [3, 3]), "twice"),
        (lambda: Forgetful(EXACT, [0.5]), "numbers of observations"),
        (lambda: Forgetful(NAE, []), "posterior must be a posterior"),
        (lambda: Mixed(EXACT, MarginalsOnly(NAE), 1.5), r"\[0, 1\], got 1.5"),
        (lambda: Mixed(EXACT, NAE, 0.5), "other must be a posterior"),
        (
            lambda: Mixed(EXACT, MarginalsOnly(nae_sat(7, 15, seed=0)), 0.5).marginals(contexts(NAE, 2)),
            "bound to another problem",
        ),
        (lambda: Sharpened(EXACT, -1.0), "above -1"),
        (lambda: Sharpened(EXACT, float("nan")), "above -1"),
        (lambda: MarginalsOnly(EXACT), "a problem, such as"),
    ],
)
def test_bad_arguments_are_refused_in_words(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
