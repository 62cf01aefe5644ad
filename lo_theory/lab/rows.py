"""Tidy rows: what a run measured, one quantity a line, in a file that survives a kill at any byte; and the same as CSV.

A row is ``{"unit": ..., keys ..., "metric": ..., "n": ..., "sum": ..., "squared_deviations": ...}``: statistics of one
value per sequence (see ``Sums``), so that rows with the same keys add. The rows of one *unit* of work (one decoding
cell, one evaluation) are appended together and closed by ``{"closed": lines, "digest": ...}`` and an empty line. At the
next open a unit without such a line, as a kill leaves one, is cut off and computed again, so a row is there once or not
at all; anything else that is wrong is damage: the file is kept aside, and the units that are whole stay. A quantity
that does not add over sequences (a largest z-score) is one value of one run: n = 1. May touch the folder of its file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lo_theory.diffusion.statistics import Runs, Sums
from lo_theory.lab.kinds import check_row, is_share
from lo_theory.problem.storage import write_atomically

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
    """One measured quantity of one unit of work: ``keys`` say of what, ``metric`` which quantity, ``sums`` how much.

    A key is a text, a number, True or False, which every form of a row gives back. Errors: ValueError for another.
    """

    unit: str
    metric: str
    sums: Sums
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.keys.items():
            if not isinstance(value, (str, int, float)):
                raise ValueError(f"the key {name} is a text, a number, True or False, got {value!r}: leave it out")

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


_CLOSING = re.compile(rb'^\{"closed": ([0-9]+), "digest": "([0-9a-f]{32})"\}\n\n', re.MULTILINE)


def digest(content: bytes) -> str:
    """32 hexadecimal digits that identify the content of a file, or of a part of one."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _closed(rows: Iterable[Row]) -> bytes:
    """The lines of one unit, and the line that closes it."""
    lines = "".join(f"{row.to_json()}\n" for row in rows).encode()
    return lines + b'{"closed": %d, "digest": "%s"}\n\n' % (lines.count(b"\n"), digest(lines).encode())


def file_of(rows: Iterable[Row]) -> bytes:
    """The content of a rows file that holds ``rows``; those of one unit follow each other."""
    return b"".join(_closed(part) for _, part in itertools.groupby(rows, key=lambda row: row.unit))


@dataclass(frozen=True)
class Contents:
    """What a rows file holds: the rows of units that are whole, the bytes up to the last of them, and what is wrong.

    ``damage`` names the first thing that no kill leaves behind, and is empty without one; ``torn``: whether the file
    ends in a unit that was being written; ``old``: whether it was written without digests.
    """

    rows: list[Row] = field(default_factory=list)
    end: int = 0
    damage: str = ""
    torn: bool = False
    old: bool = False


class _Damage(ValueError):
    """What is wrong with the lines of a unit, and with which of them, counted from 0."""

    def __init__(self, words: str, line: int = 0) -> None:
        super().__init__(words)
        self.line = line


def examine(path: Path) -> Contents:
    """Read a rows file, changing nothing; one that is absent holds nothing. Costs 10 us a row."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Contents()
    closings = list(_CLOSING.finditer(content))
    old = not closings and b"\n\n" in content
    ends = list(re.finditer(rb"(?<=\n)\n", content)) if old else closings  # an empty line closes, without a digest
    units: dict[str, list[Row]] = {}
    damage, begin = "", 0
    for place in [*ends, None]:
        lines = content[begin : None if place is None else place.start()]
        try:
            if place is None:
                _require_torn(lines)
            else:
                unit = _unit(lines, None if old else place)
                if unit[0].unit in units:
                    raise _Damage(f"the unit {unit[0].unit!r} is there twice")
                units[unit[0].unit] = unit
        except _Damage as error:
            number = content[:begin].count(b"\n") + error.line + 1
            damage = damage or f"line {number} is damaged ({error})"
        begin = begin if place is None else place.end()
    return Contents([row for unit in units.values() for row in unit], begin, damage, begin < len(content), old)


def _parsed(lines: Sequence[bytes]) -> list[Row]:
    """The rows of lines that belong to one unit."""
    rows: list[Row] = []
    for i, line in enumerate(lines):
        if line.endswith(b"\r"):
            raise _Damage("it ends as lines of Windows do", i)
        try:
            rows.append(Row.from_json(line.decode()))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _Damage(str(error), i) from error
        if not isinstance(rows[i].unit, str) or not isinstance(rows[i].metric, str):
            raise _Damage("its unit and its metric are to be texts", i)
        if rows[i].unit != rows[0].unit:
            raise _Damage(f"it belongs to {rows[i].unit!r} and the line before it to {rows[0].unit!r}", i)
    return rows


def _unit(lines: bytes, closing: re.Match[bytes] | None) -> list[Row]:
    """The rows of a closed unit; _Damage where they are not what its closing line says."""
    rows = _parsed(lines.split(b"\n")[:-1])
    if not rows:
        raise _Damage("a unit without rows")
    if closing is not None and (len(rows) != int(closing[1]) or digest(lines).encode() != closing[2]):
        raise _Damage(f"the unit {rows[0].unit!r} does not match its digest")
    return rows


def _require_torn(lines: bytes) -> None:
    """_Damage unless a kill can have left these bytes: a part of one unit that was being written."""
    *whole, _ = lines.split(b"\n")
    if whole and re.fullmatch(_CLOSING, whole[-1] + b"\n\n"):
        whole.pop()
    _parsed(whole)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of every finished unit, changing nothing; none where the file is absent, ValueError for damage."""
    contents = examine(path)
    if contents.damage:
        raise ValueError(
            f"{path}, {contents.damage}: nothing of it is shown; the command that wrote it keeps it aside and computes "
            "again what is lost"
        )
    return contents.rows


