"""Rows as tidy CSV, and back: what a published folder keeps of its rows, and from which its figure can be drawn again.

Reads only what it is given.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from typing import Any

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.rows import STATISTICS, Row, read_sums
from lo_theory.lab.summary import Measured

__all__ = ["from_csv", "to_csv"]


def to_csv(rows: Iterable[Row]) -> str:
    """All rows as tidy CSV: one quantity a line, its keys, statistics, mean and 95 % interval, in full."""
    items = list(rows)
    names = list(dict.fromkeys(name for row in items for name in row.keys))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["unit", *names, "metric", *STATISTICS, "mean", "low", "high"])
    for row in items:
        low, high = Measured({}, {row.metric: Runs.of(row.sums)}).interval(row.metric)
        limits = ["" if math.isnan(limit) else repr(limit) for limit in (low, high)]
        sums = (row.sums.n, repr(row.sums.total), repr(row.sums.deviations), repr(row.sums.mean))
        writer.writerow([row.unit, *(row.keys.get(name, "") for name in names), row.metric, *sums, *limits])
    return stream.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows that ``to_csv`` wrote; a key that a row lacks is the empty text.

    Statistics come back to the last bit; of older files, with ``sum_of_squares``, they are turned into today's. A
    column whose every value is a number, or True or False, holds such values. Errors: ValueError where a column is
    missing, a line is cut short or a statistic is no number.
    """
    lines = list(csv.DictReader(io.StringIO(text)))
    columns = list(lines[0]) if lines else []
    if lines and (missing := {"unit", "metric", *STATISTICS[:2]} - set(columns)):
        raise ValueError(f"a table of rows has the column {sorted(missing)[0]!r}: this is not one that a run wrote")
    others = {"unit", "metric", *STATISTICS, "sum_of_squares", "mean", "low", "high"}
    readers = {name: _reader([line[name] or "" for line in lines]) for name in columns if name not in others}
    rows = []
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise ValueError(f"line {number} has not as many values as there are columns")
        try:
            sums = read_sums(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        keys = {name: read(line[name]) if line[name] else "" for name, read in readers.items()}
        rows.append(Row(line["unit"], line["metric"], sums, keys))
    return rows


def _reader(values: Iterable[str]) -> Callable[[str], Any]:
    """What turns the texts of one column into values: the first form that all of them have."""
    known = [value for value in values if value]
    for read in (_truth, _number):
        try:
            for value in known:
                read(value)
        except (KeyError, ValueError):
            continue
        return read
    return str


def _truth(text: str) -> bool:
    return {"True": True, "False": False}[text]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
