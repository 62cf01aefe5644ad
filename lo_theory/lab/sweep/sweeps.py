"""Run a sweep from its grid to its results, or find that nothing is missing.

``runs/<experiment>/sweep-<task>/`` holds every cell of every grid of the experiment: a folder for each shard with its
rows (``1-of-1`` without shards), and ``cells/<id>/`` for cells that took long. Touches that folder.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.execute import Request
from lo_theory.lab.machine import processor, versions
from lo_theory.lab.rows import Row, examine, read_rows
from lo_theory.lab.runs import Run, journal
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep.cells import Cell, Shard, make_cells
from lo_theory.lab.sweep.driver import Driver, Failure, Watcher
from lo_theory.lab.sweep.grid import Grid
from lo_theory.lab.sweep.hire import CREWS, Hired, agree, hire
from lo_theory.lab.sweep.place import package_version
from lo_theory.lab.sweep.results import Results, collect, write_results
from lo_theory.lab.sweep.worker import Order

__all__ = ["Sweep", "SweepRequest", "prepare_sweep", "run_sweep", "show_sweep", "stored_rows"]


@dataclass(frozen=True)
class Sweep:
    """A grid whose cells are made: what there is to compute is known, nothing is computed."""

    grid: Grid
    experiment: Experiment
    cells: list[Cell]
    out: Path

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return self.out / self.experiment.experiment / f"sweep-{self.experiment.task}"


@dataclass(frozen=True)
class SweepRequest:
    """Where and how to compute: ``request`` as for a run, but ``workers`` are processes; which shard; what crew.

    ``crew``: ``pool``, ``serial``, or ``dask`` with the ``address`` of a scheduler or ``local``. A cell whose worker
    dies is begun ``attempts`` times in all.
    """

    request: Request
    shard: Shard = field(default_factory=Shard)
    crew: str = "pool"
    address: str = "local"
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.crew not in CREWS:
            raise ValueError(f"crew must be one of {', '.join(CREWS)}, got {self.crew!r}")
        if not self.address.strip():
            raise ValueError("--dask takes the address of a scheduler, such as tcp://host:8786, or local; got nothing")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")


def prepare_sweep(grid: Grid, out: Path) -> Sweep:
    """Make the cells of a grid. Errors: ValueError naming a cell that cannot be made, before any work."""
    experiment, points = grid.expand()
    return Sweep(grid, experiment, make_cells(experiment, points), out)


def _parts(sweep: Sweep) -> list[Path]:
    return sorted(sweep.folder.glob("*-of-*/"))


def stored_rows(sweep: Sweep) -> dict[str, list[Row]]:
    """Rows of all finished cells by their ids, whoever computed them; of a cell that is there twice the first."""
    found: dict[str, list[Row]] = {}
    for part in _parts(sweep):
        fresh: dict[str, list[Row]] = {}
        for row in read_rows(part / "rows.jsonl"):
            fresh.setdefault(row.unit, []).append(row)
        found = fresh | found
    return found


def run_sweep(sweep: Sweep, request: SweepRequest, watcher: Watcher) -> list[Failure]:
    """Compute the cells of a shard that are missing; return those that failed.

    Errors: ValueError if another driver holds the shard, for other threads or another device than those it was begun
    with, or if no cluster answers; OSError if the disk is full or the cluster is lost: what was computed is kept.
    """
    own = [cell for cell in sweep.cells if request.shard.has(cell)]
    # Whole cells only; of damage in a part its driver says what is wrong as it opens it, and ``stored_rows`` to all.
    there = {row.unit for part in _parts(sweep) for row in examine(part / "rows.jsonl").rows}
    if all(cell.id in there for cell in own):
        return []
    trains = any(cell.trains for cell in sweep.cells)
    hired = hire(request.crew, request.address, request.request, sweep.folder, trains=trains)
    facts = {"threads": hired.threads, "device": hired.device or "cpu"}
    with hired.crew, Run(sweep.folder / request.shard.folder, _document(sweep), facts) as run:
        agree(sweep.folder, hired)
        missing = [cell for cell in own if cell.id not in there | run.units]  # another may just have ended
        run.log("session", command=request.request.command, workers=hired.workers, crew=request.crew, **facts)
        watcher.begin(len(own), len(missing))
        seconds = request.request.checkpoint_seconds
        driver = Driver(
            run,
            hired.crew,
            lambda cell: _order(sweep, cell, hired, seconds),
            watcher,
            lambda cell: cell.trains and str(hired.device).startswith("cuda"),
            request.attempts,
        )
        failures = driver.compute(missing)
        run.sort([cell.id for cell in sweep.cells])
        run.log("end", failed=len(failures))
    return failures


def show_sweep(sweep: Sweep, command: str, *, only_complete: bool = False) -> tuple[Results, Path | None]:
    """Collect what is finished, whoever computed it, and write the run folder of the results. Computes nothing.

    Without a finished cell, or with ``only_complete`` while one is missing, nothing is written and there is no folder.
    """
    results = collect(sweep.experiment, sweep.cells, sweep.grid.pool, stored_rows(sweep))
    if not results.finished or (only_complete and not results.complete):
        return results, None
    seconds, last = _sessions(sweep)
    facts = {
        "versions": versions(),
        "processor": processor(),
        "system": platform.system(),
        "command": command,
        **{name: last.get(name) for name in ("workers", "threads", "device", "crew")},
        "cells": results.cells,
        "pool": list(sweep.grid.pool),
        "seconds": round(seconds, 1),
    }
    return results, write_results(sweep.folder.parent, results, facts)


def _sessions(sweep: Sweep) -> tuple[float, dict[str, Any]]:
    """Seconds of the sessions that computed cells of this grid, and the last of them; other grids share its folder."""
    own = {cell.id for cell in sweep.cells}
    total = 0.0
    last: dict[str, Any] = {}
    for part in _parts(sweep):
        sessions: dict[Any, list[dict[str, Any]]] = {}
        for entry in journal(part):
            sessions.setdefault(entry["session"], []).append(entry)
        for entries in sessions.values():
            if any(entry["event"] == "cell" and entry.get("cell") in own for entry in entries):
                total += max(float(entry["seconds"]) for entry in entries)
                last = next((entry for entry in entries if entry["event"] == "session"), last)
    return total, last


def _document(sweep: Sweep) -> dict[str, Any]:
    """What is kept of the sweep file: the cells themselves are told by their ids."""
    axes = [
        {path: [plain(axis.at(i)[path]) for i in range(len(axis.points))] for path in axis.paths}
        for axis in sweep.grid.axes
    ]
    return {**plain(sweep.grid.settings), "axes": axes, "pool": list(sweep.grid.pool), "set": list(sweep.grid.sets)}


def _order(sweep: Sweep, cell: Cell, hired: Hired, checkpoint_seconds: float) -> Order:
    device = hired.device if cell.trains and hired.device is not None else "cpu"
    options = {"workers": hired.workers, "threads": hired.threads, "device": device}
    options["checkpoint_seconds"] = checkpoint_seconds
    folder = (sweep.folder / "cells" / cell.id).resolve()
    return Order(cell.id, sweep.experiment.task, plain(cell.row), str(folder), options, package_version())
