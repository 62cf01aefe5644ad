"""Tidy rows: what a run measured, one quantity a line, in a file that survives a kill at any byte.

A row is ``{"unit": ..., keys ..., "metric": ..., "n": ..., "sum": ..., "squared_deviations": ...}``: statistics of
one value per sequence (see ``Sums``), so that rows with the same keys add. The rows of one *unit* of work (one decoding
cell, one evaluation) are appended together and closed by an empty line; at the next open whatever follows the last
empty line is cut off and its unit computed again, so a row is there once or not at all. A quantity that does not add
over sequences (a largest z-score) is one value of one run: n = 1. May touch the one file it was given.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lo_theory.diffusion.statistics import Sums
from lo_theory.problem.storage import write_atomically

__all__ = ["STATISTICS", "Row", "Rows", "read_rows", "read_sums"]

STATISTICS = ("n", "sum", "squared_deviations")
"""What a row holds of its values, under the names of columns; older rows have ``sum_of_squares`` for the last."""


def read_sums(line: Mapping[str, Any]) -> Sums:
    """The statistics of a row or a line of CSV, in its present form or the older one. ValueError if one is missing."""
    older = "sum_of_squares" in line and STATISTICS[2] not in line
    names = (*STATISTICS[:2], "sum_of_squares") if older else STATISTICS
    if missing := [name for name in names if line.get(name) is None]:
        raise ValueError(f"a row needs n, sum and squared_deviations: {missing[0]} is missing")
    n, total, spread = int(line[names[0]]), float(line[names[1]]), float(line[names[2]])
    return Sums.from_squares(n, total, spread) if older else Sums(n, total, spread)


@dataclass(frozen=True)
class Row:
    """One measured quantity of one unit of work: ``keys`` say of what, ``metric`` which quantity, ``sums`` how much."""

    unit: str
    metric: str
    sums: Sums
    keys: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON; numbers that are not finite are written as strings, which JSON can hold."""
        sums = (self.sums.n, self.sums.total, self.sums.deviations)
        numbers = [value if math.isfinite(value) else str(value) for value in sums]
        line = {"unit": self.unit, **self.keys, "metric": self.metric, **dict(zip(STATISTICS, numbers, strict=True))}
        return json.dumps(line, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Read back what ``to_json`` wrote; ValueError otherwise."""
        keys = json.loads(line)
        if not isinstance(keys, dict) or not {"unit", "metric"} <= keys.keys():
            raise ValueError("a row needs unit, metric, n, sum and squared_deviations")
        sums = read_sums(keys)
        for name in (*STATISTICS, "sum_of_squares"):
            keys.pop(name, None)
        return cls(keys.pop("unit"), keys.pop("metric"), sums, keys)


def _whole_units(content: bytes, path: Path) -> tuple[list[Row], int]:
    """The rows of the closed units and the number of bytes they take."""
    end = content.rfind(b"\n\n") + 2
    if end == 1:
        return [], 0
    rows = []
    for number, line in enumerate(content[:end].decode().splitlines(), start=1):
        try:
            if line:
                rows.append(Row.from_json(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is damaged ({error}): remove the file to compute its rows again"
            ) from error
    return rows, end


def read_rows(path: Path) -> list[Row]:
    """Read the rows of every finished unit, changing nothing; none where the file is absent."""
    try:
        return _whole_units(path.read_bytes(), path)[0]
    except (FileNotFoundError, NotADirectoryError):
        return []


class Rows:
    """The rows file of a run that this process alone may write (the run's lock sees to that)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self.rows, end = _whole_units(path.read_bytes(), path)
            os.ftruncate(self._descriptor, end)
        except BaseException:
            self.close()
            raise
        self.units = {row.unit for row in self.rows}

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows of one unit to disk, all or none; ValueError if the unit is there already."""
        fresh = list(rows)
        units = {row.unit for row in fresh}
        if len(units) != 1 or units & self.units:
            raise ValueError(f"append takes the rows of one new unit, got {sorted(units)}")
        content = "".join(f"{row.to_json()}\n" for row in fresh).encode() + b"\n"
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
            os.fsync(self._descriptor)
        except BaseException:
            os.ftruncate(self._descriptor, end)  # needs no space
            raise
        self.rows += fresh
        self.units |= units

    def sort(self, units: Sequence[str]) -> None:
        """Rewrite the file in the order of ``units``, so that it does not tell in which order they were computed."""
        places = {unit: i for i, unit in enumerate(units)}
        self.rows.sort(key=lambda row: places.get(row.unit, len(places)))
        parts = itertools.groupby(self.rows, key=lambda row: row.unit)
        content = "".join("".join(f"{row.to_json()}\n" for row in part) + "\n" for _, part in parts).encode()
        write_atomically(self._path, lambda file: file.write(content))
        os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
