"""Families of problems side by side: what a masked model lacks, what belief propagation lacks, what an order knows."""

from __future__ import annotations

from lo_theory.lab.families.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
