"""Table 1 of the paper: accuracy of generated observations, by denoiser, policy and number of steps."""

from __future__ import annotations

from lo_theory.lab.table1.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
