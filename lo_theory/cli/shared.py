"""What several commands share: options, finding a run, the end that SIGTERM asks for, and tables on the screen."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lo_theory.lab.config import Experiment
    from lo_theory.lab.execute import Request
    from lo_theory.lab.runs import FinishedRun
    from lo_theory.lab.table import Table

__all__ = [
    "add_checkpoint_seconds",
    "add_dry_run",
    "add_out",
    "check_ending",
    "check_rate",
    "end_on_sigterm",
    "find_run",
    "show_dry_run",
    "show_tables",
]

_TERMINATED = 143


def add_out(command: argparse.ArgumentParser) -> None:
    """Add ``--out``."""
    command.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="FOLDER", help="folder of all runs (default: runs)"
    )


def add_checkpoint_seconds(command: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint-seconds``."""
    words = "time between checkpoints of a training (default: 15)"
    command.add_argument("--checkpoint-seconds", type=float, default=15.0, metavar="S", help=words)


def add_dry_run(command: argparse.ArgumentParser) -> None:
    """Add ``--dry-run`` and ``--rate``."""
    command.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory, FLOPs and time of what it trains, and stop"
    )
    command.add_argument(
        "--rate", type=float, metavar="TFLOP/S", help="with --dry-run: the rate that training reaches on another GPU"
    )


def check_ending(option: str, path: Path | None, ending: str) -> None:
    """Raise ValueError for a file to write that has no folder, or whose name says another format.

    A device or a pipe may have any name.
    """
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}")
    if path is not None and path.suffix != ending and (path.is_file() or not path.exists()):
        raise ValueError(f"{option} writes a {ending} file, got {path}: name it {path.with_suffix(ending)}")


def check_rate(options: argparse.Namespace) -> None:
    """ValueError for a ``--rate`` without ``--dry-run``, or one that is not positive."""
    if options.rate is None:
        return
    if not options.dry_run:
        raise ValueError("--rate says how fast another GPU trains, for an estimate: give it with --dry-run")
    if not 0 < options.rate < math.inf:
        raise ValueError(f"--rate must be positive, got {options.rate:g} TFLOP/s")


def show_dry_run(experiment: Experiment, request: Request, rate: float | None, names: Sequence[str] = ()) -> None:
    """Print what the trainings of an experiment would take, at ``rate`` TFLOP/s or as measured here.

    ``names`` of its rows in place of their numbers.
    """
    from lo_theory.lab.dry_run import dry_run, estimate_table

    estimates = dry_run(experiment, request, None if rate is None else 1e12 * rate)
    if estimates:
        show_tables([estimate_table(experiment, estimates, stated=rate is not None, names=names)])
    else:
        print("nothing is trained: there is nothing to estimate")


def end_on_sigterm() -> None:
    """Make SIGTERM an exit, so that workers are ended and half-written temporary files removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(_TERMINATED)


def find_run(name: str, out: Path) -> FinishedRun:
    """The run folder named, or the latest finished run of the experiment named; ValueError where there is none."""
    from lo_theory.lab.runs import FinishedRun, finished_runs, no_finished_run

    folder = Path(name)
    if (folder / "config.yaml").exists():
        return FinishedRun(folder)
    found = finished_runs(out, name)
    if not found:
        raise no_finished_run(name, out)
    if len(found) > 1:
        print(f"{len(found)} finished runs; the latest is {found[-1]}", file=sys.stderr)
    return FinishedRun(found[-1])


def show_tables(content: Iterable[Table]) -> None:
    """Print tables: as wide as the terminal, or 120 characters without colours in a pipe."""
    from rich.console import Console

    from lo_theory.lab.table import print_tables

    class Paper(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # main knows what to do; rich would exit with an error

    console = Paper()
    if not console.is_terminal:
        console = Paper(width=120, color_system=None, no_color=True)
    print_tables(console, content)
