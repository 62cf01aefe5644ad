"""Where each token of a sequence is: positions, roles, the order pi, and the mask.

A *role* is what a token is (latents count first: role i < N is latent i, role N + j is observation j); a *position* is
where it is in the sequence. ``Layout.split`` and ``Layout.join`` are the only place that permutes one into the
other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.seams import checked

__all__ = ["MASK", "Layout", "Record", "frozen", "plain"]

MASK = -1
"""The token of a hidden position."""

_LARGEST_ALPHABET = 127  # tokens are int8


def plain(values: ArrayLike, name: str, dtype: type | None = None) -> NDArray[Any]:
    """Return ``values`` as an array; ValueError where numpy masked arrays in it have masked entries: they would be
    lost.
    """
    if lost := _masked_entries(values):
        raise ValueError(
            f"{name} is a numpy masked array, or holds some, with {lost} masked entries: say what to put there, as "
            ".filled(...) does (MASK = -1 for hidden tokens)"
        )
    return np.asarray(values, dtype=dtype)


def _masked_entries(values: Any) -> int:
    if isinstance(values, np.ma.MaskedArray):
        return int(np.ma.count_masked(values))
    return sum(map(_masked_entries, values)) if isinstance(values, (list, tuple)) else 0


def frozen(array: ArrayLike, dtype: type) -> NDArray[Any]:
    """Return a contiguous read-only copy; numba compiles a kernel twice if a problem mixes both kinds of array."""
    copy: NDArray[Any] = np.array(plain(array, "an array"), dtype=dtype, order="C", copy=True)
    copy.setflags(write=False)
    return copy


class Record:
    """A frozen dataclass that holds arrays: shown by their shapes, and copied or pickled by way of its constructor.

    So a copy is checked as the original was and its arrays are read-only, as compiled code expects them.
    """

    def __repr__(self) -> str:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        shown = (f"{name}={_shape(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return type(self), tuple(getattr(self, name) for name in names)


def _shape(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return repr(value)
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Layout(Record):
    """Positions and roles of a sequence of N latents and P observations.

    ``order`` (int32[L], L = N + P) is the paper's permutation pi: ``order[role]`` is the position of that role; the
    identity when left out. Latents take values 0..q-1, observations 0..r-1. P = 0: sequences of latents only, such as
    puzzles; an ``LODistribution`` has P >= 1.
    """

    n_latents: int
    n_observations: int
    q: int
    r: int
    order: NDArray[np.int32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, least in (("n_latents", 1), ("n_observations", 0), ("q", 2), ("r", 2)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
            object.__setattr__(self, name, int(value))
        if self.n_values > _LARGEST_ALPHABET:
            raise ValueError(
                f"an alphabet holds at most {_LARGEST_ALPHABET} values (tokens are int8), got {self.n_values}"
            )
        order = np.arange(self.length) if self.order is None else plain(self.order, "order")
        if order.shape != (self.length,) or not np.array_equal(np.sort(order), np.arange(self.length)):
            raise ValueError(
                f"order must be a permutation of 0..{self.length - 1} (order[role] = position), got an array of "
                f"shape {order.shape}"
            )
        object.__setattr__(self, "order", frozen(order, np.int32))

    @property
    def length(self) -> int:
        """L = N + P, tokens in a sequence."""
        return self.n_latents + self.n_observations

    @property
    def n_values(self) -> int:
        """V = max(q, r), values a token can take."""
        return max(self.q, self.r)

    @cached_property
    def role(self) -> NDArray[np.int32]:
        """int32[L], the role at each position: the inverse of ``order``."""
        return frozen(np.argsort(self.order), np.int32)

    @cached_property
    def is_latent(self) -> NDArray[np.bool_]:
        """bool[L], by position."""
        return frozen(self.role < self.n_latents, np.bool_)

    @cached_property
    def values(self) -> NDArray[np.int32]:
        """int32[L], by position: how many values the token there can take (q or r)."""
        return frozen(np.where(self.is_latent, self.q, self.r), np.int32)

    @property
    def latent_positions(self) -> NDArray[np.int32]:
        """int32[N], the position of each latent."""
        return self.order[: self.n_latents]

    @property
    def observation_positions(self) -> NDArray[np.int32]:
        """int32[P], the position of each observation."""
        return self.order[self.n_latents :]

    def split(self, tokens: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """Take an array [..., L] over positions apart into latents [..., N] and observations [..., P]."""
        return tokens[..., self.latent_positions], tokens[..., self.observation_positions]

    def join(self, latents: ArrayLike, observations: ArrayLike) -> NDArray[np.int8]:
        """Put latents [..., N] and observations [..., P] at their positions: int8[..., L], the inverse of ``split``.

        Errors: ValueError for other shapes, and for values that are no integers, neither the role's nor MASK.
        """
        left, right = plain(latents, "latents"), plain(observations, "observations")
        if left.shape[-1:] != (self.n_latents,) or right.shape != (*left.shape[:-1], self.n_observations):
            raise ValueError(
                f"join takes latents [..., {self.n_latents}] and observations [..., {self.n_observations}], "
                f"got {left.shape} and {right.shape}"
            )
        for name, values, size in (("latents", left, self.q), ("observations", right, self.r)):
            if values.dtype.kind not in "iub":
                raise ValueError(f"{name} must be integers, got dtype {values.dtype}")
            wrong = (values < MASK) | (values >= size)
            if wrong.any():
                raise ValueError(
                    f"{name} are 0..{size - 1}, or MASK = {MASK} where hidden, found {values[wrong].flat[0]}"
                )
        tokens = np.empty((*left.shape[:-1], self.length), np.int8)
        tokens[..., self.latent_positions] = left
        tokens[..., self.observation_positions] = right
        return tokens

    def reading(self, positions: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return a reading order, int64[L] positions first to last; the roles in order when left out."""
        order = plain(self.order if positions is None else positions, "a reading order")
        if order.shape != (self.length,) or not np.array_equal(np.sort(order), np.arange(self.length)):
            raise ValueError(
                f"a reading order is a permutation of the positions 0..{self.length - 1}, "
                f"got one of shape {order.shape}: {np.array2string(order, threshold=20)}"
            )
        return order.astype(np.int64)

    def check_tokens(self, tokens: ArrayLike, *, complete: bool = False) -> NDArray[np.int8]:
        """Return ``tokens`` as contiguous int8[B, L], or say which value is out of range.

        Allowed are MASK and the values of each position's role; with ``complete`` no MASK. One sequence [L] becomes [1,
        L]. An array that must not be written is copied: numba would compile every kernel again for it.
        """
        given = plain(tokens, "tokens")
        if given.ndim == 1:
            given = given[None, :]
        if given.ndim != 2 or given.shape[1] != self.length:
            raise ValueError(f"tokens must have shape [B, {self.length}] (N + P), got {np.shape(tokens)}")
        if given.dtype.kind not in "iub":
            raise ValueError(f"tokens must be integers, got dtype {given.dtype}")
        least = 0 if complete else MASK
        wrong = (given < least) | (given >= self.values)
        if wrong.any():
            row, position = (int(i) for i in np.argwhere(wrong)[0])
            kind = "latent" if self.is_latent[position] else "observation"
            hint = " (the sequence must be complete, without MASK)" if given[row, position] == MASK else ""
            raise ValueError(
                f"token {int(given[row, position])} in row {row} at position {position} ({kind}) is outside "
                f"{least}..{int(self.values[position]) - 1}{hint}"
            )
        return np.require(given, np.int8, ("C", "W"))
