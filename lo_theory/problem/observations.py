"""Observation laws: how the P observations of an L&O distribution (Definition 3.1) depend on the latents.

Two kinds. ``TableObservations``: each observation reads k latents through a stochastic table (a predicate times a noise
channel, or anything else); samplers, posteriors and belief propagation see tables and scopes only.
``SlabObservations``: random slabs (Example B.4), which read all latents and are no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem.layout import Record, frozen, plain
from lo_theory.problem.seams import Seam, checked

__all__ = ["OBSERVATIONS", "Observations", "SlabObservations", "TableObservations", "check_stochastic", "flip"]

_TOLERANCE = 1e-9  # how far from one a probability row may sum
_LARGEST_LATENT = 2**31 - 2  # scopes are int32


class Observations(Protocol):
    """What every observation law answers."""

    @property
    def q(self) -> int:
        """Values of a latent."""
        ...

    @property
    def r(self) -> int:
        """Values of an observation."""
        ...

    @property
    def n_observations(self) -> int:
        """P."""
        ...

    @property
    def least_latents(self) -> int:
        """Smallest number of latents the law can be applied to."""
        ...

    def probabilities(self, latents: ArrayLike) -> NDArray[np.float64]:
        """float64[n, P, r]: P(observation j = v | latents) for each row of ``latents`` [n, N]."""
        ...


OBSERVATIONS = Seam(
    "a law of observations",
    ("q", "r", "n_observations", "least_latents", "probabilities"),
    "TableObservations(scopes, tables)",
)


def check_stochastic(rows: NDArray[np.float64], name: str) -> None:
    """Raise ValueError unless every row (last axis) is a probability law."""
    if not np.isfinite(rows).all() or (rows < 0).any():
        bad = rows[~np.isfinite(rows) | (rows < 0)].flat[0]
        raise ValueError(f"{name} must hold probabilities, found {bad}")
    sums = rows.sum(axis=-1)
    worst = np.unravel_index(np.argmax(np.abs(sums - 1)), sums.shape)
    if abs(sums[worst] - 1) > _TOLERANCE:
        row = tuple(int(i) for i in worst)
        raise ValueError(
            f"{name} must sum to one along the last axis, row {row} sums to {sums[worst]:.12g}: divide it by its sum"
        )


def _check_latents(latents: ArrayLike, q: int, least: int) -> NDArray[np.intp]:
    """Return ``latents`` as intp[n, N], N at least ``least``; ValueError unless all are values 0..q-1."""
    given = plain(latents, "latents")
    if given.ndim != 2 or given.shape[1] < least or given.dtype.kind not in "iub":
        raise ValueError(
            f"latents must be integers [n, N] with N >= {least}, got shape {given.shape}, dtype {given.dtype}"
        )
    wrong = (given < 0) | (given >= q)
    if wrong.any():
        row, latent = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"latent {latent} of row {row} is {given[row, latent]}, outside 0..{q - 1}: observations depend on the "
            "values of all latents, none may be hidden"
        )
    return given.astype(np.intp)


@checked
def flip(rate: float, r: int = 2) -> NDArray[np.float64]:
    """Symmetric noise channel float64[r, r]: a value is kept with probability 1 - rate, else uniform over others."""
    if not 0 <= rate <= 1:
        raise ValueError(f"a flip rate lies in [0, 1], got {rate}")
    if r < 2:
        raise ValueError(f"r must be at least 2, got {r}")
    return np.where(np.eye(r, dtype=bool), 1 - rate, rate / (r - 1))


@dataclass(frozen=True, eq=False, repr=False)
class TableObservations(Record):
    """Observation j reads the latents ``scopes[j]`` through the emission table ``tables[index[j]]``.

    ``scopes`` int32[P, k]; ``tables`` float64[E, q**k, r], P(token | scope state), states in C order (first scope
    argument slowest); ``index`` int32[P], which table each observation uses (all the first when left out). A scope may
    name a latent twice.
    """

    scopes: NDArray[np.int32]
    tables: NDArray[np.float64]
    index: NDArray[np.int32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        scopes = plain(self.scopes, "scopes")
        if scopes.ndim != 2 or scopes.shape[0] < 1 or scopes.shape[1] < 1 or scopes.dtype.kind not in "iu":
            raise ValueError(
                f"scopes must be integers [P, k] with P >= 1 and k >= 1, got shape {scopes.shape}, dtype {scopes.dtype}"
            )
        if scopes.min() < 0 or scopes.max() > _LARGEST_LATENT:
            wrong = scopes.min() if scopes.min() < 0 else scopes.max()
            raise ValueError(f"scopes hold latents 0..N-1, found {wrong} (N is below 2**31)")
        tables = plain(self.tables, "tables", np.float64)
        if tables.ndim != 3 or tables.shape[0] < 1 or tables.shape[2] < 2:
            raise ValueError(f"tables must have shape [E, q**k, r] with E >= 1 and r >= 2, got {tables.shape}")
        check_stochastic(tables, "tables")
        index = np.zeros(len(scopes), np.int32) if self.index is None else plain(self.index, "index")
        if index.shape != (len(scopes),) or index.dtype.kind not in "iu":
            raise ValueError(
                f"index must be integers [P = {len(scopes)}], got shape {index.shape}, dtype {index.dtype}"
            )
        if index.min() < 0 or index.max() >= len(tables):
            raise ValueError(f"index must name tables 0..{len(tables) - 1}, found {index.min()}..{index.max()}")
        q = round(tables.shape[1] ** (1 / scopes.shape[1]))
        if q < 2 or q ** scopes.shape[1] != tables.shape[1]:
            raise ValueError(
                f"tables have {tables.shape[1]} scope states, which is no q**k with k = {scopes.shape[1]} and q >= 2"
            )
        for name, array, dtype in (
            ("scopes", scopes, np.int32),
            ("tables", tables, np.float64),
            ("index", index, np.int32),
        ):
            object.__setattr__(self, name, frozen(array, dtype))

    @property
    def q(self) -> int:
        """Values of a latent."""
        return round(self.tables.shape[1] ** (1 / self.k))

    @property
    def k(self) -> int:
        """Latents an observation reads."""
        return int(self.scopes.shape[1])

    @property
    def r(self) -> int:
        """Values of an observation."""
        return int(self.tables.shape[2])

    @property
    def n_observations(self) -> int:
        """P."""
        return len(self.scopes)

    @property
    def least_latents(self) -> int:
        """One more than the largest latent a scope names."""
        return int(self.scopes.max()) + 1

    def states(self, latents: ArrayLike) -> NDArray[np.intp]:
        """intp[n, P]: the scope state each observation reads, for ``latents`` [n, N] of 0..q-1 (else ValueError)."""
        read = _check_latents(latents, self.q, self.least_latents)[:, self.scopes]
        return read @ (self.q ** np.arange(self.k - 1, -1, -1, dtype=np.intp))

    def probabilities(self, latents: ArrayLike) -> NDArray[np.float64]:
        """float64[n, P, r]: P(observation j = v | latents) for ``latents`` [n, N]; ValueError for no value 0..q-1."""
        return self.tables[self.index, self.states(latents)]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SlabObservations(Record):
    """Random slabs (Example B.4): observation j is 1 if |<z_j, 2x - 1>| <= width sqrt(N), else 0; x binary.

    ``vectors`` float64[P, N] holds the z_j; ``width`` is the paper's beta. The sums run over the latents in order, one
    addition at a time, so that a value on the edge of a slab falls the same way everywhere.
    """

    vectors: NDArray[np.float64]
    width: float

    def __post_init__(self) -> None:
        vectors = plain(self.vectors, "vectors", np.float64)
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1 or not np.isfinite(vectors).all():
            raise ValueError(f"vectors must be finite numbers [P, N] with P >= 1 and N >= 1, got shape {vectors.shape}")
        if not (np.isfinite(self.width) and self.width > 0):
            raise ValueError(f"the width of a slab must be positive, got {self.width}")
        object.__setattr__(self, "vectors", frozen(vectors, np.float64))
        object.__setattr__(self, "width", float(self.width))

    @property
    def q(self) -> int:
        """Latents are bits."""
        return 2

    @property
    def r(self) -> int:
        """Observations are bits."""
        return 2

    @property
    def n_observations(self) -> int:
        """P."""
        return len(self.vectors)

    @property
    def least_latents(self) -> int:
        """Slabs read all N latents."""
        return int(self.vectors.shape[1])

    @property
    def bound(self) -> float:
        """width sqrt(N), the half-width in units of <z, 2x - 1>."""
        return float(self.width * np.sqrt(self.vectors.shape[1]))

    def _check(self, latents: ArrayLike) -> NDArray[np.float64]:
        given = _check_latents(latents, 2, self.least_latents)
        if given.shape[1] != self.least_latents:
            raise ValueError(f"slabs read N = {self.least_latents} latents, got {given.shape[1]}")
        return given.astype(np.float64)

    def values(self, latents: ArrayLike) -> NDArray[np.int8]:
        """int8[n, P]: the observations, which are certain given ``latents`` [n, N]; ValueError for no bits."""
        signs = 2.0 * self._check(latents) - 1.0
        sums = np.zeros((len(signs), self.n_observations))
        for i in range(self.vectors.shape[1]):
            sums += signs[:, i : i + 1] * self.vectors[:, i]
        return (np.abs(sums) <= self.bound).astype(np.int8)

    def probabilities(self, latents: ArrayLike) -> NDArray[np.float64]:
        """float64[n, P, 2]: zeros and ones, for ``latents`` [n, N]; ValueError for no bits."""
        return np.eye(2)[self.values(latents).astype(np.intp)]
