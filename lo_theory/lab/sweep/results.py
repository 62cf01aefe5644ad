"""What a sweep has found so far, as the task's tables and figures take it, and as tidy CSV.

The cells of a grid become the rows of an experiment; cells that differ only in pooled paths, such as the seed, become
one row. A whole grid is left as a finished run, ``runs/<experiment>/<id>/``, which every other command reads. Writes
that folder only.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import functools
import io
import json
import math
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lo_theory.diffusion.statistics import Estimate, Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.kinds import is_share
from lo_theory.lab.rows import Row, digest, file_of
from lo_theory.lab.runs import FinishedRun, unwritten, write_json
from lo_theory.lab.schema import dump_yaml
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.table import Column, Table, write_tables
from lo_theory.lab.task import load_task, tables, write_figures
from lo_theory.problem.storage import remove_leftovers, write_atomically

RUN = "run"
"""The key that says of which pooled cell a row is."""

POOLED = "pooled"
"""The value shown for a key in which pooled cells differ."""


def group_cells(cells: Sequence[Cell], pool: Sequence[str]) -> list[list[Cell]]:
    """Cells that are at one point but for the paths of ``pool``, in the order of appearance."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        place = {path: value for path, value in cell.point.items() if path not in pool}
        groups.setdefault(json.dumps(place, default=str), []).append(cell)
    return list(groups.values())


def grid_table(groups: Sequence[Sequence[Cell]], pool: Sequence[str], finished: Container[str]) -> Table:
    """Where the rows of the tables are in the grid, in their order, and how many of their cells are finished."""
    paths = [path for path in groups[0][0].point if path not in pool]
    note = "In the order of the tables below." + (
        f" Pooled over {', '.join(pool)}: where cells are pooled, 95 % intervals are over them (Student's t; of a "
        "share cut at 0 and 1), and differences are taken cell by cell."
        if pool
        else ""
    )
    done = Column("finished", lambda group: f"{sum(cell.id in finished for cell in group)}/{len(group)}")
    return Table("The grid", [*map(_axis, paths), done], groups, notes=(note,))


def _axis(path: str) -> Column:
    def of(group: Sequence[Cell]) -> str:
        value = group[0].point[path]
        return value if isinstance(value, str) else json.dumps(value)

    return Column(path, of)


def _constants(rows: Sequence[Row]) -> dict[str, Any]:
    """Keys that have one value in all rows of a cell that have them."""
    values: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.keys.items():
            values.setdefault(name, set()).add(value)
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def pooled_keys(cells: Sequence[Sequence[Row]]) -> dict[str, str]:
    """Keys in which cells as wholes differ (the seed, the name of a problem), with what is shown for them."""
    constants = [_constants(rows) for rows in cells]
    names = set.intersection(*(set(found) for found in constants)) if constants else set()
    return {name: POOLED for name in sorted(names) if len({found[name] for found in constants}) > 1}


def between_cells(cells: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """CSV of pooled rows, one quantity of one group a line.

    The mean is over all sequences of all cells, with its 95 % interval over sequences; beside it the mean of the cells'
    means with its 95 % interval over cells (``Runs.interval``: Student's t, of a share cut at 0 and 1), which holds
    what differs between problems and trainings, and is the one that tables print. Empty: one cell has no such interval.
    """
    found: dict[tuple[str, str, str], tuple[Row, Runs]] = {}
    for cell, rows in cells:
        for row in rows:
            keys = {name: value for name, value in row.keys.items() if name != RUN}
            place, own = (row.unit, json.dumps(keys), row.metric), Runs({cell: row.sums})
            first, runs = found.get(place, (Row(row.unit, row.metric, row.sums, keys), Runs({})))
            found[place] = (first, runs + own)
    names = list(dict.fromkeys(name for row, _ in found.values() for name in row.keys))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = ("cells", "n", "mean", "low_over_sequences", "high_over_sequences")
    writer.writerow(["unit", *names, "metric", *numbers, "mean_of_cells", "low_over_cells", "high_over_cells"])
    for row, runs in found.values():
        share = is_share(str(row.keys.get("kind", "")), row.metric) and runs.sums.fits_share
        both = [part.estimate(share=share) for part in (Runs.of(runs.sums), runs)]
        if not runs.over_runs:
            both[1] = Estimate(runs.mean, math.nan, math.nan)
        values = (len(runs.parts), runs.n, *(_text(value) for estimate in both for value in estimate))
        writer.writerow([row.unit, *(row.keys.get(name, "") for name in names), row.metric, *values])
    return stream.getvalue()


def _text(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def common_settings(experiment: Experiment) -> dict[str, Any]:
    """The experiment as a short configuration: what all rows share once, and in each row what it has of its own."""
    whole = experiment.to_mapping()
    rows: list[Mapping[str, Any]] = whole.pop("rows")
    shared = _common(rows)
    return {**whole, **shared, "rows": [_rest(row, shared) for row in rows]}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _common(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = rows
    result: dict[str, Any] = {}
    for name, value in first.items():
        if all(name in row and _same(row[name], value) for row in others):
            result[name] = value
        elif all(isinstance(row.get(name), Mapping) for row in rows):
            below = _common([row[name] for row in rows])
            result |= {name: below} if below else {}
    return result


def _rest(row: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for name, value in row.items():
        if name not in shared:
            own[name] = value
        elif not _same(value, shared[name]):
            own[name] = _rest(value, shared[name])
    return own


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
        task = load_task(results.experiment.task)
        contents |= {} if task.source is None else {"experiment.py": task.source}
        for name, content in contents.items():
            write_atomically(target / name, functools.partial(_put, content))
        write_tables(target, results.tables, results.tidy)
        if results.pooled:
            write_atomically(target / "pooled.csv", lambda file: file.write(results.pooled.encode()))
        write_figures(target, results.experiment, results.rows)
        if results.complete:
            files = {name: digest(content) for name, content in contents.items()}
            write_json(target / "done.json", {**facts, **task.shares, "rows": len(results.rows), "files": files})


def _by_unit(rows: Sequence[Row]) -> list[Row]:
    """The same rows, those of a unit together, units in the order of appearance."""
    units: dict[str, list[Row]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row)
    return [row for unit in units.values() for row in unit]


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
