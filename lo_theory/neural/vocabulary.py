"""How the values of a problem are named in a vocabulary of one's own: token ids by position, and that of the mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.layout import MASK, Layout, Record, frozen, plain

__all__ = ["Ids", "Vocabulary", "name_values"]

Ids = ArrayLike | Mapping[str, ArrayLike]
"""[V] ids of the values 0..V-1, or by role: {"latent": [q], "observation": [r]}."""

_ROLES = ("latent", "observation")


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary(Record):
    """``names`` int64[L, V]: the id of value v at each position, -1 where its role does not take it; ``mask_id``."""

    layout: Layout
    names: NDArray[np.int64]
    mask_id: int

    @property
    def size(self) -> int:
        """The least number of token ids that holds all of these: the largest, the mask's included, plus one."""
        return max(int(self.names.max()), self.mask_id) + 1

    def encode(self, rows: NDArray[np.int8]) -> NDArray[np.int64]:
        """Ids int64[B, L] of checked tokens int8[B, L], MASK = -1 where hidden."""
        ids = self.names[np.arange(self.layout.length), rows]
        return np.where(rows == MASK, np.int64(self.mask_id), ids)

    def decode(self, ids: NDArray[Any]) -> NDArray[np.int8]:
        """Tokens int8[B, L] of ids [B, L]; ValueError for another shape or kind, and for an id that names no value."""
        length = self.layout.length
        if ids.ndim != 2 or ids.shape[1] != length or ids.dtype.kind not in "iu":
            raise ValueError(
                f"token ids are integers [B, {length}] (N + P positions), got {ids.dtype} of shape {ids.shape}"
            )
        same = ids[:, :, None] == self.names
        masked = ids == self.mask_id
        unknown = ~(same.any(axis=2) | masked)
        if unknown.any():
            row, position = (int(i) for i in np.argwhere(unknown)[0])
            known = self.names[position][: self.layout.values[position]].tolist()
            raise ValueError(
                f"token id {int(ids[row, position])} in row {row} at position {position} is neither of the ids {known} "
                f"of its values nor the mask id {self.mask_id}: give ids= and mask_id= as the sampler has them"
            )
        return np.where(masked, np.int8(MASK), same.argmax(axis=2).astype(np.int8))


def name_values(layout: Layout, ids: Ids | None, mask_id: int | None) -> Vocabulary:
    """Name the values of a layout by ``ids`` (0..V-1 when left out), the mask by ``mask_id`` (one above them all).

    Errors: ValueError for another number of ids, for negative ones, and where two values of a position, or a value and
    the mask, have the same id.
    """
    sizes = dict(zip(_ROLES, (layout.q, layout.r), strict=True))
    if isinstance(ids, Mapping):
        if set(ids) != set(_ROLES):
            raise ValueError(f"ids by role have the keys 'latent' and 'observation', got {sorted(map(str, ids))}")
        own = {role: _checked(ids[role], size, f"ids[{role!r}]") for role, size in sizes.items()}
    else:
        every = _checked(np.arange(layout.n_values) if ids is None else ids, layout.n_values, "ids")
        own = {role: every[:size] for role, size in sizes.items()}
    mask = max(int(part.max()) for part in own.values()) + 1 if mask_id is None else mask_id
    if isinstance(mask, bool) or not isinstance(mask, (int, np.integer)) or mask < 0:
        raise ValueError(f"mask_id must be a token id, 0 or larger, got {mask!r}")
    names = np.full((layout.length, layout.n_values), -1, np.int64)
    positions = dict(zip(_ROLES, (layout.latent_positions, layout.observation_positions), strict=True))
    for role, part in own.items():
        if mask in part:
            value = part.tolist().index(mask)
            raise ValueError(f"mask_id {mask} is also the id of value {value} of every {role}: give the mask its own")
        names[positions[role], : len(part)] = part
    return Vocabulary(layout, frozen(names, np.int64), int(mask))


def _checked(ids: ArrayLike, count: int, name: str) -> NDArray[np.int64]:
    """Ids int64[count]; ValueError for what is none."""
    given = plain(ids, name)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {count} integers, one for each value; got {given.dtype} {given.shape}")
    if given.min() < 0:
        raise ValueError(f"{name} are token ids, 0 or larger, got {given.min()}")
    values, counts = np.unique(given, return_counts=True)
    if (counts > 1).any():
        twice = int(values[counts > 1][0])
        raise ValueError(
            f"{name} name {np.flatnonzero(given == twice).tolist()} all by the id {twice}: give each its own"
        )
    return given.astype(np.int64)
