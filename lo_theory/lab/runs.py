"""Run folders: ``runs/<experiment>/<id>/`` holds everything one resolved configuration has computed.

    config.yaml     the resolved configuration            rows.jsonl      what was measured (see rows.py)
    log.jsonl       a journal: sessions, losses, times    model-*.safetensors, and the trainer's checkpoints
    done.json       versions, device, threads, seconds; written last, so its presence means that nothing is missing

One process at a time holds a folder (flock, which the system drops with the process, however it ends). May touch the
folder it was given.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lo_theory.lab.rows import Row, Rows, read_rows
from lo_theory.lab.schema import read_yaml
from lo_theory.lab.tidy import from_csv
from lo_theory.problem.storage import write_atomically

__all__ = ["FinishedRun", "Run", "finished_runs", "no_finished_run", "read_facts", "unwritten", "write_json"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and run again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged (no mapping): remove it and run again")
    return value


def read_facts(folder: Path) -> dict[str, Any]:
    """What was recorded when a run was begun (threads, device); empty if it has not been."""
    path = folder / "started.json"
    return _read_json(path) if path.exists() else {}


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise ValueError(
            f"{folder} is being computed by another process ({holder or 'unknown'}): wait for it, or give another --out"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
    return descriptor


def _open_journal(path: Path) -> int:
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if torn:
        os.write(descriptor, b"\n")  # so that the next entry has a line of its own
    return descriptor


class Run:
    """A run folder held by this process; a context manager.

    Opening it makes the folder, takes the lock, and proves that files can be written, before any work: OSError naming
    the folder and the remedy otherwise, ValueError if another process holds it. ``facts`` (such as the number of
    threads) are kept at the first open and stay.
    """

    def __init__(self, folder: Path, config: dict[str, Any], facts: dict[str, Any]) -> None:
        self.folder = folder
        self._guard, self._closed = threading.Lock(), False
        self._began, self._session = time.perf_counter(), time.time_ns()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = _lock(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            self._prepare(config, facts)
        except OSError as error:
            os.close(self._descriptor)
            raise _unwritable(folder, error) from error
        except BaseException:
            os.close(self._descriptor)
            raise

    def _prepare(self, config: dict[str, Any], facts: dict[str, Any]) -> None:
        started = self.folder / "started.json"
        if started.exists():
            self.facts = read_facts(self.folder)
        else:
            self.facts = dict(facts)
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
            write_atomically(self.folder / "config.yaml", lambda file: file.write(text.encode()))
        write_json(
            started, self.facts
        )  # even if it is there: a full disk should be met now and not after the first hour
        self._rows = Rows(self.folder / "rows.jsonl")
        try:
            self._log = _open_journal(self.folder / "log.jsonl")
        except BaseException:
            self._rows.close()
            raise

    @property
    def units(self) -> set[str]:
        """Units of work whose rows are on disk."""
        return self._rows.units

    @property
    def rows(self) -> list[Row]:
        """All rows on disk."""
        return self._rows.rows

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return (self.folder / "done.json").exists()

    def append(self, rows: list[Row]) -> None:
        """Put the rows of one unit of work on disk, all or none. Any thread may."""
        with self._guard:
            self._require_open()
            self._rows.append(rows)

    def sort(self, units: Sequence[str]) -> None:
        """Bring the rows into the order of ``units``."""
        with self._guard:
            self._rows.sort(units)

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.folder} is closed: this session has stopped")

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the journal, with the seconds since this session began. After a kill it may repeat itself."""
        line = {
            "event": event,
            "session": self._session,
            "seconds": round(time.perf_counter() - self._began, 3),
            **facts,
        }
        with self._guard:
            self._require_open()
            os.write(self._log, (json.dumps(line) + "\n").encode())

    def sync_journal(self) -> None:
        """Bring the journal to the disk, so that it outlives the machine too, as checkpoints do."""
        with self._guard:
            self._require_open()
            os.fsync(self._log)

    def finish(self, facts: dict[str, Any]) -> None:
        """Declare the run complete."""
        sessions: dict[Any, float] = {}
        for entry in journal(self.folder):
            sessions[entry["session"]] = max(sessions.get(entry["session"], 0.0), float(entry["seconds"]))
        sessions[self._session] = time.perf_counter() - self._began
        write_json(self.folder / "done.json", {**facts, **self.facts, "seconds": round(sum(sessions.values()), 1)})

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._closed = True
            self._rows.close()
            os.close(self._log)
            os.close(self._descriptor)
        if isinstance(error, OSError):
            raise OSError(
                error.errno,
                f"stopped ({_reason(error)}); what was computed is kept in {self.folder}, "
                "and once the cause is cured the same command goes on from there",
            ) from error


