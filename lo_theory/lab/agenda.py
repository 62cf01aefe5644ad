"""Several experiments one after the other, each in a time box: what a day on a borrowed machine is to get done.

Every entry is a ``lo-theory run``, or ``sweep``, in a process of its own, so that one that fails or is slow costs no
other anything; the same agenda again goes on with what is not finished. Starts processes; writes nothing itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lo_theory.lab.config import load
from lo_theory.lab.render import Table
from lo_theory.lab.schema import build, read_yaml, setting
from lo_theory.lab.sweep.grid import load_grid

__all__ = ["Agenda", "Entry", "Outcome", "load_agenda", "outcome_table", "run_entry"]

_SECONDS_TO_STOP = 60.0


@dataclass(frozen=True)
class Entry:
    """One experiment or sweep: its file beside the agenda, preset and settings, and the minutes it may take in one go.

    ``why``: what question it answers, for the table.
    """

    name: str
    experiment: str
    minutes: float = setting(above=0)
    why: str = ""
    preset: str | None = None
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agenda:
    """Entries in the order of their worth; ``title`` is for display."""

    entries: tuple[Entry, ...]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError("entries is empty: give it at least one")
        names = [entry.name for entry in self.entries]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"entries: {name!r} stands there twice; every entry needs a name of its own")


@dataclass(frozen=True)
class Outcome:
    """How an entry ended: finished, stopped at the end of its time box, or failed; and after how long."""

    entry: Entry
    ending: str
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.ending == "finished"


@dataclass(frozen=True)
class _Command:
    """What every entry's command shares: the agenda's folder, further options, and the ranks of a ``run``."""

    folder: Path
    options: tuple[str, ...] = field(default_factory=tuple)
    ranks: int = 1

    def of(self, entry: Entry) -> list[str]:
        """The words of the command; a sweep has no ranks, it hires a worker for each GPU itself."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        path = self.folder / entry.experiment
        name = "sweep" if _is_sweep(path) else "run"
        words = [sys.executable, *(launcher if self.ranks > 1 and name == "run" else []), "-m", "lo_theory.cli", name]
        words += [str(path), *self.options]
        words += ["--preset", entry.preset] if entry.preset is not None else []
        return [*words, *(["--set", *entry.sets] if entry.sets else [])]


def _is_sweep(path: Path) -> bool:
    """Whether a file that is there names axes, by itself or in a preset."""
    return path.exists() and any(key == "axes" for part in _parts(read_yaml(path)) for key in part)


def _parts(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    presets = document.get("presets")
    named = presets.values() if isinstance(presets, Mapping) else ()
    return [document, *(part for part in named if isinstance(part, Mapping))]


def load_agenda(path: Path, only: Sequence[str] = ()) -> Agenda:
    """Read an agenda, and of it the entries in ``only`` where some are named; every experiment it names must load.

    ValueError naming file, entry and remedy.
    """
    document = read_yaml(path)
    if "entries" not in document and "experiment" in document:
        raise ValueError(
            f"{path} is an experiment, no agenda: run it with `lo-theory run`, a grid with `lo-theory sweep`"
        )
    try:
        agenda = build(Agenda, document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    names = [entry.name for entry in agenda.entries]
    for name in only:
        if name not in names:
            raise ValueError(f"{path} has no entry {name!r}: the entries are {', '.join(names)}")
    for entry in agenda.entries:
        try:
            experiment = path.parent / entry.experiment
            check = load_grid if _is_sweep(experiment) else load
            check(experiment, preset=entry.preset, sets=entry.sets)
        except OSError as error:
            raise ValueError(f"{path}, entry {entry.name}: {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{path}, entry {entry.name}: {error}") from error
    chosen = tuple(entry for entry in agenda.entries if not only or entry.name in only)
    return Agenda(chosen, agenda.title)


def run_entry(
    entry: Entry, folder: Path, options: Sequence[str], ranks: int = 1, *, start: Callable[..., Any] = subprocess.Popen
) -> Outcome:
    """Run one entry until it ends or its time is up; then it is asked to stop, which keeps what it has computed.

    Its output goes where this process's goes. If this process is stopped, so is the entry.
    """
    began = time.perf_counter()
    process = start(_Command(folder, tuple(options), ranks).of(entry))
    ending = "out of time"
    try:
        code = process.wait(60 * entry.minutes)
        ending = "finished" if code == 0 else f"failed (exit code {code})"
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()  # every file is written whole or not at all
                process.wait()
    return Outcome(entry, ending, time.perf_counter() - began)


def outcome_table(agenda: Agenda, outcomes: Mapping[str, Outcome]) -> Table:
    """Every entry a line: how it ended; those not begun are left open."""
    lines = []
    for entry in agenda.entries:
        outcome = outcomes.get(entry.name)
        state, took = ("-", "-") if outcome is None else (outcome.ending, f"{outcome.seconds / 60:.1f}")
        lines.append((entry.name, entry.why, state, took, f"{entry.minutes:g}"))
    columns = ("entry", "question", "state", "minutes", "of")
    return Table(agenda.title or "Agenda", columns, (tuple(lines),), left=("entry", "question", "state"))
