"""What one row of the table of thresholds computes: one transition, or one fold with some latents revealed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lo_theory.lab.ensembles import curve_lines, single, transition_lines
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.thresholds.row import Row
from lo_theory.lab.units import Context, Unit
from lo_theory.rng import Key
from lo_theory.thresholds import Fold, find_fold, find_transition

__all__ = ["make_unit"]


def make_unit(index: int, row: Row, context: Context) -> Unit:
    """The row's only unit: 30 to 60 seconds on one core at the default budget."""
    ensemble, specification = row.ensemble, row.ensemble.specification
    name = f"row{index}/thresholds"
    keys = {"row": index, "label": ensemble.label, **asdict(ensemble), "revealed": row.revealed, "seed": row.seed}
    key = Key(row.seed).fold(specification.label)

    def compute() -> list[Line]:
        context.stop.check()
        if row.revealed > 0:
            fold = find_fold(specification.ensemble(), row.revealed, key, row.budget.effort)
            return _fold_lines(name, keys, fold)
        return transition_lines(name, keys, find_transition(specification.ensemble(), key, row.budget.effort))

    shown = f", {100 * row.revealed:g} % of the latents revealed" if row.revealed else ""
    return Unit(name, f"{ensemble.label}, {ensemble.observed} observations{shown}", compute)


def _fold_lines(unit: str, keys: dict[str, Any], fold: Fold) -> list[Line]:
    """Rows of kind ``fold``: whether two states coexist, from where to where, and where they are equally likely."""
    values: dict[str, float] = {"survives": fold.survives, "resolution": fold.resolution}
    for name in ("dynamic", "crossing", "spinodal"):
        threshold = getattr(fold, name)
        if threshold is not None:
            values |= {f"{name}_c": threshold.value, f"{name}_c_error": threshold.error}
    lines = [Line(unit, name, single(value), {"kind": "fold", **keys}) for name, value in values.items()]
    return lines + curve_lines(unit, keys, fold.curve)
