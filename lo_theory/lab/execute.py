"""Run an experiment from its configuration to its table and figure, or find that it is finished.

Names the run folder, fixes what is recorded once (threads, device), computes what is missing, and writes the files that
are made for reading: table.csv, table.md, figure.png, figure.pdf.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.runs import FinishedRun, Run
from lo_theory.lab.task import TASKS, Prepared
from lo_theory.lab.units import Context, Options, Progress, Unit
from lo_theory.lab.workers import Job, Stop, run_jobs

__all__ = ["Request", "available_processors", "execute", "processor", "versions", "write_outputs"]

_PACKAGES = ("lo_theory", "numpy", "scipy", "numba", "torch", "safetensors")


@dataclass(frozen=True)
class Request:
    """Where and how to run.

    ``workers`` units of work at a time (None: as many as fit the processors, or 1 on another device), each with
    ``threads`` torch threads (None: what the run recorded, or 1; several pay only for large networks on idle machines).
    ``command`` is recorded, nothing more.
    """

    out: Path
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    command: str = ""
    checkpoint_seconds: float = 15.0

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def available_processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_version(name: str) -> str:
    """Version of an installed package; "not installed" for a checkout that runs without having been installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _PACKAGES}}


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def execute(experiment: Experiment, request: Request, progress: Progress) -> FinishedRun:
    """Compute what is missing of an experiment, and return the finished run; a finished one costs no work.

    Errors: ValueError for a problem that cannot be made, settings that do not fit it, a folder in use, or a thread
    count other than the recorded one; OSError if the folder cannot be written or fills up, in which case what was
    computed is kept.
    """
    prepared = [TASKS[experiment.task]().prepare(row) for row in experiment.rows]
    folder = request.out / experiment.experiment / experiment.identity([row.content() for row in prepared])
    if (folder / "done.json").exists():
        return FinishedRun(folder)
    for i, row in enumerate(prepared):
        try:
            row.check()
        except ValueError as error:
            raise ValueError(f"rows[{i}].{error}") from error
    facts = {"threads": request.threads or 1, "device": _device(prepared, request.device)}
    with Run(folder, experiment.to_mapping(), facts) as run:
        if not run.done:  # another process may have finished it before the lock was ours
            options = _options(run, request)
            run.log("session", command=request.command, workers=options.workers, **run.facts)
            _compute(prepared, run, options, progress)
            write_outputs(folder, experiment, run.rows)
            facts = {
                "versions": versions(),
                "processor": processor(),
                "system": platform.system(),
                "workers": options.workers,
                "command": request.command,
            }
            run.finish(facts)
    return FinishedRun(folder)


def _device(prepared: Sequence[Prepared], name: str) -> str:
    if name == "auto" and not any(row.trains for row in prepared):
        return "cpu"  # without loading torch
    from lo_theory.lab.training import choose_device

    return choose_device(name)


def _options(run: Run, request: Request) -> Options:
    """The recorded threads and device of a run that goes on; other ones asked for would give other weights."""
    threads, device = int(run.facts["threads"]), str(run.facts["device"])
    for name, asked, recorded in (("threads", request.threads, threads), ("device", request.device, device)):
        if asked not in (None, "auto", recorded):
            raise ValueError(
                f"{run.folder} was begun with {name} = {recorded}, and going on with {asked} would give other weights: "
                f"give --{name} {recorded} or none, or another --out"
            )
    fitting = max(1, available_processors() // threads) if device == "cpu" else 1
    return Options(request.workers or fitting, threads, device, request.checkpoint_seconds)


def _compute(prepared: Sequence[Prepared], run: Run, options: Options, progress: Progress) -> None:
    """Compute the units whose rows are missing, long trainings first; each unit's rows go to disk as it is done."""
    stop = Stop()
    context = Context(run, options, progress, stop)
    units = [unit for i, row in enumerate(prepared) for unit in row.units(i, context)]
    missing = sorted((unit for unit in units if unit.name not in run.units), key=lambda unit: -unit.cost)
    progress.begin(len(units), len(missing))

    def job(unit: Unit) -> Job:
        def compute() -> None:
            began = time.perf_counter()
            progress.start(unit.label)
            rows = unit.compute()
            stop.check()
            run.append(rows)
            seconds = time.perf_counter() - began
            run.log("unit", unit=unit.name, unit_seconds=round(seconds, 3))
            progress.finish(unit.label, seconds)

        return Job(unit.name, compute, unit.needs)

    run_jobs([job(unit) for unit in missing], min(options.workers, max(1, len(missing))), stop)
    run.sort([unit.name for unit in units])


def write_outputs(folder: Path, experiment: Experiment, rows: list[Any]) -> None:
    """Write table.csv, table.md, figure.png and figure.pdf into the run folder, each whole or not at all."""
    from lo_theory.lab.figures import write_figures
    from lo_theory.lab.render import write_tables
    from lo_theory.lab.tables import tables

    write_tables(folder, tables(experiment, rows), rows)
    write_figures(folder, experiment, rows)
