"""How fast puzzles are made and hard ones solved.

Goals: 300 minimal 9 x 9 puzzles a second, and 50 ms for the slowest of the public hard ones of
tests/problem/test_sudoku.py, its proof that there is no other solution included. Run by ``make bench``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from lo_theory.problem import sudoku
from lo_theory.rng import Key
from tests.problem.test_sudoku import HARD


def test_puzzles_made_a_second(benchmark, capsys) -> None:
    sudoku.draw_puzzles(Key(0), 1)
    puzzles, _ = benchmark.pedantic(sudoku.draw_puzzles, args=(Key(1), 1000), rounds=3)
    rate, clues = 1000 / benchmark.stats.stats.median, (puzzles >= 0).sum(axis=1)
    found = [sudoku.difficulty(puzzle).technique for puzzle in puzzles]
    shares = ", ".join(f"{name} {found.count(name) / 10:.1f} %" for name in sudoku.TECHNIQUES)
    with capsys.disabled():
        print(
            f"\n{rate:,.0f} minimal 9 x 9 puzzles a second, {clues.min()} to {clues.max()} clues, mean {clues.mean():.1f}"
        )
        print(f"they need {shares}")
    assert rate >= 300


@pytest.mark.parametrize("name", HARD)
def test_hard_puzzles(benchmark, capsys, name: str) -> None:
    puzzle = sudoku.read_puzzle(HARD[name])
    assert sudoku.count_solutions(puzzle, 2) == 1
    times = []
    for _ in range(7):
        began = time.perf_counter()
        sudoku.solve(puzzle)
        times.append(time.perf_counter() - began)
    benchmark.pedantic(sudoku.solve, args=(puzzle,), rounds=3)
    with capsys.disabled():
        print(f"\n{name}: {1e3 * np.median(times):.2f} ms, {sudoku.difficulty(puzzle).tried} digits tried")
    assert np.median(times) < 0.05
