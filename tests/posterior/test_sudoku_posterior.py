"""The exact posteriors of Sudoku against enumeration, each other, and as denoisers that solve."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from lo_theory.diffusion import (
    OneAtATime,
    Pattern,
    decode,
    fewest_candidates,
    fixed_order,
    margin,
    top_probability,
    vanilla,
)
from lo_theory.diffusion.masks import draw_masks
from lo_theory.posterior import Completed, Conditioned, EnumeratedPosterior, PropagationOnly
from lo_theory.posterior.conditioned import exact_posterior
from lo_theory.posterior.sudoku import SudokuPosterior
from lo_theory.problem import MASK, sudoku
from lo_theory.rng import Key
from tests.problem.exact_cover import solve_line
from tests.problem.test_sudoku import HARD

GRIDS = sudoku.sudoku_4x4()
GRID = GRIDS.sequences[100]
KNOWN = ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).astype(bool)
CONTEXTS = np.where(KNOWN, GRID, np.int8(MASK))
POLICIES = (vanilla(), top_probability(), margin())
ORDERS = (*POLICIES, fixed_order(), fewest_candidates())


@pytest.mark.parametrize("posterior", [EnumeratedPosterior(GRIDS), SudokuPosterior(4)], ids=["list", "counting"])
def test_all_masks_of_a_grid_are_what_enumeration_says(posterior) -> None:
    fits = (KNOWN.astype(np.float32) @ (GRIDS.sequences != GRID).T.astype(np.float32)) == 0
    onehot = (GRIDS.sequences[..., None] == np.arange(4)).reshape(288, -1)
    counts = (fits.astype(np.float32) @ onehot.astype(np.float32)).reshape(-1, 16, 4)
    answer = posterior.marginals(CONTEXTS)
    assert np.allclose(answer.probs, counts / fits.sum(axis=1)[:, None, None], rtol=0, atol=1e-6)
    assert np.allclose(answer.log_evidence, np.log(fits.sum(axis=1) / 288), rtol=0, atol=1e-12)
    assert answer.converged.all()


@pytest.mark.parametrize("policy", ORDERS, ids=lambda policy: policy.name)
def test_one_token_a_step_solves_every_puzzle_and_fills_every_grid(policy) -> None:
    exact = EnumeratedPosterior(GRIDS)
    single = np.isclose(exact.marginals(CONTEXTS).log_evidence, -math.log(288))
    few = np.flatnonzero(single & (KNOWN.sum(axis=1) <= 6))  # with more clues: contexts on the way of these
    assert len(few) > 1000
    truth = np.concatenate([np.tile(GRID, (len(few), 1)), np.repeat(GRIDS.sequences, 10, axis=0)])
    known = np.concatenate([KNOWN[few], draw_masks(Pattern(10), Key(3), truth[len(few) :], GRIDS.layout)[0][0] == 0])
    puzzles = np.where(known, truth, np.int8(MASK))
    single = np.isclose(exact.marginals(puzzles).log_evidence, -math.log(288))
    decoded = decode(exact, policy, OneAtATime(), key=Key(1), n=len(puzzles), given=puzzles)
    assert (decoded.tokens == truth)[single].all(), "every puzzle of one grid with few clues, and some of all grids"
    assert len(np.unique(truth[single], axis=0)) > 250
    free = decode(exact, policy, OneAtATime(), key=Key(2), n=300).tokens
    assert np.isfinite(GRIDS.log_prob(free)).all()
    assert len(np.unique(free, axis=0)) > 100


@pytest.mark.parametrize("units", [False, True], ids=["pairs", "units"])
def test_the_cell_problem_given_that_all_differ_is_the_law_of_grids(units: bool) -> None:
    problem = sudoku.cell_problem(4, units=units)
    law = Conditioned(problem, np.ones(problem.layout.n_observations, np.int8))
    rows = np.concatenate([CONTEXTS[5::2111], [[0, 0] + 14 * [MASK]]]).astype(np.int8)
    ours, theirs = law.posterior.marginals(rows), EnumeratedPosterior(GRIDS).marginals(rows)
    assert np.allclose(ours.probs, theirs.probs, rtol=0, atol=1e-9)
    assert np.allclose(ours.log_evidence[:-1], theirs.log_evidence[:-1], rtol=0, atol=1e-9)
    assert np.isneginf([ours.log_evidence[-1], theirs.log_evidence[-1]]).all()


def test_propagation_of_9_x_9_knows_what_naked_singles_know() -> None:
    problem = sudoku.cell_problem(9)  # too large for the exact posterior, which only checks what is given
    law = Conditioned(problem, np.ones(problem.layout.n_observations, np.int8))
    puzzles, grids = sudoku.draw_puzzles(Key(1), 30, clues=32)
    easy = np.array([sudoku.difficulty(puzzle).technique == "naked singles" for puzzle in puzzles])
    assert 3 < easy.sum() < 30
    answer = Completed(PropagationOnly(problem), law).marginals(puzzles)
    right = np.take_along_axis(answer.probs, grids[:, :, None].astype(np.intp), axis=2)[:, :, 0]
    assert ((right == 1).all(axis=1) == easy).all()
    assert (right > 0).all(), "nothing true is excluded"


def test_the_exact_posterior_of_drawn_grids_counts() -> None:
    puzzles, grids = sudoku.draw_puzzles(Key(2), 3)
    assert (exact_posterior(sudoku.DrawnGrids(9)).marginals(puzzles).probs.argmax(axis=2) == grids).all()


@pytest.mark.parametrize("name", HARD)
def test_public_hard_puzzles_are_known_from_their_clues(name: str) -> None:
    puzzle = sudoku.read_puzzle(HARD[name])
    answer = SudokuPosterior(9).marginals(puzzle[None])
    assert (answer.probs[0].max(axis=1) == 1).all()
    assert (answer.probs[0].argmax(axis=1) == sudoku.solve(puzzle)).all()
    assert answer.log_evidence[0] == pytest.approx(-math.log(sudoku.GRIDS[9]))


def test_hard_puzzles_are_decoded_by_counting() -> None:
    puzzles = np.array(
        [
            sudoku.read_puzzle(line)
            for line in (
                "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
                "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3..",
            )
        ]
    )
    for policy in POLICIES:
        decoded = decode(SudokuPosterior(9), policy, OneAtATime(), key=Key(3), n=2, given=puzzles)
        assert (decoded.tokens == [sudoku.solve(puzzle) for puzzle in puzzles]).all()


def test_contexts_of_six_are_what_an_exact_cover_says() -> None:
    puzzles, _ = sudoku.draw_puzzles(Key(1), 4, 6, clues=20)
    puzzles[:, :12] = MASK
    answer = SudokuPosterior(6).marginals(puzzles)
    for puzzle, probs, evidence in zip(puzzles, answer.probs, answer.log_evidence, strict=True):
        found = np.array([list(map(int, line)) for line in solve_line(sudoku.write_puzzle(puzzle))]) - 1
        assert np.allclose(probs, (found[..., None] == np.arange(6)).mean(axis=0), rtol=0, atol=1e-12)
        assert evidence == pytest.approx(math.log(len(found) / sudoku.GRIDS[6]))


def test_impossible_contexts_are_flagged_and_large_ones_refused() -> None:
    rows = np.full((2, 81), MASK, np.int8)
    rows[:, :2] = 4
    answer = SudokuPosterior().marginals(rows)
    assert np.isneginf(answer.log_evidence).all()
    assert answer.probs[0, 5] == pytest.approx(1 / 9)
    assert answer.probs[0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    rows[1] = MASK
    with pytest.raises(ValueError, match="row 1 has more than 1,000 completions: reveal more cells, or raise limit"):
        copy.copy(SudokuPosterior(9, limit=1000)).marginals(rows)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        SudokuPosterior(9, limit=0)
    with pytest.raises(ValueError, match="size 4, 6 or 9, got 8"):
        SudokuPosterior(8)
    with pytest.raises(ValueError, match="token 9 in row 0"):
        SudokuPosterior(9).marginals(np.full((1, 81), 9))
