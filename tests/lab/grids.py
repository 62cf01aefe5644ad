"""Tiny sweeps, whose cells take hundredths of a second or some tenths, and what their tests ask of processes."""

from __future__ import annotations

import copy
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.engine import Job
from lo_theory.lab.rows import Row

_TINY: dict[str, Any] = {
    "experiment": "grid",
    "title": "A tiny grid",
    "problem": {"family": "nae_sat", "N": 5},
    "training": None,
    "decoding": {"sequences": 8, "denoisers": ["exact"], "policies": ["vanilla"], "steps": ["L"]},
    "evaluation": {"sequences": 8},
    "axes": [{"problem.P": [10, 15]}, {"problem.seed": [0, 1, 2], "seed": [0, 1, 2]}],
}


def tiny_grid(**over: Any) -> dict[str, Any]:
    """A fresh copy, as a file would give it; six cells."""
    return {**copy.deepcopy(_TINY), **over}


def write_grid(path: Path, **over: Any) -> Path:
    """The same in a file."""
    path.write_text(yaml.safe_dump(tiny_grid(**over), sort_keys=False))
    return path


def worker_processes(parent: int | None = None) -> list[int]:
    """Processes that a spawning pool began, of one parent or of any that is no longer there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        state, ppid = fields[0], int(fields[1])
        if b"spawn_main" in command and state != "Z" and parent in (None, ppid):
            found.append(int(entry.name))
    return found


def slow_grid(seeds: int) -> dict[str, Any]:
    """Cells of some 0.2 s, two for each seed."""
    zipped = {"problem.seed": list(range(seeds)), "seed": list(range(seeds))}
    decoding = {"sequences": 3000, "denoisers": ["exact"], "policies": ["vanilla"], "steps": ["L"]}
    return {"axes": [{"problem.P": [10, 15]}, zipped], "decoding": decoding}


CELLS = 12
SLOW, ENDLESS = slow_grid(CELLS // 2), slow_grid(150)  # the second is never waited for; the first is a part of it


def words(out: Path, *options: str, endless: bool = False) -> list[str]:
    """Arguments of the sweep below ``out``."""
    file = out / ("endless.yaml" if endless else "grid.yaml")
    if not file.exists():
        out.mkdir(exist_ok=True)
        write_grid(file, **(ENDLESS if endless else SLOW))
    return ["sweep", str(file), "--out", str(out), "--workers", "2", "--threads", "1", "--quiet", *options]


def results(out: Path) -> dict[str, bytes]:
    """Rows and tables of the only finished sweep below ``out``."""
    (marker,) = (out / "grid").glob("*/done.json")
    return {name: (marker.parent / name).read_bytes() for name in ("rows.jsonl", "table.md", "table.csv")}


# What a worker process does in place of computing a cell.


def a_job(number: int, work: Callable[..., Row], *, gpu: bool = False) -> Job:
    """A job whose one row ``work(name)`` makes."""
    name = f"{number:016x}"
    return Job(name, f"seed={number}", functools.partial(_rows, work, name), gpu=gpu)


def _rows(work: Callable[[str], Row], name: str) -> list[Row]:
    return [work(name)]


def a_row(name: str, **keys: Any) -> Row:
    """A row of a cell."""
    return Row(name, "x", Sums.single(2.0), {"part": "row0/a", **keys})


def look_around(name: str) -> Row:
    """The worker's environment, as keys."""
    import torch

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return a_row(name, torch=torch.get_num_threads(), ignored=ignored, pid=os.getpid(), **os.environ)


def die_on_odd(name: str) -> Row:
    """End the process at an odd id, as a lack of memory would."""
    if int(name, 16) % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return a_row(name)


class Unsendable(Row):
    """A row that no other process can be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be sent")


def leave_what_cannot_be_sent(name: str) -> Row:
    """Fail in two ways, neither of which can be sent as it is."""

    class Local(Exception):
        pass

    if int(name, 16) % 2:
        raise Local("here")
    return Unsendable(name, "x", Sums.single(2.0))


def name_the_worker(name: str) -> Row:
    """The name of the Dask worker."""
    from distributed import get_worker

    return a_row(name, worker=str(get_worker().name))


def sleep_long(name: str) -> Row:
    """A cell that does not end."""
    time.sleep(600)
    return a_row(name)
