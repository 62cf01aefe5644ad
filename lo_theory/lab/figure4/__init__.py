"""Figure 4 of the paper: the overlap that belief propagation reaches on planted problems, against the degree."""

from __future__ import annotations

from lo_theory.lab.figure4.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
