"""What the engine of sweeps adds to a cell: the driver on its pool against a bare pool, in turns, in one run.

Wall-clock time a cell with two workers; both pools are warm, and both compute the same cells. The engine writes every cell
to disk with its fsync and its line in the journal, the bare pool writes nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import Run
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep.cells import Cell, make_cells
from lo_theory.lab.sweep.crews import LocalCrew
from lo_theory.lab.sweep.driver import Driver
from lo_theory.lab.sweep.grid import make_grid
from lo_theory.lab.sweep.place import package_version
from lo_theory.lab.sweep.watch import SweepSilence
from lo_theory.lab.sweep.worker import Order, Report, compute
from tests.lab.grids import tiny_grid

WORKERS, CELLS, ROUNDS = 2, 20, 10


def order(cell: Cell) -> Order:
    options = {"workers": WORKERS, "threads": 1, "device": "cpu", "checkpoint_seconds": 15.0}
    return Order(cell.id, "table1", plain(cell.row), "/nonexistent/cell", options, package_version())


def nothing(order: Order) -> Report:
    """A cell that costs nothing and leaves as many rows as one of Table 1 with two decodes."""
    rows = [Row(order.cell, f"metric{i}", Sums.single(1.0 / (i + 1)), {"part": "row0/a", "seed": i}) for i in range(60)]
    return Report(order.cell, tuple(rows), 0.0)


def bare(pool: ProcessPoolExecutor, work: object, cells: Sequence[Cell]) -> float:
    began = time.perf_counter()
    reports = list(pool.map(work, [order(cell) for cell in cells]))  # type: ignore[arg-type]
    assert not any(report.error for report in reports)
    return time.perf_counter() - began


def engine(crew: LocalCrew, folder: Path, cells: Sequence[Cell]) -> float:
    with Run(folder, {}, {}) as run:
        driver = Driver(run, crew, order, SweepSilence(), lambda cell: False)
        began = time.perf_counter()
        assert driver.compute(cells) == []
        return time.perf_counter() - began


@pytest.mark.parametrize(("name", "work", "sequences"), [("nothing", nothing, 8), ("some 0.1 s", compute, 1000)])
def test_overhead_of_a_cell(benchmark, tmp_path, name, work, sequences):
    """Goal: at most 20 ms more a cell than a bare ProcessPoolExecutor."""
    seeds = list(range(CELLS * ROUNDS + 2 * WORKERS))
    decoding = tiny_grid()["decoding"] | {"sequences": sequences}
    problem = {"family": "nae_sat", "N": 5, "P": 15}
    document = tiny_grid(axes=[{"seed": seeds}], problem=problem, decoding=decoding)
    cells = make_cells(*make_grid(document).expand())
    differences, times = [], []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool, LocalCrew(WORKERS, 1, work=work) as crew:
        warm, rest = cells[: 2 * WORKERS], cells[2 * WORKERS :]
        batches = [rest[i : i + CELLS] for i in range(0, len(rest), CELLS)]
        bare(pool, work, warm)
        engine(crew, tmp_path / "warm", warm)

        def rounds() -> None:
            for i, batch in enumerate(batches):
                turns = [lambda b=batch: bare(pool, work, b), lambda b=batch, i=i: engine(crew, tmp_path / str(i), b)]
                seconds = [turn() / CELLS for turn in (turns if i % 2 else reversed(turns))]
                ours, theirs = (seconds[1], seconds[0]) if i % 2 else (seconds[0], seconds[1])
                differences.append(1000 * (ours - theirs))
                times.append((1000 * theirs, 1000 * ours))

        benchmark.pedantic(rounds, rounds=1)
    middle = statistics.median(differences)
    pools = [statistics.median(column) for column in zip(*times, strict=True)]
    shown = f"bare {pools[0]:.1f} ms a cell, engine {pools[1]:.1f}, difference {middle:.1f} ({min(differences):.1f} to {max(differences):.1f})"
    benchmark.extra_info["overhead"] = shown
    print(f"\ncells of {name}, {WORKERS} workers: {shown}")
