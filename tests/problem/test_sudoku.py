"""Sudoku: known counts, public hard puzzles, an exact cover as the slow twin, and bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lo_theory.problem import MASK, sudoku
from lo_theory.problem._sudoku_kernels import DONE, deduce, propagate
from lo_theory.rng import Key
from tests.problem.exact_cover import solve_line

HARD = {
    # Arto Inkala: AI Escargot (2006), and his puzzles in the newspapers of 2010 and 2012
    "AI Escargot": "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3..",
    "Inkala 2010": "..53.....8......2..7..1.5..4....53...1..7...6..32...8..6.5....9..4....3......97..",
    "Inkala 2012": "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    # the forums' hardest puzzles, by the names they have there
    "Golden Nugget": ".......39.....1..5..3.5.8....8.9...6.7...2...1..4.......9.8..5..2....6..4..7.....",
    "Easter Monster": "1.......2.9.4...5...6...7...5.9.3.......7.......85..4.7.....6...3...9.8...2.....1",
    "Platinum Blonde": ".......12........3..23..4....18....5.6..7.8.......9.....85.....9...4.5..47...6...",
    "Fata Morgana": "........3..1..56...9..4..7......9.5.7.......8.5.4.2....8..2..9...35..1..6........",
    # Peter Norvig, "Solving Every Sudoku Puzzle"
    "Norvig": "4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......",
    # Wikipedia, "Sudoku solving algorithms": against brute force
    "brute force": "..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9",
    # Gordon Royle, "Minimum Sudoku": 17 clues
    "Royle 1": "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
    "Royle 2": "000000012000035000000600070700000300000400800100000000000120000080000040050000600",
    "Royle 3": "000000012003600000000007000410020000000500300700000600280000040000300500000000000",
    # the list "magictour top 1465", and Norvig's "top 95"
    "magictour 1": "4...3.......6..8..........1....5..9..8....6...7.2........1.27..5.3....4.9........",
    "magictour 2": "7.8...3.....2.1...5.........4.....263...8.......1...9..9.6....4....7.5...........",
    "top 95": "6..3.2....5.....1..........7.26............543.........8.15........4.2........7..",
}
SEVERAL = "12" + 79 * "."
NO_SOLVER = "NOT COMPARED: python-sat is not installed (pip install python-sat)"
NEEDS = {"Norvig": "locked candidates", "brute force": "hidden singles"} | {
    f"Royle {number}": "hidden singles" for number in (1, 2, 3)
}
GRIDS = sudoku.sudoku_4x4()


def follows_the_rules(grid: np.ndarray) -> bool:
    size = round(len(grid) ** 0.5)
    return all(sorted(grid[unit].tolist()) == list(range(size)) for unit in sudoku.geometry(size).members)


def test_there_are_288_grids_of_four() -> None:
    fours = itertools.product(list(itertools.permutations(range(4))), repeat=4)
    latin = [sum(four, ()) for four in fours if all(len(set(column)) == 4 for column in zip(*four, strict=True))]
    brute = {grid for grid in latin if follows_the_rules(np.array(grid))}
    assert len(latin) == 576
    assert len(brute) == sudoku.GRIDS[4] == 288
    assert set(map(tuple, GRIDS.sequences.tolist())) == brute
    assert GRIDS.entropy() == pytest.approx(math.log(288))
    assert GRIDS.marginal_entropy() == pytest.approx(16 * math.log(4))


def test_there_are_28200960_grids_of_six() -> None:
    first = np.full(36, MASK)
    first[:6] = range(6)
    assert sudoku.count_solutions(first, 50_000) * math.factorial(6) == sudoku.GRIDS[6]


@pytest.mark.parametrize("name", HARD)
def test_public_hard_puzzles_are_solved(name: str) -> None:
    puzzle = sudoku.read_puzzle(HARD[name])
    solution = sudoku.solve(puzzle)
    assert follows_the_rules(solution)
    assert (solution[puzzle >= 0] == puzzle[puzzle >= 0]).all()
    needs = sudoku.difficulty(puzzle)
    assert needs.technique == NEEDS.get(name, "search")
    assert (needs.tried == 0) == (needs.technique == "hidden singles")


def test_solutions_are_those_of_an_exact_cover() -> None:
    puzzles = [sudoku.write_puzzle(p) for p in sudoku.draw_puzzles(Key(0), 30)[0]]
    for line in (*puzzles, HARD["Inkala 2012"]):
        assert list(itertools.islice(solve_line(line), 2)) == [
            sudoku.write_puzzle(sudoku.solve(sudoku.read_puzzle(line)))
        ]
    for seed, size, clues in ((1, 4, 5), (2, 6, 12), (3, 9, 32)):
        for puzzle in sudoku.draw_puzzles(Key(seed), 5, size, clues=clues)[0]:
            puzzle[np.flatnonzero(puzzle >= 0)[:2]] = MASK
            line = sudoku.write_puzzle(puzzle)
            assert sorted(solve_line(line)) == sorted(map(sudoku.write_puzzle, sudoku.solutions(puzzle, 10_000)))


def clauses_of_the_rules() -> list[list[int]]:
    """Clauses over variables 1 + 9 cell + digit: a cell has a digit and no two, and no unit has two equal ones."""
    cells, variable = np.arange(81).reshape(9, 9), 1 + np.arange(729).reshape(81, 9)
    boxes = cells.reshape(3, 3, 3, 3).transpose(0, 2, 1, 3).reshape(9, 9)
    groups = [*variable, *(variable[unit, digit] for unit in (*cells, *cells.T, *boxes) for digit in range(9))]
    apart = ([-int(a), -int(b)] for group in groups for a, b in itertools.combinations(group, 2))
    return [*variable.tolist(), *apart]


def test_a_sat_solver_finds_the_solution_of_a_thousand_puzzles_and_no_other() -> None:
    solvers = pytest.importorskip("pysat.solvers", reason=NO_SOLVER)
    puzzles, grids = sudoku.draw_puzzles(Key(3), 1000)
    spoilt = puzzles[0].copy()
    spoilt[np.flatnonzero(spoilt >= 0)[0]] = MASK
    with solvers.Solver("glucose4", bootstrap_with=clauses_of_the_rules()) as solver:
        for number, puzzle in enumerate((*puzzles, spoilt)):
            given = [int(1 + 9 * cell + puzzle[cell]) for cell in np.flatnonzero(puzzle >= 0)]
            assert solver.solve(given)
            model = [literal for literal in solver.get_model()[:729] if literal > 0]
            switch = 730 + number  # makes the clause that forbids this solution hold
            solver.add_clause([-switch, *(-literal for literal in model)])
            assert solver.solve([*given, switch]) == (number == 1000), "a minimal puzzle less a clue has several"
            if number < 1000:
                assert [(literal - 1) % 9 for literal in model] == grids[number].tolist()


@pytest.mark.parametrize("size", [4, 6, 9])
def test_a_thousand_puzzles_have_one_solution_and_no_clue_too_many(size: int) -> None:
    puzzles, grids = sudoku.draw_puzzles(Key(3), 1000, size)
    for number, (puzzle, grid) in enumerate(zip(puzzles, grids, strict=True)):
        assert (sudoku.solve(puzzle) == grid).all()
        if number < 10:
            for clue in np.flatnonzero(puzzle >= 0):
                less = puzzle.copy()
                less[clue] = MASK
                assert sudoku.count_solutions(less, 2) == 2
    assert all(map(follows_the_rules, grids))
    assert size == 4 or len(np.unique(grids, axis=0)) == 1000


def test_puzzles_and_grids_are_addressed_and_have_the_clues_asked_for() -> None:
    for make in (
        lambda n, start: sudoku.draw_puzzles(Key(4), n, 9, clues=26, start=start),
        lambda n, start: (sudoku.draw_grids(Key(4), n, 6, start=start),),
    ):
        for whole, part in zip(make(20, 0), make(7, 9), strict=True):
            assert (part == whole[9:16]).all()
    puzzles, _ = sudoku.draw_puzzles(Key(4), 20, clues=26)
    assert ((puzzles >= 0).sum(axis=1) == 26).all()
    assert len(np.unique(sudoku.draw_grids(Key(5), 5000, 4), axis=0)) == 288
    assert sudoku.draw_puzzles(Key(0), 0)[0].shape == (0, 81)


def candidates(puzzle: np.ndarray) -> list[set[int]]:
    size = round(len(puzzle) ** 0.5)
    return [set(range(size)) if token < 0 else {int(token)} for token in puzzle]


def slow_deduction(cells: list[set[int]], level: int) -> int:
    """Techniques on sets, one after another, until none removes anything: 1 solved, 0 stuck, -1 a contradiction."""
    size = round(len(cells) ** 0.5)
    units = [set(unit.tolist()) for unit in sudoku.geometry(size).members]
    while True:
        before = [set(cell) for cell in cells]
        for unit in units:
            for cell in unit:
                if len(cells[cell]) == 1:
                    for other in unit - {cell}:
                        cells[other] -= cells[cell]
        if not all(cells):
            return -1
        places = {(u, d): {c for c in unit if d in cells[c]} for u, unit in enumerate(units) for d in range(size)}
        if level >= 1:
            if not all(places.values()):
                return -1
            for (_, d), at in places.items():
                if len(at) == 1:
                    if d not in cells[min(at)]:
                        return -1
                    cells[min(at)] = {d}
        if level >= 2 and cells == before:
            for (u, d), at in places.items():
                for other in units:
                    if other != units[u] and at <= other:
                        for cell in other - units[u]:
                            cells[cell].discard(d)
        if level >= 3 and cells == before:
            for unit in units:
                for a, b in itertools.combinations(sorted(unit), 2):
                    if len(cells[a]) == 2 and cells[a] == cells[b]:
                        for cell in unit - {a, b}:
                            cells[cell] -= cells[a]
                for d, e in itertools.combinations(range(size), 2):
                    at, also = ({c for c in unit if digit in cells[c]} for digit in (d, e))
                    if at == also and len(at) == 2:
                        for cell in at:
                            cells[cell] &= {d, e}
        if cells == before:
            return int(all(len(cell) == 1 for cell in cells))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_techniques_find_what_they_find_on_sets(level: int) -> None:
    solved = 0
    for size, count in ((9, 25), (6, 10), (4, 10)):
        members, peers, unit_of = sudoku.geometry(size)
        for puzzle in sudoku.draw_puzzles(Key(6), count, size)[0]:
            cells, state = candidates(puzzle), np.array([sum(1 << d for d in cell) for cell in candidates(puzzle)])
            verdict = deduce(state, members, peers, unit_of, level)
            assert verdict == slow_deduction(cells, level)
            assert [sum(1 << d for d in cell) for cell in cells] == (state & ~DONE).tolist()
            solved += verdict
    assert 0 < solved < 45


def test_propagation_sees_contradictions() -> None:
    members, peers, _ = sudoku.geometry(4)
    twice, nowhere = np.full(16, 15), np.full(16, 15)
    twice[[0, 1]] = 1
    assert not propagate(twice, members, peers, 0)
    nowhere[[0, 1, 2, 3]] = 14
    assert propagate(nowhere.copy(), members, peers, 0)
    assert not propagate(nowhere, members, peers, 1)


def test_lines_are_read_and_written() -> None:
    for line in HARD.values():
        assert sudoku.write_puzzle(sudoku.read_puzzle(f"  {line}\n")) == line.replace("0", ".")
    assert sudoku.read_puzzle("1.3.............").tolist() == [0, -1, 2] + [-1] * 13
    assert len(sudoku.read_puzzle("." * 36)) == 36


def test_the_cell_problem_has_a_pair_for_each_two_cells_that_share_a_unit() -> None:
    for size, pairs in ((4, 56), (6, 216), (9, 810)):
        problem = sudoku.cell_problem(size)
        assert problem.layout.n_observations == pairs
        grid = sudoku.draw_grids(Key(0), 1, size)[0]
        assert np.isfinite(problem.log_prob(np.concatenate([grid, np.ones(pairs, np.int8)]))).all()
    units = sudoku.cell_problem(4, units=True)
    assert units.layout.n_observations == 12
    assert np.isfinite(units.log_prob(np.concatenate([GRIDS.sequences[7], np.ones(12, np.int8)]))).all()


WRONG = "55" + 79 * "."


def test_drawn_grids_are_a_law_of_latents() -> None:
    law = sudoku.DrawnGrids(6)
    grids = law.sample(Key(1), 40)
    assert (grids == sudoku.draw_grids(Key(1), 40, 6)).all()
    assert (law.sample(Key(1), 15, start=25) == grids[25:]).all()
    assert law.log_prob(grids) == pytest.approx(np.full(40, -math.log(28_200_960)))
    assert law.entropy() == pytest.approx(math.log(28_200_960))
    swapped = grids[:, [1, 0, *range(2, 36)]]  # its row and box are whole, its columns are not
    assert np.isneginf(law.log_prob(swapped)).all()
    assert law.marginal_entropy() == pytest.approx(36 * math.log(6))
    assert np.allclose(law.token_marginals, 1 / 6)
    assert law.fingerprint() != sudoku.DrawnGrids(9).fingerprint()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sudoku.read_puzzle("." * 80), "a line of 16, 36 or 81 characters, got 80"),
        (lambda: sudoku.read_puzzle(""), "got 0"),
        (lambda: sudoku.read_puzzle("." * 80 + "x"), "character 81 of the line is 'x'"),
        (lambda: sudoku.read_puzzle("7" + "." * 35), "character 1 of the line is '7': a 6 x 6 .* digits 1 to 6"),
        (lambda: sudoku.read_puzzle(WRONG), r"row 1 has the digit 5 more than once, .*\(1, 1\) and \(1, 2\)"),
        (lambda: sudoku.read_puzzle("3...3..........."), r"column 1 has the digit 3 .*\(1, 1\) and \(2, 1\)"),
        (lambda: sudoku.read_puzzle("3....3.........."), r"box 1 has the digit 3 .*\(1, 1\) and \(2, 2\)"),
        (lambda: sudoku.read_puzzle(81), "text must be text"),
        (lambda: sudoku.check_puzzle(np.zeros((9, 9), int)), r"one row, int8\[n\*n\]; got shape \(9, 9\)"),
        (lambda: sudoku.check_puzzle([4] + [-1] * 15), "token 4 in row 0 at position 0"),
        (lambda: sudoku.solve(sudoku.read_puzzle("123...4.........")), "has no solution: change or remove a clue"),
        (lambda: sudoku.solve(sudoku.read_puzzle(SEVERAL)), "has several solutions"),
        (lambda: sudoku.difficulty(sudoku.read_puzzle(SEVERAL)), "has several solutions"),
        (lambda: sudoku.solutions(sudoku.read_puzzle(SEVERAL), 12), "more than 12 solutions"),
        (lambda: sudoku.solutions(sudoku.read_puzzle(SEVERAL), 0), "most = 0"),
        (lambda: sudoku.count_solutions(sudoku.read_puzzle(SEVERAL), 0), "a limit of at least 1, got 0"),
        (lambda: sudoku.draw_grids(Key(0), 1, 5), "the size 4, 6 or 9, got 5"),
        (lambda: sudoku.draw_grids(Key(0), -1), "n >= 0"),
        (lambda: sudoku.draw_puzzles(Key(0), 1, clues=99), "0 to 81 clues, got 99"),
        (lambda: sudoku.draw_puzzles(Key(0), 1, clues=12), "row 0: none of 100 puzzles came down to 12 clues"),
        (lambda: sudoku.draw_puzzles(3, 1), r"key must be an address .* Key\(3\)"),
        (lambda: sudoku.cell_problem(9, units=True), r"9\*\*9 states"),
        (lambda: sudoku.DrawnGrids(5), "the size 4, 6 or 9, got 5"),
    ],
)
def test_bad_input_is_named(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()
