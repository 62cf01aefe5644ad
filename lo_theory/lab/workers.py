"""Units of work on several threads: each as soon as what it needs is done, none twice, the first error stops all.

Threads, not processes: the work is in compiled code that releases the interpreter's lock, one process has one writer,
and a kill leaves no orphans behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lo_theory.lab.engine import Cancelled, Stop

__all__ = ["Cancelled", "Job", "Stop", "run_jobs"]

_SECONDS_TO_STOP = 10.0


@dataclass(frozen=True)
class Job:
    """A name, what runs, and the names of the jobs that must be done first."""

    name: str
    run: Callable[[], None]
    needs: frozenset[str] = field(default_factory=frozenset)


class _Queue:
    """Jobs in order of preference, handed out as they become ready."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = list(jobs)
        self.undone = {job.name for job in jobs}
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def take(self) -> Job | None:
        """The first ready job; waits for one; None when nothing is left or something failed."""
        with self.changed:
            while True:
                if self.error is not None or not self.waiting:
                    return None
                ready = next((job for job in self.waiting if not job.needs & self.undone), None)
                if ready is not None:
                    self.waiting.remove(ready)
                    return ready
                self.changed.wait()

    def settle(self, job: Job, error: BaseException | None) -> None:
        """Note that a job is done, or failed."""
        with self.changed:
            if error is None:
                self.undone.discard(job.name)
            elif self.error is None or isinstance(self.error, Cancelled):
                self.error = error
            self.changed.notify_all()

    def work(self, stop: Stop) -> None:
        """Do jobs until there are none."""
        while (job := self.take()) is not None:
            try:
                job.run()
            except BaseException as error:  # handed to the thread that waits
                stop.set()
                self.settle(job, error)
            else:
                self.settle(job, None)


def run_jobs(jobs: Sequence[Job], workers: int, stop: Stop) -> None:
    """Do all jobs, ``workers`` at a time, preferring the first; a need that is not among the jobs counts as met.

    Raises the first error, once the others have stopped (or ten seconds later). One worker works in the calling thread.
    """
    queue = _Queue(jobs)
    if workers == 1:
        queue.work(stop)
    else:
        threads = [threading.Thread(target=queue.work, args=(stop,), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # short, so that signals are met
        except BaseException:
            stop.set()
            with queue.changed:
                queue.waiting.clear()
                queue.changed.notify_all()
            for thread in threads:
                thread.join(_SECONDS_TO_STOP)
            raise
    if queue.error is not None:
        raise queue.error
