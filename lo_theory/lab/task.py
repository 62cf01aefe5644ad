"""What an experiment's ``task`` names: the settings of its rows, how to compute them, how to show them.

A new kind of experiment is a package beside ``table1`` that makes a ``Task``, and one name in ``TASKS``. The entries
are functions, so that reading a configuration loads only the settings of its own task.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.lab.prepared import Prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.rows import Row
    from lo_theory.lab.subject import Subject
    from lo_theory.lab.table import Shown
    from lo_theory.lab.units import Unit

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """A kind of experiment, kept in ``package``.

    ``row`` and ``reference`` are the frozen dataclasses that the entries of ``rows`` and the published numbers are made
    into. The package's ``work`` has ``units(subject)``: what a row computes. How results are shown is in its
    ``results``: ``tables(frame, experiment)`` and ``figures(frame, experiment)``, sheets by name; or, where there is
    none yet, in ``tables.tables`` and ``figure.make_figures``. They are loaded when they are asked for.
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

    def tables(self, experiment: Experiment, rows: Sequence[Row]) -> list[Shown]:
        """All tables of finished rows, in the order in which they are shown."""
        if (results := self._results()) is not None:
            return list(results.tables(_frame(rows), experiment))
        made: list[Shown] = importlib.import_module(f"{self.package}.tables").tables(experiment, rows)
        return made

    def figures(self, experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """All figures of finished rows: file name without ending -> figure."""
        if (results := self._results()) is not None:
            return {name: sheet.draw() for name, sheet in results.figures(_frame(rows), experiment).items()}
        made: Mapping[str, Figure] = importlib.import_module(f"{self.package}.figure").make_figures(experiment, rows)
        return made

    def _results(self) -> Any:
        """The module ``results`` of an experiment that has its tables and figures as specifications, else None."""
        name = f"{self.package}.results"
        return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def _frame(rows: Sequence[Row]) -> DataFrame:
    from lo_theory.lab.frame import from_rows

    return from_rows(sorted(rows, key=lambda row: int(row.keys.get("row", 0))))


def _load(name: str) -> Task:
    task: Task = importlib.import_module(f"lo_theory.lab.{name}").TASK
    return task


TASKS: Mapping[str, Callable[[], Task]] = {
    name: functools.partial(_load, name)
    for name in ("table1", "thresholds", "figure4", "figure2", "orders", "families", "hardness", "recipes", "ratio")
}
"""Every task by the name that configurations use: the name of its package."""
