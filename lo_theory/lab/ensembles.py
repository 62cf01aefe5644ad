"""Planted ensembles as settings, and what may be spent on their thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lo_theory.lab.schema import setting
from lo_theory.thresholds import Effort, RowSpecification

__all__ = ["Budget", "Ensemble"]


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
