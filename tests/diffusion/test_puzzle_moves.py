"""A puzzle and its moves as one sequence: orders against sets, probabilities against counts, what moves do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.diffusion import PuzzleThenMoves
from lo_theory.problem import MASK, nae_sat
from lo_theory.problem.sudoku import DrawnGrids, geometry, sudoku_4x4
from lo_theory.rng import Key

GRIDS = sudoku_4x4()
ORDERS = ("rows", "solver", "random")
BLANK = 20  # digits are 0..3, cells 4..19


def moves_of(row: np.ndarray) -> list[tuple[int, int]]:
    """The moves of a sequence of 4 x 4, as (cell, digit)."""
    pairs = row[16:].reshape(16, 2).tolist()
    return [(cell - 4, digit) for cell, digit in pairs if cell != BLANK]


@pytest.mark.parametrize("order", ORDERS)
def test_a_sequence_is_a_puzzle_and_all_moves_that_fill_it(order: str) -> None:
    law = PuzzleThenMoves(GRIDS, order)  # type: ignore[arg-type]
    rows = law.sample(Key(1), 300)
    grids, times, void = law.read(rows)
    assert not void.any()
    assert np.isfinite(GRIDS.log_prob(grids)).all()
    for row, grid, when in zip(rows, grids, times, strict=True):
        empty, moves = np.flatnonzero(row[:16] == BLANK), moves_of(row)
        assert sorted(cell for cell, _ in moves) == empty.tolist()
        assert [int(when[cell]) for cell, _ in moves] == list(range(len(moves)))
        assert all(grid[cell] == digit for cell, digit in moves)
        assert (row[16 + 2 * len(moves) :] == BLANK).all()
    given = np.where(rows[:, :16] == BLANK, MASK, rows[:, :16])
    assert (law.prompt(given)[:, :16] == rows[:, :16]).all()
    assert (law.prompt(given)[:, 16:] == MASK).all()
    assert (law.sample(Key(1), 20, start=30) == rows[30:50]).all()


def test_a_solver_fills_the_first_cell_with_fewest_candidates() -> None:
    peers = geometry(4).peers
    for row in PuzzleThenMoves(GRIDS, "solver").sample(Key(2), 60):
        shown = {cell: int(digit) for cell, digit in enumerate(row[:16]) if digit != BLANK}
        for cell, digit in moves_of(row):
            left = {
                other: 4 - len({shown[peer] for peer in peers[other].tolist() if peer in shown})
                for other in range(16)
                if other not in shown
            }
            assert cell == min(left, key=lambda other: (left[other], other))
            shown[cell] = digit


def test_rows_fill_by_cells_and_random_orders_are_uniform() -> None:
    for row in PuzzleThenMoves(GRIDS, "rows").sample(Key(3), 60):
        cells = [cell for cell, _ in moves_of(row)]
        assert cells == sorted(cells)
    first = {}
    for order in ("random", "rows"):
        rows = PuzzleThenMoves(GRIDS, order).sample(Key(4), 4000)  # type: ignore[arg-type]
        ranks = [(np.argsort(cells)[0], len(cells)) for row in rows if len(cells := [c for c, _ in moves_of(row)]) > 1]
        values = [(rank + 0.5) / count for rank, count in ranks]
        first[order] = abs(np.mean(values) - 0.5) * math.sqrt(12 * len(values))
    assert first["random"] < 4
    assert first["rows"] > 20, "the move that comes first in cells is the first one"


@pytest.mark.parametrize("order", ORDERS)
def test_entropy_is_the_mean_of_the_log_probabilities(order: str) -> None:
    law = PuzzleThenMoves(GRIDS, order)  # type: ignore[arg-type]
    nats = -law.log_prob(law.sample(Key(5), 8192))
    error = nats.std() / math.sqrt(len(nats))
    assert abs(nats.mean() - law.entropy()) < 4 * error
    assert abs(nats.mean() - law.entropy() - math.log(16)) > 20 * error, "the number of clues left out"


def test_log_prob_is_that_of_its_parts() -> None:
    row = PuzzleThenMoves(GRIDS, "random").sample(Key(6), 1)
    hidden = len(moves_of(row[0]))
    parts = math.log(16) + math.log(math.comb(16, hidden)) + math.log(288)
    assert PuzzleThenMoves(GRIDS, "random").log_prob(row)[0] == pytest.approx(-parts - math.lgamma(hidden + 1))
    solver = PuzzleThenMoves(GRIDS, "solver")
    assert solver.log_prob(solver.sample(Key(6), 1))[0] == pytest.approx(-parts)
    assert solver.moves_entropy(np.array([3])) == 0
    assert PuzzleThenMoves(GRIDS, "random").moves_entropy(np.array([3])) == pytest.approx(math.log(6))


def test_other_orders_and_other_digits_are_impossible() -> None:
    for order, possible in (("rows", False), ("solver", False), ("random", True)):
        law = PuzzleThenMoves(GRIDS, order)  # type: ignore[arg-type]
        rows = next(row for row in law.sample(Key(7), 50) if len(moves_of(row)) > 3)[None]
        turned, wrong, early = rows.copy(), rows.copy(), rows.copy()
        turned[0, 16:20] = rows[0, [18, 19, 16, 17]]
        wrong[0, 17] = (rows[0, 17] + 1) % 4
        early[0, 16:18] = BLANK
        assert np.isfinite(law.log_prob(turned)[0]) == possible
        assert np.isneginf([law.log_prob(wrong)[0], law.log_prob(early)[0]]).all()


def test_moves_that_are_none_do_nothing() -> None:
    law = PuzzleThenMoves(GRIDS, "rows")
    row = next(row for row in law.sample(Key(8), 50) if len(moves_of(row)) == 2)[None].copy()
    (first, digit), (second, other) = moves_of(row[0])
    shown = int(np.flatnonzero(row[0, :16] != BLANK)[0])
    row[0, 16:] = BLANK
    moves = [(shown + 4, 0), (2, 1), (first + 4, 9), (first + 4, digit), (first + 4, other), (second + 4, other)]
    row[0, 16 : 16 + 2 * len(moves)] = np.ravel(moves)
    grids, times, void = law.read(row)
    assert void.tolist() == [4]
    assert (grids[0, first], grids[0, second], times[0, first], times[0, second]) == (digit, other, 3, 5)
    assert grids[0, shown] == row[0, shown]
    row[0, 26:28] = BLANK
    assert law.read(row).grids[0, second] == MASK


def test_single_tokens_are_as_measured_and_as_counted() -> None:
    law = PuzzleThenMoves(GRIDS, "random")
    marginals = law.token_marginals
    assert np.allclose(marginals.sum(axis=1), 1)
    assert np.abs(marginals[:16, BLANK] - 17 / 32).max() < 0.02, "hidden cells are 1 to 16, uniform"
    assert np.abs(marginals[16, 4:20] - 1 / 16).max() < 0.01, "the first cell of random moves is uniform"
    assert law.marginal_entropy() > law.entropy()


def test_laws_are_told_apart_and_other_laws_refused() -> None:
    laws = [PuzzleThenMoves(grids, order) for grids in (GRIDS, DrawnGrids(6)) for order in ORDERS]  # type: ignore[arg-type]
    assert len({law.fingerprint() for law in laws}) == len(laws)
    with pytest.raises(ValueError, match="rows, solver or random, got 'columns'"):
        PuzzleThenMoves(GRIDS, "columns")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a Sudoku"):
        PuzzleThenMoves(nae_sat(4, 6, seed=0), "rows")
