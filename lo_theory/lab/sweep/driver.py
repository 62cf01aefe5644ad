"""The driver of a sweep: hands out the cells that are missing, keeps their rows, and survives whatever they do.

One driver at a time holds a shard; it alone writes that shard's rows file, a cell at a time, all or none. Touches the
sweep's folder.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from lo_theory.lab.runs import Run
from lo_theory.lab.sweep.cells import Cell
from lo_theory.lab.sweep.crews import Crew
from lo_theory.lab.sweep.worker import Order, Report

__all__ = ["Driver", "Failure", "Watcher"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LARGEST_TRACE = 20_000  # characters of a traceback that the journal keeps


class Watcher(Protocol):
    """Who is told how a sweep gets on."""

    def begin(self, units: int, missing: int) -> None:
        """``missing`` of ``units`` cells are to be computed."""

    def start(self, label: str) -> None:
        """A cell begins."""

    def finish(self, label: str, seconds: float) -> None:
        """A cell is on disk."""

    def again(self, label: str) -> None:
        """The worker of a cell died; the cell waits to be begun again."""

    def fail(self, label: str, error: str) -> None:
        """A cell failed."""


@dataclass(frozen=True)
class Failure:
    """A cell that failed, and why."""

    cell: Cell
    error: str


@dataclass
class Driver:
    """Computes cells with a crew and keeps their rows in a run folder.

    A cell whose worker dies is begun again, ``attempts`` times in all. ``order`` says what to send to a worker.
    """

    run: Run
    crew: Crew
    order: Callable[[Cell], Order]
    watcher: Watcher
    needs_gpu: Callable[[Cell], bool]
    attempts: int = 3
    failures: list[Failure] = field(default_factory=list)
    _under_way: dict[Future[Report], Cell] = field(default_factory=dict)
    _attempts: dict[str, int] = field(default_factory=dict)
    _deaths_in_a_row: int = 0

    def compute(self, cells: Sequence[Cell]) -> list[Failure]:
        """Compute all cells; return those that failed. OSError if the disk is full or the cluster is gone."""
        try:
            return self._compute(cells)
        except (KeyboardInterrupt, SystemExit):
            for future in [future for future in self._under_way if future.done()]:
                self._settle(future, self._under_way.pop(future))  # what arrived with the signal is kept too
            raise

    def _compute(self, cells: Sequence[Cell]) -> list[Failure]:
        kinds = (False, True)
        waiting = {gpu: deque(cell for cell in cells if self.needs_gpu(cell) is gpu) for gpu in kinds}
        ended: list[Future[Report]] = []
        while True:
            for gpu in kinds:
                self._hand_out(waiting[gpu], gpu)
            for future in ended:  # after the workers have something to do again
                again = self._settle(future, self._under_way.pop(future))
                if again is not None:
                    waiting[self.needs_gpu(again)].append(again)
            if not self._under_way and not any(waiting.values()):
                return self.failures
            ended = self._ended()

    def _hand_out(self, waiting: deque[Cell], gpu: bool) -> None:
        if not waiting:
            return
        busy = sum(not future.done() and self.needs_gpu(cell) is gpu for future, cell in self._under_way.items())
        for _ in range(self.crew.capacity(gpu) - busy):
            if waiting:
                cell = waiting.popleft()
                self.watcher.start(cell.label)
                self._under_way[self.crew.submit(self.order(cell), gpu)] = cell

    def _ended(self) -> list[Future[Report]]:
        if not self._under_way:
            time.sleep(0.1)  # a cluster that has lost all its workers
            return []
        return list(wait(self._under_way, timeout=0.5, return_when=FIRST_COMPLETED).done)

    def _settle(self, future: Future[Report], cell: Cell) -> Cell | None:
        """Keep what a cell left, or note its failure; return the cell if it is to be begun again."""
        try:
            report = future.result()
        except BrokenExecutor:
            return self._begin_again(cell)
        except CancelledError as error:
            raise OSError(
                errno.ECONNRESET, "the cluster has dropped the cells under way: is its scheduler gone?"
            ) from error
        except Exception as error:  # of the crew, not of the cell
            self._fail(cell, f"{type(error).__name__}: {' '.join(str(error).split())}", "")
            return None
        self._deaths_in_a_row = 0
        if report.number in _NO_SPACE:
            raise OSError(report.number, report.error)
        if report.error:
            self._fail(cell, report.error, report.trace)
            return None
        self.run.append(list(report.rows))
        seconds = round(report.seconds, 3)
        self.run.log("cell", cell=cell.id, label=cell.label, cell_seconds=seconds)
        self.watcher.finish(cell.label, report.seconds)
        return None

    def _begin_again(self, cell: Cell) -> Cell | None:
        self._deaths_in_a_row += 1
        self._attempts[cell.id] = self._attempts.get(cell.id, 0) + 1
        count = self._attempts[cell.id]
        self.run.log("worker died", cell=cell.id, label=cell.label, attempt=count)
        workers = self.crew.capacity(False) + self.crew.capacity(True)
        if self._deaths_in_a_row > self.attempts * (workers + 1):
            raise RuntimeError(
                f"{self._deaths_in_a_row} workers in a row died before they had finished a cell: too little memory, or "
                "a script that begins a sweep outside of `if __name__ == '__main__'`? What was computed is kept"
            )
        if count >= self.attempts:
            self._fail(cell, f"its worker died {count} times (killed, or out of memory?)", "")
            return None
        self.watcher.again(cell.label)
        return cell

    def _fail(self, cell: Cell, error: str, trace: str) -> None:
        facts: dict[str, Any] = {"error": error, "trace": trace[-_LARGEST_TRACE:]}
        self.run.log("failed", cell=cell.id, label=cell.label, **facts)
        self.failures.append(Failure(cell, error))
        self.watcher.fail(cell.label, error)
