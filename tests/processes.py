"""Processes that begin warm: forked from one that has loaded torch and the lab, which takes an interpreter seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from lo_theory.cli import console
from tests.figures import placeholders

__all__ = ["Process", "command", "wait_until"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [__name__, "torch._dynamo", "lo_theory.lab.experiments.table1", "lo_theory.lab.sweep.sweeps"]
)
_PATIENCE = 300.0
_STREAMS = {1: "out", 2: "error"}


def wait_until(moment: Callable[[], object], seconds: float = _PATIENCE) -> None:
    """Wait for what must come, looking every five milliseconds."""
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end
        time.sleep(0.005)


class Process:
    """A call in a process of its own, begun at once, and killed where a ``with`` on it ends. Much as ``Popen`` is.

    ``limit``: the most bytes of a file that it may write. ``environment``: laid over this one.
    """

    def __init__(
        self,
        call: Callable[..., object],
        *arguments: Any,
        limit: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        given = (self._folder.name, limit, dict(environment or {}), call, arguments)
        self._process = _CONTEXT.Process(target=_begin, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def said(self) -> tuple[str, str]:
        """What it has said until now, on standard output and on standard error."""
        paths = [Path(self._folder.name) / name for name in _STREAMS.values()]
        out, error = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths)
        return out, error

    def send_signal(self, number: int) -> None:
        """Send a signal if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.send_signal(signal.SIGKILL)
        self._process.join()

    def communicate(self, timeout: float = _PATIENCE) -> tuple[str, str]:
        """Wait for the end; see said. Errors: TimeoutError."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} seconds")
        return self.said()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()


def command(*arguments: str, figures: bool = False, **options: Any) -> Process:
    """``lo-theory`` with these arguments; ``figures``: whether it renders them."""
    return Process(_command, arguments, figures, **options)


def _command(arguments: tuple[str, ...], figures: bool) -> None:
    sys.argv = ["lo-theory", *arguments]
    with contextlib.nullcontext() if figures else placeholders():
        console()


def _begin(
    folder: str,
    limit: int | None,
    environment: Mapping[str, str],
    call: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    for descriptor, name in _STREAMS.items():
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(environment)
    if "OMP_NUM_THREADS" in environment:  # which torch has read already
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    call(*arguments)
