"""Whole sweeps, computed in the driver's own process: what they leave, what they keep, what they refuse."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import lo_theory
from lo_theory.cli import main
from lo_theory.diffusion.statistics import between
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.frame import from_rows, kind, pool, records
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import read_rows
from lo_theory.lab.runs import FinishedRun, Run, read_json
from lo_theory.lab.sweep.cells import make_cells
from lo_theory.lab.sweep.grid import make_grid
from tests.figures import rendered
from tests.lab.grids import tiny_grid, write_grid

PART = "grid/sweep-table1/1-of-1"


def sweep(file: Path, out: Path, *options: str) -> int:
    return main(["sweep", str(file), "--out", str(out), "--serial", "--quiet", *options])


def result_folder(out: Path) -> Path:
    (marker,) = (out / "grid").glob("*/done.json")
    return marker.parent


def events(out: Path, name: str, part: str = PART) -> list[dict[str, Any]]:
    lines = map(json.loads, (out / part / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == name]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of six cells."""
    out = tmp_path_factory.mktemp("swept")
    with rendered():
        assert sweep(write_grid(out / "grid.yaml"), out / "runs") == 0
    return out / "runs"


@pytest.mark.renders
def test_a_finished_sweep_is_the_finished_run_of_its_cells(swept: Path, tmp_path: Path, capsys: Any) -> None:
    finished = FinishedRun(result_folder(swept))
    experiment = make_grid(tiny_grid()).expand()[0]
    run = execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    for name in ("rows.jsonl", "figure.png"):
        assert (finished.folder / name).read_bytes() == (run.folder / name).read_bytes()
    assert resolve(finished.config) == experiment
    assert {path.name for path in finished.folder.iterdir()} == {
        *("config.yaml", "rows.jsonl", "table.csv", "table.md", "figure.png", "figure.pdf", "done.json", "lock")
    }
    assert finished.facts["cells"] == 6
    assert {"versions", "command", "seconds", "workers", "device", "processor"} <= finished.facts.keys()
    assert main(["table", "grid", "--out", str(swept)]) == 0
    assert "A tiny grid" in capsys.readouterr().out


def test_the_rows_file_has_every_cell_once_in_the_order_of_the_grid(swept: Path) -> None:
    cells = make_cells(*make_grid(tiny_grid()).expand())
    rows = read_rows(swept / PART / "rows.jsonl")
    assert list(dict.fromkeys(row.unit for row in rows)) == [cell.id for cell in cells]
    blocks = (swept / PART / "rows.jsonl").read_text().split("\n\n")
    assert len(blocks) == 6 + 1  # one closed block a cell, so it is there whole or not at all
    assert len({(row.unit, row.keys["part"], row.metric, str(row.keys)) for row in rows}) == len(rows)
    assert not (swept / "grid" / "sweep-table1" / "cells").exists()  # short cells leave nothing else


def test_the_tidy_csv_has_a_line_for_every_cell_and_metric(swept: Path) -> None:
    lines = list(csv.DictReader((result_folder(swept) / "table.csv").open()))
    assert len(lines) == len(read_rows(swept / PART / "rows.jsonl"))
    cells = make_cells(*make_grid(tiny_grid()).expand())
    floors = [line for line in lines if line["metric"] == "floor"]
    assert [(int(line["problem.P"]), int(line["problem.seed"]), int(line["seed"])) for line in floors] == [
        tuple(cell.point.values()) for cell in cells
    ]
    assert [line["unit"].partition("/")[0] for line in floors] == [cell.id for cell in cells]
    assert [int(line["row"]) for line in floors] == list(range(6))


def test_running_it_again_computes_nothing_and_says_the_same(swept: Path, tmp_path: Path, capsys: Any) -> None:
    file, before = write_grid(tmp_path / "grid.yaml"), (swept / PART / "rows.jsonl").stat().st_mtime_ns
    said = []
    for option in ([], ["--show"]):
        assert main(["sweep", str(file), "--out", str(swept), *option]) == 0
        captured = capsys.readouterr()
        said.append(captured.out)
        assert "6 of 6 cells of the grid are finished" in captured.err
    assert said[0] == said[1] != ""
    assert (swept / PART / "rows.jsonl").stat().st_mtime_ns == before


