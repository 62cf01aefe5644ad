"""Belief propagation for Sudoku on whole units: one all-different factor for every row, column and box."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.posterior import _sudoku_unit_kernels
from lo_theory.posterior.protocol import Marginals, reveal
from lo_theory.problem import Layout
from lo_theory.problem.seams import checked
from lo_theory.problem.sudoku import GRIDS, geometry

__all__ = ["UnitBP"]


@checked
class UnitBP:
    """P(x_i = v | revealed) by belief propagation, of the uniform law over the grids of ``size`` 4, 6 or 9.

    A unit tells each of its hidden cells: m(v) = sum over the ways s to put its free digits into its hidden cells with
    v in this one, of the product of m_j(s(j)) over the other ones; m_j is the product of the messages of the other two
    units of cell j. The belief about a cell is the product of three. What is shown is taken out of all units at the
    start. In a round all units answer; ``damping`` d in [0, 1) keeps d of the old messages from the second round on,
    exact zeros excepted. At most ``rounds``; converged when no message changed by more than ``tolerance`` in one.

    A digit of belief zero is excluded, truly; none that some completion has is. Positive messages are held at 1e-33 or
    more. Exact where the units form a forest on the hidden cells, elsewhere an approximation. ``BPPosterior`` of
    ``cell_problem`` knows of pairs of cells only that they differ, this of whole units.
    """

    def __init__(self, size: int = 9, *, rounds: int = 1000, damping: float = 0.3, tolerance: float = 1e-8) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        if not 0.0 <= damping < 1.0:
            raise ValueError(f"damping lies in [0, 1), got {damping}")
        if not (tolerance > 0.0 and math.isfinite(tolerance)):
            raise ValueError(f"tolerance must be positive, got {tolerance}")
        self.size, self.rounds, self.damping, self.tolerance = int(size), int(rounds), float(damping), float(tolerance)
        self._members = geometry(size).members
        self._layout = Layout(size * size, 0, size, size)

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {"rounds": self.rounds, "damping": self.damping, "tolerance": self.tolerance}
        return functools.partial(type(self), self.size, **options), ()

    @property
    def layout(self) -> Layout:
        """Latents only, one a cell."""
        return self._layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, n*n], MASK = -1 where empty: float64 probabilities [B, n*n, n] and the Bethe estimate
        of ln(completions / all grids), which may err either way.

        A row whose messages exclude every digit of a cell is impossible, and flagged: log_evidence -inf, uniform
        probabilities, converged. Cost a round: 3 k 2**(k - 1) multiply-adds for every unit with k hidden cells.
        """
        rows = self.layout.check_tokens(tokens)
        probs, entropy = np.empty((*rows.shape, self.size)), np.empty(len(rows))
        converged = np.empty(len(rows), np.bool_)
        limits = self.rounds, self.damping, self.tolerance
        _sudoku_unit_kernels.answer_rows(rows, self._members, limits, probs, entropy, converged)
        reveal(probs, rows)
        return Marginals(probs, entropy - math.log(GRIDS[self.size]), converged)
