"""Sweeps on worker processes: the same rows as without, whoever is killed, and no process left behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lo_theory.cli import main
from lo_theory.lab.engine import Job, Keeper, Pool, Result, run_jobs
from lo_theory.lab.pools import Processes
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import read_rows
from lo_theory.lab.runs import Run, journal
from lo_theory.lab.sweep.sweeps import Cells
from tests.lab.grids import (
    CELLS,
    SLOW,
    a_job,
    die_on_odd,
    leave_what_cannot_be_sent,
    look_around,
    results,
    words,
    worker_processes,
    write_grid,
)
from tests.lab.tiny import tiny
from tests.processes import Process, command, wait_until


def rows_file(out: Path) -> bytes:
    """What the only driver below ``out`` has kept, every cell once."""
    content = (out / "grid" / "sweep-table1" / "1-of-1" / "rows.jsonl").read_bytes()
    names = [json.loads(block.splitlines()[0])["unit"] for block in content.decode().split("\n\n") if block]
    assert len(set(names)) == len(names) >= 1
    return content


def begun(out: Path, *options: str, limit: int | None = None, endless: bool = False) -> Process:
    """The sweep in a process of its own."""
    return command(*words(out, *options, endless=endless), limit=limit)


def finished(out: Path) -> int:
    """Cells on disk."""
    return sum(path.read_bytes().count(b"\n\n") for path in out.glob("grid/sweep-table1/*/rows.jsonl"))


def kill(numbers: list[int]) -> None:
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def test_killed_workers_and_drivers_leave_the_same_rows_and_no_process(tmp_path: Path, slow_sweep: Path) -> None:
    """A worker is killed, then the driver, then Ctrl-C comes; the rows are those of an undisturbed serial sweep."""
    with begun(tmp_path, endless=True) as process:
        wait_until(lambda: finished(tmp_path) >= 1)
        workers = worker_processes(process.pid)
        assert len(workers) == 2
        kill(workers[:1])
        wait_until(lambda: set(worker_processes(process.pid)) - set(workers))  # a new one is there
        left = worker_processes(process.pid)
        process.kill()
        wait_until(lambda: not set(left) & set(worker_processes()))
    kept = finished(tmp_path)
    assert kept >= 1
    deaths = [
        entry for entry in journal(tmp_path / "grid" / "sweep-table1" / "1-of-1") if entry["event"] == "worker died"
    ]
    assert len(deaths) <= 1  # the other worker's cell went on; none if it was killed between two cells

    with begun(tmp_path, endless=True) as process:
        wait_until(lambda: finished(tmp_path) > kept)
        left = worker_processes(process.pid)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode == 130, said
        assert said == "interrupted; what was computed is kept, and the same command continues from there\n"
        wait_until(lambda: not set(left) & set(worker_processes()))

    with begun(tmp_path) as process:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert results(tmp_path) == results(slow_sweep)
    assert len(rows_file(tmp_path)) >= len(rows_file(slow_sweep))


@pytest.mark.soak
def test_sigterm_and_a_file_that_cannot_grow_keep_what_is_there(tmp_path: Path, slow_sweep: Path) -> None:
    """A limit on the size of files stands for a disk that fills."""
    with begun(tmp_path, limit=len(rows_file(slow_sweep)) // 2) as process:
        said = process.communicate()[1].strip()
        assert process.returncode == 2, said
    assert len(said.splitlines()) == 1
    assert "no space is left on the disk" in said
    assert "the same command continues from there" in said
    kept = finished(tmp_path)
    assert 1 <= kept <= CELLS // 2

    with begun(tmp_path, endless=True) as process:
        wait_until(lambda: finished(tmp_path) > kept)
        left = worker_processes(process.pid)
        process.terminate()
        process.communicate()
        assert process.returncode == 143
        wait_until(lambda: not set(left) & set(worker_processes()))
    assert main(words(tmp_path)) == 0
    assert results(tmp_path) == results(slow_sweep)


@pytest.mark.soak  # times out where several trainings share a core
def test_a_training_goes_on_from_its_checkpoint_when_its_worker_is_killed(tmp_path: Path) -> None:
    over = {name: value for name, value in tiny().items() if name not in ("rows", "presets", "reference", "experiment")}
    over |= {"axes": [{"seed": [0]}], "training": over["training"] | {"steps": 400}}
    write_grid(tmp_path / "grid.yaml", **over)
    with begun(tmp_path, "--checkpoint-seconds", "0", "--workers", "1") as process:
        wait_until(lambda: any('"step": 40' in text for text in journals(tmp_path)))
        kill(worker_processes(process.pid))
        said = process.communicate()[1]
        assert process.returncode == 0, said
    (text,) = journals(tmp_path)
    steps = [entry["step"] for entry in map(json.loads, text.splitlines()) if entry["event"] == "resume"]
    assert len(steps) == 1
    assert 0 < steps[0] < 400
    interrupted = results(tmp_path)
    (tmp_path / "again").mkdir()
    write_grid(tmp_path / "again" / "grid.yaml", **over)
    assert main(words(tmp_path / "again", "--serial")) == 0
    assert results(tmp_path / "again") == interrupted


def journals(out: Path) -> list[str]:
    return [path.read_text() for path in out.glob("grid/sweep-table1/cells/*/log.jsonl")]


# --- the pool itself --------------------------------------------------------------------------------------------------------------


def keys(pool: Pool, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """What the only row of each job says, by the job's name."""
    found: dict[str, dict[str, Any]] = {}

    class Keys(Keeper):
        def keep(self, job: Job, result: Result) -> None:
            found[job.name] = dict(result.rows[0].keys)

    run_jobs(jobs, pool, Keys())
    return found


