"""Who computes the cells of a sweep: the driver itself, or a pool of local processes. A cluster is in ``cluster``.

Every crew stands on a ``concurrent.futures.Executor``; nothing above it knows which. Starts processes, ends its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from threading import Thread
from types import TracebackType
from typing import Protocol

from lo_theory.lab.sweep.worker import Order, Report, begin, compute, thread_settings
from lo_theory.lab.workers import Stop

__all__ = ["Crew", "LocalCrew", "SerialCrew"]

_SECONDS_TO_END = 5.0  # a worker in the middle of a call that lets nobody else run


class Crew(Protocol):
    """A context manager that computes cells; what is under way when it is left is given up."""

    def capacity(self, gpu: bool) -> int:
        """Cells that it takes at a time, of those that need a GPU or of the others. May change."""

    def submit(self, order: Order, gpu: bool) -> Future[Report]:
        """Begin a cell. BrokenExecutor in the future: its worker died; any other error: it cannot be computed."""

    def __enter__(self) -> Crew:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is under way."""


class SerialCrew:
    """The driver's own process, one cell after the other, in one thread."""

    def __init__(self) -> None:
        self._executor, self._stop = ThreadPoolExecutor(1), Stop()

    def capacity(self, gpu: bool) -> int:
        """See Crew."""
        return 1

    def submit(self, order: Order, gpu: bool) -> Future[Report]:
        """See Crew."""
        return self._executor.submit(compute, order, self._stop)

    def __enter__(self) -> SerialCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Lay settings over the environment while a process starts, which takes them over before it loads anything."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Hand:
    """One worker process, begun when there is work, begun anew when it died; its death costs no other cell anything."""

    def __init__(self, work: Callable[[Order], Report], threads: int, device: str | None) -> None:
        self._work, self._threads, self._device = work, threads, device
        self._executor: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._future: Future[Report] | None = None

    @property
    def idle(self) -> bool:
        """Whether it takes a cell."""
        return self._future is None or self._future.done()

    def submit(self, order: Order) -> Future[Report]:
        """Begin a cell."""
        try:
            self._future = self._submit(order)
        except BrokenExecutor:  # it died since it was last heard of
            self.end()
            self._future = self._submit(order)
        return self._future

    def _submit(self, order: Order) -> Future[Report]:
        if self._executor is None:
            # Spawn and never fork: threads and CUDA do not survive a fork.
            context = multiprocessing.get_context("spawn")
            watched, self._lifeline = context.Pipe(duplex=False)
            settings = (self._threads, watched, self._device)
            self._executor = ProcessPoolExecutor(1, mp_context=context, initializer=begin, initargs=settings)
        with _environment(thread_settings(self._threads)):
            return self._executor.submit(self._work, order)

    def end(self) -> Thread:
        """Let go of the process, which ends at once; the thread returned waits until it has."""
        if self._lifeline is not None:
            self._lifeline.close()
        wait = (lambda: None) if self._executor is None else self._executor.shutdown
        self._executor = self._lifeline = None
        last = Thread(target=wait, daemon=True)
        last.start()
        return last


class LocalCrew:
    """``workers`` processes on this machine, each with ``threads`` threads, and one for each of ``devices``.

    ``devices``: values of CUDA_VISIBLE_DEVICES, one for each process that computes cells on a GPU. Processes begin with
    their first cell (two to three seconds). ``work`` is what they do, a function that can be imported.
    """

    def __init__(
        self,
        workers: int,
        threads: int,
        devices: Sequence[str] = (),
        work: Callable[[Order], Report] = compute,
    ) -> None:
        self._hands = {
            False: [_Hand(work, threads, None) for _ in range(workers)],
            True: [_Hand(work, threads, device) for device in devices],
        }

    def capacity(self, gpu: bool) -> int:
        """See Crew."""
        return len(self._hands[gpu])

    def submit(self, order: Order, gpu: bool) -> Future[Report]:
        """See Crew."""
        hand = next((hand for hand in self._hands[gpu] if hand.idle), None)
        if hand is None:
            raise ValueError(f"all {self.capacity(gpu)} workers have a cell: wait for one of them")
        return hand.submit(order)

    def __enter__(self) -> LocalCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for last in [hand.end() for hands in self._hands.values() for hand in hands]:
            last.join(_SECONDS_TO_END)
