"""What a sweep shows while it works: the lab's bars and lines over cells, with the time that is left."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from lo_theory.lab.progress import BarProgress, LineProgress, SilentProgress

__all__ = ["Clock", "SweepBars", "SweepLines", "SweepSilence", "duration", "make_watcher"]


_FEW, _RECENT = 6, 50  # cells


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Clock:
    """Estimates the time left from the rate of the last cells.

    The start of the workers and their compiling count only until a few cells have come: they do not come again.
    """

    def __init__(self, missing: int) -> None:
        self._times = deque([time.monotonic()], maxlen=_RECENT + 1)  # of the start, and at which cells settled
        self._missing, self._settled = missing, 0

    def settle(self) -> str:
        """Count a cell, and say how long the others will take at this rate."""
        self._settled += 1
        self._times.append(time.monotonic())
        if self._settled == _FEW:
            self._times.popleft()
        left = self._missing - self._settled
        if left <= 0:
            return ""
        return f"about {duration((self._times[-1] - self._times[0]) / (len(self._times) - 1) * left)} left"


class SweepSilence(SilentProgress):
    """Shows nothing."""

    def again(self, label: str) -> None:
        """See Watcher."""

    def fail(self, label: str, error: str) -> None:
        """See Watcher."""


class SweepLines(LineProgress):
    """One plain line a cell."""

    def begin(self, units: int, missing: int) -> None:
        """See Watcher."""
        self._done, self._units, self._clock = units - missing, units, Clock(missing)
        if self._done:
            self._print(f"{self._done} of {units} cells are on disk")

    def _settled(self, text: str) -> None:
        self._done += 1
        left = self._clock.settle()
        self._print(f"[{self._done}/{self._units}] {text}" + (f", {left}" if left else ""))

    def finish(self, label: str, seconds: float) -> None:
        """See Watcher."""
        self._settled(f"{label}  {seconds:.1f} s")

    def again(self, label: str) -> None:
        """See Watcher."""
        self._print(f"  {label}: its worker died, it is begun again")

    def fail(self, label: str, error: str) -> None:
        """See Watcher."""
        self._settled(f"{label}  failed: {error}")


class SweepBars(BarProgress):
    """A bar over the cells with the time left, the cells under way below it, and what failed above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        left = TextColumn("{task.fields[left]}")
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, left, console=console)

    def begin(self, units: int, missing: int) -> None:
        """See Watcher."""
        self._clock = Clock(missing)
        self._units = self._bars.add_task("cells", total=units, completed=units - missing, left="")

    def finish(self, label: str, seconds: float) -> None:
        """See Watcher."""
        super().finish(label, seconds)
        if self._units is not None:
            self._bars.update(self._units, left=self._clock.settle())

    def again(self, label: str) -> None:
        """See Watcher."""
        self._texts.pop(label, None)
        self._live.console.print(f"{label}: its worker died, it is begun again", markup=False, highlight=False)

    def fail(self, label: str, error: str) -> None:
        """See Watcher."""
        self.finish(label, 0.0)
        self._live.console.print(f"{label} failed: {error}", markup=False, highlight=False)


def make_watcher(*, quiet: bool = False) -> SweepSilence | SweepLines | SweepBars:
    """Bars where standard error is a terminal, plain lines where it is not, nothing if ``quiet``."""
    console = Console(stderr=True)
    if quiet:
        return SweepSilence()
    return SweepBars(console) if console.is_terminal else SweepLines(console)