def test_damaged_cells_results_and_facts_are_refused_by_name(swept: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    file, part, results = write_grid(tmp_path / "grid.yaml"), tmp_path / PART, result_folder(tmp_path)
    whole = (part / "rows.jsonl").read_bytes()
    kept = (results / "rows.jsonl").read_bytes()
    (results / "rows.jsonl").write_bytes(kept[: len(kept) // 2])  # a result that was finished
    for command in (
        ["sweep", str(file), "--quiet"],
        ["sweep", str(file), "--show"],
        ["table", "grid"],
        ["report", "grid"],
        ["figure", "grid"],
    ):
        assert main([*command, "--out", str(tmp_path)]) == 2, command
        said = capsys.readouterr()
        assert f"{results}/rows.jsonl is damaged" in said.err
        assert said.out == ""
    (results / "rows.jsonl").write_bytes(kept)

    (part / "rows.jsonl").write_bytes(whole.replace(b'"sum": 0.', b'"sum": 1.', 1))  # a cell of the part
    for command in (["sweep", str(file), "--show"], ["report", str(part.parent)]):
        assert main([*command, "--out", str(tmp_path)]) == 2
        assert f"{part}/rows.jsonl, line" in capsys.readouterr().err
    assert sweep(file, tmp_path, "--serial") == 2
    assert "it is kept as rows.jsonl.damaged, its units that are whole (5) stay" in capsys.readouterr().err
    assert sweep(file, tmp_path, "--serial") == 0
    assert (part / "rows.jsonl").read_bytes() == whole

    facts = part.parent / "facts.json"
    facts.write_bytes(facts.read_bytes().replace(b'"threads": 1', b'"threads": 4'))
    assert sweep(write_grid(tmp_path / "grid.yaml", axes=[{"problem.P": [9]}]), tmp_path, "--serial") == 2
    assert (
        "facts.json is damaged (its content does not match its digest): remove it, and give" in capsys.readouterr().err
    )


def test_a_larger_grid_and_more_seeds_keep_what_is_finished(tmp_path: Path) -> None:
    file = write_grid(tmp_path / "grid.yaml", pool=["seed", "problem.seed"])
    assert sweep(file, tmp_path) == 0
    assert len(events(tmp_path, "cell")) == 6
    old = read_rows(tmp_path / PART / "rows.jsonl")
    seeds = [0, 1, 2, 3]
    write_grid(file, axes=[{"problem.P": [10, 12, 15]}, {"problem.seed": seeds, "seed": seeds}])
    assert sweep(file, tmp_path) == 0
    assert len(events(tmp_path, "cell")) == 12
    new = read_rows(tmp_path / PART / "rows.jsonl")
    assert [row for row in new if row.unit in {row.unit for row in old}] == old
    assert len(list((tmp_path / "grid").glob("*/done.json"))) == 2  # the results of both grids
    write_grid(file, axes=[{"problem.P": [9]}])
    assert sweep(file, tmp_path) == 0
    ended = [entry["seconds"] for entry in events(tmp_path, "end")]
    found = {}
    for path in (tmp_path / "grid").glob("*/done.json"):
        facts = json.loads(path.read_text())
        found[facts["cells"]] = facts["seconds"]
    # A grid took the sessions that computed cells of it, though all share a folder.
    assert found == pytest.approx({6: ended[0], 12: ended[0] + ended[1], 1: ended[2]}, abs=0.11)


def test_more_seeds_of_paths_taken_together_are_given_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml", pool=["seed", "problem.seed"])
    assert sweep(file, tmp_path) == 0
    assert sweep(file, tmp_path, "--axis", "seed,problem.seed=[0,1,2,3]") == 0
    assert capsys.readouterr().out.count("4/4") == 2  # both rows of the table, refined
    assert len(events(tmp_path, "cell")) == 8


def test_a_disk_that_fills_while_results_are_written_is_told_with_its_remedy(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write_grid(tmp_path / "grid.yaml")
    with monkeypatch.context() as patch:
        patch.setattr("lo_theory.lab.sweep.results.write_figures", full)
        assert sweep(file, tmp_path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"lo-theory: the results in {tmp_path / 'grid'}")
    assert "no space is left on the disk" in error
    assert not list((tmp_path / "grid").glob("*/done.json"))
    assert sweep(file, tmp_path) == 0
    assert len(events(tmp_path, "cell")) == 6


def test_pooled_cells_add(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml", pool=["seed", "problem.seed"])
    assert sweep(file, tmp_path) == 0
    assert "Pooled over seed, problem.seed" in " ".join(capsys.readouterr().out.split())
    pooled = FinishedRun(result_folder(tmp_path))
    assert len(pooled.config["rows"]) == 2
    cells = read_rows(tmp_path / PART / "rows.jsonl")
    items = records(pool(kind(from_rows(pooled.rows), "one_pass"), ["row", "N", "P", "seed", "problem"], over="run"))
    assert [(item.row, item.N, item.P, item.seed, item.problem) for item in items] == [
        (0, 5, 10, "pooled", "pooled"),
        (1, 5, 15, "pooled", "pooled"),
    ]
    for item in items:
        mine = [row.sums for row in cells if row.metric == "infill" and row.keys["P"] == item.P]
        assert list(item.metrics["infill"][1].parts.values()) == mine
        assert item.estimate("infill")[1:] == pytest.approx(np.clip(between([sums.mean for sums in mine])[1:], 0, 1))
    lines = list(csv.DictReader((result_folder(tmp_path) / "pooled.csv").open()))
    line = next(line for line in lines if line["metric"] == "infill" and line["P"] == "15")
    means = [row.sums.mean for row in cells if row.metric == "infill" and row.keys["P"] == 15]
    assert (int(line["cells"]), int(line["n"])) == (3, 24)
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    found = [float(line[name]) for name in ("mean_of_cells", "low_over_cells", "high_over_cells")]
    assert found == pytest.approx([np.mean(means), max(0, low), min(1, high)])  # a share
    assert sweep(file, tmp_path, "--pool") == 0  # every cell by itself
    assert len(list((tmp_path / "grid").glob("*/done.json"))) == 2
    assert len(events(tmp_path, "cell")) == 6


# --- cells that fail --------------------------------------------------------------------------------------------------------------


def test_a_failing_cell_is_shown_at_the_end_and_stops_no_other(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml", axes=[{"evaluation.limit_states": [4, 1000]}, {"seed": [0, 1]}])
    file.write_text(file.read_text().replace("N: 5", "N: 5\n  P: 10"))
    for _ in range(2):  # the same command tries them again
        assert sweep(file, tmp_path) == 2
        captured = capsys.readouterr()
        assert "A tiny grid" in captured.out
        lines = captured.err.splitlines()
        assert lines[0] == "2 of 4 cells of the grid are finished"
        assert [line.partition(" failed: ")[0] for line in lines[2:4]] == [
            f"(evaluation.limit_states=4, seed={seed})" for seed in (0, 1)
        ]
        assert all("over the limit of 4" in line for line in lines[2:4])
        assert lines[4] == "lo-theory: 2 of 4 cells failed; the same command tries them again"
    failed = events(tmp_path, "failed")
    assert len(failed) == 4
    assert "Traceback" in failed[0]["trace"]
    assert len(events(tmp_path, "cell")) == 2
    assert not list((tmp_path / "grid").glob("*/done.json"))


def test_many_failures_are_counted_and_not_all_listed(tmp_path: Path, capsys: Any) -> None:
    seeds = list(range(23))
    file = write_grid(tmp_path / "grid.yaml", axes=[{"seed": seeds}], problem={"family": "nae_sat", "N": 5, "P": 10})
    assert sweep(file, tmp_path, "--set", "evaluation.limit_states=4") == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(" failed: ValueError" in line for line in lines) == 20
    assert lines[-2] == f"and 3 more, all of them in {tmp_path / PART / 'log.jsonl'}"


def test_no_cell_finished_is_no_table(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    assert sweep(file, tmp_path, "--show") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "0 of 6 cells of the grid are finished\n"
    assert not (tmp_path / "grid").exists()


# --- shards, locks, facts ---------------------------------------------------------------------------------------------------------


def test_shards_compute_each_cell_once_and_are_read_together(swept: Path, tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    for i in (2, 1, 3):
        assert not list((tmp_path / "grid").glob("*/done.json"))
        assert sweep(file, tmp_path, "--shard", f"{i}/3") == 0
    assert len(list((tmp_path / "grid" / "sweep-table1").glob("*-of-3/rows.jsonl"))) == 3
    for name in ("rows.jsonl", "table.md", "table.csv"):  # the last shard to end has left the results
        assert (result_folder(tmp_path) / name).read_bytes() == (result_folder(swept) / name).read_bytes()
    capsys.readouterr()
    assert sweep(file, tmp_path) == 0  # without shards: all is there
    assert not (tmp_path / PART).exists()


def test_a_cell_that_two_drivers_computed_counts_once(swept: Path, tmp_path: Path) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    assert sweep(file, tmp_path) == 0
    twin = tmp_path / "grid" / "sweep-table1" / "1-of-2"
    twin.mkdir()
    (twin / "rows.jsonl").write_bytes((tmp_path / PART / "rows.jsonl").read_bytes())
    assert sweep(file, tmp_path, "--show", "--pool", "seed") == 0
    for folder in (tmp_path / "grid").glob("*/done.json"):
        whole = read_rows(folder.parent / "rows.jsonl")
        assert sum(row.metric == "floor" for row in whole) == 6


def test_a_second_driver_is_told_who_holds_the_shard(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    with Run(tmp_path / PART, {}, {}):
        assert sweep(file, tmp_path) == 2
        assert "1-of-1 is being computed by another process (process " in capsys.readouterr().err
        assert sweep(file, tmp_path, "--shard", "1/2") == 0  # another shard is free
    assert sweep(file, tmp_path) == 0


def test_going_on_with_other_threads_is_refused(tmp_path: Path, capsys: Any) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    assert sweep(file, tmp_path, "--shard", "1/2", "--threads", "2") == 0
    assert sweep(file, tmp_path, "--threads", "1") == 2
    assert "was begun with threads = 2, and going on with 1" in capsys.readouterr().err
    assert sweep(file, tmp_path) == 0
    assert read_json(tmp_path / "grid" / "sweep-table1" / "facts.json") == {"threads": 2}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--shard", "3/2"], "--shard takes i/n with i from 1 to n, got 3/2"),
        (["--attempts", "0"], "attempts must be at least 1, got 0"),
        (["--workers", "0"], "workers must be a whole number from 1 to 1024, got 0"),
        (["--axis", "problem.Q=[1]"], "grid.yaml: axes at problem.P=10, problem.seed=0, seed=0, problem.Q=1: unknown"),
        (["--axis", "seed=[0,1]"], "together: give --axis problem.seed,seed=[values] if their values are the same"),
        (["--axis", "problem.seed,seed=[]"], "--axis problem.seed is empty: give it at least one value"),
        (["--pool", "sed"], "pool names sed, which is no path of an axis: the closest is seed"),
    ],
)
def test_bad_input_is_one_clear_line(options: list[str], complaint: str, tmp_path: Path, capsys: Any) -> None:
    assert sweep(write_grid(tmp_path / "grid.yaml"), tmp_path, *options) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "grid").exists()


def test_an_empty_address_is_not_taken_for_a_local_cluster(tmp_path: Path, capsys: Any) -> None:
    assert main(["sweep", str(write_grid(tmp_path / "grid.yaml")), "--out", str(tmp_path), "--dask", ""]) == 2
    assert "--dask takes the address of a scheduler, such as tcp://host:8786, or local" in capsys.readouterr().err


def test_a_very_large_grid_is_begun_only_if_it_is_meant(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = list(range(317))
    file = write_grid(tmp_path / "grid.yaml", axes=[{"seed": many}, {"problem.seed": many}])
    assert sweep(file, tmp_path) == 2
    assert "the grid has 100,489 cells: give --yes if that is meant" in capsys.readouterr().err
    monkeypatch.setattr("lo_theory.lab.sweep.grid.LARGEST_GRID", 5)
    write_grid(file)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *size: Any) -> str:  # type: ignore[override]
            if self.getvalue() == "Ctrl-C":
                raise KeyboardInterrupt
            return super().readline(*size)

    for answer, code in (("n\n", 2), ("", 2), ("Ctrl-C", 2), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        assert sweep(file, tmp_path) == code
        assert screen.getvalue().startswith("The grid has 6 cells. Continue? [y/N] ")
        assert (tmp_path / PART).exists() == (code == 0)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert sweep(file, tmp_path) == 2
    assert sweep(file, tmp_path, "--yes") == 0


def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from lo_theory.cli import main\n"
        "try:\n    main(['sweep', '--help'])\nexcept SystemExit:\n"
        "    print([name for name in ('torch', 'numpy', 'numba', 'dask') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("[]\n")
    assert "--shard" in shown.stdout


def test_a_sweep_a_run_and_a_name_are_read_as_frames(swept: Path) -> None:
    frame = lo_theory.read(swept / "grid" / "sweep-table1")
    results = FinishedRun(result_folder(swept))
    assert len(frame) == len(results.rows)
    assert frame["sum"].tolist() == [row.sums.total for row in results.rows]
    assert {"problem.P", "kind", "metric"} <= set(frame.columns)
    assert frame["problem.P"].nunique() > 1
    with pytest.raises(ValueError, match="absent"):
        lo_theory.read("absent", out=swept)