class Rows:
    """The rows file of a run that this process alone may write (the run's lock sees to that).

    Opening a damaged one raises ValueError, once: the file is kept under another name, and one with the units that
    are whole is put in its place. One without digests is written again with them.
    """

    rows: list[Row]
    units: set[str]

    def __init__(self, path: Path) -> None:
        self._path = path
        contents = examine(path)
        if contents.damage:
            kept = _keep_aside(path)
            self._write(contents.rows)
            raise ValueError(
                f"{path}, {contents.damage}: it is kept as {kept.name}, its units that are whole ({len(self.units)}) "
                "stay, and the same command computes the others again"
            )
        if contents.old:
            self._write(contents.rows)
        end = path.stat().st_size if contents.old else contents.end
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(self._descriptor, end)
            self._digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
        except BaseException:
            self.close()
            raise
        self.rows, self.units = contents.rows, {row.unit for row in contents.rows}

    def _write(self, rows: list[Row]) -> None:
        """Put a file with ``rows`` in the place of the one there is."""
        content = file_of(rows)
        write_atomically(self._path, lambda file: file.write(content))
        self._digest = hashlib.blake2b(content, digest_size=16)
        self.rows, self.units = rows, {row.unit for row in rows}

    @property
    def digest(self) -> str:
        """Digest of the whole file, as it was written."""
        return self._digest.hexdigest()

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows of one unit to disk, all or none; ValueError if the unit is there, or a row not in KINDS."""
        fresh = list(rows)
        for row in fresh:
            if "kind" in row.keys:
                check_row(row.keys, row.metric)
        units = {row.unit for row in fresh}
        if len(units) != 1 or units & self.units:
            raise ValueError(f"append takes the rows of one new unit, got {sorted(units)}")
        content = rest = _closed(fresh)
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except BaseException:
            os.ftruncate(self._descriptor, end)  # needs no space
            raise
        self._digest.update(content)
        self.rows += fresh
        self.units |= units

    def sort(self, units: Sequence[str]) -> None:
        """Rewrite the file in the order of ``units``, so that it does not tell in which order they were computed."""
        places = {unit: i for i, unit in enumerate(units)}
        self._write(sorted(self.rows, key=lambda row: places.get(row.unit, len(places))))
        os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _keep_aside(path: Path) -> Path:
    """Rename a damaged file to the first free of ``name.damaged``, ``name.damaged2``, ...; return where it is."""
    names = (path.with_name(f"{path.name}.damaged{i if i > 1 else ''}") for i in itertools.count(1))
    free = next(name for name in names if not name.exists())
    os.rename(path, free)
    return free


# --- CSV ---


def to_csv(rows: Iterable[Row]) -> str:
    """All rows as tidy CSV: one quantity a line, its keys, statistics, mean and 95 % interval, in full."""
    items = _unambiguous(list(rows))
    names = list(dict.fromkeys(name for row in items for name in row.keys))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["unit", *names, "metric", *STATISTICS, "mean", "low", "high"])
    for row in items:
        share = is_share(str(row.keys.get("kind", "")), row.metric) and row.sums.fits_share
        limits = ["" if math.isnan(limit) else repr(limit) for limit in Runs.of(row.sums).interval(share=share)]
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
