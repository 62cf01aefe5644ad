"""What the engine of sweeps adds to a cell: the engine on its processes against a bare pool, in turns, in one run.

Wall-clock time a cell with two workers; both pools are warm, and both compute the same cells. The engine writes every cell
to disk with its fsync and its line in the journal, the bare pool writes nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.engine import Job, Keeper, attempt, run_jobs
from lo_theory.lab.pools import Processes
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import Run
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep.cells import Cell, compute_cell, make_cells
from lo_theory.lab.sweep.grid import make_grid
from lo_theory.lab.sweep.sweeps import Cells
from lo_theory.lab.units import Options, installed_version
from tests.lab.grids import tiny_grid

WORKERS, CELLS, ROUNDS = 2, 20, 10
VERSION = installed_version("lo_theory")


class Rows(Keeper):
    """Writes rows and a line of the journal, as sweeps do."""

    def __init__(self, run: Run) -> None:
        self.cells = Cells(run, SilentProgress())
        self.keep = self.cells.keep  # type: ignore[method-assign]


def nothing(name: str) -> list[Row]:
    """A cell that costs nothing and leaves as many rows as one of Table 1 with two decodes."""
    return [Row(name, f"metric{i}", Sums.single(1.0 / (i + 1)), {"part": "row0/a", "seed": i}) for i in range(60)]


def job(cell: Cell, real: bool) -> Job:
    whole = partial(compute_cell, "table1", plain(cell.row), cell.id, "/nonexistent/cell", Options(WORKERS), VERSION)
    return Job(cell.id, cell.label, whole if real else partial(nothing, cell.id))


def bare(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> float:
    began = time.perf_counter()
    assert not any(result.error for result in pool.map(attempt, [job.work for job in jobs]))
    return time.perf_counter() - began


def engine(pool: Processes, folder: Path, jobs: Sequence[Job]) -> float:
    with Run(folder, {}, {}) as run:
        began = time.perf_counter()
        run_jobs(jobs, pool, Rows(run))
        return time.perf_counter() - began


@pytest.mark.parametrize(("name", "real", "sequences"), [("nothing", False, 8), ("some 0.1 s", True, 1000)])
def test_overhead_of_a_cell(benchmark, tmp_path, name, real, sequences):
    """Goal: at most 20 ms more a cell than a bare ProcessPoolExecutor."""
    seeds = list(range(CELLS * ROUNDS + 2 * WORKERS))
    decoding = tiny_grid()["decoding"] | {"sequences": sequences}
    problem = {"family": "nae_sat", "N": 5, "P": 15}
    document = tiny_grid(axes=[{"seed": seeds}], problem=problem, decoding=decoding)
    jobs = [job(cell, real) for cell in make_cells(*make_grid(document).expand())]
    differences, times = [], []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool, Processes(WORKERS, 1) as ours:
        warm, rest = jobs[: 2 * WORKERS], jobs[2 * WORKERS :]
        batches = [rest[i : i + CELLS] for i in range(0, len(rest), CELLS)]
        bare(pool, warm)
        engine(ours, tmp_path / "warm", warm)

        def rounds() -> None:
            for i, batch in enumerate(batches):
                turns = [lambda b=batch: bare(pool, b), lambda b=batch, i=i: engine(ours, tmp_path / str(i), b)]
                seconds = [turn() / CELLS for turn in (turns if i % 2 else reversed(turns))]
                own, theirs = (seconds[1], seconds[0]) if i % 2 else (seconds[0], seconds[1])
                differences.append(1000 * (own - theirs))
                times.append((1000 * theirs, 1000 * own))

        benchmark.pedantic(rounds, rounds=1)
    middle = statistics.median(differences)
    pools = [statistics.median(column) for column in zip(*times, strict=True)]
    shown = f"bare {pools[0]:.1f} ms a cell, engine {pools[1]:.1f}, difference {middle:.1f} ({min(differences):.1f} to {max(differences):.1f})"
    benchmark.extra_info["overhead"] = shown
    print(f"\ncells of {name}, {WORKERS} workers: {shown}")
