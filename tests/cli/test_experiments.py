from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lo_theory.cli import main
from lo_theory.lab.runs import Run, journal
from lo_theory.neural import load
from tests.cli.complaint import complaint
from tests.lab.tiny import tiny


def test_a_run_says_what_it_will_train_and_for_how_long(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(config), "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--set", "training.steps=3"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert re.match(r"1 training of 3 steps, then .*: about [0-9.]+ (s|min) \([0-9.]+ GFLOP/s measured now\)", first)
    assert main([*arguments, "--preset", "exact"]) == 0
    assert "training" not in capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return path


def test_run_table_and_figure(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "runs")]
    arguments = ["run", str(config), "--preset", "exact", *out]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert "A tiny table" in first.out
    assert "\x1b" not in first.out
    assert "[7/7]" in first.err
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert json.loads((folder / "done.json").read_text())["command"].startswith("lo-theory run")
    stamp = (folder / "rows.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0  # finished: the table at once
    second = capsys.readouterr()
    assert second.out == first.out
    assert "[" not in second.err
    assert (folder / "rows.jsonl").stat().st_mtime_ns == stamp
    assert main(["table", "tiny", *out]) == 0
    assert capsys.readouterr().out == first.out
    (folder / "figure.png").unlink()
    assert main(["figure", str(folder)]) == 0
    assert str(folder / "figure.png") in capsys.readouterr().out
    assert (folder / "figure.png").exists()


def test_a_configuration_written_by_a_run_is_the_same_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "runs"), "--quiet"]
    assert main(["run", str(config), "--preset", "exact", "--set", "decoding.sequences=32", *out]) == 0
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert main(["run", str(folder / "config.yaml"), *out]) == 0
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 1


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--preset", "papre"], r"unknown preset 'papre': the presets are longer, exact"),
        (["--set", "training.stpes=3"], r"unknown key training\.stpes: the closest is training\.steps"),
        (["--set", "problem.N=2"], r"3 distinct latents cannot be drawn from N = 2"),
        (["--set", "problem.P=0"], r"problem\.P must be at least 1, got 0"),
        (["--workers", "0"], r"workers must be a whole number from 1 to 1024, got 0"),
        (["--threads", "-1"], r"threads must be a whole number from 1 to 1024, got -1"),
        (["--threads", "100000"], r"threads must be a whole number from 1 to 1024, got 100000"),
        (["--checkpoint-seconds", "nan"], r"time between checkpoints is 0 seconds or more, got nan"),
        (["--device", "abacus"], r"device 'abacus' cannot be used"),
        (["--device", "meta"], r"device 'meta' cannot be used"),
        (
            ["--set", "decoding.sequences=1000000000000"],
            r"rows\[0\]\.decoding\.sequences = 1,000,000,000,000 of length 24",
        ),
        (["--set", "evaluation.sequences=1000000000000"], r"rows\[0\]\.evaluation\.sequences = .*over the limit"),
        (
            ["--set", f"evaluation.limit_states={2**62}"],
            r"evaluation\.limit_states must be at most 4611686018427387903",
        ),
        (["--set", f"training.learning_rate={10**400}"], r"training\.learning_rate must be an integer of 64 bits"),
        (["--set", "training={1: 2, a: 3}"], r"unknown key training\.1: the closest is"),
        (["--set", "seed=2020-01-01"], r"seed must be an integer, got '2020-01-01' \(text\)"),
        (["--set", "seed=2020-13-01"], r"seed must be an integer, got '2020-13-01' \(text\)"),
        (["--set", "evaluation.limit_states=4"], r"over the limit of 4"),
        (["--set", "model.shape.heads=3"], r"width 16 is no multiple of heads = 3"),
    ],
)
def test_bad_input_is_one_clear_line(
    extra: list[str], expected: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(["run", str(config), "--out", str(tmp_path / "runs"), "--quiet", *extra], capsys)
    assert re.search(expected, line), line
    if extra[-1] != "evaluation.limit_states=4":  # known when the exact posterior is asked
        assert not (tmp_path / "runs").exists()


def test_missing_files_and_folders_are_one_clear_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(["run", str(tmp_path / "absent.yaml")], capsys)
    assert line.endswith("absent.yaml: No such file or directory")
    (tmp_path / "file").write_text("")
    line = complaint(["run", str(config), "--out", str(tmp_path / "file" / "runs")], capsys)
    assert re.search(r"the output folder .* cannot be written \(Not a directory\): choose another with --out", line)
    line = complaint(["table", "absent", "--out", str(tmp_path)], capsys)
    assert "no finished run of 'absent'" in line


def test_going_on_with_other_threads_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "runs"), "--quiet"]
    assert main(["run", str(config), "--preset", "exact", "--threads", "2", *out]) == 0
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    (folder / "done.json").unlink()
    line = complaint(["run", str(config), "--preset", "exact", "--threads", "1", *out], capsys)
    assert re.search(r"was begun with threads = 2, .*give --threads 2 or none, or another --out", line)
    assert main(["run", str(config), "--preset", "exact", *out]) == 0


