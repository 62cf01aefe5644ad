"""The exact posterior of Sudoku grids of any size, by counting the completions of a context."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.posterior.protocol import Marginals, reveal
from lo_theory.problem import Layout, _sudoku_kernels
from lo_theory.problem.seams import checked
from lo_theory.problem.sudoku import GRIDS, geometry

__all__ = ["SudokuPosterior"]


@checked
class SudokuPosterior:
    """P(x_i = v | revealed) = the share of v at cell i among the full grids that complete the context.

    Of the uniform law over the grids of ``size`` 4, 6 or 9. A context with more than ``limit`` completions is refused;
    one with none is impossible and flagged, however its digits came.
    """

    def __init__(self, size: int = 9, *, limit: int = 100_000) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.size, self.limit, self._geometry = int(size), int(limit), geometry(size)
        self._layout = Layout(size * size, 0, size, size)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.size, self.limit)

    @property
    def layout(self) -> Layout:
        """Latents only, one a cell."""
        return self._layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, n*n], MASK = -1 where empty: float64 probabilities [B, n*n, n] and ln P(revealed).

        ln P = ln(completions / all grids); ``converged`` is always true. Cost: microseconds a completion. Errors:
        ValueError for a row with more than ``limit`` completions, which it names; no row is then answered.
        """
        rows = self.layout.check_tokens(tokens)
        counts, totals = np.zeros((*rows.shape, self.size), np.int64), np.empty(len(rows), np.int64)
        members, peers, _ = self._geometry
        _sudoku_kernels.count_rows(rows, members, peers, self.limit + 1, counts, totals)
        if (totals > self.limit).any():
            raise ValueError(
                f"row {int(np.argmax(totals > self.limit))} has more than {self.limit:,} completions: reveal more "
                "cells, or raise limit (time grows with it, memory does not)"
            )
        possible = totals > 0
        probs = np.where(possible[:, None, None], counts, 1.0) / np.where(possible, totals, self.size)[:, None, None]
        reveal(probs, rows)
        with np.errstate(divide="ignore"):
            evidence = np.log(totals) - math.log(GRIDS[self.size])
        return Marginals(probs, evidence, np.ones(len(rows), np.bool_))


def _make(size: int, limit: int) -> SudokuPosterior:
    return SudokuPosterior(size, limit=limit)
