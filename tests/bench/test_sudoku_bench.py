"""How fast puzzles are made and hard ones solved, and how fast belief propagation answers contexts of puzzles.

Goals: 300 minimal 9 x 9 puzzles a second, and 50 ms for the slowest of the public hard ones of
tests/problem/test_sudoku.py, its proof that there is no other solution included. Run by ``make bench``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from lo_theory.posterior import BPPosterior, Completed, Conditioned, few_rounds
from lo_theory.posterior.sudoku import SudokuPosterior
from lo_theory.posterior.sudoku_units import UnitBP
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
    posterior = SudokuPosterior(9)
    posterior.marginals(puzzle[None])
    began = time.perf_counter()
    posterior.marginals(puzzle[None])
    own = time.perf_counter() - began
    benchmark.pedantic(sudoku.solve, args=(puzzle,), rounds=3)
    needs = sudoku.difficulty(puzzle)
    with capsys.disabled():
        print(f"\n{name}: {1e3 * np.median(times):.2f} ms, {needs.tried} digits tried, needs {needs.technique}")
        print(f"exact posterior: {1e3 * own:.2f} ms")
    assert max(np.median(times), own) < 0.05


def test_contexts_answered_a_second(benchmark, capsys) -> None:
    """Belief propagation on pairs of cells and on whole units, of puzzles as given; no goal."""
    problem = sudoku.cell_problem(9)
    law = Conditioned(problem, np.ones(problem.layout.n_observations, np.int8))
    who = {
        "pairs, one round": Completed(few_rounds(problem, 1), law),
        "units, one round": UnitBP(9, rounds=1),
        "pairs": Completed(BPPosterior(problem), law),
        "units": UnitBP(9),
    }
    puzzles, _ = sudoku.draw_puzzles(Key(2), 20, clues=30)
    lines = []
    for name, posterior in who.items():
        posterior.marginals(puzzles[:1])
        began = time.process_time()
        converged = posterior.marginals(puzzles).converged
        rate = len(puzzles) / (time.process_time() - began)
        lines.append(f"{name}: {rate:,.0f} contexts a second, {100 * converged.mean():.0f} % converged")
    benchmark.pedantic(who["units"].marginals, args=(puzzles,), rounds=3)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