def test_a_second_driver_of_a_folder_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(config), "--preset", "exact", "--out", str(tmp_path / "runs"), "--quiet"]
    assert main(arguments) == 0
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    (folder / "done.json").unlink()
    with Run(folder, {}, {}):
        line = complaint(arguments, capsys)
    assert re.search(r"is being computed by another process \(process \d+\): wait for it, or give another --out", line)


def test_a_foreign_checkpoint_is_refused(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "runs"), "--quiet", "--set", *SHORT]
    folder = interrupted_run(config, tmp_path / "runs")
    model = folder / "model-0.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(bytes(content))
    line = complaint(["run", str(config), *out], capsys)
    assert re.search(r"model-0\.safetensors is damaged", line)
    model.unlink()
    assert main(["run", str(config), *out]) == 0


SHORT = ["training.steps=3", "decoding.sequences=2", "decoding.denoisers=[model]", "decoding.steps=[3]"]


def interrupted_run(config: Path, out: Path, *sets: str) -> Path:
    """The folder of a run that has its trained model and no rows, as after a kill."""
    before = set((out / "tiny").iterdir()) if (out / "tiny").exists() else set()
    assert main(["run", str(config), "--out", str(out), "--quiet", "--set", *SHORT, *sets]) == 0
    (folder,) = set((out / "tiny").iterdir()) - before
    (folder / "done.json").unlink()
    (folder / "rows.jsonl").unlink()
    return folder


def test_a_checkpoint_of_another_problem_shape_or_training_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each put in the place of the run's own; the file is named, and what it is of."""
    monkeypatch.setattr("lo_theory.lab.execute.write_outputs", lambda *arguments: None)
    out = tmp_path / "runs"
    own = interrupted_run(config, out) / "model-0.safetensors"
    kept = own.read_bytes()
    others = {
        "problem.seed=1": r"its objective\.problem is '[0-9a-f]+', expected '[0-9a-f]+'",
        "model.shape.width=8": r"its model\.[a-z_]+ is \d+, expected \d+",
        "seed=1": r"its seed\.seed is 1, expected 0",
    }
    for setting, expected in others.items():
        foreign = interrupted_run(config, out, setting) / "model-0.safetensors"
        own.write_bytes(foreign.read_bytes())
        line = complaint(["run", str(config), "--out", str(out), "--quiet", "--set", *SHORT], capsys)
        assert re.search(rf"model-0\.safetensors is a checkpoint of something else: {expected}", line), line
        assert own.read_bytes() == foreign.read_bytes()  # not touched
    own.write_bytes(kept)
    assert main(["run", str(config), "--out", str(out), "--quiet", "--set", *SHORT]) == 0


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--set", "training.learning_rate=1e20", "training.warmup=0", "--checkpoint-seconds", "0"]
    command = ["run", str(config), "--out", str(tmp_path / "runs"), "--quiet", "--workers", "1", *wild]
    line = complaint(command, capsys)
    found = re.search(r"is (?:nan|inf) at step (\d+) of 150: training stopped, the last checkpoint is kept", line)
    assert found is not None, line
    (path,) = (tmp_path / "runs" / "tiny").glob("*/model-0.safetensors")
    assert line.startswith(f"lo-theory: (6, 18), {path}: "), line
    (event,) = (event for event in journal(path.parent) if event["event"] == "not finite")
    assert event["step"] == int(found[1])
    kept = load(path)
    assert kept.header["step"] <= int(found[1])
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())
    assert not (path.parent / "done.json").exists()
    again = complaint(command, capsys)  # goes on from there, and meets the same
    assert f"at step {found[1]} of 150" in again


def test_a_reader_that_has_seen_enough_is_no_error(config: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "runs")
    assert main(["run", str(config), "--preset", "exact", "--out", out, "--quiet"]) == 0
    command = f"{sys.executable} -m lo_theory.cli table tiny --out {out} | true"
    result = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr
