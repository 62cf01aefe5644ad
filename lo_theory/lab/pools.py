"""Where the engine's jobs are computed, apart from the calling thread: threads, local processes, a Dask cluster.

The one file that loads ``distributed``. Starts processes, and ends its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType

from lo_theory.lab.engine import Job, Pool, Result, Stop, attempt

__all__ = ["Threads"]

_SECONDS_TO_END = 10.0


class Threads(Pool):
    """Threads of this process: for work in compiled code, which releases the interpreter's lock.

    After an error the others are asked to stop, and waited for, for ten seconds.
    """

    def __init__(self, workers: int, stop: Stop) -> None:
        self._workers, self._stop, self._executor = workers, stop, ThreadPoolExecutor(workers)
        self._running: dict[Future[Result], Job] = {}

    def capacity(self, gpu: bool) -> int:
        """See Pool."""
        return self._workers

    def submit(self, job: Job) -> None:
        """See Pool."""
        self._running[self._executor.submit(attempt, job.work, here=True)] = job

    def wait(self, timeout: float | None = None) -> Sequence[tuple[Job, Result]]:
        """See Pool."""
        done = wait(self._running, timeout, FIRST_COMPLETED).done
        return [(self._running.pop(future), future.result()) for future in done]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        wait(self._running, _SECONDS_TO_END)
