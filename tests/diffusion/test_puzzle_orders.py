"""Orders after clues: candidates against sets, what comes next, and that nothing hidden decides what is shown."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lo_theory.diffusion import AfterClues, OneAtATime, decode, fewest_candidates, fixed_order
from lo_theory.diffusion.masks import draw_masks
from lo_theory.posterior import EnumeratedPosterior, ExactPosterior, MarginalsOnly
from lo_theory.problem import MASK, nae_sat
from lo_theory.problem.sudoku import DrawnGrids, geometry, sudoku_4x4
from lo_theory.rng import Key

GRIDS = sudoku_4x4()
EXACT = EnumeratedPosterior(GRIDS)
LAWS = {"rows": fixed_order, "solver": fewest_candidates}


def contexts(order: str, n: int, key: Key, law: object = GRIDS) -> tuple[NDArray[np.int8], NDArray[np.intp]]:
    """Truth with what is hidden as MASK, int8[n, L], and the cell that has the weight."""
    truth = law.sample(key.fold("data"), n)  # type: ignore[attr-defined]
    masked, weight = draw_masks(AfterClues(order), key, truth, law.layout)  # type: ignore[arg-type, attr-defined]
    assert (weight.sum(axis=2) == 1).all()
    assert masked[weight > 0].all()
    return np.where(masked[0], np.int8(MASK), truth), weight[0].argmax(axis=1)


def candidates(tokens: NDArray[np.int8], size: int, cell: int) -> int:
    """Digits that no cell shown in a unit of ``cell`` has, by sets."""
    shown = {int(tokens[peer]) for peer in geometry(size).peers[cell]} - {MASK}
    return size - len(shown)


@pytest.mark.parametrize(("law", "size"), [(GRIDS, 4), (DrawnGrids(6), 6)])
def test_a_solver_takes_the_first_cell_with_fewest_candidates(law: object, size: int) -> None:
    tokens, following = contexts("solver", 60, Key(1), law)
    for row, cell in zip(tokens, following, strict=True):
        counts = [(candidates(row, size, place), place) for place in np.flatnonzero(row == MASK)]
        assert min(counts)[1] == cell


def test_by_rows_all_before_the_next_cell_are_shown() -> None:
    tokens, following = contexts("rows", 200, Key(2))
    assert all((row[:cell] != MASK).all() for row, cell in zip(tokens, following, strict=True))
    assert any((row[cell:] != MASK).any() for row, cell in zip(tokens, following, strict=True)), "clues come later too"


@pytest.mark.parametrize("order", list(LAWS))
def test_the_cell_with_the_weight_is_the_one_that_the_policy_reveals(order: str) -> None:
    tokens, following = contexts(order, 100, Key(3))
    decoded = decode(EXACT, LAWS[order](), OneAtATime(), key=Key(0), n=100, given=tokens)
    assert (decoded.step_revealed[np.arange(100), following] == 0).all()


def test_numbers_shown_are_those_of_the_larger_of_two() -> None:
    tokens, _ = contexts("rows", 4000, Key(4))
    shown = (tokens != MASK).sum(axis=1)
    chances = (2 * np.arange(16) + 1) / 256
    expected = 4000 * chances
    z = (np.bincount(shown, minlength=16) - expected) / np.sqrt(expected * (1 - chances))
    assert np.abs(z).max() < 4
    assert np.abs((np.bincount(shown, minlength=16) - 250) / np.sqrt(250)).max() > 4, "a uniform number is another law"


def surprise(order: str, *, peek: bool = False) -> float:
    """z of -ln p(truth) - H(p) at the next cell, 0 in the mean where only what is shown decides which that is."""
    tokens, following = contexts(order, 3000, Key(5))
    truth, rows = GRIDS.sample(Key(5).fold("data"), 3000), np.arange(3000)
    laws = EXACT.marginals(tokens).probs
    logs = np.log(np.where(laws > 0, laws, 1.0))
    right = np.take_along_axis(laws, truth[:, :, None].astype(np.intp), axis=2)[:, :, 0]
    if peek:
        following = np.where(tokens == MASK, right, -1.0).argmax(axis=1)
    entropies = -(laws * logs).sum(axis=2)[rows, following]
    apart = -np.log(right[rows, following]) - entropies
    return float(apart.mean() / (apart.std() / len(rows) ** 0.5))


@pytest.mark.parametrize("order", list(LAWS))
def test_hidden_digits_do_not_decide_what_comes_next(order: str) -> None:
    assert abs(surprise(order)) < 3
    assert abs(surprise(order, peek=True)) > 6, "an order that looks at the solution is rejected"


def test_rows_do_not_depend_on_the_batch() -> None:
    truth = GRIDS.sample(Key(6), 8)
    whole = AfterClues("solver").sample(Key(7), truth, GRIDS.layout)
    part = AfterClues("solver").sample(Key(7), truth[3:], GRIDS.layout, start=3)
    assert all((one[:, 3:] == other).all() for one, other in zip(whole, part, strict=True))


def test_other_problems_are_refused() -> None:
    problem = nae_sat(4, 6, seed=0)
    with pytest.raises(ValueError, match="needs a Sudoku, got N = 4, P = 6"):
        AfterClues("rows").sample(Key(0), problem.sample(Key(1), 2), problem.layout)
    with pytest.raises(ValueError, match="needs a Sudoku"):
        decode(ExactPosterior(problem), fewest_candidates(), OneAtATime(), key=Key(0), n=2)
    with pytest.raises(ValueError, match="rows or solver, got 'columns'"):
        AfterClues("columns")  # type: ignore[arg-type]


def test_with_marginals_alone_no_order_helps() -> None:
    empty = np.full((50, 16), MASK, np.int8)
    made = [decode(MarginalsOnly(GRIDS), make(), OneAtATime(), key=Key(8), n=50, given=empty) for make in LAWS.values()]
    assert not any(np.isfinite(GRIDS.log_prob(one.tokens)).any() for one in made)
