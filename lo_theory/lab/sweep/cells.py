"""Cells: what a sweep computes, each a run of one row, named by a hash of its task and of all that decides its result.

So a cell that a larger grid, other axes or more seeds have in common with an earlier sweep is found finished. A cell of
a few seconds leaves no trace on disk; a longer one, or one that trains, has a run folder of its own, ``cells/<id>/``,
with its checkpoints, and continues from there if its worker was killed. Touches that folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.engine import Job, Result
from lo_theory.lab.execute import Work
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import Run
from lo_theory.lab.schema import build
from lo_theory.lab.sweep.grid import Point, label
from lo_theory.lab.task import load_task
from lo_theory.lab.units import Options, installed_version

_SECONDS_IN_MEMORY = 3.0
_SECONDS_TO_WAIT = 10.0  # for a worker that is about to notice that its driver is gone
_FORMAT = 1  # of what is hashed


@dataclass(frozen=True)
class Cell:
    """A row of the task: its number, its id, its settings, its values on the axes, whether it trains a network."""

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
    task = load_task(experiment.task)
    cells: dict[str, Cell] = {}
    for i, (row, point) in enumerate(zip(experiment.rows, points, strict=True)):
        try:
            prepared = task.prepare(row)
            prepared.check()
            cell = Cell(i, cell_id(task.identity, prepared.content()), row, point, prepared.trains)
        except ValueError as error:
            raise ValueError(f"cell ({label(point)}): {error}") from error
        if cell.id in cells:
            twin = cells[cell.id].label
            raise ValueError(f"cells ({twin}) and ({cell.label}) have the same problem and settings: leave one out")
        cells[cell.id] = cell
    return list(cells.values())


@dataclass(frozen=True)
class Shard:
    """The cells that one of ``count`` drivers computes, known by their ids: number 1 to ``count``."""

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


# --- computing one --------------------------------------------------------------------------------------------------


class Place:
    """What the units of a cell have for their run: in memory while it is short, else a run folder. A context manager.

    The folder is made when a unit asks for it (for a checkpoint, or to log a training), or when rows that took more
    than three seconds are to be kept; what is in it already counts. ValueError if another process holds it.
    """

    def __init__(self, folder: str | Path, row: Mapping[str, Any], options: Options) -> None:
        self._folder, self._config = Path(folder), dict(row)
        self._facts = {name: value for name, value in asdict(options).items() if name in ("threads", "device")}
        self._unsaved: list[list[Row]] = []
        self._saved, self._run = time.monotonic(), self._open() if self._folder.exists() else None
        self.rows: list[Row] = [] if self._run is None else list(self._run.rows)
        """Rows of all units that are done."""

    def _open(self) -> Run:
        end = time.monotonic() + _SECONDS_TO_WAIT
        while True:
            try:
                return Run(self._folder, self._config, self._facts)
            except ValueError as error:
                if "another process" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _opened(self) -> Run:
        if self._run is None:
            self._run = self._open()
        return self._run

    @property
    def folder(self) -> Path:
        """The folder, made and held."""
        return self._opened().folder

    @property
    def units(self) -> set[str]:
        """Names of all units that are done."""
        return {row.unit for row in self.rows}

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the cell's journal."""
        self._opened().log(event, **facts)

    def sync_journal(self) -> None:
        """Bring the cell's journal to the disk."""
        self._opened().sync_journal()

    def append(self, rows: list[Row]) -> None:
        """Take the rows of a unit; they go to disk with the first that took long, all or none of a unit."""
        self.rows += rows
        self._unsaved.append(rows)
        if self._run is not None or time.monotonic() - self._saved > _SECONDS_IN_MEMORY:
            run = self._opened()
            for unit in self._unsaved:
                run.append(unit)
            self._unsaved, self._saved = [], time.monotonic()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._run is not None:
            self._run.__exit__(kind, error, trace)


class _CellWork(Work):
    def keep(self, job: Job, result: Result) -> None:
        self.run.append(list(result.rows))


def compute_cell(
    name: str, settings: Mapping[str, Any], identity: str, folder: str, options: Options, version: str
) -> Iterator[Row]:
    """Compute a cell wherever this process is; yield its rows with its id as unit and the unit's name as key ``part``.

    ``version`` is the driver's. ValueError for another one here, which would give other numbers, or another problem.
    """
    if version != (own := installed_version("lo_theory")):
        raise ValueError(f"the worker has lo_theory {own} and the driver {version}: install the same on both")
    task = load_task(name)
    prepared = task.prepare(build(task.row, settings, "row"))
    if cell_id(task.identity, prepared.content()) != identity:
        raise ValueError("the worker's problem is not the driver's: is a problem file another one there?")
    with Place(folder, settings, options) as place:
        work = _CellWork([prepared], place, options, SilentProgress())
        work.compute()
        places = {name: i for i, name in enumerate(work.names)}
        rows = sorted(place.rows, key=lambda row: places[row.unit])
    if not rows:
        raise ValueError("the cell left no rows")
    for found in rows:
        yield Row(identity, found.metric, found.sums, {"part": found.unit, **found.keys})
