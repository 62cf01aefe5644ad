"""Zebra puzzles as L&O problems whose observations are given: exact, by belief propagation and by propagation alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.diffusion import OneAtATime, decode, margin
from lo_theory.posterior import BPPosterior, Completed, Conditioned, EnumeratedPosterior, PropagationOnly
from lo_theory.problem import MASK, Enumerated, zebra
from lo_theory.problem._zebra_kernels import propagate
from lo_theory.problem.zebra import Clue, Puzzle
from lo_theory.rng import Key
from tests.problem.test_zebra import CLASSIC, brute, everything, random_puzzles, without


def law_of(puzzle: Puzzle) -> Conditioned:
    problem = zebra.problem(puzzle)
    return Conditioned(problem, np.ones(problem.layout.n_observations, np.int8))


def test_without_clues_the_law_is_uniform_over_all_assignments() -> None:
    law = law_of(Puzzle(3, 3))
    assert law.problem.observations.k == 2
    assert law.entropy() == pytest.approx(3 * math.log(6), abs=1e-12)
    assert np.allclose(law.log_prob(everything(3, 3)), -math.log(216), rtol=0, atol=1e-12)
    assert {row.tobytes() for row in law.enumerated.sequences} == {row.tobytes() for row in everything(3, 3)}


def test_the_exact_posterior_is_that_of_all_assignments() -> None:
    rng, compared = np.random.default_rng(1), 0
    for puzzle in random_puzzles(60, ((3, 3),)):
        rows = brute(puzzle)
        if not len(rows):
            with pytest.raises(ValueError, match="the given observations exclude each other"):
                law_of(puzzle)
            continue
        law, truth = law_of(puzzle), EnumeratedPosterior(Enumerated(rows))
        contexts = np.where(rng.random((8, 9)) < 0.3, rows[rng.integers(len(rows), size=8)], np.int8(MASK))
        contexts[0], contexts[1, :2] = MASK, 0  # two values of an attribute in one house
        ours, theirs = law.posterior.marginals(contexts), truth.marginals(contexts)
        assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-9)
        assert np.allclose(ours.log_evidence, theirs.log_evidence, rtol=0, atol=1e-9)
        assert np.isneginf(ours.log_evidence[1])
        compared += len(rows) > 1
    assert compared > 20


def test_propagation_alone_is_the_first_technique() -> None:
    puzzles = [zebra.draw_puzzle(Key(number), 4, 3)[0] for number in range(10)]
    open_values = 0
    for puzzle in (*puzzles, *(without(puzzle, 0) for puzzle in puzzles)):
        law, (state, *arrays) = law_of(puzzle), zebra._arrays(puzzle)
        propagate(state, *arrays, 0)
        probs = Completed(PropagationOnly(law.problem), law).marginals(np.full(12, MASK)).probs[0]
        assert ((probs > 0) @ (1 << np.arange(4)) == state).all()
        open_values += ((probs > 0).sum(axis=1) > 1).sum()
    assert open_values > 20


@pytest.mark.parametrize("third", [False, True], ids=["two latents", "three latents"])
def test_belief_propagation_is_exact_where_the_graph_is_a_tree(monkeypatch: pytest.MonkeyPatch, third: bool) -> None:
    monkeypatch.setitem(zebra.KINDS, "anything", lambda a, b, c: True)
    clues = Clue("same", (0, 2)), Clue("left_of", (3, 4)), Clue("not_at", (7,), 1)
    puzzle = Puzzle(2, 4, (*clues, Clue("anything", (0, 1, 6))) if third else clues)
    law = law_of(puzzle)
    assert law.problem.observations.k == 2 + third
    contexts = np.full((3, 8), MASK, np.int8)
    contexts[1, 0], contexts[2, 5] = 1, 0
    answer = Completed(BPPosterior(law.problem), law).marginals(contexts)
    exact = law.posterior.marginals(contexts)
    assert answer.converged.all()
    assert np.allclose(answer.probs, exact.probs, rtol=0, atol=1e-9)
    assert np.allclose(answer.log_evidence, exact.log_evidence, rtol=0, atol=1e-9)


def test_puzzles_of_five_are_decoded() -> None:
    for puzzle in (zebra.read_puzzle(CLASSIC), *(zebra.draw_puzzle(Key(number), 5, 5)[0] for number in range(3))):
        law = law_of(puzzle)
        decoded = decode(law.posterior, margin(), OneAtATime(), key=Key(1), n=2)
        assert (decoded.tokens == zebra.solve(puzzle)).all()
        assert law.entropy() == pytest.approx(0, abs=1e-9)
