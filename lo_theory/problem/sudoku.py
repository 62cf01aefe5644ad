"""Sudoku of 4 x 4, 6 x 6 (boxes of 2 rows and 3 columns) and 9 x 9: read, check, solve, count, draw, grade.

A grid is int8[n*n], row after row, tokens 0..n-1 for the digits 1..n and MASK = -1 where it is empty. The number of
cells says which size it is. ``sudoku_4x4`` is the law of all grids, ``cell_problem`` the L&O problem behind them;
posterior/sudoku.py has the exact posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import _sudoku_kernels
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.enumerated import Enumerated
from lo_theory.problem.families import predicate_observations
from lo_theory.problem.layout import MASK, Layout, plain
from lo_theory.problem.predicates import colouring, from_function
from lo_theory.problem.puzzles import Difficulty, all_solutions, count_up_to, only_solution
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import digest_arrays
from lo_theory.rng import Key

__all__ = [
    "GRIDS",
    "TECHNIQUES",
    "Difficulty",
    "DrawnGrids",
    "cell_problem",
    "check_puzzle",
    "count_solutions",
    "difficulty",
    "draw_grids",
    "draw_puzzles",
    "geometry",
    "read_puzzle",
    "solutions",
    "solve",
    "sudoku_4x4",
    "write_puzzle",
]

GRIDS = {4: 288, 6: 28_200_960, 9: 6_670_903_752_021_072_936_960}
"""How many full grids there are (Felgenhauer and Jarvis, "Mathematics of Sudoku I", 2006; OEIS A107739)."""

TECHNIQUES = ("naked singles", "hidden singles", "locked candidates", "pairs", "search")
"""From easy to hard; each is used with all before it (``difficulty``)."""

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by the size of the grid."""
_ATTEMPTS = 100
_NO_COUNTS = np.empty((0, 1), np.int64)


class Geometry(NamedTuple):
    """Units of a grid: ``members`` int64[3n, n] the cells of rows, columns and boxes, ``peers`` int64[L, m] the other
    cells that share one with a cell, ``unit_of`` int64[3, L] the row, column and box of each cell.
    """

    members: NDArray[np.int64]
    peers: NDArray[np.int64]
    unit_of: NDArray[np.int64]


