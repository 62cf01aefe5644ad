"""Where a cell is computed: in memory or in a folder of its own, by whom, and on which device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.execute import Request
from lo_theory.lab.rows import Row, read_rows
from lo_theory.lab.runs import Run, read_json
from lo_theory.lab.schema import plain
from lo_theory.lab.sweep import place as places
from lo_theory.lab.sweep.cells import make_cells
from lo_theory.lab.sweep.grid import make_grid
from lo_theory.lab.sweep.hire import agree, hire
from lo_theory.lab.sweep.place import Place, package_version
from lo_theory.lab.sweep.sweeps import SweepRequest
from lo_theory.lab.sweep.worker import Order, compute
from lo_theory.lab.units import Options
from tests.lab.grids import tiny_grid

# --- where a cell is computed -----------------------------------------------------------------------------------------------------


def an_order(folder: Path, **over: Any) -> Order:
    cell = make_cells(*make_grid(tiny_grid()).expand())[0]
    options = {"workers": 1, "threads": 1, "device": "cpu", "checkpoint_seconds": 15.0}
    facts = {"cell": cell.id, "task": "table1", "row": plain(cell.row), "folder": str(folder), "options": options}
    return Order(**{**facts, "version": package_version(), **over})


def test_a_worker_of_another_version_or_with_another_problem_is_found_out(tmp_path: Path) -> None:
    assert compute(an_order(tmp_path / "a")).error == ""
    assert "and the driver 0.0.0: install the same on both" in compute(an_order(tmp_path / "a", version="0.0.0")).error
    assert "the worker's problem is not the driver's" in compute(an_order(tmp_path / "a", cell="0" * 16)).error
    assert not (tmp_path / "a").exists()


def test_a_long_cell_keeps_its_units_and_goes_on_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute(an_order(tmp_path / "short"))
    monkeypatch.setattr(places, "_SECONDS_IN_MEMORY", -1.0)
    kept: list[list[Row]] = []
    keep = Place.keep

    def killed(self: Place, rows: list[Row]) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(rows)
        keep(self, rows)

    monkeypatch.setattr(Place, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        compute(an_order(tmp_path / "long"))
    assert len({row.unit for row in read_rows(tmp_path / "long" / "rows.jsonl")}) == 2
    fresh: list[list[Row]] = []
    monkeypatch.setattr(Place, "keep", lambda self, rows: (fresh.append(rows), keep(self, rows)))
    again = compute(an_order(tmp_path / "long"))
    assert again.rows == whole.rows
    assert 0 < len(fresh) == len({row.keys["part"] for row in whole.rows}) - 2


def test_a_place_keeps_all_from_the_moment_its_folder_is_asked_for(tmp_path: Path) -> None:
    rows = [[Row(unit, "x", Sums.single(1.0))] for unit in "abc"]
    with Place(tmp_path / "cell", {}, Options()) as place:
        place.keep(rows[0])
        assert not (tmp_path / "cell").exists()
        assert place.folder == tmp_path / "cell"
        place.log("training", step=1)
        place.keep(rows[1])
        assert place.rows == rows[0] + rows[1]
    with Place(tmp_path / "cell", {}, Options()) as place:
        assert place.rows == rows[0] + rows[1]
        place.keep(rows[2])
    assert read_rows(tmp_path / "cell" / "rows.jsonl") == [*rows[0], *rows[1], *rows[2]]
    assert json.loads((tmp_path / "cell" / "log.jsonl").read_text())["step"] == 1


def test_a_cell_that_another_process_computes_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_SECONDS_TO_WAIT", 0.2)
    with Run(tmp_path / "cell", {}, {}), pytest.raises(ValueError, match="is being computed by another process"):
        Place(tmp_path / "cell", {}, Options())


# --- who computes, and on what ----------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("lo_theory.lab.sweep.hire.LocalCrew", lambda workers, threads, devices: found.append(devices))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hired = hire("pool", "", Request(tmp_path, device=asked, workers=3), tmp_path, trains=True)
    assert found == [devices]
    assert hired.device == ("cpu" if asked == "cpu" else "cuda")
    assert hire("pool", "", Request(tmp_path, device=asked), tmp_path, trains=False).device is None
    assert found[1] == []


def test_the_device_of_trainings_is_recorded_with_the_first_of_them(tmp_path: Path) -> None:
    request = Request(tmp_path, threads=2)
    agree(tmp_path, hire("serial", "", request, tmp_path, trains=False))
    agree(tmp_path, hire("serial", "", replace(request, device="cpu"), tmp_path, trains=True))
    assert read_json(tmp_path / "facts.json") == {"threads": 2, "device": "cpu"}
    with pytest.raises(
        ValueError, match="was begun with device = cpu, and going on with cuda would give other weights"
    ):
        hire("serial", "", replace(request, device="cuda"), tmp_path, trains=True)
    with pytest.raises(ValueError, match="crew must be one of pool, serial, dask, got 'slurm'"):
        SweepRequest(request, crew="slurm")
