"""What is drawn, as all rooms above see it: a law of sequences that samples, scores and knows its entropy.

``LODistribution`` is one, ``Enumerated`` another. ``seams.DISTRIBUTION`` is its seam, and ``checked`` looks at it.
Imports the layout and keys only.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.layout import Layout
from lo_theory.rng import Key

__all__ = ["Distribution"]


class Distribution(Protocol):
    """A law of sequences int8[L]; with a ``Posterior`` of it, all that decodes, judges and trains works on it."""

    @property
    def layout(self) -> Layout:
        """Positions and roles; P = 0 where a sequence has latents only."""
        ...

    @property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[L, V] by position: the law of each single token."""
        ...

    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, L], the same whatever the split."""
        ...

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(x) in nats of complete sequences int8[n, L]: float64[n], -inf where impossible."""
        ...

    def entropy(self) -> float:
        """Entropy in nats per sequence."""
        ...

    def marginal_entropy(self) -> float:
        """Sum over tokens of the entropy of the single token, nats per sequence."""
        ...

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem."""
        ...
