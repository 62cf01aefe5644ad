"""What one cell of the ratio sweep computes: the units of Table 1, and what uniform masks leave open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lo_theory.diffusion import Decoded, Uniform, find_dead_ends
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.settings import Cell
from lo_theory.lab.table1 import work
from lo_theory.lab.units import Unit

__all__ = ["RowWork"]


@dataclass(frozen=True)
class RowWork(work.RowWork):
    """The units of a row of Table 1; where the exact posterior is asked for, also the uncertainty of its contexts, and
    the dead ends of the model's decodes. At the small sizes of a sweep that costs seconds; at the paper's, with all
    observations written and no latent, it could cost hours.
    """

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        yield from super().units()
        if self.row.evaluation.exact:
            yield self._unit("uncertainty", "what uniform masks leave open", self._uncertainty)

    def _with_dead_ends(self, cell: Cell, decoded: Decoded) -> Decoded | None:
        if cell.denoiser == "exact" or not self.row.evaluation.exact:
            return super()._with_dead_ends(cell, decoded)
        return find_dead_ends(self.denoiser("exact"), decoded)

    def _uncertainty(self) -> list[Line]:
        law, key = Uniform(), self.key.fold("uncertainty")
        found = uncertainty({}, self.exact, self.distribution, law, key=key, n=self.row.evaluation.sequences)
        return self.rows("uncertainty", "uncertainty", {"law": law.name}, found.truth)
