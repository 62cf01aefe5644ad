"""What one cell of the ratio sweep computes: the units of Table 1, and what uniform masks leave open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lo_theory.diffusion import Uniform
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.table1 import work
from lo_theory.lab.units import Unit

__all__ = ["RowWork"]


@dataclass(frozen=True)
class RowWork(work.RowWork):
    """The units of a row of Table 1, and the uncertainty of its contexts where the exact posterior is asked for."""

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        yield from super().units()
        if self.row.evaluation.exact:
            yield self._unit("uncertainty", "what uniform masks leave open", self._uncertainty)

    def _uncertainty(self) -> list[Line]:
        law, key = Uniform(), self.key.fold("uncertainty")
        found = uncertainty({}, self.exact, self.distribution, law, key=key, n=self.row.evaluation.sequences)
        return self.rows("uncertainty", "uncertainty", {"law": law.name}, found.truth)
