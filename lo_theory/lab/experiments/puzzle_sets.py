"""Sets of puzzles for ``puzzles``, by name: of Sudoku grids and of Zebra laws, with what tells their puzzles apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import Pattern
from lo_theory.diffusion.contexts import draw_contexts
from lo_theory.lab.settings import made_by_name
from lo_theory.problem import MASK, Distribution, sudoku, zebra
from lo_theory.problem.puzzles import Difficulty
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key


class Puzzles(NamedTuple):
    """Puzzles int8[n, L] of one set, MASK where empty, and the sequences they are made of, int8[n, L].

    ``single``: they have one solution.
    """

    given: NDArray[np.int8]
    grids: NDArray[np.int8]
    single: bool


MOVES: Mapping[str, Literal["rows", "solver", "random"]] = {
    "row_moves": "rows",
    "solver_moves": "solver",
    "random_moves": "random",
}
"""Causal learners that read a puzzle and write its moves, and the order of these."""

Maker = Callable[[Any, Key, int], Puzzles]
"""Draws puzzles of a law at an address."""

_TRIES = 200  # minimal Zebra puzzles drawn for a row, until one has few enough clues
_BATCHES = 50  # of n minimal Sudokus, until n of them take search


def _single(clues: int | None = None) -> Maker:
    def make(law: Distribution, key: Key, n: int) -> Puzzles:
        return Puzzles(*sudoku.draw_puzzles(key, n, law.layout.q, clues=clues), single=True)

    return make


def _minimal() -> Maker:
    return _single()


def _clues(clues: int) -> Maker:
    return _single(clues)


def _hard() -> Maker:
    def make(law: Distribution, key: Key, n: int) -> Puzzles:
        kept: list[tuple[NDArray[np.int8], NDArray[np.int8]]] = []
        for batch in range(_BATCHES):
            drawn = zip(*sudoku.draw_puzzles(key.fold(batch), n, law.layout.q), strict=True)
            kept += [pair for pair in drawn if sudoku.difficulty(pair[0]).technique == sudoku.TECHNIQUES[-1]]
            if len(kept) >= n:
                given, grids = map(np.stack, zip(*kept[:n], strict=True))
                return Puzzles(given, grids, single=True)
        size = law.layout.q
        raise ValueError(
            f"{len(kept)} of {n * _BATCHES:,} minimal puzzles of {size} x {size} take search, and {n} are needed: take "
            "larger grids, or another set"
        )

    return make


def _random(clues: int) -> Maker:
    def make(law: Distribution, key: Key, n: int) -> Puzzles:
        if not 0 <= clues < law.layout.length:
            raise ValueError(f"random(clues) shows 0 to {law.layout.length - 1} cells, got {clues}")
        ((batch,),) = draw_contexts(law, Pattern(law.layout.length - clues), key, n, size=n)
        return Puzzles(batch.tokens, batch.truth, single=False)

    return make


def _minimal_zebra() -> Maker:
    def make(law: CluesAndCells, key: Key, n: int) -> Puzzles:
        drawn = [_few_clues(law, key.fold(row)) for row in range(n)]
        given = np.stack([law.tokens(puzzle) for puzzle, _ in drawn])
        _, clues = law.layout.split(given)
        return Puzzles(given, law.layout.join(np.stack([cells for _, cells in drawn]), clues), single=True)

    return make


def _few_clues(law: CluesAndCells, key: Key) -> tuple[zebra.Puzzle, NDArray[np.int8]]:
    """A minimal puzzle that a sequence of the law has room for, and its solution."""
    for attempt in range(_TRIES):
        puzzle, cells = zebra.draw_puzzle(key.fold(attempt), law.houses, law.attributes, kinds=law.kinds)
        if len(puzzle.clues) <= law.clues:
            return puzzle, cells
    raise ValueError(f"none of {_TRIES:,} minimal puzzles has at most {law.clues} clues: give problem.clues more")


def _random_zebra() -> Maker:
    def make(law: CluesAndCells, key: Key, n: int) -> Puzzles:
        truth = law.sample(key, n)
        given = truth.copy()
        given[:, law.layout.latent_positions] = MASK
        return Puzzles(given, truth, single=False)

    return make


def _cells_shown(_: Any, puzzle: NDArray[np.int8]) -> int:
    return int((puzzle != MASK).sum())


def _sudoku_difficulty(_: Any, puzzle: NDArray[np.int8]) -> Difficulty:
    return sudoku.difficulty(puzzle)


def _different_clues(law: CluesAndCells, puzzle: NDArray[np.int8]) -> int:
    return len(law.puzzle(puzzle).clues)


def _zebra_difficulty(law: CluesAndCells, puzzle: NDArray[np.int8]) -> Difficulty:
    return zebra.difficulty(law.puzzle(puzzle))


class Family(NamedTuple):
    """What a family of puzzles has: sets by name, and of a puzzle int8[L] its number of clues and its difficulty."""

    sets: Mapping[str, Callable[..., Maker]]
    clues: Callable[[Any, NDArray[np.int8]], int]
    difficulty: Callable[[Any, NDArray[np.int8]], Difficulty]
    techniques: tuple[str, ...]


FAMILIES: Mapping[str, Family] = {
    "sudoku": Family(
        {"minimal": _minimal, "hard": _hard, "clues": _clues, "random": _random},
        _cells_shown,
        _sudoku_difficulty,
        sudoku.TECHNIQUES,
    ),
    "zebra": Family(
        {"minimal": _minimal_zebra, "random": _random_zebra}, _different_clues, _zebra_difficulty, zebra.TECHNIQUES
    ),
}
"""Sets of Sudoku: ``minimal``, one solution, and no clue that could be left out; ``hard``, those of them that take
search; ``clues(8)``, one solution, 8 clues;
``random(8)``, 8 cells of a grid of the law, which may leave several solutions. Of Zebra: ``minimal`` alike, its clues
again until they are as many as a sequence has; ``random``, all clues of a sequence of the law.
"""


def puzzle_set(name: str, family: str = "sudoku") -> Maker:
    """What draws the puzzles of a set."""
    maker: Maker = made_by_name(name, FAMILIES[family].sets, "set of puzzles", "sets")
    return maker
