"""Rows as tidy CSV, and back: what a published folder keeps of its rows, and from which its figure can be drawn again.

Reads only what it is given.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.rows import STATISTICS, Row, read_sums
from lo_theory.lab.summary import Measured

__all__ = ["from_csv", "to_csv"]


def to_csv(rows: Iterable[Row]) -> str:
    """All rows as tidy CSV: one quantity a line, its keys, statistics, mean and 95 % interval, in full."""
    items = _unambiguous(list(rows))
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

    Statistics come back to the last bit, keys as the values that they were: text, numbers, True and False. Statistics
    of older files, with ``sum_of_squares``, are converted. Errors: ValueError where a column is missing, a
    line is cut short or a statistic is no number.
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


def _unambiguous(rows: list[Row]) -> list[Row]:
    """The same rows, texts as JSON strings (``"12"``, in quotes) in columns where bare ones would not come back."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.keys.items():
            values.setdefault(name, []).append(value)
    quoted = {name for name, found in values.items() if _needs_quotes(found)}
    return [
        replace(row, keys={name: _quoted(value) if name in quoted else value for name, value in row.keys.items()})
        for row in rows
    ]


def _needs_quotes(values: Sequence[Any]) -> bool:
    texts = [value for value in values if isinstance(value, str) and value]
    if not texts:
        return False
    if len(texts) < len([value for value in values if value != ""]):
        return True  # beside numbers, which would be read as texts too
    return any(text.startswith('"') or not text.isprintable() for text in texts) or _scalars(texts) is not None


def _quoted(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and value else value


def _reader(values: Iterable[str]) -> Callable[[str], Any]:
    """What turns the texts of one column into values: numbers, True and False if all are such, but those in quotes."""
    bare = {value for value in values if value and not value.startswith('"')}
    scalars = _scalars(bare)
    return lambda text: json.loads(text) if text.startswith('"') else text if scalars is None else scalars[text]


def _scalars(texts: Iterable[str]) -> dict[str, Any] | None:
    """The values of texts that all are numbers, True or False as Python writes them; else None."""
    found: dict[str, Any] = {"True": True, "False": False}
    for text in texts:
        for read in (int, float):
            try:
                value: Any = read(text)
            except ValueError:
                continue
            if repr(value) == text:  # not 0100, 1_000 or 1e19, which no number is written as
                found[text] = value
                break
        if text not in found:
            return None
    return found
