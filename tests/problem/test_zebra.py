"""Zebra puzzles: the classic one, all assignments as the slow twin, drawn puzzles, a SAT solver, and bad input."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lo_theory.problem import zebra
from lo_theory.problem._zebra_kernels import propagate
from lo_theory.problem.zebra import Clue, Puzzle
from lo_theory.rng import Key

CLASSIC = """houses 5 attributes 5
same 1.0 0.0
same 1.1 4.0
same 2.0 0.1
same 1.2 2.1
just_left_of 0.2 0.1
same 3.0 4.1
same 3.1 0.3
at 2.2 2
at 1.3 0
next_to 3.2 4.2
next_to 3.1 4.3
same 3.3 2.3
same 1.4 3.4
next_to 1.3 0.4"""
"""Life International, 17 December 1962. Attributes and values are those of ``NAMES``."""

NAMES = [
    ["red", "green", "ivory", "yellow", "blue"],
    ["English", "Spaniard", "Ukrainian", "Norwegian", "Japanese"],
    ["coffee", "tea", "milk", "juice", "water"],
    ["Old Gold", "Kools", "Chesterfields", "Lucky Strike", "Parliaments"],
    ["dog", "snails", "fox", "horse", "zebra"],
]

PINNED = [
    "houses 3 attributes 3",
    "same 0.0 2.1",
    "just_left_of 2.2 2.1",
    "same 1.0 0.0",
    "at 1.1 2",
    "left_of 0.0 0.2",
]
MISSING = "NOT COMPARED: python-sat is not installed (pip install python-sat); no other solver looked at the puzzles"

RULES: dict[str, Callable] = {
    "same": lambda a, b: a - b == 0,
    "not_same": lambda a, b: a - b != 0,
    "just_left_of": lambda a, b: b - a == 1,
    "left_of": lambda a, b: b - a > 0,
    "next_to": lambda a, b: (b - a) ** 2 == 1,
    "not_next_to": lambda a, b: (b - a) ** 2 != 1,
    "at": lambda a, house: a - house == 0,
    "not_at": lambda a, house: a - house != 0,
    "between": lambda a, b, c: (a - b) * (c - a) > 0,
}
"""The kinds again, in sums and products: they take columns of all assignments."""


@functools.cache
def everything(houses: int, attributes: int) -> np.ndarray:
    """All (H!)**A assignments, int8[(H!)**A, A H]."""
    orders = np.array(list(itertools.permutations(range(houses))), np.int8)
    chosen = np.indices((len(orders),) * attributes).reshape(attributes, -1)
    return np.asfortranarray(np.concatenate([orders[one] for one in chosen], axis=1))


def brute(puzzle: Puzzle) -> np.ndarray:
    """The assignments that make all clues true."""
    rows = everything(puzzle.houses, puzzle.attributes)
    left = np.arange(len(rows))
    for clue in puzzle.clues:
        named = () if clue.house is None else (clue.house,)
        left = left[RULES[clue.kind](*(rows[left, latent] for latent in clue.latents), *named)]
    return rows[left]


def random_puzzle(rng: np.random.Generator, houses: int, attributes: int, count: int) -> Puzzle:
    """Any clues, true together or not."""
    clues = []
    for kind in rng.choice(list(RULES), count):
        arity, house = (1, int(rng.integers(houses))) if kind.endswith("at") else (2, None)
        arity = 3 if kind == "between" else arity
        clues.append(Clue(str(kind), tuple(rng.permutation(houses * attributes)[:arity].tolist()), house))
    return Puzzle(houses, attributes, tuple(dict.fromkeys(clues)))


def random_puzzles(count: int, sizes=((3, 3), (3, 2), (2, 3), (4, 2), (3, 1))) -> Iterator[Puzzle]:
    rng = np.random.default_rng(0)
    for number in range(count):
        yield random_puzzle(rng, *sizes[number % len(sizes)], int(rng.integers(8)))


def without(puzzle: Puzzle, number: int) -> Puzzle:
    return Puzzle(puzzle.houses, puzzle.attributes, puzzle.clues[:number] + puzzle.clues[number + 1 :])


def test_the_zebra_is_the_japaneses_and_the_norwegian_drinks_water() -> None:
    puzzle = zebra.read_puzzle(CLASSIC)
    solution = zebra.solve(puzzle).reshape(5, 5)
    streets = [[NAMES[attribute][value] for value in row] for attribute, row in enumerate(solution.argsort(axis=1))]
    assert list(zip(*streets, strict=True)) == [
        ("yellow", "Norwegian", "water", "Kools", "fox"),
        ("blue", "Ukrainian", "tea", "Chesterfields", "horse"),
        ("red", "English", "milk", "Old Gold", "snails"),
        ("ivory", "Spaniard", "juice", "Lucky Strike", "dog"),
        ("green", "Japanese", "coffee", "Parliaments", "zebra"),
    ]
    assert zebra.count_solutions(puzzle) == 1
    assert zebra.difficulty(puzzle).technique == "search"
    assert all(zebra.count_solutions(without(puzzle, number)) > 1 for number in range(14))


def test_kinds_are_what_they_say() -> None:
    assert set(RULES) == set(zebra.KINDS)
    for kind, rule in RULES.items():
        for houses in (2, 3, 5):
            named = (houses - 1,) if kind.endswith("at") else ()
            arity = 3 if kind == "between" else 2 - len(named)
            table = Clue(kind, tuple(range(arity)), *named).predicate(houses).table
            assert (table == rule(*np.indices((houses,) * arity), *named)).all()


def test_solutions_are_those_of_all_assignments() -> None:
    counts = []
    for puzzle in random_puzzles(150):
        expected = brute(puzzle)
        counts.append(len(expected))
        found = zebra.solutions(puzzle, 576)
        assert found.dtype == np.int8
        assert sorted(found.tolist()) == sorted(expected.tolist())
        for limit in (1, 2, 7):
            assert zebra.count_solutions(puzzle, limit) == min(limit, len(expected))
    assert counts.count(0) > 10
    assert counts.count(1) > 5
    assert max(counts) == 576


def faults(count: int) -> int:
    """How many of ``count`` drawn puzzles of 4 x 4 have not that solution alone, by all 331,776 assignments."""
    drawn = [zebra.draw_puzzle(Key(7).fold(number), 4, 4) for number in range(count)]
    return sum(not np.array_equal(brute(puzzle), [solution]) for puzzle, solution in drawn)


def test_two_hundred_puzzles_have_one_solution_each() -> None:
    assert faults(200) == 0


def test_a_generator_that_stops_at_the_first_solution_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zebra, "count_solutions", lambda puzzle, limit: zebra._search(puzzle, 1, 0)[1])
    assert faults(5) == 5


def test_a_generator_that_removes_unchecked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, largest = zebra.count_solutions, [0]

    def forgetful(puzzle: Puzzle, limit: int) -> int:
        removing, largest[0] = len(puzzle.clues) < largest[0], max(largest[0], len(puzzle.clues))
        return 1 if removing and len(puzzle.clues) > 5 else counted(puzzle, limit)

    monkeypatch.setattr(zebra, "count_solutions", forgetful)
    puzzle, _ = zebra.draw_puzzle(Key(7), 4, 4)
    assert len(brute(puzzle)) > 1


@pytest.mark.parametrize(("houses", "attributes"), [(3, 3), (4, 4), (5, 5), (2, 1), (2, 4), (5, 1)])
def test_no_clue_can_be_removed(houses: int, attributes: int) -> None:
    for number in range(5):
        puzzle, solution = zebra.draw_puzzle(Key(number), houses, attributes)
        assert (zebra.solve(puzzle) == solution).all()
        for clue in range(len(puzzle.clues)):
            assert zebra.count_solutions(without(puzzle, clue), 2) == 2


def test_puzzles_are_addressed() -> None:
    puzzle, solution = zebra.draw_puzzle(Key(0), 3, 3)
    assert zebra.write_puzzle(puzzle).splitlines() == PINNED
    assert solution.tolist() == zebra.solve(puzzle).tolist()
    assert zebra.draw_puzzle(Key(0), 3, 3)[0] == puzzle
    assert zebra.draw_puzzle(Key(1), 3, 3)[0] != puzzle


def test_every_solution_comes_and_attributes_are_independent() -> None:
    drawn = {zebra.draw_puzzle(Key(number), 3, 2, kinds=("at",))[1].tobytes() for number in range(400)}
    assert len(drawn) == 36


def test_kinds_are_those_asked_for() -> None:
    for kinds in (("at",), ("just_left_of", "same"), ("not_at", "between")):
        puzzle, _ = zebra.draw_puzzle(Key(2), 4, 3, kinds=kinds)
        assert {clue.kind for clue in puzzle.clues} <= set(kinds)
    assert len(zebra.draw_puzzle(Key(2), 4, 3, kinds=("at",))[0].clues) == 9


def slow_deduction(puzzle: Puzzle, level: int) -> list[set[int]]:
    """Support looked for among all combinations, one clue or pair, from level 1 on one attribute, after another."""
    houses = puzzle.houses
    cells = [set(range(houses)) for _ in range(puzzle.n_latents)]
    groups = [range(first, first + houses) for first in range(0, puzzle.n_latents, houses)]
    reads = [(clue.latents, lambda *x, clue=clue: clue.predicate(houses).table[x]) for clue in puzzle.clues]
    reads += [(pair, lambda x, y: x != y) for group in groups for pair in itertools.combinations(group, 2)]
    reads += [(tuple(group), lambda *x: len(set(x)) == houses) for group in groups if level]
    while True:
        before = [set(cell) for cell in cells]
        for latents, true in reads:
            states = [state for state in itertools.product(*(cells[latent] for latent in latents)) if true(*state)]
            for place, latent in enumerate(latents):
                cells[latent] = {state[place] for state in states}
        if cells == before:
            return cells


@pytest.mark.parametrize("level", [0, 1])
def test_propagation_finds_what_all_combinations_find(level: int) -> None:
    drawn = [zebra.draw_puzzle(Key(number), 4, 3)[0] for number in range(20)]
    partly, impossible, solved = 0, 0, 0
    for puzzle in (*random_puzzles(60), *drawn, *(without(puzzle, 0) for puzzle in drawn)):
        cells, (state, scopes, tables) = slow_deduction(puzzle, level), zebra._arrays(puzzle)
        possible = propagate(state, scopes, tables, level)
        assert possible == all(cells)
        if possible:
            assert state.tolist() == [sum(1 << house for house in cell) for cell in cells]
        impossible += not possible
        solved += all(len(cell) == 1 for cell in cells)
        partly += 1 < sum(map(len, cells)) / len(cells) < puzzle.houses
    assert min(impossible, solved, partly) > 5


def test_a_puzzle_needs_the_first_technique_that_solves_it() -> None:
    seen = []
    for number in range(30):
        puzzle, _ = zebra.draw_puzzle(Key(3).fold(number), 4, 3)
        solved = [all(len(cell) == 1 for cell in slow_deduction(puzzle, level)) for level in (0, 1)] + [True]
        needs = zebra.difficulty(puzzle)
        assert needs.technique == zebra.TECHNIQUES[solved.index(True)]
        assert (needs.tried == 0) == (needs.technique != "search")
        seen.append(needs.technique)
    assert set(seen) == set(zebra.TECHNIQUES)


def test_a_new_kind_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zebra.KINDS, "with_one_of", lambda a, b, c: a in (b, c))
    monkeypatch.setitem(RULES, "with_one_of", lambda a, b, c: (a - b) * (a - c) == 0)
    puzzle = zebra.read_puzzle("houses 3 attributes 3\nwith_one_of 0.0 1.0 1.1\nwith_one_of 2.0 0.0 1.2")
    assert sorted(zebra.solutions(puzzle).tolist()) == sorted(brute(puzzle).tolist())
    drawn, solution = zebra.draw_puzzle(Key(0), 3, 2, kinds=("with_one_of", "at"))
    assert brute(drawn).tolist() == [solution.tolist()]


def test_the_example_of_the_page_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    section = (
        (Path(__file__).parents[2] / "docs" / "puzzles.md").read_text().split("## Zebra puzzles")[1].split("\n## ")[0]
    )
    (code,), (shown, *_) = (
        re.findall(r"```python\n(.*?)```", section, re.S),
        re.findall(r"```text\n(.*?)```", section, re.S),
    )
    exec(code, {})
    assert capsys.readouterr().out == shown


def test_lines_are_read_and_written() -> None:
    assert zebra.write_puzzle(zebra.read_puzzle(CLASSIC)) == CLASSIC
    spaced = "\n  houses 3   attributes 2 \r\n\n left_of 0.1\t1.2 \n at 1.0 2\n\n"
    assert zebra.read_puzzle(spaced) == Puzzle(3, 2, (Clue("left_of", (1, 5)), Clue("at", (3,), 2)))
    for number in range(5):
        puzzle, _ = zebra.draw_puzzle(Key(number), 5, 4)
        assert zebra.read_puzzle(zebra.write_puzzle(puzzle)) == puzzle


def clauses_of(puzzle: Puzzle) -> list[list[int]]:
    """A puzzle as clauses over variables latent * H + house + 1: one house each, all different, no false clue."""
    houses = range(puzzle.houses)

    def name(latent: int, house: int) -> int:
        return latent * puzzle.houses + house + 1

    clauses = [[name(latent, house) for house in houses] for latent in range(puzzle.n_latents)]
    for latent, other in itertools.combinations(range(puzzle.n_latents), 2):
        if latent // puzzle.houses == other // puzzle.houses:
            clauses += [[-name(latent, house), -name(other, house)] for house in houses]
    for clue in puzzle.clues:
        named = () if clue.house is None else (clue.house,)
        for state in itertools.product(houses, repeat=len(clue.latents)):
            if not RULES[clue.kind](*state, *named):
                clauses.append([-name(*pair) for pair in zip(clue.latents, state, strict=True)])
    return clauses


def test_a_sat_solver_finds_the_same_solutions() -> None:
    solvers = pytest.importorskip("pysat.solvers", reason=MISSING)
    drawn = [zebra.draw_puzzle(Key(5).fold(number), 5, 5)[0] for number in range(20)]
    one = [zebra.read_puzzle(CLASSIC), *drawn]
    several = [without(puzzle, 0) for puzzle in one]
    none = [Puzzle(5, 5, (*drawn[0].clues, Clue("left_of", (3, 8)), Clue("left_of", (8, 3))))]
    for puzzle in (*one, *several, *none):
        with solvers.Solver("cadical153", bootstrap_with=clauses_of(puzzle)) as solver:
            models = np.array(list(itertools.islice(solver.enum_models(), 2000))).reshape(-1, 25, 5)
        assert len(models) < 2000
        assert sorted((models > 0).argmax(axis=2).tolist()) == sorted(zebra.solutions(puzzle, 2000).tolist())


HEAD = "houses 3 attributes 2\n"
SEVERAL, NONE = zebra.read_puzzle(HEAD), zebra.read_puzzle(HEAD + "left_of 0.0 1.0\nleft_of 1.0 0.0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: zebra.read_puzzle(""), "begins with a line such as 'houses 3 attributes 2', got ''"),
        (lambda: zebra.read_puzzle("same 0.0 1.0"), "got 'same 0.0 1.0'"),
        (lambda: zebra.read_puzzle("houses x attributes 2"), "got 'houses x attributes 2'"),
        (lambda: zebra.read_puzzle("houses 1 attributes 2"), "2 to 9 houses, got 1"),
        (lambda: zebra.read_puzzle("houses 3 attributes 10"), "1 to 9 attributes, got 10"),
        (lambda: zebra.read_puzzle(HEAD + "near 0.0 1.0"), "line 2, 'near 0.0 1.0': no kind .* 'near': there are same"),
        (lambda: zebra.read_puzzle(HEAD + "\nsame 0.0"), "line 3, 'same 0.0': 2 values follow same, got 1 words"),
        (lambda: zebra.read_puzzle(HEAD + "at 0.0 1 2"), "1 values and a house follow at, got 3 words"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 1,0"), "'1,0' is no value: write attribute.value, such as 0.1"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 -1.0"), "'-1.0' is no value"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 ١.0"), "is no value"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 0.3"), "no value 0.3: attributes are 0 to 1, their values 0 to 2"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 2.0"), "no value 2.0"),
        (lambda: zebra.read_puzzle(HEAD + "at 0.0 3"), "'3' is no house: write a number from 0 to 2"),
        (lambda: zebra.read_puzzle(HEAD + "at 0.0 left"), "'left' is no house"),
        (lambda: zebra.read_puzzle(HEAD + "same 0.0 0.0"), r"names 2 latents, all different, got \(0, 0\)"),
        (lambda: zebra.read_puzzle(HEAD + "at 0.0 1\nat 0.0 1"), "line 3 says what line 2 says: leave one out"),
        (lambda: zebra.read_puzzle(3), "text must be text"),
        (lambda: zebra.write_puzzle("houses"), r"puzzle must be Puzzle\(\.\.\.\); got 'houses'"),
        (lambda: Clue("at", (0,)), "a clue at names a house, got None"),
        (lambda: Clue("same", (0, 1), 2), "a clue same names no house, got 2"),
        (lambda: Clue("same", (0.0, 1)), "names 2 latents"),
        (lambda: Clue("at", 0, 1), "a clue at names 1 latents, all different, got 0"),
        (lambda: Puzzle(3, 2, Clue("at", (0,), 1)), r"clues must be a tuple of Clue\(\.\.\.\), got Clue"),
        (lambda: Puzzle(3, 2, (Clue("same", (0, 6)),)), r"clue 0, .* a latent that is not in 0\.\.5"),
        (lambda: Puzzle(3, 2, (Clue("same", (-1, 3)),)), r"clue 0, .* a latent that is not in 0\.\.5"),
        (lambda: Puzzle(3, 2, (Clue("at", (0,), 3),)), r"clue 0, .* a house that is not in 0\.\.2"),
        (lambda: Puzzle(3, 2, (Clue("at", (0,), 1),) * 2), "clue 1, .*, is there twice: leave one out"),
        (lambda: Puzzle(3, 2, ("at 0.0 1",)), r"clue 0 must be a Clue\(\.\.\.\), got 'at 0.0 1'"),
        (lambda: zebra.solve(NONE), "the puzzle has no solution: change or remove a clue"),
        (lambda: zebra.solve(SEVERAL), "the puzzle has several solutions"),
        (lambda: zebra.difficulty(SEVERAL), "the puzzle has several solutions"),
        (lambda: zebra.solutions(SEVERAL, 35), "more than 35 solutions: give more clues, or raise most"),
        (lambda: zebra.solutions(SEVERAL, 0), "most = 0"),
        (lambda: zebra.count_solutions(SEVERAL, 0), "a limit of at least 1, got 0"),
        (lambda: zebra.draw_puzzle(3, 3, 3), r"key must be an address .* Key\(3\)"),
        (lambda: zebra.draw_puzzle(Key(0), 10, 3), "2 to 9 houses, got 10"),
        (lambda: zebra.draw_puzzle(Key(0), 3, 3, kinds=("near",)), r"each once, got \('near',\)"),
        (lambda: zebra.draw_puzzle(Key(0), 3, 3, kinds=("at", "at")), "each once"),
        (lambda: zebra.draw_puzzle(Key(0), 3, 3, kinds=("same",)), "the kinds same leave several solutions"),
    ],
)
def test_bad_input_is_named(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()
