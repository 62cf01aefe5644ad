from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_theory.cli import main
from lo_theory.lab.agenda import Entry, load_agenda, run_entry
from tests.cli.complaint import complaint
from tests.lab.grids import write_grid
from tests.lab.tiny import tiny

OWED = Path(__file__).parents[2] / "experiments" / "owed.yaml"


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny(), sort_keys=False))
    path = folder / "agenda.yaml"
    path.write_text(yaml.safe_dump({"title": "A day", "entries": list(entries)}))
    return path


QUICK = {"name": "quick", "experiment": "tiny.yaml", "preset": "exact", "minutes": 2, "why": "is it there?"}
FAILS = {**QUICK, "name": "fails", "sets": ["evaluation.limit_states=4"]}


def test_entries_run_in_order_and_one_that_fails_stops_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path, FAILS, QUICK), ["--out", str(tmp_path / "runs")]
    assert main(["agenda", str(path), *out]) == 2
    shown = capfd.readouterr()
    assert "over the limit of 4" in shown.err
    assert "A tiny table" in shown.out
    assert "1 of 2 entries are not finished (fails); the same command goes on" in shown.err
    states = [line.split()[:6] for line in shown.out.splitlines() if line.startswith(("fails", "quick"))]
    assert [line[0] for line in states] == ["fails", "quick"]
    assert "failed" in states[0]
    assert "finished" in states[1]
    assert len(list((tmp_path / "runs" / "tiny").glob("*/done.json"))) == 1
    assert main(["agenda", str(path), "--only", "quick", *out]) == 0  # finished: costs nothing
    assert "A tiny table" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("", "finished"),
        ("import sys; sys.exit(2)", "failed (exit code 2)"),
        ("import time; time.sleep(60)", "out of time"),
    ],
)
def test_an_entry_ends_by_itself_or_when_its_time_is_up(code: str, ending: str, tmp_path: Path) -> None:
    started: list[list[str]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(command)
        return subprocess.Popen([sys.executable, "-c", code])

    minutes = 2 / 60 if ending == "out of time" else 1.0
    entry = Entry("a", "a.yaml", minutes, preset="paper", sets=("training.steps=3", "seed=1"))
    outcome = run_entry(entry, tmp_path, ["--device", "cpu"], 2, start=start)
    assert outcome.ending == ending
    assert outcome.finished == (ending == "finished")
    assert outcome.seconds < 50
    (command,) = started
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    assert command[5:] == [
        *("2", "-m", "lo_theory.cli", "run", str(tmp_path / "a.yaml"), "--device", "cpu"),
        *("--preset", "paper", "--set", "training.steps=3", "seed=1"),
    ]


def test_a_file_with_axes_is_a_sweep_of_one_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started: list[list[str]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(command)
        return subprocess.Popen([sys.executable, "-c", ""])

    for name, over in (("own", {}), ("preset", {"presets": {"exact": {"axes": [{"seed": [0]}]}}})):
        write_grid(tmp_path / f"{name}.yaml", **over)
        run_entry(Entry(name, f"{name}.yaml", 1.0), tmp_path, [], 2, start=start)
    assert [command[1:4] for command in started] == [["-m", "lo_theory.cli", "sweep"]] * 2
    path = write(tmp_path, {"name": "grid", "experiment": "own.yaml", "minutes": 2}, QUICK)
    assert main(["agenda", str(path), "--out", str(tmp_path / "runs")]) == 0
    assert "finished" in capfd.readouterr().out
    assert len(list((tmp_path / "runs" / "grid").glob("*/done.json"))) == 1
    path = write(tmp_path, {"name": "grid", "experiment": "own.yaml", "minutes": 2, "sets": ["problem.P=3"]})
    line = complaint(["agenda", str(path), "--out", str(tmp_path / "other")], capfd)
    assert re.search(r"entry grid: .*--set problem\.P: the axis problem\.P gives its values", line)


def test_what_is_owed_can_be_begun() -> None:
    """Every entry names an experiment and a preset that are there."""
    agenda = load_agenda(OWED)
    assert [entry.name for entry in agenda.entries][:2] == ["recipes", "tuned"]
    assert len(load_agenda(OWED, ["figure2"]).entries) == 1


def test_an_entry_that_cannot_be_estimated_is_not_said_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {**QUICK, "name": "absent", "preset": "exact", "sets": ["problem.N=1"]}, QUICK)
    assert main(["agenda", str(path), "--dry-run", "--rate", "1", "--out", str(tmp_path / "runs")]) == 2
    shown = capfd.readouterr().err
    assert "1 of 2 entries could not be estimated (absent); their own lines say why" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("entries", "extra", "expected"),
    [
        ([], [], "agenda.yaml: .*entries is empty: give it at least one"),
        ([QUICK, QUICK], [], "agenda.yaml: .*entries: 'quick' stands there twice"),
        ([{**QUICK, "minutes": 0}], [], r"agenda.yaml: entries\[0\]\.minutes must be greater than 0, got 0"),
        ([{**QUICK, "preset": "papre"}], [], "entry quick: .*unknown preset 'papre'"),
        ([{**QUICK, "experiment": "absent.yaml"}], [], "entry quick: .*absent.yaml: No such file or directory"),
        ([QUICK], ["--only", "core"], "has no entry 'core': the entries are quick"),
        ([QUICK], ["--ranks", "0"], "--ranks must be a whole number from 1 to 1024, got 0"),
        ([QUICK], ["--rate", "3"], "give it with --dry-run"),
        ([QUICK], ["--dry-run", "--rate", "0"], "--rate must be positive, got 0 TFLOP/s$"),
    ],
)
def test_bad_agendas_are_one_clear_line_before_anything_runs(
    entries: list[dict[str, Any]], extra: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(["agenda", str(write(tmp_path, *entries)), "--out", str(tmp_path / "runs"), *extra], capsys)
    assert re.search(expected, line), line
    assert not (tmp_path / "runs").exists()


def test_an_agenda_and_an_experiment_taken_for_each_other_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run it with `lo-theory agenda`" in complaint(["run", str(OWED)], capsys)
    experiment = OWED.parent / "recipes.yaml"
    assert f"{experiment} is an experiment, no agenda" in complaint(["agenda", str(experiment)], capsys)
