"""Zebra puzzles as sequences of one length, to train on: the tokens of M clues, then the houses of all values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import _zebra_kernels
from lo_theory.problem.distribution import entropies
from lo_theory.problem.layout import MASK, Layout, frozen
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import digest_arrays
from lo_theory.problem.zebra import KINDS, Clue, Puzzle, arguments, check_kinds, true_clues
from lo_theory.rng import Key

__all__ = ["CLUE_TOKENS", "CluesAndCells"]

CLUE_TOKENS = 5
"""Of a clue: its kind, three latents, a house; 0 for each that it does not name."""

_LARGEST_ROW = 2**63  # rows are addressed by 64 bits


@checked
@dataclass(frozen=True)
class CluesAndCells:
    """p(clues, x) = (H!)**-A prod_m 1 / (K n_kind(m)) where x makes all M clues true, else 0.

    A uniform solution x of ``houses`` H and ``attributes`` A, and given it M = ``clues`` independent ones of all that
    it makes true, each of a uniform one of K ``kinds`` and uniform among the n_kind of that; n_kind is the same for
    every x. So given all clues x is uniform among the puzzle's solutions, which may be several. A sequence has the
    5 M tokens of the clues (``CLUE_TOKENS``, observations), then the A H cells (latents). Errors: ValueError for sizes
    that ``Puzzle`` refuses, fewer than 1 clue, kinds that are none, and a kind of which no clue is ever true.
    """

    houses: int
    attributes: int
    clues: int
    kinds: Sequence[str] = tuple(KINDS)

    def __post_init__(self) -> None:
        Puzzle(self.houses, self.attributes)
        if self.clues < 1:
            raise ValueError(f"a sequence has at least 1 clue, got {self.clues}")
        check_kinds(self.kinds)
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if (self._numbers == 0).any():
            kind = self.kinds[int(np.argmin(self._numbers))]
            raise ValueError(
                f"with {self.houses} houses and {self.attributes} attributes no clue {kind} is true: leave it out"
            )

    @cached_property
    def layout(self) -> Layout:
        """Positions of the clues' tokens (observations), then of the cells (latents)."""
        cells, tokens = self.houses * self.attributes, CLUE_TOKENS * self.clues
        order = np.concatenate([tokens + np.arange(cells), np.arange(tokens)])
        return Layout(cells, tokens, self.houses, max(len(self.kinds), cells), order)

    @cached_property
    def _true(self) -> NDArray[np.int64]:
        """int64[T, 5]: the clues that are true where value v of every attribute is in house v, kind after kind."""
        standing = np.tile(np.arange(self.houses), self.attributes)
        rows = [
            (number, *names, *(0,) * (3 - len(names)), house or 0)
            for number, kind in enumerate(self.kinds)
            for names, house in true_clues(kind, self.houses, standing)
        ]
        return frozen(np.reshape(rows, (-1, CLUE_TOKENS)), np.int64)

    @cached_property
    def _orders(self) -> NDArray[np.int64]:
        """int64[H!, H]: all permutations of the houses."""
        return frozen(list(itertools.permutations(range(self.houses))), np.int64)

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """int64[K]: how many clues of each kind a solution makes true."""
        return np.bincount(self._true[:, 0], minlength=len(self.kinds))

    @cached_property
    def _names(self) -> NDArray[np.bool_]:
        """bool[K, 3]: whether a kind names a first, second and third latent."""
        return np.arange(3) < np.array([[arguments(KINDS[kind])[0]] for kind in self.kinds])

    def _log_weights(self) -> NDArray[np.float64]:
        """float64[K]: ln P(a clue | a solution that makes it true)."""
        return -np.log(len(self.kinds) * self._numbers)

    @checked
    def sample(self, key: Key, n: int, *, start: int = 0) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, L], the same whatever the split."""
        if n < 0 or start < 0 or start + n > _LARGEST_ROW:
            raise ValueError(f"sample takes n >= 0 and start >= 0 with start + n <= 2**63, got n={n}, start={start}")
        orders = self._orders
        chosen, edges = np.empty((n, self.attributes + self.clues), np.int64), np.append(0, self._numbers.cumsum())
        _zebra_kernels.draw_choices(chosen, self.attributes, start, *key.words(), len(orders), edges)
        cells = orders[chosen[:, : self.attributes]]
        clues = self._true[chosen[:, self.attributes :]]
        attribute, house = np.divmod(clues[:, :, 1:4], self.houses)
        standing = cells.argsort(axis=2)[np.arange(n)[:, None, None], attribute, house]
        named = attribute * self.houses + standing  # the value that is where the clue looks
        clues[:, :, 1:4] = np.where(self._names[clues[:, :, 0]], named, 0)
        return self.layout.join(cells.reshape(n, self.layout.n_latents), clues.reshape(n, self.layout.n_observations))

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(x) in nats of complete sequences int8[n, L]: float64[n], -inf where impossible."""
        rows = self.layout.check_tokens(tokens, complete=True)
        cells, seen = (part.astype(np.int64) for part in self.layout.split(rows))
        grids = cells.reshape(len(rows), self.attributes, self.houses)
        possible = (np.sort(grids, axis=2) == np.arange(self.houses)).all(axis=(1, 2))
        clues = seen.reshape(len(rows), self.clues, CLUE_TOKENS)
        known = (clues[:, :, 0] < len(self.kinds)) & (clues[:, :, 1:4] < self.layout.n_latents).all(axis=2)
        clues = np.where(known[:, :, None], clues, 0)
        named = clues[:, :, 1:4]
        found = named // self.houses * self.houses + cells[np.arange(len(rows))[:, None, None], named]
        clues[:, :, 1:4] = np.where(self._names[clues[:, :, 0]], found, named)
        possible &= (known & np.isin(self._code(clues), self._code(self._true))).all(axis=1)
        weights = self._log_weights()[clues[:, :, 0]].sum(axis=1) - self.attributes * math.lgamma(self.houses + 1)
        return np.where(possible, weights, -np.inf)

    def _code(self, clues: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number for the tokens [..., 5] of each clue."""
        return clues @ (self.layout.n_values ** np.arange(CLUE_TOKENS))

    def puzzle(self, tokens: ArrayLike) -> Puzzle:
        """The puzzle of a sequence int8[L], each clue once; its cells may be hidden. ValueError for tokens that name no
        clue, and for several rows.
        """
        rows = self.layout.check_tokens(tokens)
        if len(rows) != 1:
            raise ValueError(f"puzzle takes one sequence, got {len(rows)} rows")
        seen = self.layout.split(rows)[1][0].reshape(self.clues, CLUE_TOKENS)
        clues = []
        for number, (kind, *names, house) in enumerate(seen.tolist()):
            arity, housed = arguments(KINDS[self.kinds[kind]]) if 0 <= kind < len(self.kinds) else (-1, False)
            if arity < 0 or any(names[arity:]) or (house and not housed):
                raise ValueError(f"the tokens {seen[number].tolist()} of clue {number} name no clue")
            clues.append(Clue(self.kinds[kind], tuple(names[:arity]), house if housed else None))
        return Puzzle(self.houses, self.attributes, tuple(dict.fromkeys(clues)))

    def tokens(self, puzzle: Puzzle) -> NDArray[np.int8]:
        """The sequence int8[L] of a puzzle, cells hidden: its clues, and again from the first until they are M.

        Errors: ValueError for a puzzle of another size, with a kind that is none of ``kinds``, without clues, and with
        more than M.
        """
        size = puzzle.houses, puzzle.attributes
        if size != (self.houses, self.attributes) or not 1 <= len(puzzle.clues) <= self.clues:
            raise ValueError(
                f"a sequence of this law has {self.houses} houses, {self.attributes} attributes and 1 to {self.clues} "
                f"clues, got a puzzle of {size[0]}, {size[1]} and {len(puzzle.clues)}"
            )
        rows = []
        for clue in puzzle.clues:
            if clue.kind not in self.kinds:
                raise ValueError(f"kinds are {', '.join(self.kinds)}, got a clue {clue.kind}")
            names = (*clue.latents, *(0,) * (3 - len(clue.latents)))
            rows.append((self.kinds.index(clue.kind), *names, clue.house or 0))
        seen = np.resize(np.array(rows, np.int8), (self.clues, CLUE_TOKENS))
        return self.layout.join(np.full(self.layout.n_latents, MASK, np.int8), seen.ravel())

    def entropy(self) -> float:
        """Entropy in nats per sequence, A ln H! + M (ln K + the mean of ln n_kind)."""
        return self.attributes * math.lgamma(self.houses + 1) - self.clues * float(self._log_weights().mean())

    @cached_property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[L, V] by position: the law of each single token."""
        kinds, weights = self._true[:, 0], np.exp(self._log_weights())
        clue = np.zeros((CLUE_TOKENS, self.layout.n_values))
        for token in (0, 4):
            np.add.at(clue[token], self._true[:, token], weights[kinds])
        for token in (1, 2, 3):
            named, first = self._names[kinds, token - 1], self._true[:, token] // self.houses * self.houses
            clue[token, 0] = weights[kinds[~named]].sum()
            for value in range(self.houses):  # each value of an attribute is in a house equally often
                np.add.at(clue[token], first[named] + value, weights[kinds[named]] / self.houses)
        laws = np.zeros((self.layout.length, self.layout.n_values))
        laws[self.layout.latent_positions, : self.houses] = 1 / self.houses
        laws[self.layout.observation_positions] = np.tile(clue, (self.clues, 1))
        return frozen(laws, np.float64)

    def marginal_entropy(self) -> float:
        """Sum over tokens of the entropy of the single token, nats per sequence."""
        return float(entropies(self.token_marginals).sum())

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem: a digest of its arrays, the same on every machine."""
        sizes = np.array([self.houses, self.attributes, self.clues], np.int64)
        return digest_arrays({"sizes": sizes, "true": self._true})
