"""Planted ensembles as settings, what may be spent on their thresholds, and the lines that what is found leaves.

Shared by the experiments on thresholds and on belief propagation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.schema import setting
from lo_theory.thresholds import Curve, Effort, Fold, RowSpecification, Transition, transition_columns

__all__ = ["Budget", "Ensemble", "curve_lines", "fold_lines", "transition_lines"]


@dataclass(frozen=True)
class Ensemble:
    """A planted ensemble: predicate, q, k, and whether satisfied observations or all are revealed."""

    family: Literal["colouring", "nae", "xor"]
    q: int = setting(2, least=2)
    k: int = setting(3, least=2)
    observed: Literal["satisfied", "all"] = "satisfied"

    def __post_init__(self) -> None:
        _ = self.specification  # which says what does not go together

    @property
    def specification(self) -> RowSpecification:
        """The ensemble as the room of thresholds knows it."""
        return RowSpecification(self.family, self.q, self.k, self.observed)

    @property
    def label(self) -> str:
        """Name in tables: ``4-colouring``, ``NAE q=3 k=3``, ``XOR k=3``."""
        return {
            "colouring": f"{self.q}-colouring",
            "nae": f"NAE q={self.q} k={self.k}",
            "xor": f"XOR k={self.k}",
        }[self.family]


@dataclass(frozen=True)
class Budget:
    """What one search for thresholds may spend: messages in the population, factor messages for each stage."""

    size: int = 10_000
    scan: float = setting(1e8, above=0)
    dynamic: float = setting(3e8, above=0)
    condensation: float = setting(4e8, above=0)

    def __post_init__(self) -> None:
        _ = self.effort  # which says what is out of range

    @property
    def effort(self) -> Effort:
        """The same for one thread."""
        return Effort(self.size, self.scan, self.dynamic, self.condensation)


def transition_lines(unit: str, keys: Mapping[str, Any], found: Transition) -> list[Line]:
    """Rows of kind ``threshold`` and, point by point, ``curve``; what is infinite or absent leaves no row."""
    columns = {name: value for name, value in transition_columns(found).items() if value is not None}
    lines = [Line(unit, name, Sums.single(value), {"kind": "threshold", **keys}) for name, value in columns.items()]
    return lines + curve_lines(unit, keys, found.curve)


def fold_lines(unit: str, keys: Mapping[str, Any], found: Fold) -> list[Line]:
    """Rows of kind ``fold`` and, point by point, ``curve``; a threshold that is not there leaves no row."""
    values: dict[str, float] = {"survives": found.survives, "resolution": found.resolution}
    for name in ("dynamic", "crossing", "spinodal"):
        if (threshold := getattr(found, name)) is not None:
            values |= {f"{name}_c": threshold.value, f"{name}_c_error": threshold.error}
    lines = [Line(unit, name, Sums.single(value), {"kind": "fold", **keys}) for name, value in values.items()]
    return lines + curve_lines(unit, keys, found.curve)


def curve_lines(unit: str, keys: Mapping[str, Any], curve: Curve) -> list[Line]:
    """Rows of kind ``curve``: degree of the fixed point at each overlap, its standard error, and the excess."""
    lines = []
    for overlap, c, error, excess in zip(curve.overlap, curve.c, curve.error, curve.excess, strict=True):
        point = {"kind": "curve", **keys, "overlap": round(float(overlap), 12)}
        values = {"c": c, "c_standard_error": error, "excess": excess}
        lines += [Line(unit, name, Sums.single(value), point) for name, value in values.items()]
    return lines
