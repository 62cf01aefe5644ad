"""Figure 2 of the paper and what it asks: losses by mask law, pattern and role, against the Bayes optimum."""

from __future__ import annotations

from lo_theory.lab.figure2.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
