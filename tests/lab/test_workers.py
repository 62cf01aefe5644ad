from __future__ import annotations

import threading
import time

import pytest

from lo_theory.lab.workers import Cancelled, Job, Stop, run_jobs


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_job_runs_once_and_after_what_it_needs(workers: int) -> None:
    done: list[str] = []
    lock = threading.Lock()

    def job(name: str, *needs: str) -> Job:
        def run() -> None:
            time.sleep(0.001)
            with lock:
                assert set(needs) - {"elsewhere"} <= set(done)
                done.append(name)

        return Job(name, run, frozenset(needs))

    jobs = [job("e", "c", "d"), job("a", "elsewhere"), job("b", "a"), job("c", "a"), job("d", "b")]
    run_jobs(jobs, workers, Stop())
    assert sorted(done) == ["a", "b", "c", "d", "e"]


def test_jobs_run_side_by_side() -> None:
    meet = threading.Barrier(2, timeout=10)
    run_jobs([Job("a", lambda: meet.wait() and None), Job("b", lambda: meet.wait() and None)], 2, Stop())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_stops_all_and_is_raised(workers: int) -> None:
    stop, ran = Stop(), []

    def fails() -> None:
        raise ValueError("no such thing")

    def long() -> None:
        for _ in range(1000):
            stop.check()
            time.sleep(0.01)
        ran.append("long")

    jobs = [Job("fails", fails), Job("long", long), Job("never", lambda: ran.append("never"), frozenset({"fails"}))]
    with pytest.raises(ValueError, match="no such thing"):
        run_jobs(jobs, workers, stop)
    assert ran == []
    with pytest.raises(Cancelled):
        stop.check()


def test_an_interrupt_of_the_waiting_thread_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, ended = Stop(), []
    join = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", join)
        raise KeyboardInterrupt

    def long() -> None:
        try:
            while True:
                stop.check()
                time.sleep(0.001)
        finally:
            ended.append(1)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job("a", long), Job("b", long), Job("c", long)], 2, stop)
    assert ended == [1, 1]
