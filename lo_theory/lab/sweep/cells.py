"""Cells: what a sweep computes, each named by a hash of its task and of all that decides its result.

So a cell that a larger grid, other axes or more seeds have in common with an earlier sweep is found finished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.sweep.axes import Point, label
from lo_theory.lab.task import TASKS

__all__ = ["Cell", "Shard", "cell_id", "make_cells"]

_FORMAT = 1  # of what is hashed


@dataclass(frozen=True)
class Cell:
    """A row of the task: its place in the grid, its id, its settings, where it stands, whether it trains a network."""

    index: int
    id: str
    row: Any
    point: Point
    trains: bool

    @property
    def label(self) -> str:
        """Its name on a screen."""
        return label(self.point)


def cell_id(task: str, content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits from the task and the content of a prepared row."""
    named = {"format": _FORMAT, "task": task, "content": content}
    canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def make_cells(experiment: Experiment, points: Sequence[Point]) -> list[Cell]:
    """Prepare every row of an expanded grid, check that it fits its problem, and let the problem go.

    Costs the making of each problem. Errors: ValueError naming the cell that cannot be made, or two that are the same.
    """
    prepare = TASKS[experiment.task]().prepare
    cells: dict[str, Cell] = {}
    for i, (row, point) in enumerate(zip(experiment.rows, points, strict=True)):
        try:
            prepared = prepare(row)
            prepared.check()
            cell = Cell(i, cell_id(experiment.task, prepared.content()), row, point, prepared.trains)
        except ValueError as error:
            raise ValueError(f"cell ({label(point)}): {error}") from error
        if cell.id in cells:
            twin = cells[cell.id].label
            raise ValueError(f"cells ({twin}) and ({cell.label}) have the same problem and settings: leave one out")
        cells[cell.id] = cell
    return list(cells.values())


@dataclass(frozen=True)
class Shard:
    """The cells that one of ``count`` drivers computes, told by their ids: number 1 to ``count``."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"--shard takes i/n with i from 1 to n, got {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/8``."""
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if match is None:
            raise ValueError(f"--shard takes i/n, such as 1/8, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    @property
    def folder(self) -> str:
        """Name of the folder of its rows."""
        return f"{self.number}-of-{self.count}"

    def has(self, cell: Cell) -> bool:
        """Whether it computes a cell; of all shards of one count exactly one does."""
        return int(cell.id, 16) % self.count == self.number - 1
