"""The settings of one row of the table of thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lo_theory.lab.ensembles import Budget, Ensemble
from lo_theory.lab.schema import plain, setting

if TYPE_CHECKING:
    from lo_theory.lab.units import Context, Unit

__all__ = ["NoReference", "Prepared", "Row"]


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


@dataclass(frozen=True)
class NoReference:
    """Published values are known to the package, with their sources: nothing to set in a file."""


@dataclass(frozen=True)
class Prepared:
    """A row ready to compute; there is nothing to make first."""

    row: Row
    trains = False

    def content(self) -> Mapping[str, Any]:
        """See ``lo_theory.lab.task.Prepared``."""
        content: Mapping[str, Any] = plain(self.row)
        return content

    def check(self) -> None:
        """See ``lo_theory.lab.task.Prepared``; whatever can be wrong was found when the row was made."""

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        """See ``lo_theory.lab.task.Prepared``."""
        from lo_theory.lab.thresholds.work import make_unit

        yield make_unit(index, self.row, context)
