"""Run folders: ``runs/<experiment>/<id>/`` holds everything one resolved configuration has computed.

    config.yaml     the resolved configuration            rows.jsonl      what was measured (see rows.py)
    log.jsonl       a journal: sessions, losses, times    model-*.safetensors, and the trainer's checkpoints
    started.json    threads, device, and the digest of config.yaml
    done.json       versions, device, threads, seconds, digests of config.yaml and rows.jsonl; written last, so its
                    presence means that nothing is missing

One process at a time holds a folder (flock, which the system drops with the process, however it ends). May touch the
folder it was given.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lo_theory.lab.rows import Row, Rows, digest, examine, from_csv, to_csv
from lo_theory.lab.schema import dump_yaml, read_yaml
from lo_theory.problem.storage import remove_leftovers, write_atomically

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors that say that a disk is full."""


_FACTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "threads": (lambda value: type(value) is int and value >= 1, "a number of threads"),
    "device": (lambda value: isinstance(value, str), "the name of a device"),
    "seconds": (lambda value: type(value) in (int, float) and 0 <= value < math.inf, "a number of seconds"),
    "cells": (lambda value: type(value) is int and value >= 0, "a number of cells"),
    "pool": (lambda value: isinstance(value, list), "a list of paths"),
    "versions": (lambda value: isinstance(value, dict), "a mapping from packages to versions"),
    "files": (lambda value: isinstance(value, dict), "a mapping from files to digests"),
}
"""What the facts of runs must be, by their names."""


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write a JSON file, whole or not at all, with a digest of its content for ``read_json``."""
    text = json.dumps({**value, "digest": _seal(value)}, indent=2) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def _seal(value: Mapping[str, Any]) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())


def read_json(path: Path, needed: Iterable[str] = (), remedy: str = "remove it and run again") -> dict[str, Any]:
    """Read what ``write_json`` wrote, without the digest; a file of an older version has none.

    ValueError naming file and ``remedy`` where its digest does not match, a fact that is ``needed`` is absent, or one
    is not what it must be.
    """
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("no mapping")
        sealed = value.pop("digest", None)
        if sealed is not None and sealed != _seal(value):
            raise ValueError("its content does not match its digest")
        for name in {*needed, *value} & _FACTS.keys():
            holds, words = _FACTS[name]
            if not holds(value.get(name)):
                raise ValueError(f"{name} is to be {words}, found {value.get(name)!r}")
        if absent := set(needed) - value.keys():
            raise ValueError(f"it has no {sorted(absent)[0]}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    return value


def read_facts(folder: Path, needed: Iterable[str]) -> dict[str, Any]:
    """What was recorded when a run was begun (threads, device), ``needed`` facts at least; empty before that."""
    facts = _begun(folder, needed)
    facts.pop("files", None)
    return facts


def _begun(folder: Path, needed: Iterable[str]) -> dict[str, Any]:
    path = folder / "started.json"
    remedy = "remove it, and run again with the threads and the device that log.jsonl names"
    return read_json(path, needed, remedy) if path.exists() else {}


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run or of a sweep's part; ValueError where it is not the one that was recorded.

    The module of a user's experiment is looked for beside it, as ``task`` names it; where it is no longer there, the
    copy in the folder is taken.
    """
    for name in ("done.json", "started.json"):
        if (folder / name).exists():
            remedy = "fetch it again, or compute the run again in another --out"
            _require_digest(folder / "config.yaml", read_json(folder / name).get("files", {}), remedy)
            break
    config = read_yaml(folder / "config.yaml")
    task = config.get("task")
    if not isinstance(task, str) or not task.endswith(".py"):
        return config
    module, copy = folder / task, folder / "experiment.py"
    return {**config, "task": str(copy if copy.exists() and not module.exists() else module)}


def _require_digest(path: Path, files: Mapping[str, Any], remedy: str) -> None:
    """ValueError if a file is there and is not the one that ``files`` has a digest of."""
    if path.name in files and path.exists() and digest(path.read_bytes()) != files[path.name]:
        raise ValueError(f"{path} is damaged (its content does not match its digest): {remedy}")


