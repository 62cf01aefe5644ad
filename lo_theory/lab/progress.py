"""What runs and sweeps show while they work: bars on a terminal, lines in a pipe. Writes to standard error only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lo_theory.diffusion.losses import gap_share, gap_span
from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.table import plus_minus

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_RATE = 86_400.0  # the time left follows the rate of as long, and of a thousand units at most
UNITS = "units of work"


def training_line(values: Mapping[str, Any]) -> str:
    """The loss beside its two lines (nats per token), and the gap it closes where the mask law is the uniform one.

    Where the trainer knows the device's peak: the share of it that is used.
    """
    loss, floor, marginals = (float(values[name]) for name in ("loss", "floor", "marginals_only"))
    law = str(values.get("law", "uniform"))
    text = f"loss {loss:.4f}  floor {floor:.4f}  marginals only {marginals:.4f}"
    if law == "uniform" and not math.isnan(gap_span(floor, marginals)):
        text += f"  gap closed {gap_share(loss - floor, floor, marginals):5.1%}"
    else:
        text += f"  ({law})"
    if "utilisation" in values:
        text += f"  {float(values['utilisation']):.0%} of the matrix rate"
    return text


def evaluation_line(values: Mapping[str, Any]) -> str:
    """The gap closed on held-out contexts, with half of its 95 % interval."""
    gap, half = (float(values[name]) for name in ("gap_closed", "gap_half_interval"))
    return f"held-out gap closed {plus_minus(Estimate(gap, gap - half, gap + half), '.1f', 100)} %"


class SilentProgress:
    """Who sees how a run or a sweep advances: this one shows nothing."""

    def say(self, text: Callable[[], str]) -> None:
        """Show a line, which is made only where somebody sees it."""

    def begin(self, units: int, missing: int) -> None:
        """``missing`` of ``units`` units, or cells, are to be computed."""

    def start(self, label: str) -> None:
        """A unit begins."""

    def training(self, label: str, step: int, steps: int, values: Mapping[str, Any]) -> None:
        """A training step: the trainer's values, and the lines ``floor`` and ``marginals_only``."""

    def finish(self, label: str, seconds: float) -> None:
        """A unit is on disk."""

    def again(self, label: str) -> None:
        """The worker of a cell died; the cell waits to be begun again."""

    def fail(self, label: str, error: str) -> None:
        """A cell failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class LineProgress(SilentProgress):
    """One plain line a unit, or a cell, with the time left, and one every ten seconds of training."""

    def __init__(self, console: Console, noun: str = UNITS) -> None:
        self._console, self._noun = console, noun
        self._bars = Bars(disable=True, speed_estimate_period=_SECONDS_OF_RATE)  # counts, and shows nothing
        self._last: dict[str, float] = {}

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: Callable[[], str]) -> None:
        """See SilentProgress."""
        self._print(text())

    def begin(self, units: int, missing: int) -> None:
        """See SilentProgress."""
        self._units = self._bars.add_task(self._noun, total=units, completed=units - missing)
        if units > missing:
            self._print(f"{units - missing} of {units} {self._noun} are on disk")

    def _settled(self, text: str) -> None:
        self._bars.advance(self._units)
        (units,) = self._bars.tasks
        left = units.time_remaining
        about = f", about {timedelta(seconds=left)} left" if left else ""
        self._print(f"[{units.completed:.0f}/{units.total:.0f}] {text}{about}")

    def training(self, label: str, step: int, steps: int, values: Mapping[str, Any]) -> None:
        """See SilentProgress."""
        now = time.monotonic()
        if "loss" in values and (now - self._last.get(label, -math.inf) >= _SECONDS_BETWEEN_LINES or step == steps):
            self._last[label] = now
            self._print(f"  {label} step {step}/{steps}  {training_line(values)}")
        if "gap_closed" in values:
            self._print(f"  {label} step {step}/{steps}  {evaluation_line(values)}")
        if values.get("event") == "resume":
            self._print(f"  {label} continues at step {step}/{steps}")

    def finish(self, label: str, seconds: float) -> None:
        """See SilentProgress."""
        self._settled(f"{label}  {seconds:.1f} s")

    def again(self, label: str) -> None:
        """See SilentProgress."""
        self._print(f"  {label}: its worker died, it is begun again")

    def fail(self, label: str, error: str) -> None:
        """See SilentProgress."""
        self._settled(f"{label}  failed: {error}")


class BarProgress(SilentProgress):
    """A bar over the units of work, or cells, with the time left; what is under way below it, what failed above it.

    A training has a bar over its steps, and its loss below.
    """

    def __init__(self, console: Console, noun: str = UNITS) -> None:
        self._noun = noun.split()[0]
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=_SECONDS_OF_RATE,
        )
        self._units: TaskID | None = None
        self._trainings: dict[str, TaskID] = {}
        self._texts: dict[str, str] = {}  # what is under way, and what there is to say about it
        self._live = Live(console=console, transient=True, get_renderable=self._render, refresh_per_second=4)

    def _render(self) -> Group:
        return Group(self._bars, *(Text(f"{label} {text}") for label, text in list(self._texts.items())))

    def say(self, text: Callable[[], str]) -> None:
        """See SilentProgress."""
        self._live.console.print(text(), markup=False, highlight=False)

    def begin(self, units: int, missing: int) -> None:
        """See SilentProgress."""
        self._units = self._bars.add_task(self._noun, total=units, completed=units - missing)

    def start(self, label: str) -> None:
        """See SilentProgress."""
        self._texts[label] = ""

    def training(self, label: str, step: int, steps: int, values: Mapping[str, Any]) -> None:
        """See SilentProgress."""
        if label not in self._trainings:
            self._trainings[label] = self._bars.add_task(f"{label} steps", total=steps, completed=step)
        if "loss" in values:
            self._texts[f"{label} training"] = training_line(values)
        if "gap_closed" in values:
            self._texts[f"{label} evaluation"] = f"step {step}/{steps}  {evaluation_line(values)}"
        self._bars.update(self._trainings[label], completed=step)
        if step == steps:
            self._bars.remove_task(self._trainings.pop(label))

    def finish(self, label: str, seconds: float) -> None:
        """See SilentProgress."""
        self._texts.pop(label, None)
        self._texts.pop(f"{label.removesuffix(' training')} evaluation", None)
        bar = self._trainings.pop(label.removesuffix(" training"), None)
        if bar is not None:  # the last steps of a training are not always reported
            self._bars.remove_task(bar)
        if self._units is not None:
            self._bars.advance(self._units)

    def again(self, label: str) -> None:
        """See SilentProgress."""
        self._texts.pop(label, None)
        self.say(lambda: f"{label}: its worker died, it is begun again")

    def fail(self, label: str, error: str) -> None:
        """See SilentProgress."""
        self.finish(label, 0.0)
        self.say(lambda: f"{label} failed: {error}")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()


def make_progress(noun: str = UNITS, *, quiet: bool = False) -> SilentProgress:
    """Bars where standard error is a terminal, plain lines where it is not, nothing if ``quiet``; ``noun``: of what."""
    console = Console(stderr=True)
    if quiet:
        return SilentProgress()
    return BarProgress(console, noun) if console.is_terminal else LineProgress(console, noun)