def drive(folder: Path, pool: Pool, jobs: list[Job]) -> dict[str, str]:
    """Errors of the jobs that fail, by their labels."""
    with Run(folder, {}, {}) as run:
        keeper = Cells(run, SilentProgress())
        run_jobs(jobs, pool, keeper)
    return {failure.label: failure.error for failure in keeper.failures}


def test_a_worker_has_the_threads_it_was_given_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with Processes(1, 1, devices=["7"]) as pool:
        seen, on_gpu = keys(pool, [a_job(0, look_around), a_job(1, look_around, gpu=True)]).values()
        if "CUDA_VISIBLE_DEVICES" in seen and seen["CUDA_VISIBLE_DEVICES"] == "7":
            seen, on_gpu = on_gpu, seen
    assert dict(os.environ) == before
    assert seen["torch"] == 1
    assert [seen[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")] == ["1"] * 4
    assert seen["ignored"]
    assert seen["pid"] not in (os.getpid(), on_gpu["pid"])
    assert on_gpu["CUDA_VISIBLE_DEVICES"] == "7"
    assert seen.get("CUDA_VISIBLE_DEVICES") == before.get("CUDA_VISIBLE_DEVICES")
    assert not {seen["pid"], on_gpu["pid"]} & set(worker_processes())


def test_a_cell_that_kills_its_worker_or_cannot_be_sent_costs_no_other_cell_anything(tmp_path: Path) -> None:
    deadly = [a_job(number, die_on_odd) for number in range(5)]
    with Processes(2, 1) as pool:
        errors = drive(tmp_path, pool, [*deadly, *(a_job(number, leave_what_cannot_be_sent) for number in (10, 11))])
    death = "its worker died 3 times (killed, or out of memory?)"
    unsent = {"seed=10": "TypeError: cannot be sent", "seed=11": "Local: here"}
    assert errors == {"seed=1": death, "seed=3": death, **unsent}
    assert sorted(int(row.unit, 16) for row in read_rows(tmp_path / "rows.jsonl")) == [0, 2, 4]
    deaths = [entry["cell"] for entry in journal(tmp_path) if entry["event"] == "worker died"]
    assert sorted(int(cell, 16) for cell in deaths) == [1, 1, 1, 3, 3, 3]


# --- the long version -------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_ten_kills_of_a_sweep_of_two_hundred_cells(tmp_path: Path) -> None:
    """The driver or a worker, after random numbers of cells; the rows are those of a serial sweep, each once."""
    seeds, chance = list(range(20)), random.Random(0)
    noises = [0, 0.05, 0.1, 0.15, 0.2]
    over = SLOW | {"axes": [{"problem.P": [10, 15]}, {"problem.noise": noises}, {"problem.seed": seeds, "seed": seeds}]}
    over["decoding"] = over["decoding"] | {"sequences": 1000}
    serial = tmp_path / "serial"
    serial.mkdir()
    for out in (tmp_path, serial):
        write_grid(out / "grid.yaml", **over)
    assert main(words(serial, "--serial")) == 0
    killed: Counter[str] = Counter()
    while killed.total() < 10:
        with begun(tmp_path) as process:
            while killed.total() < 10 and process.returncode is None:
                more = finished(tmp_path) + chance.randrange(1, 18)
                wait_until(lambda more=more: finished(tmp_path) >= more)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.1))
                workers = worker_processes(process.pid)
                who = chance.choice(["driver", *(["worker"] * len(workers))])
                killed[who] += 1
                print(f"{who} killed with {finished(tmp_path)} of 200 cells on disk")
                if who == "driver":
                    process.kill()
                    wait_until(lambda workers=workers: not set(workers) & set(worker_processes()))
                else:
                    kill([chance.choice(workers)])
    assert min(killed["driver"], killed["worker"]) >= 2
    assert finished(tmp_path) < 200, "every kill came before the end"
    assert main(words(tmp_path)) == 0
    assert results(tmp_path) == results(serial)
    assert rows_file(tmp_path) == rows_file(serial)
