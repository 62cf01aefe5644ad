"""The exact posterior of the cells of Zebra puzzles whose clues are shown, by counting solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.posterior.protocol import Marginals, reveal
from lo_theory.problem import MASK, Layout
from lo_theory.problem.seams import checked
from lo_theory.problem.zebra import Clue, Puzzle, solutions
from lo_theory.problem.zebra_law import CluesAndCells

__all__ = ["ZebraPosterior"]


@checked
class ZebraPosterior:
    """P(x_i = v | clues, revealed cells) = the share of v at cell i among the solutions that have those cells.

    Of the law ``CluesAndCells``, where every clue is shown and cells may be hidden. A context with more than ``limit``
    solutions is refused; one with none, or with tokens that name no clue, is impossible and flagged.
    """

    def __init__(self, distribution: CluesAndCells, *, limit: int = 10_000) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.distribution, self.limit = distribution, int(limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.distribution, self.limit)

    @property
    def layout(self) -> Layout:
        """Clues, then cells."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 at hidden cells: float64 probabilities [B, L, V] and ln P(revealed).

        ``converged`` is always true. Cost: a search a row. Errors: ValueError for a row that hides a token of a clue,
        and for one with more than ``limit`` solutions; it names the row, and no row is then answered.
        """
        rows = self.layout.check_tokens(tokens)
        cells, clues = self.layout.split(rows)
        if (clues == MASK).any():
            row = int(np.argmax((clues == MASK).any(axis=1)))
            raise ValueError(f"row {row} hides a token of a clue: show all clues, and hide cells only")
        probs = np.zeros((len(rows), self.layout.length, self.layout.n_values))
        probs[:, self.layout.latent_positions, : self.layout.q] = 1 / self.layout.q
        evidence = np.full(len(rows), -np.inf)
        for row in range(len(rows)):
            found = self._solutions(rows[row], cells[row], row)
            if len(found):
                shares = (found[:, :, None] == np.arange(self.layout.q)).mean(axis=0)
                probs[row, self.layout.latent_positions, : self.layout.q] = shares
                whole = self.layout.join(found[0], clues[row])
                evidence[row] = np.log(len(found)) + self.distribution.log_prob(whole)[0]
        reveal(probs, rows)
        return Marginals(probs, evidence, np.ones(len(rows), np.bool_))

    def _solutions(self, tokens: NDArray[np.int8], cells: NDArray[np.generic], row: int) -> NDArray[np.int8]:
        """Those of a row's puzzle that have its revealed cells, as further clues."""
        try:
            puzzle = self.distribution.puzzle(tokens)
        except ValueError:
            return np.empty((0, len(cells)), np.int8)
        known = (Clue("at", (cell,), int(cells[cell])) for cell in np.flatnonzero(cells != MASK).tolist())
        puzzle = Puzzle(puzzle.houses, puzzle.attributes, tuple(dict.fromkeys([*puzzle.clues, *known])))
        try:
            return solutions(puzzle, self.limit)
        except ValueError as error:
            raise ValueError(
                f"row {row} has more than {self.limit:,} solutions: show more cells, or raise limit"
            ) from error


def _make(distribution: CluesAndCells, limit: int) -> ZebraPosterior:
    return ZebraPosterior(distribution, limit=limit)