def config_text(config: Mapping[str, Any]) -> bytes:
    """The content of config.yaml."""
    return dump_yaml(config).encode()


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
        remove_leftovers(self.folder)
        begun, path = (self.folder / "started.json").exists(), self.folder / "config.yaml"
        self.facts = _begun(self.folder, ()) if begun else dict(facts)
        _require_digest(path, self.facts.pop("files", {}), "remove it, and the same command writes it again")
        if not begun or not path.exists():
            content = config_text(config)
            write_atomically(path, lambda file: file.write(content))
        self._files = {path.name: digest(path.read_bytes())}
        # Even if it is there: a full disk should be met now and not after the first hour.
        write_json(self.folder / "started.json", {**self.facts, "files": self._files})
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
        files = {**self._files, "rows.jsonl": self._rows.digest}
        seconds = round(sum(sessions.values()), 1)
        write_json(
            self.folder / "done.json",
            {**facts, **self.facts, "seconds": seconds, "rows": len(self.rows), "files": files},
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._guard:
            self._closed = True
            self._rows.close()
            os.close(self._log)
            os.close(self._descriptor)
        if isinstance(error, OSError):
            kept = f"what was computed is kept in {self.folder}, and once the cause is cured the same command "
            kept += "continues from there"
            if not (self.folder / "rows.jsonl").exists():
                kept = f"{self.folder} is gone or not within reach: once it is back, or without it, start again"
            raise OSError(error.errno, f"stopped ({_reason(error)}); {kept}") from error


def _reason(error: OSError) -> str:
    return "no space is left on the disk" if error.errno in NO_SPACE else error.strerror or str(error)


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
        kinds = {"event": (str,), "session": (int,), "seconds": (int, float)}
        if isinstance(entry, dict) and all(type(entry.get(name)) in kind for name, kind in kinds.items()):
            yield entry


def _published_rows(folder: Path) -> list[Row]:
    """The rows of a published folder, which keeps them as tables only; what was too large to publish is absent."""
    if (folder / "pooled.csv").exists():
        raise ValueError(
            f"{folder} holds the cells of a pooled sweep and no rows.jsonl: read table.md and figure.png there, or its "
            "report"
        )
    return published_tables(folder)


_CSV = ("table.csv", "classes.csv")


def csv_files(rows: Iterable[Row]) -> dict[str, str]:
    """The CSV files of a run, name -> text: table.csv, and classes.csv with the losses class by class where it has any.

    ``published_tables`` reads them.
    """
    parts: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        parts[row.keys.get("kind") == "class_losses"].append(row)
    return {name: to_csv(part) for name, part in zip(_CSV, parts, strict=True) if part or name == _CSV[0]}


def published_tables(folder: Path) -> list[Row]:
    """The rows in the CSV files of a published folder; of a pooled sweep those of its cells. ValueError for none."""
    names = [f"{name}{packed}" for name in _CSV for packed in ("", ".gz")]
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


_FINISHED_REMEDY = "remove done.json, and the same command computes again what is lost; or fetch the folder again"


class FinishedRun:
    """What a finished run left: its configuration as a mapping, its rows, and the facts of done.json. Reads only.

    ValueError where done.json, config.yaml or rows.jsonl is not what was written.

    A published folder has no rows.jsonl: there the rows come from its tables in CSV (or CSV with gzip).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "done.json").exists():
            raise ValueError(
                f"{folder} holds no finished run (no done.json): the command that started it continues from there"
            )
        self.facts = read_json(folder / "done.json", ("seconds",), _FINISHED_REMEDY)
        _require_digest(folder / "rows.jsonl", self.facts.get("files", {}), _FINISHED_REMEDY)
        self.config = read_config(folder)

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, read when first asked for; ValueError where they are damaged or absent."""
        path = self.folder / "rows.jsonl"
        contents = examine(path)
        if contents.damage or contents.torn:
            words = contents.damage or "it ends in the middle of a unit"
            raise ValueError(f"{path} is damaged ({words}): {_FINISHED_REMEDY}")
        return contents.rows or _published_rows(self.folder)


class Followed:
    """A run as one sees it who does not hold it: facts and rows as they were, nothing is written.

    ``facts`` are those of a run that has not been begun.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = read_facts(folder, facts) or dict(facts)
        self.rows = examine(folder / "rows.jsonl").rows  # of whole units; who opens the run says what is damaged
        self.units = {row.unit for row in self.rows}

    def append(self, rows: list[Row]) -> None:
        """Rows are the first rank's affair."""

    def log(self, event: str, **facts: Any) -> None:
        """So is the journal."""

    def sync_journal(self) -> None:
        """See log."""


def finished_runs(root: Path, experiment: str) -> list[Path]:
    """Folders of the finished runs of an experiment below ``root``, the latest last."""
    markers = sorted((root / experiment).glob("*/done.json"), key=lambda path: path.stat().st_mtime)
    return [path.parent for path in markers]


def no_finished_run(name: str, out: Path) -> ValueError:
    """What to say of a name that leads to no run: what it is instead, and what to do."""
    if name.endswith((".yaml", ".yml", ".py")):
        own = f", such as {Path(name).stem}" if name.endswith(".py") else " in it"
        return ValueError(f"{name} is an experiment file, no run: name the experiment{own}, or a run folder")
    if "/" in name and not Path(name).exists():
        return ValueError(f"there is no folder {name}: name an experiment that was run, or a run folder")
    return ValueError(f"no finished run of {name!r} in {out}: run it first, or name its folder with --out")
