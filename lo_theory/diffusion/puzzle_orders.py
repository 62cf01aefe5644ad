"""Orders in which a Sudoku is filled after its clues: by rows, and as a solver does; as a mask law and as a policy.

A learner that is trained in the contexts of one order, and decodes along it, is aware of the order. Touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.masks import Masks, check_length, hide_subset, row_integers
from lo_theory.diffusion.policies import TopK
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.seams import checked
from lo_theory.problem.sudoku import geometry
from lo_theory.rng import Key

__all__ = ["AfterClues", "fewest_candidates", "grid_size", "moves_after"]


def _candidates(tokens: NDArray[np.int8], size: int) -> NDArray[np.int64]:
    """int64[n, L]: digits that no cell shown in the row, column and box of a cell has."""
    peers = np.zeros((size * size, size * size), np.float32)
    np.put_along_axis(peers, geometry(size).peers, 1.0, axis=1)
    shown = (tokens[:, :, None] == np.arange(size)).astype(np.float32)
    found: NDArray[np.int64] = (np.matmul(peers, shown) == 0).sum(axis=2)
    return found


def grid_size(layout: Layout) -> int:
    """The size of the grid; ValueError for a layout of something else."""
    size = round(layout.length**0.5)
    if layout.n_observations or layout.q != size or size * size != layout.length:
        raise ValueError(f"an order of cells needs a Sudoku, got N = {layout.n_latents}, P = {layout.n_observations}")
    geometry(size)
    return size


def _scores(tokens: NDArray[np.int8], size: int) -> NDArray[np.float64]:
    """float64[n, L]: largest where a solver goes next, the cell with fewest candidates, the first of several."""
    cells = size * size
    return -(_candidates(tokens, size) * cells + np.arange(cells)).astype(np.float64)


def moves_after(tokens: NDArray[np.int8], masked: NDArray[np.bool_], order: str) -> NDArray[np.int64]:
    """int64[n, L]: the hidden cells of grids int8[n, L] in the order in which they are filled, then the others.

    ``order`` "rows": by cells; "solver": always the first cell with fewest candidates, by the digits shown and filled.
    """
    moves = np.argsort(~masked, axis=1, kind="stable")
    if order == "rows":
        return moves
    size, rows, hidden = round(tokens.shape[1] ** 0.5), np.arange(len(tokens)), masked.copy()
    left = hidden.sum(axis=1)
    for step in range(int(left.max(initial=0))):
        best = np.where(hidden, _scores(np.where(hidden, np.int8(MASK), tokens), size), -np.inf).argmax(axis=1)
        going = step < left
        moves[rows[going], step] = best[going]
        hidden[rows[going], best[going]] = False
    return moves


def fewest_candidates() -> TopK:
    """Reveal the cell with the fewest digits left by the cells shown in its units; the first of several.

    Of Sudoku grids. Uses nothing but the digits shown. Cost: L**2 size a row. Errors: ValueError for other layouts.
    """
    return TopK("fewest_candidates", lambda view: _scores(np.asarray(view.tokens), grid_size(view.layout)))


@checked
@dataclass(frozen=True)
class AfterClues:
    """Contexts of a decode along an order, after clues at random places; weight 1 on the cell that comes next.

    Of two numbers uniform on 0..L-1 the smaller is that of the clues, the larger that of the cells shown. ``order``
    "rows": the first empty cell is next; "solver": the one with fewest candidates, as ``fewest_candidates`` chooses, so
    what is shown depends on digits shown alone. Cost of "solver": L steps of L**2 size a row.
    """

    order: Literal["rows", "solver"]

    def __post_init__(self) -> None:
        if self.order not in ("rows", "solver"):
            raise ValueError(f"the order after the clues is rows or solver, got {self.order!r}")

    @property
    def name(self) -> str:
        """``after_clues(rows)`` or ``after_clues(solver)``."""
        return f"after_clues({self.order})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw; ValueError for a layout that is no Sudoku's."""
        check_length(tokens, layout)
        grid_size(layout)
        n, cells = tokens.shape
        both = [row_integers(key.fold(name), n, cells, start=start) for name in ("one", "other")]
        masked, rows = np.zeros(tokens.shape, np.bool_), np.arange(n)
        every = np.arange(cells, dtype=np.int32)
        hide_subset(masked, key.fold("places"), start, every, cells - np.minimum(*both))
        left, moves = np.abs(both[0] - both[1]), moves_after(tokens, masked, self.order)
        filled = np.zeros(tokens.shape, np.bool_)
        np.put_along_axis(filled, moves, every < left[:, None], axis=1)
        masked &= ~filled
        weight = np.zeros(tokens.shape, np.float32)
        weight[rows, moves[rows, left]] = 1.0
        return masked[None], weight[None]
