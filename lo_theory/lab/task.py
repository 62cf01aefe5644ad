"""What an experiment's ``task`` names: the settings of its rows, how to compute them, how to show them.

A new kind of experiment is a package beside ``table1`` that makes a ``Task``, and one name in ``TASKS``. The entries
are functions, so that reading a configuration loads only the settings of its own task.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.drawing import styled, write_figure
from lo_theory.lab.frame import from_rows
from lo_theory.lab.prepared import Prepared
from lo_theory.lab.rows import Row

if TYPE_CHECKING:
    from pandas import DataFrame

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.panel import Sheet
    from lo_theory.lab.subject import Subject
    from lo_theory.lab.table import Table
    from lo_theory.lab.units import Unit

__all__ = ["TASKS", "Task", "sheets", "tables", "write_figures"]


@dataclass(frozen=True)
class Task:
    """A kind of experiment, kept in ``package``.

    ``row`` and ``reference`` are the frozen dataclasses that the entries of ``rows`` and the published numbers are made
    into. The package's ``work`` has ``units(subject)``: what a row computes. Its ``results`` has
    ``tables(frame, experiment)`` and ``figures(frame, experiment)``, sheets by name. They are loaded when asked for.
    """

    package: str
    row: type[Any]
    reference: type[Any]

    def prepare(self, row: Any) -> Prepared:
        """Make a row ready to compute."""
        return Prepared(row, self._units)

    def _units(self, subject: Subject) -> Iterator[Unit]:
        units: Iterator[Unit] = importlib.import_module(f"{self.package}.work").units(subject)
        return units

    @property
    def results(self) -> Any:
        """The module that says how results are shown."""
        return importlib.import_module(f"{self.package}.results")


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables of a run that have lines, in the order in which they are shown."""
    found: Iterator[Table] = TASKS[experiment.task]().results.tables(_frame(rows), experiment)
    return [table for table in found if table.lines]


def sheets(experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Sheet]:
    """All figures of a run: file name without ending -> sheet."""
    found: Mapping[str, Sheet] = TASKS[experiment.task]().results.figures(_frame(rows), experiment)
    return found


def write_figures(folder: Path, experiment: Experiment, rows: Sequence[Row]) -> list[Path]:
    """Write every figure as PNG and PDF, equal bytes for equal rows; return the paths. Loads matplotlib, no display."""
    with styled():
        figures = {name: sheet.draw() for name, sheet in sheets(experiment, rows).items()}
        return [path for name, figure in figures.items() for path in write_figure(folder, name, figure)]


def _frame(rows: Sequence[Row]) -> DataFrame:
    return from_rows(sorted(rows, key=lambda row: int(row.keys.get("row", 0))))


def _load(name: str) -> Task:
    task: Task = importlib.import_module(f"lo_theory.lab.{name}").TASK
    return task


TASKS: Mapping[str, Callable[[], Task]] = {
    name: functools.partial(_load, name)
    for name in ("table1", "thresholds", "figure4", "figure2", "orders", "families", "hardness", "recipes", "ratio")
}
"""Every task by the name that configurations use: the name of its package."""
