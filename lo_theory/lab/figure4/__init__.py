"""Figure 4 of the paper: the overlap that belief propagation reaches on planted problems, against the degree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.figure4.row import Prepared, Reference, Row
from lo_theory.lab.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.render import Table
    from lo_theory.lab.rows import Row as Line

__all__ = ["TASK"]


def _tables(experiment: Experiment, rows: Sequence[Line]) -> list[Table]:
    from lo_theory.lab.figure4.tables import tables

    return tables(experiment, rows)


def _figures(experiment: Experiment, rows: Sequence[Line]) -> Mapping[str, Figure]:
    from lo_theory.lab.figure4.figure import make_figure

    return {"figure": make_figure(experiment, rows)}


TASK = Task(Row, Reference, Prepared, _tables, _figures)
