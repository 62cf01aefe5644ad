"""What one row of the table of thresholds computes: one transition, or one fold with some latents revealed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.ensembles import curve_lines, transition_lines
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.thresholds.row import Row
from lo_theory.lab.units import Context, Unit
from lo_theory.rng import Key
from lo_theory.thresholds import Fold, find_fold, find_transition

__all__ = ["RowWork"]


@dataclass(frozen=True)
class RowWork:
    """The only unit of one row: 30 to 60 seconds on one core at the default budget."""

    index: int
    row: Row
    context: Context

    @property
    def unit(self) -> str:
        """Name of the unit."""
        return f"row{self.index}/thresholds"

    def units(self) -> Iterator[Unit]:
        """Yield the unit."""
        ensemble, revealed = self.row.ensemble, self.row.revealed
        shown = f", {100 * revealed:g} % of the latents revealed" if revealed else ""
        yield Unit(self.unit, f"{ensemble.label}, {ensemble.observed} observations{shown}", self._compute)

    def _compute(self) -> list[Line]:
        row, ensemble, specification = self.row, self.row.ensemble, self.row.ensemble.specification
        place = {"row": self.index, "label": ensemble.label}
        keys = {**place, **asdict(ensemble), "revealed": row.revealed, "seed": row.seed}
        key = Key(row.seed).fold(specification.label)
        self.context.stop.check()
        if row.revealed > 0:
            fold = find_fold(specification.ensemble(), row.revealed, key, row.budget.effort)
            return _fold_lines(self.unit, keys, fold)
        return transition_lines(self.unit, keys, find_transition(specification.ensemble(), key, row.budget.effort))


def _fold_lines(unit: str, keys: dict[str, Any], fold: Fold) -> list[Line]:
    """Rows of kind ``fold``: whether two states coexist, from where to where, and where they are equally likely."""
    values: dict[str, float] = {"survives": fold.survives, "resolution": fold.resolution}
    for name in ("dynamic", "crossing", "spinodal"):
        threshold = getattr(fold, name)
        if threshold is not None:
            values |= {f"{name}_c": threshold.value, f"{name}_c_error": threshold.error}
    lines = [Line(unit, name, Sums.single(value), {"kind": "fold", **keys}) for name, value in values.items()]
    return lines + curve_lines(unit, keys, fold.curve)
