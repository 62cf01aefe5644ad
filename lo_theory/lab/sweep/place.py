"""Where a cell is computed: in memory while it is short, else in a run folder of its own. Touches that folder only."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from lo_theory.lab.rows import Row
from lo_theory.lab.runs import Run
from lo_theory.lab.units import Options
from lo_theory.lab.workers import Stop

__all__ = ["CellStop", "Place", "package_version"]

_SECONDS_IN_MEMORY = 3.0
_SECONDS_TO_WAIT = 10.0  # for a worker that is about to notice that its driver is gone


@functools.cache
def package_version() -> str:
    """Version of this package."""
    return metadata.version("lo_theory")


class CellStop(Stop):
    """The flag of one cell, which its own errors set; set too once ``outer``, which all cells share, is."""

    def __init__(self, outer: Stop | None) -> None:
        super().__init__()
        self._outer = outer

    def check(self) -> None:
        """Raise Cancelled if the cell, or all of them, are to stop."""
        if self._outer is not None:
            self._outer.check()
        super().check()


class Place:
    """What the units of a cell take for their run: ``folder``, ``rows``, ``log``; a context manager.

    The folder is made when a unit asks for it (for a checkpoint, or to log a training), or when rows that took more
    than three seconds are to be kept; one that is there is gone on with. ValueError if another process holds it.
    """

    def __init__(self, folder: str | Path, row: Mapping[str, Any], options: Options) -> None:
        self._folder, self._config = Path(folder), dict(row)
        self._facts = {name: value for name, value in asdict(options).items() if name in ("threads", "device")}
        self._unsaved: list[list[Row]] = []
        self._saved, self._run = time.monotonic(), self._open() if self._folder.exists() else None
        self._rows: list[Row] = [] if self._run is None else list(self._run.rows)

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
    def rows(self) -> list[Row]:
        """Rows of all units that are done."""
        return self._rows

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the cell's journal."""
        self._opened().log(event, **facts)

    def sync_journal(self) -> None:
        """Bring the cell's journal to the disk."""
        self._opened().sync_journal()

    def keep(self, rows: list[Row]) -> None:
        """Take the rows of a unit; they go to disk with the first that took long, all or none of a unit."""
        self._rows += rows
        self._unsaved.append(rows)
        if self._run is not None or time.monotonic() - self._saved > _SECONDS_IN_MEMORY:
            run = self._opened()
            for unit in self._unsaved:
                run.append(unit)
            self._unsaved, self._saved = [], time.monotonic()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.__exit__(kind, error, trace)
