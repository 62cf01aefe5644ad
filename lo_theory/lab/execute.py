"""Run an experiment from its configuration to its table and figure, or find that it is finished.

Names the run folder, fixes what is recorded once (threads, device), computes what is missing, and writes the files that
are made for reading: table.csv, table.md, figure.png, figure.pdf.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.machine import available_processors, processor, versions
from lo_theory.lab.prepared import Prepared
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.ranked import Followed, agree_on, expected_ranks, team
from lo_theory.lab.runs import FinishedRun, Run
from lo_theory.lab.task import TASKS
from lo_theory.lab.units import Context, Options, Progress, Unit
from lo_theory.lab.workers import Job, Stop, run_jobs
from lo_theory.problem.seams import check_threads

if TYPE_CHECKING:
    from lo_theory.lab.planning import Planned

__all__ = [
    "Request",
    "assist",
    "check_rows",
    "choose_run_device",
    "execute",
    "prepare",
    "write_outputs",
]


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
            if getattr(self, name) is not None:
                check_threads(getattr(self, name), name)
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise ValueError(f"the time between checkpoints is 0 seconds or more, got {self.checkpoint_seconds}")


def execute(experiment: Experiment, request: Request, progress: Progress) -> FinishedRun:
    """Compute what is missing of an experiment, and return the finished run; a finished one costs no work.

    Under torchrun this is what the first rank calls, and ``assist`` the others. Errors: ValueError for a problem that
    cannot be made, settings that do not fit it, a folder in use, or a thread count other than the recorded one;
    RuntimeError if another rank is lost; OSError if the folder cannot be written or fills up: what was computed stays.
    """
    from lo_theory.lab.planning import announcement

    prepared, folder = prepare(experiment, request)
    if (folder / "done.json").exists():
        return FinishedRun(folder)
    facts = {"threads": request.threads or 1, "device": choose_run_device(prepared, request.device)}
    planned = _check(prepared, Followed(folder, facts), request)
    with Run(folder, experiment.to_mapping(), facts) as run:
        if not run.done:  # another process may have finished it before the lock was ours
            options = _options(run, request)
            work = _Work(prepared, run, options, progress)
            with team(options.device, needed=work.trains) as ranks:
                shared = {} if ranks is None else {"ranks": ranks.count}
                run.log("session", command=request.command, workers=options.workers, **shared, **run.facts)
                agree_on(ranks, options.device, folder)
                if planned and ranks is None:
                    progress.say(lambda: announcement(planned, options.workers))
                work.begin()
                if ranks is not None:
                    agree_on(ranks, options.device, folder, work.missing)
                    work.train_together()
            work.compute_the_rest()
            write_outputs(folder, experiment, run.rows)
            facts = {
                "versions": versions(),
                "processor": processor(),
                "system": platform.system(),
                "workers": options.workers,
                "command": request.command,
                **shared,
            }
            run.finish(facts)
    return FinishedRun(folder)


def assist(experiment: Experiment, request: Request) -> None:
    """Take part in the trainings of the run that the first rank executes; what every other rank calls.

    Returns when nothing is left to be trained. Errors as ``execute``; RuntimeError if another rank is lost.
    """
    prepared, folder = prepare(experiment, request)
    if (folder / "done.json").exists():
        return
    facts = {"threads": request.threads or 1, "device": choose_run_device(prepared, request.device)}
    run = Followed(folder, facts)  # as it is before the first rank opens it
    _check(prepared, run, request)
    device = str(run.facts["device"])
    with team(device, needed=any(row.trains for row in prepared)) as ranks:
        if ranks is None:
            return
        agree_on(ranks, device, folder)  # the first rank has opened the folder
        run = Followed(folder, facts)
        work = _Work(prepared, run, _options(run, request), SilentProgress())
        work.begin()
        agree_on(ranks, device, folder, work.missing)
        work.train_together()


def prepare(experiment: Experiment, request: Request) -> tuple[list[Prepared], Path]:
    """Make the rows of an experiment ready to compute, and name the folder of the run."""
    prepared = [TASKS[experiment.task]().prepare(row) for row in experiment.rows]
    return prepared, request.out / experiment.experiment / experiment.identity([row.content() for row in prepared])


def _check(prepared: Sequence[Prepared], run: Followed, request: Request) -> list[Planned]:
    """ValueError, before a folder is made, for settings that do not fit, and for trainings that no memory can hold.

    Returns the trainings that are missing.
    """
    check_rows(prepared)
    if not any(row.trains for row in prepared):
        return []
    from lo_theory.lab.planning import plan_trainings, require_fit

    options = _options(run, request)
    missing = [one for one in plan_trainings(prepared, run, options) if one.unit.name not in run.units]
    require_fit(missing, expected_ranks(), options.workers)
    return missing


def check_rows(prepared: Sequence[Prepared]) -> None:
    """Raise ValueError naming the row whose settings do not fit its problem."""
    for i, row in enumerate(prepared):
        try:
            row.check()
        except ValueError as error:
            raise ValueError(f"rows[{i}].{error}") from error


def choose_run_device(prepared: Sequence[Prepared], name: str) -> str:
    """The device of a run: "auto" is the CPU where nothing is trained; ValueError for one that is not here."""
    if name == "auto" and not any(row.trains for row in prepared):
        return "cpu"  # without loading torch
    from lo_theory.lab.training import choose_device

    return choose_device(name)


def _options(run: Run | Followed, request: Request) -> Options:
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


class _Work:
    """The units of a run: long trainings first; each unit's rows go to disk as it is done."""

    def __init__(self, prepared: Sequence[Prepared], run: Run | Followed, options: Options, progress: Progress) -> None:
        self.run, self.options, self.progress, self.stop = run, options, progress, Stop()
        context = Context(run, options, progress, self.stop)
        self.units = [unit for i, row in enumerate(prepared) for unit in row.units(i, context)]
        self.trains = any(row.trains for row in prepared)

    @property
    def missing(self) -> list[str]:
        """Names of the units whose rows are not on disk."""
        return [unit.name for unit in self._missing()]

    def _missing(self) -> list[Unit]:
        return sorted((unit for unit in self.units if unit.name not in self.run.units), key=lambda unit: -unit.cost)

    def begin(self) -> None:
        """Tell what there is to do."""
        self.progress.begin(len(self.units), len(self.missing))

    def train_together(self) -> None:
        """Compute the units that train, one after the other, as all ranks do at the same time."""
        self._compute([unit for unit in self._missing() if unit.cost], 1)

    def compute_the_rest(self) -> None:
        """Compute all units that are missing, several at a time, and bring the rows into the order of the units."""
        missing = self._missing()
        self._compute(missing, min(self.options.workers, max(1, len(missing))))
        if isinstance(self.run, Run):
            self.run.sort([unit.name for unit in self.units])

    def _compute(self, units: Sequence[Unit], workers: int) -> None:
        run_jobs([Job(unit.name, partial(self._unit, unit), unit.needs) for unit in units], workers, self.stop)

    def _unit(self, unit: Unit) -> None:
        began = time.perf_counter()
        self.progress.start(unit.label)
        rows = unit.compute()
        self.stop.check()
        self.run.append(rows)
        seconds = time.perf_counter() - began
        self.run.log("unit", unit=unit.name, unit_seconds=round(seconds, 3))
        self.progress.finish(unit.label, seconds)


def write_outputs(folder: Path, experiment: Experiment, rows: list[Any]) -> None:
    """Write table.csv, table.md, figure.png and figure.pdf into the run folder, each whole or not at all."""
    from lo_theory.lab.table import write_tables
    from lo_theory.lab.task import tables, write_figures

    write_tables(folder, tables(experiment, rows), rows)
    write_figures(folder, experiment, rows)
