"""The table of thresholds: dynamic, condensation and Kesten-Stigum, beside published values, with side information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lo_theory.lab.task import Task
from lo_theory.lab.thresholds.row import NoReference, Prepared, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lo_theory.lab.config import Experiment
    from lo_theory.lab.render import Table
    from lo_theory.lab.rows import Row as Line

__all__ = ["TASK"]


def _tables(experiment: Experiment, rows: Sequence[Line]) -> list[Table]:
    from lo_theory.lab.thresholds.tables import tables

    return tables(experiment, rows)


def _figures(experiment: Experiment, rows: Sequence[Line]) -> Mapping[str, Figure]:
    from lo_theory.lab.thresholds.figure import make_figure

    return {"figure": make_figure(experiment, rows)}


TASK = Task(Row, NoReference, Prepared, _tables, _figures)
