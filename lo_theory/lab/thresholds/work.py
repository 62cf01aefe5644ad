"""What one row of the table of thresholds computes: one transition, or one fold with some latents revealed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from lo_theory.lab import measures
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.units import Unit
from lo_theory.thresholds import find_fold, find_transition

__all__ = ["units"]


def units(s: Subject) -> Iterator[Unit]:
    """The only unit of a row: 30 to 60 seconds on one core at the default budget."""
    row, ensemble = s.row, s.row.ensemble
    s = s.named("", label=ensemble.label, **asdict(ensemble), revealed=row.revealed, seed=row.seed)
    key = s.key.fold(ensemble.specification.label)

    def compute() -> list[Finding]:
        s.context.stop.check()
        if row.revealed > 0:
            fold = find_fold(ensemble.specification.ensemble(), row.revealed, key, row.budget.effort)
            return measures.fold(fold, {}) + measures.curve(fold.curve, {})
        found = find_transition(ensemble.specification.ensemble(), key, row.budget.effort)
        return measures.transition(found, {}) + measures.curve(found.curve, {})

    shown = f", {100 * row.revealed:g} % of the latents revealed" if row.revealed else ""
    yield s.unit("thresholds", f"{ensemble.label}, {ensemble.observed} observations{shown}", compute)
