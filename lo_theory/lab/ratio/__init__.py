"""Table 1's columns over the ratio P/N: a row is one of Table 1's, with what its contexts leave open beside."""

from __future__ import annotations

from lo_theory.lab.table1.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
