"""What a sweep has found so far, as the task's tables and figures take it, and as tidy CSV.

The cells of a grid become the rows of an experiment; cells that differ only in pooled paths become one row. A whole
grid is left as a finished run, ``runs/<experiment>/<id>/``, which every other command reads. Writes that folder only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lo_theory.lab.config import Experiment
from lo_theory.lab.rows import Row, digest, file_of
from lo_theory.lab.runs import FinishedRun, unwritten, write_json
from lo_theory.lab.schema import dump_yaml
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.pooling import RUN, between_cells, common_settings, grid_table, group_cells, pooled_keys
from lo_theory.lab.table import Table, write_tables
from lo_theory.lab.task import load_task, tables, write_figures
from lo_theory.problem.storage import remove_leftovers, write_atomically

__all__ = ["Results", "collect", "write_results"]


@dataclass(frozen=True)
class Results:
    """The finished cells of a grid.

    ``experiment`` has a row for each group of pooled cells (each cell, without pooling) and ``rows`` belong to it;
    ``tidy`` has every cell's rows, with the values of its axes; ``pooled`` has those of the groups.
    """

    experiment: Experiment
    cells: int
    finished: int
    rows: list[Row]
    tidy: list[Row]
    pooled: str
    grid: Table
    name: str

    @property
    def tables(self) -> list[Table]:
        """The grid, and the task's tables."""
        return [self.grid, *tables(self.experiment, self.rows)]

    @property
    def complete(self) -> bool:
        """Whether no cell is missing."""
        return self.finished == self.cells


def collect(
    experiment: Experiment, cells: Sequence[Cell], pool: Sequence[str], stored: Mapping[str, Sequence[Row]]
) -> Results:
    """Bring the stored rows of the cells of a grid into the grid's order."""
    groups = group_cells(cells, pool)
    rows: list[Row] = []
    pooled: list[tuple[str, list[Row]]] = []
    for number, group in enumerate(groups):
        there = [cell for cell in group if cell.id in stored]
        shared = pooled_keys([stored[cell.id] for cell in there]) if len(group) > 1 else {}
        for cell in there:
            run = {RUN: group.index(cell)} if len(group) > 1 else {}
            fresh = [_renamed(row, number, {**shared, **run}) for row in stored[cell.id]]
            rows += fresh
            pooled.append((cell.id, fresh))
    tidy = [_tidy(row, cell) for cell in cells for row in stored.get(cell.id, ())]
    merged = dataclasses.replace(experiment, rows=tuple(group[0].row for group in groups))
    name = experiment.identity([{"sweep": [cell.id for cell in cells], "pool": sorted(pool)}])
    grid = grid_table(groups, pool, stored)
    finished = sum(cell.id in stored for cell in cells)
    return Results(merged, len(cells), finished, rows, tidy, between_cells(pooled) if pool else "", grid, name)


def _renamed(row: Row, number: int, shared: Mapping[str, Any]) -> Row:
    """A stored row as one of row ``number`` of the experiment, with ``shared`` in place of what its keys hold."""
    keys = {name: shared.get(name, value) for name, value in row.keys.items() if name != "part"}
    keys |= {name: value for name, value in shared.items() if name == RUN}
    if "row" in keys:
        keys["row"] = number
    return Row(f"row{number}/{str(row.keys['part']).removeprefix('row0/')}", row.metric, row.sums, keys)


def _tidy(row: Row, cell: Cell) -> Row:
    """A stored row with the values of the cell's axes among its keys."""
    place = {
        path: value if isinstance(value, (str, int, float)) else json.dumps(value) for path, value in cell.point.items()
    }
    keys = {name: value for name, value in row.keys.items() if name != "part"}
    if "row" in keys:
        keys["row"] = cell.index
    return Row(f"{cell.id}/{row.keys['part']}", row.metric, row.sums, place | keys)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other driver of the sweep writes results, and keep them waiting."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_results(folder: Path, results: Results, facts: Mapping[str, Any]) -> Path:
    """Write what a finished run holds, and for pooled cells pooled.csv; done.json only where no cell is missing.

    ``facts`` go into done.json. Two drivers that end together write one after the other. Returns the run's folder.
    """
    target = folder / results.name
    try:
        _write(target, results, facts)
    except OSError as error:
        raise unwritten(target, error) from error
    return target


def _write(target: Path, results: Results, facts: Mapping[str, Any]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target / "lock"):
        if (target / "done.json").exists():
            FinishedRun(target)  # ValueError where it is damaged
            return
        remove_leftovers(target)
        contents = {
            "config.yaml": dump_yaml(common_settings(results.experiment)).encode(),
            "rows.jsonl": file_of(_by_unit(results.rows)),
        }
        source = load_task(results.experiment.task).source
        contents |= {} if source is None else {"experiment.py": source}
        for name, content in contents.items():
            write_atomically(target / name, functools.partial(_put, content))
        write_tables(target, results.tables, results.tidy)
        if results.pooled:
            write_atomically(target / "pooled.csv", lambda file: file.write(results.pooled.encode()))
        write_figures(target, results.experiment, results.rows)
        if results.complete:
            files = {name: digest(content) for name, content in contents.items()}
            write_json(target / "done.json", {**facts, "rows": len(results.rows), "files": files})


def _by_unit(rows: Sequence[Row]) -> list[Row]:
    """The same rows, those of a unit together, units in the order of appearance."""
    units: dict[str, list[Row]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row)
    return [row for unit in units.values() for row in unit]


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
