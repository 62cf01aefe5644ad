"""Units of work, which a run computes, keeps and repeats as a whole; how, and on what machine, they compute."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import ArrayLike

from lo_theory.lab.engine import Job, Stop
from lo_theory.lab.rows import Row as Line
from lo_theory.posterior import Marginals, Posterior
from lo_theory.problem import Layout

if TYPE_CHECKING:
    from lo_theory.lab.progress import SilentProgress
    from lo_theory.lab.training import Learner


@dataclass(frozen=True)
class Options:
    """How to compute: units of work at a time, torch threads for each, torch device, time between checkpoints."""

    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    checkpoint_seconds: float = 15.0

    @property
    def rows_at_once(self) -> int:
        """Rows that go through a network at once: on a processor so few that the activations stay in its cache."""
        return 128 if self.device == "cpu" else 1024

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"the time between checkpoints must not be negative, got {self.checkpoint_seconds}")


class Folder(Protocol):
    """What units need of the run, or of the cell of a sweep, that they belong to."""

    @property
    def folder(self) -> Path:
        """Where checkpoints go; it exists."""
        ...

    @property
    def rows(self) -> list[Line]:
        """Rows of all units that are done."""
        ...

    @property
    def units(self) -> set[str]:
        """Names of all units that are done."""
        ...

    def append(self, rows: list[Line]) -> None:
        """Keep the rows of a unit."""
        ...

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the journal."""
        ...

    def sync_journal(self) -> None:
        """Bring the journal to the disk."""
        ...


@dataclass(frozen=True)
class Context:
    """What every unit of a run shares: the run's folder, how to compute, who sees it, and whether to stop."""

    run: Folder
    options: Options
    progress: SilentProgress
    stop: Stop


@dataclass(frozen=True)
class Unit(Job):
    """A unit of work: a job of the engine, whose name is that of its rows in the rows file.

    ``learner``: the network that it trains. ``forwards``: sequences that it sends through the network of the training
    it needs, to estimate what that takes.
    """

    forwards: int = 0
    learner: Learner | None = None


@dataclass(frozen=True)
class Watched:
    """A posterior that answers as the one inside it does, until work is to stop."""

    inner: Posterior
    stop: Stop

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.inner.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """See Posterior; Cancelled if work is to stop."""
        self.stop.check()
        return self.inner.marginals(tokens)  # type: ignore[arg-type]


_PACKAGES = ("lo_theory", "numpy", "scipy", "numba", "torch", "safetensors")


def available_processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_version(name: str) -> str:
    """Version of an installed package; "not installed" for a checkout that runs without having been installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _PACKAGES}}


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> dict[str, Any]:
    """What a finished run records of where it was computed."""
    return {"versions": versions(), "processor": processor(), "system": platform.system()}
