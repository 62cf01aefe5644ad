"""A tiny sweep whose cells take a few hundredths of a second, and what its tests ask of processes."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import yaml

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row
from lo_theory.lab.sweep.worker import Order, Report

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


# What a worker process is told to do in place of computing a cell.


def look_around(order: Order) -> Report:
    """Report the worker's environment, in place of an error."""
    import torch

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    facts = {"torch": torch.get_num_threads(), "ignores Ctrl-C": ignored, "pid": os.getpid(), **os.environ}
    return Report(order.cell, (), 0.0, json.dumps(facts))


def die_on_odd(order: Order) -> Report:
    """End the process at an odd id, as a lack of memory would."""
    if int(order.cell, 16) % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return Report(order.cell, (Row(order.cell, "x", Sums.single(2.0), {"part": "row0/a"}),), 0.0)


def raise_what_cannot_be_sent(order: Order) -> Report:
    """Raise an error that no other process can read."""

    class Local(Exception):
        pass

    raise Local("here")


def name_the_worker(order: Order) -> Report:
    """Report the name of the Dask worker, in place of an error."""
    from distributed import get_worker

    return Report(order.cell, (), 0.0, str(get_worker().name))
