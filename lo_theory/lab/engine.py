"""The engine of runs and sweeps: jobs in a graph, computed by a pool, each result kept as soon as it is there.

A job is a unit of a run or a cell of a sweep. This process alone keeps results and decides what comes next; a pool
(``pools``) computes. Touches nothing itself.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from lo_theory.lab.rows import Row


class Cancelled(Exception):
    """Raised inside a job that is to stop because another failed or the user said so."""


class Stop:
    """A flag that long jobs ask now and then."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask all jobs to stop."""
        self._event.set()

    def check(self) -> None:
        """Raise Cancelled if jobs are to stop."""
        if self._event.is_set():
            raise Cancelled


@dataclass(frozen=True)
class Job:
    """A name, what to call it on a screen, what computes its rows, and the names of the jobs that it needs.

    Jobs of large ``cost`` begin first (a training: its tokens). ``gpu``: whether it needs one. ``work`` alone is sent
    to another process.
    """

    name: str
    label: str
    work: Callable[[], Iterable[Row]]
    needs: frozenset[str] = frozenset()
    cost: int = 0
    gpu: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a job: its rows, or the error; seconds it took; whether its worker died.

    ``number`` is that of an error of the system, such as a full disk; ``cause`` is the error itself, where the job was
    computed in this process.
    """

    rows: tuple[Row, ...] = ()
    seconds: float = 0.0
    error: str = ""
    trace: str = ""
    number: int | None = None
    cause: Exception | None = None
    died: bool = False


def failure(error: Exception, seconds: float = 0.0, *, here: bool = False) -> Result:
    """The result of a job that raised ``error``; ``here``: in this process."""
    text, number = f"{type(error).__name__}: {' '.join(str(error).split())}", getattr(error, "errno", None)
    return Result((), seconds, text, "".join(traceback.format_exception(error)), number, error if here else None)


def attempt(work: Callable[[], Iterable[Row]], *, here: bool = False) -> Result:
    """Do the work of a job; an error becomes a part of the result. ``here``: in the process that wants the result."""
    began = time.perf_counter()
    try:
        rows = tuple(work())
    except Exception as error:
        return failure(error, time.perf_counter() - began, here=here)
    return Result(rows, time.perf_counter() - began)


class Pool(Protocol):
    """What computes jobs: a context manager, which gives up what is under way when it is left."""

    def capacity(self, gpu: bool) -> int:
        """Jobs that it takes at a time, of those that need a GPU or of the others. May change."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job, no more than there is capacity for."""
        ...

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """Wait until a job ends, and return those that have; none after ``timeout``, or if the capacity may be new."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Serial(Pool):
    """One job after the other in the calling thread, while it waits."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()

    def capacity(self, gpu: bool) -> int:
        """See Pool."""
        return 1

    def submit(self, job: Job) -> None:
        """See Pool."""
        self._waiting.append(job)

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """See Pool."""
        if timeout is not None or not self._waiting:
            return ()
        job = self._waiting.popleft()
        return [(job, attempt(job.work, here=True))]


class Keeper:
    """What is done with results. This one keeps nothing, and the first error ends all."""

    def start(self, job: Job) -> None:
        """A job begins."""

    def keep(self, job: Job, result: Result) -> None:
        """A job is done: bring its rows to the disk."""

    def again(self, job: Job, count: int) -> None:
        """The worker of a job died, for the ``count``-th time."""

    def fail(self, job: Job, result: Result) -> None:
        """A job failed. What needs it will not begin; an error raised here ends all."""
        if result.cause is None:
            raise RuntimeError(f"{job.label}: {result.error}")
        result.cause.add_note(f"in {job.label}")
        raise result.cause


def run_jobs(jobs: Sequence[Job], pool: Pool, keeper: Keeper, attempts: int = 3) -> None:
    """Compute all jobs, each once what it needs is kept; a need that is not among the jobs counts as met.

    A job whose worker dies is begun again, ``attempts`` times in all, and then fails. Errors: what ``keeper`` raises;
    RuntimeError if workers die one after the other; ValueError for jobs that need each other in a circle.
    """
    engine = _Engine(jobs, pool, keeper, attempts)
    try:
        engine.run()
    except (KeyboardInterrupt, SystemExit):
        engine.keep_what_arrived()
        raise


class _Engine:
    def __init__(self, jobs: Sequence[Job], pool: Pool, keeper: Keeper, attempts: int) -> None:
        self._pool, self._keeper, self._attempts = pool, keeper, attempts
        self._jobs = {job.name: job for job in jobs}
        self._places = {name: i for i, name in enumerate(self._jobs)}
        self._graph = TopologicalSorter({name: job.needs & self._jobs.keys() for name, job in self._jobs.items()})
        self._graph.prepare()
        self._ready: dict[bool, list[tuple[int, int, int, str]]] = {False: [], True: []}  # heaps, by need of a GPU
        self._running: Counter[bool] = Counter()
        self._ended: deque[tuple[Job, Result]] = deque()
        self._deaths: Counter[str] = Counter()
        self._deaths_in_a_row = 0

    def run(self) -> None:
        while True:
            self._submit()  # before results are kept, so that workers need not wait for the disk
            while self._ended:
                self._settle(*self._ended.popleft())
            self._submit()  # what these results let begin
            if not self._running.total() and not any(self._ready.values()):
                return
            for job, result in self._pool.wait():
                self._running[job.gpu] -= 1
                self._ended.append((job, result))

    def keep_what_arrived(self) -> None:
        """Keep the results that an interrupt overtook."""
        with contextlib.suppress(OSError):
            self._ended += self._pool.wait(0.0)
        for job, result in self._ended:
            if not result.error and not result.died:
                self._keeper.keep(job, result)

    def _add(self, job: Job) -> None:
        """Let a job begin: those of dead workers last, expensive ones first."""
        heapq.heappush(self._ready[job.gpu], (self._deaths[job.name], -job.cost, self._places[job.name], job.name))

    def _submit(self) -> None:
        for name in self._graph.get_ready():
            self._add(self._jobs[name])
        for gpu, ready in self._ready.items():
            while ready and self._running[gpu] < self._pool.capacity(gpu):
                job = self._jobs[heapq.heappop(ready)[-1]]
                self._keeper.start(job)
                self._pool.submit(job)
                self._running[gpu] += 1

    def _settle(self, job: Job, result: Result) -> None:
        if result.died:
            self._died(job)
            return
        self._deaths_in_a_row = 0
        if result.error:
            self._keeper.fail(job, result)
        else:
            self._keeper.keep(job, result)
            self._graph.done(job.name)

    def _died(self, job: Job) -> None:
        self._deaths_in_a_row += 1
        self._deaths[job.name] += 1
        count = self._deaths[job.name]
        self._keeper.again(job, count)
        if self._deaths_in_a_row > self._attempts * (self._pool.capacity(False) + self._pool.capacity(True) + 1):
            raise RuntimeError(
                f"{self._deaths_in_a_row} workers in a row died before they had finished a cell: too little memory, or "
                "a script that begins a sweep outside of `if __name__ == '__main__'`? What was computed is kept"
            )
        if count < self._attempts:
            self._add(job)
        else:
            self._keeper.fail(job, Result(error=f"its worker died {count} times (killed, or out of memory?)"))
