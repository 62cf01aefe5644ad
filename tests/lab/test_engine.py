"""The engine with pools that do what is asked of them: graphs, errors, deaths, full disks, interrupts."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.engine import Cancelled, Job, Keeper, Pool, Result, Serial, Stop, attempt, failure, run_jobs
from lo_theory.lab.pools import Threads
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import Run, journal
from lo_theory.lab.sweep.sweeps import Cells
from tests.lab.grids import a_row


def pool_of(workers: int, stop: Stop) -> Pool:
    return Threads(workers, stop) if workers > 1 else Serial()


class Kept(Keeper):
    """Keeps names in memory, and notes what was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.names: list[str] = []

    def start(self, job: Job) -> None:
        self.begun.append(job.name)

    def keep(self, job: Job, result: Result) -> None:
        assert [row.unit for row in result.rows] == [job.name]
        self.names.append(job.name)


def job(name: str, *needs: str, cost: int = 0, work: Callable[[], object] = lambda: None) -> Job:
    def compute() -> Iterable[Row]:
        work()
        yield Row(name, "x", Sums.single(1.0))

    return Job(name, name.upper(), compute, frozenset(needs), cost)


# --- in this process --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_job_runs_once_and_when_what_it_needs_is_kept(workers: int) -> None:
    kept = Kept()

    def needing(name: str, *needs: str) -> Job:
        def work() -> None:
            time.sleep(0.001)
            assert set(needs) - {"elsewhere"} <= set(kept.names)

        return job(name, *needs, work=work)

    jobs = [needing("e", "c", "d"), needing("a", "elsewhere"), needing("b", "a"), needing("c", "a"), needing("d", "b")]
    stop = Stop()
    with pool_of(workers, stop) as pool:
        run_jobs(jobs, pool, kept)
    assert sorted(kept.names) == sorted(kept.begun) == ["a", "b", "c", "d", "e"]
    stop.check()
    with pytest.raises(ValueError, match="cycle"):
        run_jobs([job("a", "b"), job("b", "a")], Serial(), kept)


def test_long_jobs_begin_first_and_jobs_run_side_by_side() -> None:
    kept, meet = Kept(), threading.Barrier(2, timeout=10)
    jobs = [job("a"), job("b"), job("c", cost=1, work=meet.wait), job("d", cost=2, work=meet.wait)]
    with Threads(2, Stop()) as pool:
        run_jobs(jobs, pool, kept)
    assert kept.begun == ["d", "c", "a", "b"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_stops_all_and_is_raised(workers: int) -> None:
    stop, kept = Stop(), Kept()

    def fails() -> None:
        raise ValueError("no such thing")

    def long() -> None:
        for _ in range(1000):
            stop.check()
            time.sleep(0.01)

    jobs = [job("fails", work=fails), job("long", work=long), job("never", "fails")]
    began = time.monotonic()
    with pytest.raises(ValueError, match="no such thing"), pool_of(workers, stop) as pool:
        run_jobs(jobs, pool, kept)
    assert time.monotonic() - began < 5, "the long job is not waited for, nor one that no thread has taken"
    assert kept.names == []
    assert "never" not in kept.begun
    if workers > 1:
        with pytest.raises(Cancelled):
            stop.check()


def test_an_interrupt_of_the_waiting_thread_stops_the_others_and_keeps_what_arrived() -> None:
    stop, ended, done = Stop(), [], threading.Event()

    class Interrupted(Threads):
        def wait(self, timeout: float | None = None) -> Any:
            if timeout is None:
                assert done.wait(10)
                time.sleep(0.05)  # the result of what is done is there
                raise KeyboardInterrupt
            return super().wait(timeout)

    def long() -> None:
        try:
            while True:
                stop.check()
                time.sleep(0.001)
        finally:
            ended.append(1)

    kept = Kept()
    with pytest.raises(KeyboardInterrupt), Interrupted(3, stop) as pool:
        run_jobs([job("a", work=done.set), job("b", work=long), job("c", work=long), job("d")], pool, kept)
    assert ended == [1, 1]
    assert kept.names == ["a"]
    assert "d" not in kept.begun


# --- cells whose workers die, and other mishaps -----------------------------------------------------------------------------------

CELLS = [Job(f"{i:016x}", f"seed={i}", lambda i=i: [a_row(f"{i:016x}")], gpu=i % 3 == 0) for i in range(12)]  # type: ignore[misc]


class ScriptedPool(Serial):
    """Ends jobs out of order; ``fate`` says of each attempt at a job what becomes of it."""

    def __init__(
        self, fate: Callable[[str, int], Any] = lambda name, count: None, room: tuple[int, int] = (2, 1)
    ) -> None:
        self.fate, self.room = fate, room
        self.begun: list[str] = []
        self.open: list[Job] = []
        self.most = {False: 0, True: 0}

    def capacity(self, gpu: bool) -> int:
        return self.room[gpu]

    def submit(self, job: Job) -> None:
        self.open.append(job)
        self.begun.append(job.name)
        self.most[job.gpu] = max(self.most[job.gpu], sum(one.gpu is job.gpu for one in self.open))

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Result]]:
        if not self.open:
            assert self.room == (0, 0), "a wait for jobs that were not submitted would never end"
            return []
        job = self.open.pop(len(self.begun) % len(self.open))
        outcome = self.fate(job.name, self.begun.count(job.name))
        if isinstance(outcome, BaseException):
            raise outcome
        return [(job, outcome or attempt(job.work))]


