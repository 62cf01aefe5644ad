"""Any posterior of the L&O problems behind Zebra puzzles, as one of the law of clues and cells."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.posterior.conditioned import Completed, Conditioned
from lo_theory.posterior.protocol import Marginals, Posterior, reveal
from lo_theory.problem import MASK, Layout, LODistribution, zebra
from lo_theory.problem.seams import checked
from lo_theory.problem.zebra_law import CluesAndCells

__all__ = ["ByPuzzle"]


@checked
class ByPuzzle:
    """P(x_i = v | clues, revealed cells) as ``bind(zebra.problem(puzzle))`` answers, each row asked of its own puzzle.

    Of the law ``CluesAndCells``, where every clue is shown: the clues of a row, each once, are a puzzle, whose L&O
    problem has all observations given as 1 (``Completed``). The posteriors of the last ``keep`` puzzles are kept, so
    that a decode binds each once.
    """

    def __init__(
        self, distribution: CluesAndCells, bind: Callable[[LODistribution], Posterior], *, keep: int = 1024
    ) -> None:
        if keep < 1:
            raise ValueError(f"at least 1 puzzle is kept, got {keep}")
        self.distribution, self.bind, self.keep = distribution, bind, int(keep)
        self._bound = functools.lru_cache(self.keep)(self._completed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.distribution, self.bind, self.keep)

    @property
    def layout(self) -> Layout:
        """Clues, then cells."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 at hidden cells: float64 probabilities [B, L, V].

        log_evidence is -inf where the puzzle has no solution, its tokens name no clue or ``bind``'s posterior says so,
        else not known (nan). Cost: one call of a posterior for each puzzle of the batch, and to bind a new one some
        milliseconds. Errors: ValueError for a row that hides a token of a clue.
        """
        rows, layout = self.layout.check_tokens(tokens), self.layout
        cells, clues = layout.split(rows)
        if (clues == MASK).any():
            row = int(np.argmax((clues == MASK).any(axis=1)))
            raise ValueError(f"row {row} hides a token of a clue: show all clues, and hide cells only")
        probs = np.zeros((len(rows), layout.length, layout.n_values))
        probs[:, layout.latent_positions, : layout.q] = 1 / layout.q
        evidence, converged = np.full(len(rows), -np.inf), np.ones(len(rows), np.bool_)
        shown, number = np.unique(clues, axis=0, return_inverse=True)
        for puzzle in range(len(shown)):
            own = np.flatnonzero(number.ravel() == puzzle)
            bound = self._bound(shown[puzzle].astype(np.int8).tobytes())
            if bound is not None:
                answer = bound.marginals(cells[own])
                probs[np.ix_(own, layout.latent_positions, np.arange(layout.q))] = answer.probs
                evidence[own] = np.where(np.isneginf(answer.log_evidence), -np.inf, np.nan)
                converged[own] = answer.converged
        reveal(probs, rows)
        return Marginals(probs, evidence, converged)

    def _completed(self, clues: bytes) -> Completed | None:
        """The posterior of the puzzle of a row's clue tokens; None where they are none, or leave no solution."""
        hidden = np.full(self.layout.n_latents, MASK, np.int8)
        try:
            puzzle = self.distribution.puzzle(self.layout.join(hidden, np.frombuffer(clues, np.int8)))
        except ValueError:
            return None
        if not zebra.count_solutions(puzzle, 1):
            return None
        problem = zebra.problem(puzzle)
        given = Conditioned(problem, np.ones(problem.layout.n_observations, np.int8))
        return Completed(self.bind(problem), given)


def _make(distribution: CluesAndCells, bind: Callable[[LODistribution], Posterior], keep: int) -> ByPuzzle:
    return ByPuzzle(distribution, bind, keep=keep)
