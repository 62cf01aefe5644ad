"""Figure 2 of the paper and what it asks: losses by mask law, pattern and role, against the Bayes optimum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.lab.figure2.row import Reference, Row
from lo_theory.lab.schema import plain
from lo_theory.lab.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.render import Table
    from lo_theory.lab.rows import Row as Line
    from lo_theory.lab.units import Context, Unit
    from lo_theory.problem import LODistribution

__all__ = ["TASK"]


@dataclass(frozen=True)
class _Prepared:
    """A row and its problem; see ``Prepared``."""

    row: Row

    @cached_property
    def distribution(self) -> LODistribution:
        return self.row.problem.make()

    @property
    def trains(self) -> bool:
        return self.row.training is not None

    def content(self) -> Mapping[str, Any]:
        return {**plain(self.row), "problem": self.distribution.fingerprint()}

    def check(self) -> None:
        self.row.check_fits(self.distribution.layout)

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        from lo_theory.lab.figure2.work import RowWork

        return RowWork(index, self.row, self.distribution, context).units()


def _tables(experiment: Experiment, rows: Sequence[Line]) -> list[Table]:
    from lo_theory.lab.figure2.tables import tables

    return tables(experiment, rows)


def _figures(experiment: Experiment, rows: Sequence[Line]) -> Mapping[str, Figure]:
    from lo_theory.lab.figure2.figure import make_figures

    return make_figures(experiment, rows)


TASK = Task(Row, Reference, _Prepared, _tables, _figures)
