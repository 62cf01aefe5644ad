"""What an experiment's ``task`` names: a module with the settings of its rows, what they compute, how it is shown.

A module has ``Row`` (a frozen dataclass), ``units(subject)``, ``tables(frame, experiment)`` and
``figures(frame, experiment)``, and may have ``Reference`` (published numbers) and ``KINDS`` (kinds of rows).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lo_theory.lab.prepared import Prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.rows import Row
    from lo_theory.lab.table import Shown

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True)
class NoReference:
    """An experiment without published numbers."""


@dataclass(frozen=True)
class Task:
    """A kind of experiment, kept in a module."""

    module: ModuleType

    @property
    def row(self) -> type[Any]:
        """The settings of a row."""
        row: type[Any] = self.module.Row
        return row

    @property
    def reference(self) -> type[Any]:
        """Published numbers that a file may give, to be shown beside ours."""
        reference: type[Any] = getattr(self.module, "Reference", NoReference)
        return reference

    def prepare(self, row: Any) -> Prepared:
        """Make a row ready to compute."""
        return Prepared(row, self.module.units)

    def tables(self, experiment: Experiment, rows: Sequence[Row]) -> list[Shown]:
        """All tables of finished rows, in the order in which they are shown."""
        return list(self.module.tables(_frame(rows), experiment))

    def figures(self, experiment: Experiment, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """All figures of finished rows: file name without ending -> figure."""
        return {name: sheet.draw() for name, sheet in self.module.figures(_frame(rows), experiment).items()}


def _frame(rows: Sequence[Row]) -> DataFrame:
    from lo_theory.lab.frame import from_rows

    return from_rows(sorted(rows, key=lambda row: int(row.keys.get("row", 0))))


def _load(name: str) -> Task:
    return Task(importlib.import_module(f"lo_theory.lab.experiments.{name}"))


TASKS: Mapping[str, Callable[[], Task]] = {
    name: functools.partial(_load, name)
    for name in ("table1", "thresholds", "figure4", "figure2", "orders", "families", "hardness", "recipes", "ratio")
}
"""Every task by the name that configurations use: the name of its module."""
