"""Run a sweep from its grid to its results, or find that nothing is missing.

``runs/<experiment>/sweep-<task>/`` holds every cell of every grid of the experiment: a folder for each shard with its
rows (``1-of-1`` without shards), and ``cells/<id>/`` for cells that took long. One driver at a time holds a shard and
alone writes its rows, a cell at a time, all or none. Touches that folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.engine import Job, Keeper, Pool, Result, Serial, run_jobs
from lo_theory.lab.execute import Request, choose_run_device, recorded_fact
from lo_theory.lab.pools import Dask, Processes
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row, examine, read_rows
from lo_theory.lab.runs import NO_SPACE, Run, journal, read_json, write_json
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep.cells import Cell, Shard, compute_cell, make_cells
from lo_theory.lab.sweep.grid import Grid
from lo_theory.lab.sweep.results import Results, collect, write_results
from lo_theory.lab.units import Options, available_processors, installed_version, machine

_POOLS = ("pool", "serial", "dask")
_LARGEST_TRACE = 20_000  # characters of a traceback that the journal keeps


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
        return self.out / self.experiment.experiment / f"sweep-{Path(self.experiment.task).stem}"

    @property
    def trains(self) -> bool:
        """Whether any cell trains a network."""
        return any(cell.trains for cell in self.cells)

    @property
    def parts(self) -> list[Path]:
        """The folders of the shards that are there."""
        return sorted(self.folder.glob("*-of-*/"))


@dataclass(frozen=True)
class SweepRequest(Request):
    """Where and how to compute: as for a run, but ``workers`` are processes; which shard; in which pool.

    ``pool``: ``pool`` for local processes, ``serial`` for none, or ``dask`` with the ``address`` of a scheduler or
    ``local``. A cell whose worker dies is begun ``attempts`` times in all.
    """

    shard: Shard = field(default_factory=Shard)
    pool: str = "pool"
    address: str = "local"
    attempts: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool not in _POOLS:
            raise ValueError(f"pool must be one of {', '.join(_POOLS)}, got {self.pool!r}")
        if not self.address.strip():
            raise ValueError("--dask takes the address of a scheduler, such as tcp://host:8786, or local; got nothing")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")


@dataclass(frozen=True)
class Failure:
    """A cell that failed, and why."""

    label: str
    error: str


def prepare_sweep(grid: Grid, out: Path) -> Sweep:
    """Make the cells of a grid. Errors: ValueError naming a cell that cannot be made, before any work."""
    experiment, points = grid.expand()
    return Sweep(grid, experiment, make_cells(experiment, points), out)


def stored_rows(sweep: Sweep) -> dict[str, list[Row]]:
    """Rows of all finished cells by their ids, whoever computed them; of a cell that is there twice the first."""
    found: dict[str, list[Row]] = {}
    for part in sweep.parts:
        fresh: dict[str, list[Row]] = {}
        for row in read_rows(part / "rows.jsonl"):
            fresh.setdefault(row.unit, []).append(row)
        found = fresh | found
    return found


# --- computing --------------------------------------------------------------------------------------------------------


class Cells(Keeper):
    """Keeps the rows of cells in the folder of a shard; a cell that fails stops no other."""

    def __init__(self, run: Run, progress: SilentProgress) -> None:
        self.run, self.progress = run, progress
        self.failures: list[Failure] = []

    def start(self, job: Job) -> None:
        """See Keeper."""
        self.progress.start(job.label)

    def keep(self, job: Job, result: Result) -> None:
        """See Keeper."""
        self.run.append(list(result.rows))
        self.run.log("cell", cell=job.name, label=job.label, cell_seconds=round(result.seconds, 3))
        self.progress.finish(job.label, result.seconds)

    def again(self, job: Job, count: int) -> None:
        """See Keeper."""
        self.run.log("worker died", cell=job.name, label=job.label, attempt=count)
        self.progress.again(job.label)

    def fail(self, job: Job, result: Result) -> None:
        """See Keeper."""
        if result.number in NO_SPACE:
            raise OSError(result.number, result.error)
        trace = result.trace[-_LARGEST_TRACE:]
        self.run.log("failed", cell=job.name, label=job.label, error=result.error, trace=trace)
        self.failures.append(Failure(job.label, result.error))
        self.progress.fail(job.label, result.error)


def run_sweep(sweep: Sweep, request: SweepRequest, progress: SilentProgress) -> list[Failure]:
    """Compute the cells of a shard that are missing; return those that failed.

    Errors: ValueError if another driver holds the shard, for other threads or another device than those it was begun
    with, or if no cluster answers; OSError if the disk is full or the cluster is lost: what was computed is kept.
    """
    own = [cell for cell in sweep.cells if request.shard.has(cell)]
    # Whole cells only; of damage in a part its driver says what is wrong as it opens it, and ``stored_rows`` to all.
    there = {row.unit for part in sweep.parts for row in examine(part / "rows.jsonl").rows}
    if all(cell.id in there for cell in own):
        return []
    pool, options = make_pool(sweep, request)
    facts = {"threads": options.threads, "device": options.device}
    with pool, Run(sweep.folder / request.shard.folder, _document(sweep), facts) as run:
        _agree(sweep, options)
        missing = [cell for cell in own if cell.id not in there | run.units]  # another may just have ended
        run.log("session", command=request.command, workers=options.workers, crew=request.pool, **facts)
        progress.begin(len(own), len(missing))
        keeper = Cells(run, progress)
        run_jobs([_job(sweep, cell, options) for cell in missing], pool, keeper, request.attempts)
        run.sort([cell.id for cell in sweep.cells])
        run.log("end", failed=len(keeper.failures))
    return keeper.failures


def _job(sweep: Sweep, cell: Cell, options: Options) -> Job:
    device = options.device if cell.trains else "cpu"
    own = Options(options.workers, options.threads, device, options.checkpoint_seconds)
    folder, version = str((sweep.folder / "cells" / cell.id).resolve()), installed_version("lo_theory")
    work = partial(compute_cell, sweep.experiment.task, plain(cell.row), cell.id, folder, own, version)
    return Job(cell.id, cell.label, work, gpu=device.startswith("cuda"))


def make_pool(sweep: Sweep, request: SweepRequest) -> tuple[Pool, Options]:
    """The pool that a request names, not at work yet, and how it computes; the device is that of cells that train.

    Errors: ValueError for threads or a device other than the recorded ones, a device that is not there, or a cluster
    that does not answer.
    """
    recorded = _recorded(sweep)
    threads = int(recorded_fact(sweep.folder, recorded, "threads", request.threads) or 1)
    settled = str(recorded_fact(sweep.folder, recorded, "device", _kind(request.device)))
    device = settled if request.device == "auto" else request.device
    workers = request.workers or max(1, available_processors() // threads)
    pool: Pool
    if request.pool == "dask":
        if _kind(device) not in ("auto", "cpu", "cuda"):
            raise ValueError(f"cells on a cluster are computed on cpu or cuda, got the device {device!r}")
        pool = cluster = Dask(request.address, workers, threads)
        workers, device = cluster.workers, _cluster_device(cluster, _kind(device), sweep.trains)
    else:
        device = choose_run_device(sweep.trains, device)  # complains of one that is not here
        device = device if sweep.trains else "cpu"
        if request.pool == "serial":
            pool, workers = Serial(), 1
        else:
            devices = _visible_devices(device)
            pool = Processes(workers, threads, devices)
            device = "cuda" if devices else device  # a worker sees one of them only
    return pool, Options(workers, threads, device, request.checkpoint_seconds)


def _cluster_device(cluster: Dask, device: str, trains: bool) -> str:
    offers_gpu = cluster.capacity(True) > 0
    if not trains:
        return "cpu"
    if device == "cuda" and not offers_gpu:
        with cluster:
            raise ValueError(
                f"no worker of the cluster at {cluster.address} offers the resource GPU: start them with "
                "--resources GPU=1, or give --device cpu"
            )
    return ("cuda" if offers_gpu else "cpu") if device == "auto" else device


def _visible_devices(device: str) -> list[str]:
    """The GPUs to use, as CUDA_VISIBLE_DEVICES names them: all that this process sees, or the one asked for."""
    if not device.startswith("cuda"):
        return []
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
    return [names[int(device.partition(":")[2])]] if ":" in device else names


def _kind(device: str) -> str:
    """``cuda`` of ``cuda:1``: which of several GPUs it is decides nothing."""
    return device.partition(":")[0]


def _recorded(sweep: Sweep) -> dict[str, Any]:
    path = sweep.folder / "facts.json"
    remedy = "remove it, and give --threads and --device as in the log.jsonl of the sweep's parts"
    return read_json(path, remedy=remedy) if path.exists() else {}


def _agree(sweep: Sweep, options: Options) -> None:
    """Record threads and device for all drivers that come; ValueError if another was faster and has other ones."""
    facts: dict[str, Any] = {"threads": options.threads} | ({"device": _kind(options.device)} if sweep.trains else {})
    recorded = _recorded(sweep)
    for name, value in facts.items():
        recorded_fact(sweep.folder, recorded, name, value)
    if facts.items() - recorded.items():
        write_json(sweep.folder / "facts.json", recorded | facts)


def _document(sweep: Sweep) -> dict[str, Any]:
    """What is kept of the sweep file: the cells themselves are known by their ids."""
    axes = [
        {path: [plain(axis.at(i)[path]) for i in range(len(axis.points))] for path in axis.paths}
        for axis in sweep.grid.axes
    ]
    return {**plain(sweep.grid.settings), "axes": axes, "pool": list(sweep.grid.pool), "set": list(sweep.grid.sets)}


# --- showing ----------------------------------------------------------------------------------------------------------


def show_sweep(sweep: Sweep, command: str, *, only_complete: bool = False) -> tuple[Results, Path | None]:
    """Collect what is finished, whoever computed it, and write the run folder of the results. Computes nothing.

    Without a finished cell, or with ``only_complete`` while one is missing, nothing is written and there is no folder.
    """
    results = collect(sweep.experiment, sweep.cells, sweep.grid.pool, stored_rows(sweep))
    if not results.finished or (only_complete and not results.complete):
        return results, None
    seconds, last = _sessions(sweep)
    facts = {
        **machine(),
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
    for part in sweep.parts:
        sessions: dict[Any, list[dict[str, Any]]] = {}
        for entry in journal(part):
            sessions.setdefault(entry["session"], []).append(entry)
        for entries in sessions.values():
            if any(entry["event"] == "cell" and entry.get("cell") in own for entry in entries):
                total += max(float(entry["seconds"]) for entry in entries)
                last = next((entry for entry in entries if entry["event"] == "session"), last)
    return total, last
