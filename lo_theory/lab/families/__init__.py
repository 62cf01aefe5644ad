"""Families of problems side by side: what a masked model lacks, what belief propagation lacks, what an order knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.lab.families.row import Reference, Row
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
        return True

    def content(self) -> Mapping[str, Any]:
        return {**plain(self.row), "problem": self.distribution.fingerprint()}

    def check(self) -> None:
        from lo_theory.lab.families.work import check_exact

        self.row.check_fits(self.distribution.layout)
        check_exact(self.row, self.distribution)

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        from lo_theory.lab.families.work import RowWork

        return RowWork(index, self.row, self.distribution, context).units()


def _tables(experiment: Experiment, rows: Sequence[Line]) -> list[Table]:
    from lo_theory.lab.families.tables import tables

    return tables(experiment, rows)


def _figures(experiment: Experiment, rows: Sequence[Line]) -> Mapping[str, Figure]:
    from lo_theory.lab.families.figure import make_figure

    return {"figure": make_figure(experiment, rows)}


TASK = Task(Row, Reference, _Prepared, _tables, _figures)
