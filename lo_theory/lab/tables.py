"""The tables of a finished run, whatever its task."""

from __future__ import annotations

from collections.abc import Sequence

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row
from lo_theory.lab.table import Shown
from lo_theory.lab.task import load_task

__all__ = ["tables"]


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Shown]:
    """All tables of a run that have rows."""
    return [table for table in load_task(experiment.task).tables(experiment, rows) if any(table.sections)]
