"""Pooling of cells that differ only in what is to be averaged over, such as the seed. Touches nothing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from lo_theory.diffusion.statistics import Estimate, Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.kinds import is_share
from lo_theory.lab.rows import Row
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.table import Column, Table

__all__ = ["POOLED", "RUN", "between_cells", "common_settings", "grid_table", "group_cells", "pooled_keys"]

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
