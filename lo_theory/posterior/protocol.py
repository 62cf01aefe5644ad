"""The one question exact posterior, belief propagation and trained network answer, and the form of the answer.

Imports nothing of the package but the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import Layout

__all__ = ["Marginals", "Posterior"]


@dataclass(frozen=True, eq=False)
class Marginals:
    """Single-token posteriors of a batch of B partly masked sequences.

    ``probs`` float64 or float32 [B, L, V] by position: P(token = v | revealed tokens) where masked, one-hot where
    revealed; zero at values the role does not take. ``log_evidence`` float64[B]: ln P(revealed tokens) in nats; -inf
    for an impossible context, whose masked positions are uniform over the values of their role; nan where the posterior
    does not know it. ``converged`` bool[B].
    """

    probs: NDArray[Any]
    log_evidence: NDArray[np.float64]
    converged: NDArray[np.bool_]


class Posterior(Protocol):
    """Bound to one problem, answers batches of partly masked sequences."""

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        ...

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        """Posterior marginals for ``tokens`` int8[B, L], MASK = -1 where hidden; an impossible row is flagged, no
        exception.
        """
        ...
