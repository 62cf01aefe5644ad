"""The table of thresholds: dynamic, condensation and Kesten-Stigum, beside published values, with side information."""

from __future__ import annotations

from lo_theory.lab.task import Task
from lo_theory.lab.thresholds.row import NoReference, Row

__all__ = ["TASK"]

TASK = Task(__name__, Row, NoReference)
