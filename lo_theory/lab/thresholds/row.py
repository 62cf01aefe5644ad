"""The settings of one row of the table of thresholds."""

from __future__ import annotations

from dataclasses import dataclass, field

from lo_theory.lab.ensembles import Budget, Ensemble
from lo_theory.lab.schema import setting

__all__ = ["NoReference", "Row"]


@dataclass(frozen=True)
class Row:
    """An ensemble, the share of latents revealed beside the observations (0: none), and what may be spent."""

    ensemble: Ensemble
    seed: int = 0
    revealed: float = setting(0.0, least=0)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not self.revealed < 1:
            raise ValueError(f"revealed is a share of the latents below 1, got {self.revealed}")

    def check_fits(self) -> None:
        """Nothing is left to check: whatever can be wrong was found when the row was made."""


@dataclass(frozen=True)
class NoReference:
    """Published values are known to the package, with their sources: nothing to set in a file."""
