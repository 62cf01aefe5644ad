"""What several commands share: options, finding a run, the end that SIGTERM asks for, and tables on the screen."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lo_theory.lab.render import Table
    from lo_theory.lab.runs import FinishedRun

__all__ = ["add_checkpoint_seconds", "add_out", "end_on_sigterm", "find_run", "show_tables"]

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


def end_on_sigterm() -> None:
    """Make SIGTERM an exit, so that workers are ended and half-written temporary files removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(_TERMINATED)


def find_run(name: str, out: Path) -> FinishedRun:
    """The run folder named, or the latest finished run of the experiment named; ValueError where there is none."""
    from lo_theory.lab.runs import FinishedRun, finished_runs

    folder = Path(name)
    if (folder / "config.yaml").exists():
        return FinishedRun(folder)
    found = finished_runs(out, name)
    if not found:
        raise ValueError(f"no finished run of {name!r} in {out}: run it first, or name its folder with --out")
    if len(found) > 1:
        print(f"{len(found)} finished runs; the latest is {found[-1].folder}", file=sys.stderr)
    return found[-1]


def show_tables(content: Iterable[Table]) -> None:
    """Print tables: as wide as the terminal, or 120 characters without colours in a pipe."""
    from rich.console import Console

    from lo_theory.lab.render import print_tables

    class Paper(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # main knows what to do; rich would exit with an error

    console = Paper()
    if not console.is_terminal:
        console = Paper(width=120, color_system=None, no_color=True)
    print_tables(console, content)
