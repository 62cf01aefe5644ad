"""Training recipes side by side: gap closed against operations and against seconds, until which the floor is near."""

from __future__ import annotations

from lo_theory.lab.recipes.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