DEATH = Result(died=True)


def drive(folder: Path, pool: Pool) -> list[tuple[str, str]]:
    with Run(folder, {}, {}) as run:
        keeper = Cells(run, SilentProgress())
        run_jobs([cell for cell in CELLS if cell.name not in run.units], pool, keeper)
    return [(failure.label, failure.error) for failure in keeper.failures]


def stored(folder: Path) -> list[str]:
    return [row.unit for row in read_rows(folder / "rows.jsonl")]


def entries(folder: Path, event: str) -> list[dict[str, Any]]:
    return [entry for entry in journal(folder) if entry["event"] == event]


NAMES = [cell.name for cell in CELLS]


def test_every_cell_is_stored_once_in_whatever_order_they_end(tmp_path: Path) -> None:
    pool = ScriptedPool()
    assert drive(tmp_path, pool) == []
    assert sorted(stored(tmp_path)) == sorted(pool.begun) == NAMES != stored(tmp_path)
    assert pool.most == {False: 2, True: 1}  # no more at a time than the pool takes of each kind
    assert len(entries(tmp_path, "cell")) == 12


def test_a_cell_whose_worker_dies_is_begun_again_and_given_up_after_three_times(tmp_path: Path) -> None:
    fatal, weak = NAMES[4], NAMES[7]
    fates = ScriptedPool(lambda name, count: DEATH if name == fatal or (name == weak and count < 3) else None)
    assert drive(tmp_path, fates) == [("seed=4", "its worker died 3 times (killed, or out of memory?)")]
    assert sorted(stored(tmp_path)) == [name for name in NAMES if name != fatal]
    assert sorted(entry["cell"] for entry in entries(tmp_path, "worker died")) == [fatal] * 3 + [weak] * 2


def test_workers_that_all_die_end_the_sweep(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda name, count: DEATH)
    with pytest.raises(RuntimeError, match=r"workers in a row died before they had finished a cell"):
        drive(tmp_path, pool)
    assert len(pool.begun) < 20


def test_a_failing_cell_stops_no_other_and_is_logged_with_its_trace(tmp_path: Path) -> None:
    wrong = Result(error="ValueError: no such thing", trace="Traceback ...")
    fates = {NAMES[1]: wrong, NAMES[2]: failure(RuntimeError("cannot be sent\nthere"))}
    failures = drive(tmp_path, ScriptedPool(lambda name, count: fates.get(name)))
    assert sorted(failures) == [
        ("seed=1", "ValueError: no such thing"),
        ("seed=2", "RuntimeError: cannot be sent there"),
    ]
    assert len(stored(tmp_path)) == 10
    assert {entry["label"]: entry["trace"] for entry in entries(tmp_path, "failed")}["seed=1"] == "Traceback ..."


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Result(error="OSError: full", number=errno.ENOSPC), r"no space is left on the disk.*is kept in"),
        (OSError(errno.ECONNRESET, "the cluster is lost"), r"stopped \(the cluster is lost.*is kept in"),
    ],
)
def test_a_full_disk_or_a_lost_cluster_stops_the_sweep(tmp_path: Path, outcome: Any, complaint: str) -> None:
    with pytest.raises(OSError, match=complaint):
        drive(tmp_path, ScriptedPool(lambda name, count: outcome if name == NAMES[5] else None))
    kept = stored(tmp_path)
    assert 0 < len(set(kept)) == len(kept) < 12
    assert drive(tmp_path, Serial()) == []
    assert sorted(stored(tmp_path)) == NAMES


def test_a_pool_without_workers_is_waited_for(tmp_path: Path) -> None:
    class Late(ScriptedPool):
        looks = 0

        def wait(self, timeout: float | None = None) -> list[tuple[Job, Result]]:
            ended = super().wait(timeout)
            self.looks += 1
            self.room = (0, 0) if self.looks < 3 else (1, 1)
            return ended

    assert drive(tmp_path, Late(room=(0, 0))) == []
    assert sorted(stored(tmp_path)) == NAMES
