"""The engine with pools that do what is asked of them: graphs, errors, deaths, full disks, interrupts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.engine import Cancelled, Job, Keeper, Pool, Result, Serial, Stop, run_jobs
from lo_theory.lab.pools import Threads
from lo_theory.lab.rows import Row


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
    with pytest.raises(ValueError, match="no such thing"), pool_of(workers, stop) as pool:
        run_jobs(jobs, pool, kept)
    assert kept.names == []
    assert "never" not in kept.begun
    with pytest.raises(Cancelled):
        stop.check() if workers > 1 else long_enough()


def long_enough() -> None:
    raise Cancelled  # one job at a time: nothing else was under way


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
