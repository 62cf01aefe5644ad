"""Where a cell is computed: in memory or in a folder of its own, by whom, and on which device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lo_theory.cli import main
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import Run, read_json, write_json
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep import cells, sweeps
from lo_theory.lab.sweep.cells import Place, compute_cell, make_cells
from lo_theory.lab.sweep.grid import make_grid
from lo_theory.lab.sweep.sweeps import SweepRequest, make_pool, prepare_sweep
from lo_theory.lab.units import Options, installed_version
from tests.lab.grids import tiny_grid, write_grid

# --- where a cell is computed -----------------------------------------------------------------------------------------------------


def compute(folder: Path, version: str = "", identity: str = "") -> list[Row]:
    cell = make_cells(*make_grid(tiny_grid()).expand())[0]
    own = version or installed_version("lo_theory")
    return list(compute_cell("table1", plain(cell.row), identity or cell.id, str(folder), Options(), own))


def test_a_worker_of_another_version_or_with_another_problem_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"and the driver 0\.0\.0: install the same on both"):
        compute(tmp_path / "a", version="0.0.0")
    with pytest.raises(ValueError, match="the worker's problem is not the driver's"):
        compute(tmp_path / "a", identity="0" * 16)
    assert not (tmp_path / "a").exists()


def test_a_long_cell_keeps_its_units_and_continues_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute(tmp_path / "short")
    assert not (tmp_path / "short").exists()
    monkeypatch.setattr(cells, "_SECONDS_IN_MEMORY", -1.0)
    kept: list[list[Row]] = []
    keep = Place.append

    def killed(self: Place, rows: list[Row]) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(rows)
        keep(self, rows)

    monkeypatch.setattr(Place, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path / "long")
    assert len({row.unit for row in read_rows(tmp_path / "long" / "rows.jsonl")}) == 2
    fresh: list[list[Row]] = []
    monkeypatch.setattr(Place, "append", lambda self, rows: (fresh.append(rows), keep(self, rows)))
    assert compute(tmp_path / "long") == whole
    assert 0 < len(fresh) == len({row.keys["part"] for row in whole}) - 2


def test_a_place_keeps_all_from_the_moment_its_folder_is_asked_for(tmp_path: Path) -> None:
    rows = [[Row(unit, "x", Sums.single(1.0))] for unit in "abc"]
    with Place(tmp_path / "cell", {}, Options()) as place:
        place.append(rows[0])
        assert not (tmp_path / "cell").exists()
        assert place.folder == tmp_path / "cell"
        place.log("training", step=1)
        place.append(rows[1])
        assert place.rows == rows[0] + rows[1]
    with Place(tmp_path / "cell", {}, Options()) as place:
        assert place.rows == rows[0] + rows[1]
        place.append(rows[2])
    assert read_rows(tmp_path / "cell" / "rows.jsonl") == [*rows[0], *rows[1], *rows[2]]
    assert json.loads((tmp_path / "cell" / "log.jsonl").read_text())["step"] == 1


def test_a_cell_that_another_process_computes_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_SECONDS_TO_WAIT", 0.2)
    with Run(tmp_path / "cell", {}, {}), pytest.raises(ValueError, match="is being computed by another process"):
        Place(tmp_path / "cell", {}, Options())


# --- what computes, and on what ---------------------------------------------------------------------------------------------------


def made(folder: Path, *, trains: bool, **request: Any) -> tuple[Any, Options]:
    sweep = prepare_sweep(make_grid(tiny_grid()), folder)
    cells = [replace(cell, trains=trains) for cell in sweep.cells]
    return make_pool(replace(sweep, cells=cells), SweepRequest(folder, **request))


@pytest.mark.parametrize(
    ("visible", "asked", "devices"),
    [(None, "cuda", ["0", "1"]), ("3,5", "auto", ["3", "5"]), ("3,5", "cuda:1", ["5"]), (None, "cpu", [])],
)
def test_cells_that_train_have_a_process_for_each_gpu(
    visible: str | None, asked: str, devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []
    monkeypatch.setattr("lo_theory.lab.training.choose_device", lambda name: "cuda" if name == "auto" else name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(sweeps, "Processes", lambda workers, threads, devices: found.append(devices))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert made(tmp_path, trains=True, device=asked)[1].device == ("cpu" if asked == "cpu" else "cuda")
    assert made(tmp_path, trains=False, device=asked)[1].device == "cpu"
    assert found == [devices, []]


def test_the_device_of_trainings_is_recorded_with_the_first_of_them(tmp_path: Path) -> None:
    file, serial = write_grid(tmp_path / "grid.yaml", axes=[{"problem.P": [10]}]), ["--serial", "--quiet"]
    command = ["sweep", str(file), "--out", str(tmp_path), *serial]
    assert main([*command, "--threads", "2"]) == 0
    facts = tmp_path / "grid" / "sweep-table1" / "facts.json"
    assert read_json(facts) == {"threads": 2}
    write_json(facts, {"threads": 2, "device": "cpu"})
    with pytest.raises(
        ValueError, match="was begun with device = cpu, and going on with cuda would give other weights"
    ):
        made(tmp_path, trains=True, pool="serial", device="cuda")
    with pytest.raises(ValueError, match="pool must be one of pool, serial, dask, got 'slurm'"):
        SweepRequest(tmp_path, pool="slurm")
