"""A puzzle, then the moves that solve it, as one sequence: what a causal network reads and writes.

The network of the paper's Table 2 that is trained with the order of a solver: it sees all clues, and each move names a
cell and its digit. Touches nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.masks import hide_subset, row_integers
from lo_theory.diffusion.puzzle_orders import grid_size, moves_after
from lo_theory.problem.distribution import entropies
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import digest_arrays
from lo_theory.rng import Key

__all__ = ["PuzzleThenMoves"]

_MEASURED = 2**14  # sequences that the marginals of single tokens are measured on


class Played(NamedTuple):
    """Of n sequences: grids int8[n, L], MASK where no move fills a cell; the move that filled each cell int32[n, L], -1
    for cells that are given or never filled; moves that do nothing, int64[n].
    """

    grids: NDArray[np.int8]
    times: NDArray[np.int32]
    void: NDArray[np.int64]


@checked
@dataclass(frozen=True)
class PuzzleThenMoves:
    """p(puzzle, moves) = p(grid) / (L C(L, k)), for ``random`` moves over (L - k)!.

    A grid of ``grids``, L cells of which k, uniform on 0..L-1, are shown at uniform places. A sequence has 3 L tokens:
    the cells of the puzzle, then for each hidden cell its number and its digit, and blanks at the end. Tokens: digits
    0..q-1, cells q..q+L-1, blank q+L. ``order`` of the moves, "rows": by cells; "solver": always the cell with fewest
    candidates (``fewest_candidates``); "random": uniform. Errors: ValueError for grids that are no Sudoku's.
    """

    grids: Distribution
    order: Literal["rows", "solver", "random"]

    def __post_init__(self) -> None:
        grid_size(self.grids.layout)
        if self.order not in ("rows", "solver", "random"):
            raise ValueError(f"the order of the moves is rows, solver or random, got {self.order!r}")

    @property
    def _sizes(self) -> tuple[int, int]:
        """L and q."""
        return self.grids.layout.length, self.grids.layout.q

    @property
    def layout(self) -> Layout:
        """Latents only, 3 L of q + L + 1 values."""
        cells, q = self._sizes
        return Layout(3 * cells, 0, q + cells + 1, q + cells + 1)

    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, 3L], the same whatever the split."""
        (cells, _), grids = self._sizes, self.grids.sample(key.fold("grids"), n, start=start)
        masked, every = np.zeros(grids.shape, np.bool_), np.arange(cells, dtype=np.int32)
        shown = row_integers(key.fold("clues"), n, cells, start=start)
        hide_subset(masked, key.fold("places"), start, every, cells - shown)
        return self._write(grids, masked, self._moves(grids, masked, key.fold("moves"), start))

    def _moves(self, grids: NDArray[np.int8], masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        if self.order != "random":
            return moves_after(grids, masked, self.order)
        drawn = [row_integers(key.fold(cell), len(grids), 2**62, start=start) for cell in range(grids.shape[1])]
        return np.argsort(np.where(masked, np.stack(drawn, axis=1), 2**62), axis=1)

    def _write(self, grids: NDArray[np.int8], masked: NDArray[np.bool_], moves: NDArray[np.int64]) -> NDArray[np.int8]:
        """The sequences of grids int8[n, L] whose hidden cells are filled in the order ``moves``."""
        cells, q = self._sizes
        written = np.arange(cells) < masked.sum(axis=1, keepdims=True)
        pairs = np.stack([q + moves, np.take_along_axis(grids, moves, axis=1)], axis=2)
        pairs = np.where(written[:, :, None], pairs, q + cells).reshape(len(grids), 2 * cells)
        return np.concatenate([np.where(masked, q + cells, grids), pairs], axis=1).astype(np.int8)

    def prompt(self, puzzles: ArrayLike) -> NDArray[np.int8]:
        """The beginning of the sequences of puzzles int8[n, L], MASK where empty: int8[n, 3L], the rest MASK."""
        cells, q = self._sizes
        given = self.grids.layout.check_tokens(puzzles)
        begun = np.full((len(given), 3 * cells), MASK, np.int8)
        begun[:, :cells] = np.where(given == MASK, q + cells, given)
        return begun

    def read(self, tokens: ArrayLike) -> Played:
        """What the moves of complete sequences int8[n, 3L] make of their puzzles.

        A move that names no cell, a cell that is filled or no digit does nothing, and is counted; blanks are no move.
        """
        (cells, q), rows = self._sizes, self.layout.check_tokens(tokens, complete=True)
        grids = np.where(rows[:, :cells] < q, rows[:, :cells], np.int8(MASK))
        times, every = np.full(grids.shape, -1, np.int32), np.arange(len(rows))
        void = np.zeros(len(rows), np.int64)
        for move in range(cells):
            cell, digit = (rows[:, cells + 2 * move + i].astype(np.int64) for i in (0, 1))
            place = np.clip(cell - q, 0, cells - 1)
            legal = (cell >= q) & (cell < q + cells) & (digit < q) & (grids[every, place] == MASK)
            grids[every[legal], place[legal]] = digit[legal]
            times[every[legal], place[legal]] = move
            void += ~legal & ((cell < q + cells) | (digit < q + cells))
        return Played(grids, times, void)

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(x) in nats of complete sequences int8[n, 3L]: float64[n], -inf where impossible."""
        (cells, q), rows = self._sizes, self.layout.check_tokens(tokens, complete=True)
        masked, (grids, times, _) = rows[:, :cells] == q + cells, self.read(rows)
        whole = np.maximum(grids, 0)
        order = np.argsort(np.where(masked, times, cells), axis=1)
        moves = order if self.order == "random" else moves_after(whole, masked, self.order)
        possible = (grids != MASK).all(axis=1) & masked.any(axis=1)
        possible &= (self._write(whole, masked, moves) == rows).all(axis=1)
        hidden = masked.sum(axis=1)
        logs = -np.log(cells) - self._log_choices(hidden) + self.grids.log_prob(whole)
        return np.where(possible, logs, -np.inf)

    def _log_choices(self, hidden: NDArray[np.int64]) -> NDArray[np.float64]:
        """ln of the ways to place and to order so many hidden cells."""
        cells, _ = self._sizes
        factorial = np.array([math.lgamma(k + 1) for k in range(cells + 1)])
        return factorial[cells] - factorial[hidden] - factorial[cells - hidden] + self.moves_entropy(hidden)

    def moves_entropy(self, hidden: NDArray[np.int64]) -> NDArray[np.float64]:
        """Nats that the order of the moves adds to the digits of so many hidden cells: ln of its ways."""
        ways = np.array([math.lgamma(k + 1) for k in hidden])
        return ways if self.order == "random" else np.zeros(len(ways))

    def entropy(self) -> float:
        """ln L + mean ln C(L, k) + H(grid), of ``random`` + mean ln (L - k)!: nats per sequence, exact as H(grid)."""
        cells, _ = self._sizes
        return float(np.log(cells) + self._log_choices(np.arange(1, cells + 1)).mean() + self.grids.entropy())

    @cached_property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[3L, V]: the law of each single token, measured on 16,384 sequences."""
        values = np.arange(self.layout.n_values)
        rows = self.sample(Key(0).fold("token marginals"), _MEASURED)
        return np.stack([(row[:, None] == values).mean(axis=0) for row in rows.T])

    def marginal_entropy(self) -> float:
        """Sum over tokens of the entropy of the single token, nats per sequence, from ``token_marginals``."""
        return float(entropies(self.token_marginals).sum())

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the law."""
        name = f"{self.grids.fingerprint()} {self.order}"
        return digest_arrays({"puzzle then moves": np.frombuffer(name.encode(), np.uint8)})
