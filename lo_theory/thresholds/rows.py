"""Rows of a table of thresholds: named ensembles, a transition as flat columns, and published values to set beside it.

Computing rows, storing them and skipping those already there is left to the experiments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq, minimize_scalar

from lo_theory.problem import Predicate, colouring, nae, xor
from lo_theory.problem.seams import checked
from lo_theory.thresholds.ensemble import PlantedEnsemble, planted_ensemble
from lo_theory.thresholds.transitions import Transition
from lo_theory.thresholds.units import Threshold

__all__ = [
    "RowSpecification",
    "parity_thresholds",
    "published",
    "threshold_columns",
    "transition_columns",
]


def _predicates() -> dict[str, Callable[[int, int], Predicate]]:
    return {"colouring": lambda q, k: colouring(q), "nae": nae, "xor": lambda q, k: xor(k)}


@checked
@dataclass(frozen=True)
class RowSpecification:
    """A row of the table: family ("colouring", "nae" or "xor"), q, k, and what is observed ("satisfied" or "all")."""

    family: str
    q: int
    k: int
    observed: str = "satisfied"

    def __post_init__(self) -> None:
        if self.family not in _predicates():
            raise ValueError(f"a family of rows is one of {', '.join(_predicates())}, got {self.family!r}")
        if (self.family == "colouring" and self.k != 2) or (self.family == "xor" and self.q != 2):
            raise ValueError(f"colourings have k = 2 and parities q = 2, got {self.family} with q={self.q}, k={self.k}")

    @property
    def label(self) -> str:
        """Name of the row, and its part of a key."""
        return f"{self.family} q={self.q} k={self.k} observed={self.observed}"

    @property
    def predicate(self) -> Predicate:
        """The predicate of the row."""
        return _predicates()[self.family](self.q, self.k)

    def ensemble(self) -> PlantedEnsemble:
        """The planted ensemble of the row."""
        return planted_ensemble(self.predicate, observed=self.observed)


@checked
def parity_thresholds(k: int) -> tuple[Threshold, Threshold]:
    """Dynamic and condensation thresholds of noise-free k-XOR, k >= 3, from the closed equations; error zero.

    The share r of determined latents obeys r = 1 - exp(-c r**(k-1)): dynamic is the least c with a solution r > 0,
    condensation the c at which r - c r**(k-1) (1 - r) - (c/k) r**k = 0 on the larger solution.
    """
    if k < 3:
        raise ValueError(f"these equations are for parities of k >= 3, got k = {k}")

    def degree(r: float) -> float:
        return -math.log1p(-r) / r ** (k - 1)

    def balance(r: float) -> float:
        c = degree(r)
        return r - c * r ** (k - 1) * (1 - r) - c / k * r**k

    lowest = minimize_scalar(degree, bounds=(0.3, 1 - 1e-9), method="bounded", options={"xatol": 1e-12}).x
    return Threshold(degree(float(lowest)), k), Threshold(
        degree(float(brentq(balance, lowest, 1 - 1e-12, xtol=1e-14))), k
    )


@checked
def published(specification: RowSpecification) -> tuple[float | None, float | None, str]:
    """Published dynamic and condensation c of a row, as printed, and the source; (None, None, "") where none is known.

    For parities: the closed equations (``parity_thresholds``).
    """
    if specification.family == "xor" and specification.k >= 3:
        dynamic, condensation = parity_thresholds(specification.k)
        return dynamic.value, condensation.value, "closed equations"
    source = "Zdeborova and Krzakala, Phys. Rev. E 76, 031131 (2007)"
    colourings = {3: (4.0, 4.0), 4: (8.353, 8.46), 5: (12.837, 13.23)}
    if specification.family == "colouring" and specification.observed == "satisfied" and specification.q in colourings:
        return (*colourings[specification.q], source)
    return None, None, ""


@checked
def transition_columns(found: Transition) -> dict[str, float | bool | None]:
    """The numbers of a transition as flat columns: thresholds in three units with errors; infinite ones are None."""
    return {
        "continuous": found.continuous,
        **threshold_columns("kesten_stigum", found.kesten_stigum),
        **threshold_columns("dynamic", found.dynamic),
        **threshold_columns("condensation", found.condensation),
        "overlap_at_dynamic": found.overlap,
        "resolution": found.resolution,
    }


@checked
def threshold_columns(name: str, threshold: Threshold | None) -> dict[str, float | None]:
    """A threshold in its three units as flat columns; None where it is infinite or absent."""
    columns: dict[str, float | None] = {}
    for unit, (value, error) in (threshold or Threshold(math.inf, 2)).units.items():
        finite = math.isfinite(value)
        columns[f"{name}_{unit}"] = value if finite else None
        columns[f"{name}_{unit}_error"] = error if finite else None
    return columns
