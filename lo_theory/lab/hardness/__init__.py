"""The hardness map: what is left to know at each pair of mask rates, who fails to know it, and where thresholds lie."""

from __future__ import annotations

from lo_theory.lab.hardness.row import NoReference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, NoReference)