@checked
def geometry(size: int) -> Geometry:
    """The units of a grid of ``size`` 4, 6 or 9; ValueError for others."""
    if size not in BOXES:
        raise ValueError(f"a grid has the size 4, 6 or 9, got {size}")
    height, width = BOXES[size]
    row, column = np.divmod(np.arange(size * size), size)
    unit_of = np.stack([row, size + column, 2 * size + row // height * (size // width) + column // width])
    members = np.stack([np.flatnonzero((unit_of == unit).any(axis=0)) for unit in range(3 * size)])
    shares = (unit_of[:, :, None] == unit_of[:, None, :]).any(axis=0) & ~np.eye(size * size, dtype=bool)
    return Geometry(members, np.stack([np.flatnonzero(others) for others in shares]), unit_of)


_GEOMETRY = {size: geometry(size) for size in BOXES}


@checked
def read_puzzle(text: str) -> NDArray[np.int8]:
    """A line of 16, 36 or 81 characters as a grid: digits, 0 or . where empty. White space around it does not count.

    Errors: ValueError for another length, another character, and equal digits in a unit (``check_puzzle``).
    """
    line = text.strip()
    size = next((size for size in BOXES if size * size == len(line)), 0)
    if not size:
        raise ValueError(f"a Sudoku is a line of 16, 36 or 81 characters, got {len(line)}: {line[:90]!r}")
    known = ".0" + "123456789"[:size]
    for place, character in enumerate(line):
        if character not in known:
            raise ValueError(
                f"character {place + 1} of the line is {character!r}: a {size} x {size} Sudoku has the digits 1 to "
                f"{size}, and 0 or . where a cell is empty"
            )
    return check_puzzle([MASK if character in ".0" else int(character) - 1 for character in line])


def write_puzzle(puzzle: ArrayLike) -> str:
    """The line of a grid int8[n*n]: digits, . where empty; it may break the rules."""
    return "".join("." if token < 0 else str(token + 1) for token in _cells(puzzle).tolist())


def _cells(puzzle: ArrayLike) -> NDArray[np.int8]:
    """The grid as int8[n*n]; ValueError for another shape, and for tokens out of range."""
    given = plain(puzzle, "a puzzle")
    size = next((size for size in BOXES if given.shape == (size * size,)), 0)
    if not size:
        raise ValueError(f"a Sudoku has 16, 36 or 81 cells in one row, int8[n*n]; got shape {given.shape}")
    return Layout(size * size, 0, size, size).check_tokens(given)[0]


def check_puzzle(puzzle: ArrayLike) -> NDArray[np.int8]:
    """The grid as int8[n*n]; ValueError for another shape or tokens, and for equal digits in a unit, which it names."""
    cells = _cells(puzzle)
    size = round(len(cells) ** 0.5)
    members = _GEOMETRY[size].members
    often = (cells[members][:, :, None] == np.arange(size)).sum(axis=1) > 1
    if often.any():
        unit, token = (int(i) for i in np.argwhere(often)[0])
        kind, own = ("row", "column", "box")[unit // size], members[unit][cells[members[unit]] == token]
        places = " and ".join(f"({cell // size + 1}, {cell % size + 1})" for cell in own.tolist())
        raise ValueError(
            f"{kind} {unit % size + 1} has the digit {token + 1} more than once, in the cells (row, column) {places}: "
            "remove one"
        )
    return cells


def _search(puzzle: ArrayLike, limit: int, keep: int) -> tuple[NDArray[np.int8], int, int]:
    """The first ``keep`` solutions, how many there are up to ``limit``, and the digits tried."""
    cells = check_puzzle(puzzle)
    size = round(len(cells) ** 0.5)
    allowed = np.where(cells < 0, (1 << size) - 1, 1 << np.maximum(cells, 0).astype(np.int64))
    members, peers, _ = _GEOMETRY[size]
    found, words = np.empty((keep, len(cells)), np.int8), Key(0).words()
    count, tried = _sudoku_kernels.search(allowed, members, peers, limit, found, _NO_COUNTS[:, :0], 0, *words, False)
    return found[:count], count, tried


@checked
def count_solutions(puzzle: ArrayLike, limit: int = 1000) -> int:
    """How many solutions a puzzle has, up to ``limit``, at which the count ends."""
    return count_up_to(partial(_search, puzzle), limit)


@checked
def solutions(puzzle: ArrayLike, most: int = 1000) -> NDArray[np.int8]:
    """All solutions, int8[S, n*n], in the order of the search; ValueError for more than ``most``."""
    return all_solutions(partial(_search, puzzle), most)


def solve(puzzle: ArrayLike) -> NDArray[np.int8]:
    """The only solution, int8[n*n]; ValueError where there is none, and where there are several."""
    return only_solution(partial(_search, puzzle), partial(write_puzzle, puzzle))


@checked
def draw_grids(key: Key, n: int, size: int = 9, *, start: int = 0) -> NDArray[np.int8]:
    """Draw full grids, rows ``start .. start + n`` of the stream named by ``key``: int8[n, size**2].

    An empty grid is searched depth first, in the first cell with fewest candidates, digits in random order. Every grid
    can come, but not all are as likely: the law is *not* uniform over the grids. Cost: some 0.2 ms a 9 x 9 grid.
    """
    members, peers, _ = geometry(size)
    _check_rows(n, start)
    grids, nothing = np.empty((n, size * size), np.int8), np.empty((0, size * size), np.int8)
    words = key.fold("grids").words()
    rows = np.arange(start, start + n)
    _sudoku_kernels.draw_rows(grids, nothing, np.empty(0, np.int64), rows, 0, members, peers, *words, *words)
    return grids


def _check_rows(n: int, start: int) -> None:
    if n < 0 or start < 0:
        raise ValueError(f"rows are drawn from start >= 0 on, n >= 0 of them; got n={n}, start={start}")


@checked
@dataclass(frozen=True)
class DrawnGrids:
    """The grids of ``draw_grids`` as a ``Distribution``, for sizes whose grids nobody can list.

    Samples are not uniform over the grids. ``log_prob`` and ``entropy`` are those of the uniform law: the entropy of
    the samples is no larger, and not known. Single cells are uniform in both.
    """

    size: int = 9

    def __post_init__(self) -> None:
        geometry(self.size)

    @property
    def layout(self) -> Layout:
        """Latents only, one a cell."""
        return Layout(self.size**2, 0, self.size, self.size)

    @property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[L, size]: 1/size each, as digits are drawn in random order."""
        return np.full((self.size**2, self.size), 1 / self.size)

    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """See ``draw_grids``."""
        return draw_grids(key, n, self.size, start=start)

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """-ln of the number of grids for a grid int8[n, L], -inf for what is none: float64[n]."""
        rows, members = self.layout.check_tokens(tokens, complete=True), _GEOMETRY[self.size].members
        units = np.sort(rows[:, members], axis=2)
        return np.where((units == np.arange(self.size)).all(axis=(1, 2)), -self.entropy(), -np.inf)

    def entropy(self) -> float:
        """ln of the number of grids, nats a grid: that of the uniform law, at least that of the samples."""
        return float(np.log(float(GRIDS[self.size])))

    def marginal_entropy(self) -> float:
        """L ln(size), nats a grid."""
        return self.size**2 * float(np.log(self.size))

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem."""
        return digest_arrays({"drawn grids": np.array([self.size], np.int64)})


@checked
def draw_puzzles(
    key: Key, n: int, size: int = 9, *, clues: int | None = None, start: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Draw puzzles with one solution, and their solutions: rows ``start .. start + n``, two int8[n, size**2].

    A grid as ``draw_grids`` draws it loses clues in random order, each unless the solution would then not be the only
    one: the puzzle is minimal when ``clues`` is left out (no clue of it can be removed), else it ends at that many.
    Where that fails, another grid of the same row is tried, up to 100. Errors: ValueError for a number of clues that no
    attempt reached: minimal 9 x 9 puzzles drawn so have some 21 to 28. Cost: about a millisecond a 9 x 9 puzzle.
    """
    members, peers, _ = geometry(size)
    _check_rows(n, start)
    if clues is not None and not 0 <= clues <= size * size:
        raise ValueError(f"a {size} x {size} puzzle has 0 to {size * size} clues, got {clues}")
    grids, puzzles = np.empty((n, size * size), np.int8), np.empty((n, size * size), np.int8)
    left = np.arange(n)
    for attempt in range(_ATTEMPTS):
        place, kept = key.fold("puzzles").fold(attempt), np.empty(len(left), np.int64)
        words = (*place.fold("grid").words(), *place.fold("order").words())
        made = np.empty((len(left), size * size), np.int8), np.empty((len(left), size * size), np.int8)
        _sudoku_kernels.draw_rows(*made, kept, start + left, clues or 0, members, peers, *words)
        grids[left], puzzles[left] = made
        left = left[:0] if clues is None else left[kept > clues]
        if not len(left):
            return puzzles, grids
    raise ValueError(
        f"row {start + int(left[0])}: none of {_ATTEMPTS} puzzles came down to {clues} clues: ask for more, or leave "
        "clues out for minimal puzzles"
    )


def difficulty(puzzle: ArrayLike) -> Difficulty:
    """What a puzzle needs; ValueError unless it has one solution. The solver that tries digits knows singles."""
    solve(puzzle)
    cells, tried = check_puzzle(puzzle), _search(puzzle, 2, 0)[2]
    size = round(len(cells) ** 0.5)
    for level, name in enumerate(TECHNIQUES[:-1]):
        state = np.where(cells < 0, (1 << size) - 1, 1 << np.maximum(cells, 0).astype(np.int64))
        if _sudoku_kernels.deduce(state, *_GEOMETRY[size], level) == 1:
            return Difficulty(name, tried)
    return Difficulty(TECHNIQUES[-1], tried)


def sudoku_4x4() -> Enumerated:
    """The uniform law of the 288 grids of 4 x 4: entropy ln 288, and everything exact."""
    return Enumerated(solutions(np.full(16, MASK), 288))


@checked
def cell_problem(size: int, *, units: bool = False) -> LODistribution:
    """The L&O problem behind a Sudoku: n*n uniform latents, an observation for every pair of cells that share a unit.

    It is 1 where the two differ; with ``units`` there is one for every row, column and box instead, 1 where all its
    cells differ. Given that all are 1 (``Conditioned``), the latents are a uniform full grid. Errors: ValueError for a
    size other than 4, 6 and 9, and for the units of 9 x 9, whose table has 9**9 states.
    """
    members, peers, _ = geometry(size)
    if units and size == 9:
        raise ValueError("the table of a whole unit of 9 cells has 9**9 states: take pairs, or a smaller grid")
    if units:
        predicate = from_function(lambda *digits: len(set(digits)) == size, size, size)
        law = predicate_observations(predicate, members.astype(np.int32))
    else:
        pairs = [(cell, peer) for cell, others in enumerate(peers.tolist()) for peer in others if peer > cell]
        law = predicate_observations(colouring(size), np.array(pairs, np.int32))
    return LODistribution(np.full((size * size, size), 1 / size), law)
