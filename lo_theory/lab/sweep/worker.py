"""What runs where a cell is computed: in a process of the pool, on a cluster, in the driver itself.

Importing it loads nothing heavy, so that a fresh process can be set up before numpy or torch are loaded. A cell of a
few seconds leaves no trace on disk; a longer one, or one that trains, is a small run of its own in ``cells/<id>/``,
with its checkpoints, and goes on where it stood if its worker was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from lo_theory.lab.rows import Row as Line
    from lo_theory.lab.sweep.place import Place
    from lo_theory.lab.units import Options
    from lo_theory.lab.workers import Stop

__all__ = ["Order", "Report", "begin", "compute", "dask_setup", "thread_settings"]

_ORPHANED = 3  # exit code of a worker whose driver is gone


@dataclass(frozen=True)
class Order:
    """A cell to compute: its id, its task, its row as plain values, the folder it may use, and how to compute.

    ``version`` is the driver's: another one on the worker would give other numbers.
    """

    cell: str
    task: str
    row: Mapping[str, Any]
    folder: str
    options: Mapping[str, Any]
    version: str


@dataclass(frozen=True)
class Report:
    """What became of a cell: rows as the sweep keeps them, or the error; seconds it took.

    ``number`` is that of an error of the system, such as that of a full disk.
    """

    cell: str
    rows: tuple[Line, ...]
    seconds: float
    error: str = ""
    trace: str = ""
    number: int | None = None


def thread_settings(threads: int) -> dict[str, str]:
    """Environment under which numerical libraries, once loaded, use ``threads`` threads."""
    libraries = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMBA_NUM", "VECLIB_MAXIMUM")
    return {f"{library}_THREADS": str(threads) for library in libraries}


def begin(threads: int, lifeline: Connection, device: str | None) -> None:
    """Set up a fresh worker process; it ends with its driver, however that ends.

    ``lifeline``: a pipe that the driver alone holds the other end of, and never writes to. Ctrl-C is the driver's
    affair. ``device``: the GPU that the process is to see, as CUDA_VISIBLE_DEVICES names it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = thread_settings(threads)
    if "numba" in sys.modules:
        del settings["NUMBA_NUM_THREADS"]  # numba refuses another number once it has begun
    os.environ.update(settings)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the driver: what Dask calls in a fresh worker of a cluster on this machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _watch(lifeline: Connection) -> None:
    """End the process when the other end of the pipe is closed, by the driver or by its death."""
    try:
        lifeline.poll(None)
    finally:
        os._exit(_ORPHANED)  # every file is written whole or not at all


def compute(order: Order, stop: Stop | None = None) -> Report:
    """Compute a cell; an error becomes a part of the report, and a cell that is told to stop raises Cancelled."""
    from lo_theory.lab.workers import Cancelled

    began = time.perf_counter()
    try:
        rows = _rows(order, stop)
    except Cancelled:
        raise
    except Exception as error:  # whatever it is, the other cells go on
        seconds, trace = time.perf_counter() - began, traceback.format_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Report(order.cell, (), seconds, text, trace, getattr(error, "errno", None))
    return Report(order.cell, rows, time.perf_counter() - began)


def _rows(order: Order, stop: Stop | None) -> tuple[Line, ...]:
    """The rows of all units of a cell, with the cell's id as unit and the unit's name as the key ``part``."""
    from lo_theory.lab.rows import Row as Line
    from lo_theory.lab.schema import build
    from lo_theory.lab.sweep.cells import cell_id
    from lo_theory.lab.sweep.place import CellStop, Place, package_version
    from lo_theory.lab.task import TASKS
    from lo_theory.lab.units import Options

    if order.version != package_version():
        raise ValueError(
            f"the worker has lo_theory {package_version()} and the driver {order.version}: install the same on both"
        )
    task = TASKS[order.task]()
    prepared = task.prepare(build(task.row, order.row, "row"))
    if cell_id(order.task, prepared.content()) != order.cell:
        raise ValueError("the worker's problem is not the driver's: is a problem file another one there?")
    options = Options(**order.options)
    with Place(order.folder, order.row, options) as place:
        names = _compute_units(prepared, place, options, CellStop(stop))
        ordered = sorted(place.rows, key=lambda row: names[row.unit])
    if not ordered:
        raise ValueError("the cell left no rows")
    return tuple(Line(order.cell, row.metric, row.sums, {"part": row.unit, **row.keys}) for row in ordered)


def _compute_units(prepared: Any, place: Place, options: Options, stop: Stop) -> dict[str, int]:
    """Compute the units that are not there yet, one after the other; return the place of every unit."""
    from lo_theory.lab.progress import SilentProgress
    from lo_theory.lab.units import Context
    from lo_theory.lab.workers import Job, run_jobs

    context = Context(place, options, SilentProgress(), stop)
    units = list(prepared.units(0, context))
    done = {row.unit for row in place.rows}

    def job(unit: Any) -> Job:
        def work() -> None:
            rows = unit.compute()
            stop.check()
            place.keep(rows)

        return Job(unit.name, work, unit.needs)

    run_jobs([job(unit) for unit in units if unit.name not in done], 1, stop)
    return {unit.name: i for i, unit in enumerate(units)}
