"""The exact posterior of a law that is a list: its entries that match what is revealed, by their probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.posterior import _matching_kernels
from lo_theory.posterior.protocol import Marginals
from lo_theory.problem import Enumerated, Layout
from lo_theory.problem.seams import checked

__all__ = ["EnumeratedPosterior"]


@checked
class EnumeratedPosterior:
    """P(x_i = v | revealed) = the share of v at i among the sequences that match what is revealed.

    A value that all of them share has probability 1 exactly; a context that none matches is impossible and flagged.
    """

    def __init__(self, distribution: Enumerated) -> None:
        self.distribution = distribution

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Answer a batch int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V] and ln P(revealed tokens).

        ``converged`` is always true. Cost: B S comparisons for S sequences, each up to the first token that differs.
        """
        law, layout = self.distribution, self.layout
        rows = layout.check_tokens(tokens)
        probs, evidence = np.empty((len(rows), layout.length, layout.n_values)), np.empty(len(rows))
        _matching_kernels.match_rows(rows, law.sequences, law.probabilities, layout.values, probs, evidence)
        return Marginals(probs, evidence, np.ones(len(rows), np.bool_))
