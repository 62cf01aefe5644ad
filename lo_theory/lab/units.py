"""Units of work: what a run computes, keeps and repeats as a whole; how they compute; and who sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import ArrayLike

from lo_theory.lab.engine import Stop
from lo_theory.lab.rows import Row as Line
from lo_theory.posterior import Marginals, Posterior
from lo_theory.problem import Layout

if TYPE_CHECKING:
    from lo_theory.lab.training import Learner

__all__ = ["Context", "Folder", "Options", "Progress", "Unit", "Watched"]


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


class Progress(Protocol):
    """Who sees how a run advances."""

    def say(self, text: Callable[[], str]) -> None:
        """Show a line, which is made only where somebody sees it."""

    def begin(self, units: int, missing: int) -> None:
        """``missing`` of ``units`` units are to be computed."""

    def start(self, label: str) -> None:
        """A unit begins."""

    def training(self, label: str, step: int, steps: int, values: Mapping[str, Any]) -> None:
        """A training step: the trainer's values, and the lines ``floor`` and ``marginals_only``."""

    def finish(self, label: str, seconds: float) -> None:
        """A unit is on disk."""


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
    progress: Progress
    stop: Stop


@dataclass(frozen=True)
class Unit:
    """A unit of work: its name in the rows file, what a screen shows, what computes its rows, what it needs.

    ``learner``: the network that it trains. ``cost``: units with larger ones begin first; of a training its tokens.
    ``forwards``: sequences that it sends through the network of the training it needs, to estimate what that takes.
    """

    name: str
    label: str
    compute: Callable[[], list[Line]]
    needs: frozenset[str] = frozenset()
    cost: int = 0
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
