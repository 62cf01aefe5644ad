"""Table 1 of the paper: accuracy of generated observations, by denoiser, policy and number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lo_theory.lab.prepared import ProblemRow
from lo_theory.lab.table1.row import Reference, Row
from lo_theory.lab.task import Task

__all__ = ["TASK", "TableRow"]


@dataclass(frozen=True)
class TableRow(ProblemRow):
    """A row of Table 1. Its content tells the contexts of its losses, the problem's own, from the older ones."""

    def content(self) -> Mapping[str, Any]:
        """All that decides the row's result; ``losses`` counts the ways in which their contexts have been drawn."""
        return {**super().content(), **({"losses": 2} if self.trains else {})}


TASK = Task(__name__, Row, Reference, TableRow)
