"""Strategies make what they say, of every kind; the brute-force twins and the exact posterior agree on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, SlabObservations, nae_sat
from lo_theory.testing import BruteForcePosterior, brute_force, joint_law
from lo_theory.testing.strategies import contexts, predicates, problems, sequences


@settings(max_examples=60)
@given(problems(), st.data())
def test_twins_and_the_exact_posterior_agree_on_any_context(problem, data):
    tokens = data.draw(contexts(problem, rows=3))
    slow, (probs, evidence) = BruteForcePosterior(problem).marginals(tokens), brute_force(problem, tokens)
    exact = ExactPosterior(problem).marginals(tokens)
    for other in (probs, exact.probs):
        np.testing.assert_allclose(other, slow.probs, atol=1e-12)
    for known in (evidence, exact.log_evidence):
        np.testing.assert_allclose(known, slow.log_evidence, atol=1e-11)


@settings(max_examples=60)
@given(problems(), st.data())
def test_sequences_and_contexts_are_possible_where_they_say_so(problem, data):
    rows, p = joint_law(problem)
    assert p.sum() == pytest.approx(1)
    sequence = data.draw(sequences(problem))
    assert (rows == sequence).all(axis=1).sum() == 1
    tokens = data.draw(contexts(problem, rows=2, possible=True))
    assert np.isfinite(brute_force(problem, tokens)[1]).all()
    problem.layout.check_tokens(data.draw(contexts(problem, possible=False)))


def test_every_kind_is_met():
    small = nae_sat(3, 3, seed=0)
    for strategy, condition in (
        (predicates(), lambda predicate: predicate.q == 3 and predicate.table.all()),
        (problems(), lambda problem: isinstance(problem.observations, SlabObservations)),
        (problems(), lambda problem: (problem.prior == 0).any() and problem.layout.order[0] > 0),
        (contexts(small), lambda tokens: (tokens == MASK).all()),
        (contexts(small), lambda tokens: np.isneginf(brute_force(small, tokens)[1][0])),
    ):
        find(strategy, condition, settings=settings(phases=[Phase.generate], derandomize=True))
