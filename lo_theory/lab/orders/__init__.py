"""Figure 2, left, on data whose floor is known: nats above it against training compute, by reading order and masked."""

from __future__ import annotations

from lo_theory.lab.orders.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK"]

TASK = Task(__name__, Row, Reference)
