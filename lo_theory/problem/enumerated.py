"""A law that is a list: finitely many sequences, each with its probability, and everything exact.

``Enumerated`` is a ``Distribution``; its posterior is ``EnumeratedPosterior``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import _list_kernels
from lo_theory.problem.distribution import entropies
from lo_theory.problem.layout import Layout, Record, frozen, plain
from lo_theory.problem.observations import check_stochastic
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import digest_arrays
from lo_theory.rng import Key

__all__ = ["Enumerated"]

_LARGEST_ROW = 2**63  # rows are addressed by 64 bits


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Enumerated(Record):
    """p(x) = ``probabilities``[s] where x is ``sequences``[s], and 0 elsewhere.

    ``sequences`` int8[S, L], all different; ``probabilities`` float64[S], positive and summing to one, 1/S each when
    left out; ``layout`` that of sequences of latents only, of as many values as are there (two at least), when left
    out. Errors: ValueError for tokens out of range, a sequence that is there twice, and probabilities that are none.
    """

    sequences: NDArray[np.int8]
    probabilities: NDArray[np.float64] = None  # type: ignore[assignment]
    layout: Layout = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given = plain(self.sequences, "sequences")
        if given.ndim != 2 or 0 in given.shape:
            raise ValueError(f"sequences must have shape [S, L] with S >= 1 and L >= 1, got {given.shape}")
        if self.layout is None:
            values = max(2, int(given.max()) + 1)
            object.__setattr__(self, "layout", Layout(given.shape[1], 0, values, values))
        object.__setattr__(self, "sequences", frozen(self.layout.check_tokens(given, complete=True), np.int8))
        if len(self._entries) < len(given):
            row = next(row for row, entry in enumerate(self._bytes(self.sequences)) if self._entries[entry] != row)
            first = self._entries[self.sequences[row].tobytes()]
            raise ValueError(f"sequence {row} is there twice, first as {first}: leave one out and add up probabilities")
        equal = np.full(len(given), 1 / len(given))
        law = equal if self.probabilities is None else plain(self.probabilities, "probabilities", np.float64)
        if law.shape != (len(given),):
            raise ValueError(f"probabilities must be float64[{len(given)}], one a sequence; got shape {law.shape}")
        check_stochastic(law[None], "probabilities")
        if (law == 0).any():
            raise ValueError(f"sequence {int(np.argmin(law))} has probability 0: leave it out")
        object.__setattr__(self, "probabilities", frozen(law, np.float64))

    @staticmethod
    def _bytes(rows: NDArray[np.int8]) -> list[bytes]:
        return [row.tobytes() for row in rows]

    @cached_property
    def _entries(self) -> dict[bytes, int]:
        last_first = reversed(list(enumerate(self._bytes(self.sequences))))
        return {entry: number for number, entry in last_first}  # of equal ones the first

    @cached_property
    def _bounds(self) -> NDArray[np.uint64]:
        reached = np.cumsum(self.probabilities)
        bounds = np.rint(np.minimum(reached / reached[-1], 1.0) * 2.0**63).astype(np.uint64)
        return frozen(bounds, np.uint64)

    @checked
    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, L], the same whatever the split."""
        if n < 0 or start < 0 or start + n > _LARGEST_ROW:
            raise ValueError(f"sample takes n >= 0 and start >= 0 with start + n <= 2**63, got n={n}, start={start}")
        out = np.empty((n, self.layout.length), np.int8)
        _list_kernels.draw_entries(out, start, *key.words(), self._bounds, self.sequences)
        return out

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(x) in nats of complete sequences int8[n, L]: float64[n], -inf for one that is not in the list."""
        rows = self.layout.check_tokens(tokens, complete=True)
        found = np.array([self._entries.get(entry, -1) for entry in self._bytes(rows)], np.int64)
        return np.where(found >= 0, np.log(self.probabilities)[found], -np.inf)

    def entropy(self) -> float:
        """Entropy in nats per sequence, -sum p ln p."""
        return float(entropies(self.probabilities))

    @cached_property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[L, V] by position: the law of each single token."""
        values = self.layout.n_values
        laws = [np.bincount(column, self.probabilities, minlength=values) for column in self.sequences.T]
        return frozen(np.array(laws), np.float64)

    def marginal_entropy(self) -> float:
        """Sum over tokens of the entropy of the single token, nats per sequence."""
        return float(entropies(self.token_marginals).sum())

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem: a digest of its arrays, the same on every machine."""
        layout = self.layout
        sizes = np.array([layout.n_latents, layout.n_observations, layout.q, layout.r], np.int64)
        named = ("sizes", sizes), ("order", layout.order), ("sequences", self.sequences)
        return digest_arrays(dict([*named, ("probabilities", self.probabilities)]))