def _reason(error: OSError) -> str:
    return "no space is left on the disk" if error.errno in _NO_SPACE else error.strerror or str(error)


def _unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(
        error.errno, f"the output folder {folder} cannot be written ({_reason(error)}): choose another with --out"
    )


def unwritten(folder: Path, error: OSError) -> OSError:
    """The error of results that could not be written, in words: what they are made of is kept."""
    return OSError(
        error.errno,
        f"the results in {folder} could not be written ({_reason(error)}); what was computed is kept, and once the "
        "cause is cured the same command writes them",
    )


def journal(folder: Path) -> Iterator[dict[str, Any]]:
    """Entries of a run's journal; a line torn by a kill is passed over."""
    path = folder / "log.jsonl"
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"event", "session", "seconds"} <= entry.keys():
            yield entry


def _published_rows(folder: Path) -> list[Row]:
    """The rows of a published folder, which keeps them as tables only; what was too large to publish is absent."""
    if (folder / "pooled.csv").exists():
        raise ValueError(
            f"{folder} holds the cells of a pooled sweep and no rows.jsonl: read table.md and figure.png there, or its "
            "report"
        )
    names = ("table.csv", "table.csv.gz", "classes.csv", "classes.csv.gz")
    rows = [row for name in names if (folder / name).exists() for row in _read_table(folder / name)]
    if not rows:
        raise ValueError(f"{folder} holds no rows, neither in rows.jsonl nor in table.csv: nothing can be made of it")
    return rows


def _read_table(path: Path) -> list[Row]:
    """The rows of a CSV file, which may be compressed, as large tables are published."""
    content = path.read_bytes()
    try:
        return from_csv((gzip.decompress(content) if path.suffix == ".gz" else content).decode())
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error


class FinishedRun:
    """What a finished run left: its configuration as a mapping, its rows, and the facts of done.json. Reads only.

    A published folder has no rows.jsonl: there the rows come from its tables in CSV (or CSV with gzip).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "done.json").exists():
            raise ValueError(
                f"{folder} holds no finished run (no done.json): the command that started it goes on from there"
            )
        self.facts = _read_json(folder / "done.json")
        if "seconds" not in self.facts:
            raise ValueError(f"{folder / 'done.json'} does not say how long the run took: it is damaged, or not ours")
        self.config = read_yaml(folder / "config.yaml")

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, read when first asked for; ValueError where they are damaged or absent."""
        return read_rows(self.folder / "rows.jsonl") or _published_rows(self.folder)


def finished_runs(root: Path, experiment: str) -> list[FinishedRun]:
    """Finished runs of an experiment below ``root``, the latest last."""
    markers = sorted((root / experiment).glob("*/done.json"), key=lambda path: path.stat().st_mtime)
    return [FinishedRun(path.parent) for path in markers]


def no_finished_run(name: str, out: Path) -> ValueError:
    """What to say of a name that leads to no run: what it is instead, and what to do."""
    if name.endswith((".yaml", ".yml")):
        return ValueError(f"{name} is an experiment file, no run: name the experiment in it, or a run folder")
    if "/" in name and not Path(name).exists():
        return ValueError(f"there is no folder {name}: name an experiment that was run, or a run folder")
    return ValueError(f"no finished run of {name!r} in {out}: run it first, or name its folder with --out")
