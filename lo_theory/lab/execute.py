"""Run an experiment from its configuration to its table and figure, or find that it is finished.

Names the run folder, fixes what is recorded once (threads, device), computes what is missing, and writes the files that
are made for reading: table.csv, table.md, figure.png, figure.pdf.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.engine import Job, Keeper, Result, Serial, Stop, run_jobs
from lo_theory.lab.pools import Threads
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun, Followed, Run
from lo_theory.lab.task import Prepared, load_task
from lo_theory.lab.units import Context, Folder, Options, Unit, available_processors, machine
from lo_theory.problem.seams import check_threads
from lo_theory.problem.storage import write_atomically

if TYPE_CHECKING:
    from lo_theory.lab.planning import Planned
    from lo_theory.neural import Ranks


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


def execute(experiment: Experiment, request: Request, progress: SilentProgress) -> FinishedRun:
    """Compute what is missing of an experiment, and return the finished run; a finished one costs no work.

    Under torchrun this is what the first rank calls, and ``assist`` the others. Errors: ValueError for a problem that
    cannot be made, settings that do not fit it, a folder in use, or a thread count other than the recorded one;
    RuntimeError if another rank is lost; OSError if the folder cannot be written or fills up: what was computed stays.
    """
    from lo_theory.lab.planning import announcement

    prepared, folder = prepare(experiment, request)
    if (folder / "done.json").exists():
        return FinishedRun(folder)
    facts = _facts(prepared, request)
    planned = _check(prepared, Followed(folder, facts), request)
    with Run(folder, experiment.to_mapping(), facts) as run:
        keep_source(folder, experiment)
        if not run.done:  # another process may have finished it before the lock was ours
            options = _options(run, request)
            work = Work(prepared, run, options, progress)
            with team(options.device, needed=work.trains) as ranks:
                shared = {} if ranks is None else {"ranks": ranks.count}
                run.log("session", command=request.command, workers=options.workers, **shared, **run.facts)
                agree_on(ranks, options.device, folder)
                if planned and ranks is None:
                    progress.say(lambda: announcement(planned, options.workers))
                work.begin()
                if ranks is not None:
                    agree_on(ranks, options.device, folder, [unit.name for unit in work.missing])
                    work.compute(only_trainings=True)
            work.compute(options.workers)
            run.sort(work.names)
            write_outputs(folder, experiment, run.rows)
            own = load_task(experiment.task).shares
            run.finish({**machine(), "workers": options.workers, "command": request.command, **shared, **own})
    return FinishedRun(folder)


def assist(experiment: Experiment, request: Request) -> None:
    """Take part in the trainings of the run that the first rank executes; what every other rank calls.

    Returns when nothing is left to be trained. Errors as ``execute``; RuntimeError if another rank is lost.
    """
    prepared, folder = prepare(experiment, request)
    if (folder / "done.json").exists():
        return
    facts = _facts(prepared, request)
    run = Followed(folder, facts)  # as it is before the first rank opens it
    _check(prepared, run, request)
    device = str(run.facts["device"])
    with team(device, needed=any(row.trains for row in prepared)) as ranks:
        if ranks is None:
            return
        agree_on(ranks, device, folder)  # the first rank has opened the folder
        run = Followed(folder, facts)
        work = Work(prepared, run, _options(run, request), SilentProgress())
        agree_on(ranks, device, folder, [unit.name for unit in work.missing])
        work.compute(only_trainings=True)


def prepare(experiment: Experiment, request: Request) -> tuple[list[Prepared], Path]:
    """Make the rows of an experiment ready to compute, and name the folder of the run."""
    task = load_task(experiment.task)
    prepared = [task.prepare(row) for row in experiment.rows]
    return prepared, request.out / experiment.experiment / experiment.identity([row.content() for row in prepared])


def _facts(prepared: Sequence[Prepared], request: Request) -> dict[str, Any]:
    """What is recorded when a run is begun."""
    device = choose_run_device(any(row.trains for row in prepared), request.device)
    return {"threads": request.threads or 1, "device": device}


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


def keep_source(folder: Path, experiment: Experiment) -> None:
    """Keep a copy of a user's module in its run folder, ``experiment.py``: for reading, nothing runs it."""
    source = load_task(experiment.task).source
    if source is not None:
        write_atomically(folder / "experiment.py", lambda file: file.write(source))


def check_rows(prepared: Sequence[Prepared]) -> None:
    """Raise ValueError naming the row whose settings do not fit its problem."""
    for i, row in enumerate(prepared):
        try:
            row.check()
        except ValueError as error:
            raise ValueError(f"rows[{i}].{error}") from error


def choose_run_device(trains: bool, name: str) -> str:
    """The device of a run: "auto" is the CPU unless it ``trains`` a network; ValueError for one that is not here."""
    if name in ("auto", "cpu") and not trains:
        return "cpu"  # without loading torch
    from lo_theory.lab.training import choose_device

    return choose_device(name)


def recorded_fact(folder: Path, recorded: Mapping[str, Any], name: str, asked: Any) -> Any:
    """The recorded fact of a run or a sweep, else the one asked for.

    ValueError for another one than the recorded: other threads or another device would give other weights.
    """
    if name not in recorded:
        return asked
    if asked not in (None, "auto", recorded[name]):
        raise ValueError(
            f"{folder} was begun with {name} = {recorded[name]}, and going on with {asked} would give other weights: "
            f"give --{name} {recorded[name]} or none, or another --out"
        )
    return recorded[name]


def _options(run: Run | Followed, request: Request) -> Options:
    """The recorded threads and device of a run that continues."""
    threads = int(recorded_fact(run.folder, run.facts, "threads", request.threads))
    device = str(recorded_fact(run.folder, run.facts, "device", request.device))
    fitting = max(1, available_processors() // threads) if device == "cpu" else 1
    return Options(request.workers or fitting, threads, device, request.checkpoint_seconds)


class Work(Keeper):
    """The units of prepared rows, as jobs whose rows a folder keeps: of a run, or of a cell of a sweep."""

    def __init__(self, prepared: Sequence[Prepared], run: Folder, options: Options, progress: SilentProgress) -> None:
        self.run, self.progress, self.stop = run, progress, Stop()
        context = Context(run, options, progress, self.stop)
        self.units = [unit for i, row in enumerate(prepared) for unit in row.units(i, context)]
        _check_names(self.names)
        self.trains = any(row.trains for row in prepared)

    @property
    def names(self) -> list[str]:
        """Names of all units, in the order in which their rows are kept."""
        return [unit.name for unit in self.units]

    @property
    def missing(self) -> list[Unit]:
        """The units whose rows are not on disk."""
        there = self.run.units
        return [unit for unit in self.units if unit.name not in there]

    def begin(self) -> None:
        """Show what there is to do."""
        self.progress.begin(len(self.units), len(self.missing))

    def compute(self, workers: int = 1, *, only_trainings: bool = False) -> None:
        """Compute the units that are missing, ``workers`` at a time, long trainings first."""
        units = [unit for unit in self.missing if unit.cost or not only_trainings]
        workers = min(workers, len(units))
        with Threads(workers, self.stop) if workers > 1 else Serial() as pool:
            run_jobs(units, pool, self)

    def start(self, job: Job) -> None:
        """See Keeper."""
        self.progress.start(job.label)

    def keep(self, job: Job, result: Result) -> None:
        """See Keeper."""
        self.run.append(list(result.rows))
        self.run.log("unit", unit=job.name, unit_seconds=round(result.seconds, 3))
        self.progress.finish(job.label, result.seconds)


def _check_names(names: Sequence[str]) -> None:
    """Raise ValueError where two units have one name: only one of them would be computed."""
    counts = Counter(names)
    if twice := [name for name in names if counts[name] > 1]:
        raise ValueError(f"two units of work are named {twice[0]!r}: give each unit of a row a name of its own")


def write_outputs(folder: Path, experiment: Experiment, rows: list[Any]) -> None:
    """Write table.csv, table.md, figure.png and figure.pdf into the run folder, each whole or not at all."""
    from lo_theory.lab.table import write_tables
    from lo_theory.lab.task import tables, write_figures

    write_tables(folder, tables(experiment, rows), rows)
    write_figures(folder, experiment, rows)


# --- several ranks, as torchrun starts them: all train together, the first alone measures and writes ---


def _number(name: str, default: int) -> int:
    """A number that torchrun sets; the default without torchrun."""
    return int(os.environ.get(name, default)) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else default


def own_rank() -> int:
    """The number of this process among those that torchrun started; 0 without torchrun."""
    return _number("RANK", 0)


def expected_ranks() -> Ranks:
    """The ranks that torchrun started, before they have joined."""
    from lo_theory.neural import Ranks

    rank, count = own_rank(), _number("WORLD_SIZE", 1)
    return Ranks(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))


@contextmanager
def team(device: str, *, needed: bool) -> Iterator[Ranks | None]:
    """Join the other ranks for as long as there is something to train; None where there are no others."""
    if not needed or _number("WORLD_SIZE", 1) == 1:
        yield None
        return
    from lo_theory.neural import join_ranks

    with join_ranks(device) as ranks:
        yield ranks


def agree_on(ranks: Ranks | None, device: str, folder: Path, units: Sequence[str] | None = None) -> None:
    """Wait for the other ranks, once the run's folder is open and again once the missing units are known.

    ValueError if they have another run, or miss other units; RuntimeError if one is gone.
    """
    if ranks is not None:
        value = str(folder) if units is None else list(units)
        what = "the run" if units is None else "the units of work that are missing (can all read the run's folder?)"
        ranks.agree(what, value, ranks.device(device))
