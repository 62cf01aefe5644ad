"""The script that measures how soon the forward direction is learned: words, endings, going on, interrupts."""

from __future__ import annotations

import csv
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script, called with words; ``forward.csv`` goes to the folder ``out``."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))  # where its worker finds it too
    script = importlib.import_module("forward_direction")

    def call(*words: str) -> int:
        where = ["forward_direction.py", "--out", str(tmp_path / "out"), "--workers", "1"]
        monkeypatch.setattr(sys, "argv", [*where, *words])
        return int(script.main())

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ways", "muon"], "'muon' is no optimiser:rate:scale:batch"),
        (["--problems", "8"], "'8' is no N:P"),
        (["--ways", "sgd:1e-3:0.1:16"], "optimiser must be one of adamw, muon, got 'sgd'"),
        (["--sequences", "500"], "a batch of 16 and --sequences 500"),
        (["--ways", "muon:1e-3:0.1:1000", "--sequences", "900"], "a batch of 1000 and --sequences 900"),
        (["--workers", "0"], "--workers must be a whole number from 1 to 1024, got 0"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--shape", "20M"], "invalid choice: '20M' (choose from"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_the_forward_direction_is_not_begun_with_bad_words(
    forward: Callable[..., int], words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        forward(*words)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sequences_until_the_forward_direction_is_known(
    forward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that learns it is ended by it, one at which nothing moves by its sequences, one by divergence."""
    ways = ("adamw:1e30:0.1:16", "adamw:3e-3:1:16", "adamw:1e-9:0.1:16")
    assert forward("--problems", "5:6", "--sequences", "2400", "--ways", *ways) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    with open(tmp_path / "out" / "forward.csv") as file:
        wild, learned, still = csv.DictReader(file)
    assert [line["ended"] for line in (wild, learned, still)] == ["diverged", "learned", "used up"]
    reached = [int(learned[f"sequences_to_{share}"]) for share in (0.9, 0.5, 0.1)]
    assert reached == sorted(reached)
    assert int(learned["sequences"]) == reached[-1] <= 2_400
    assert float(learned["loss_share"]) < 0.1
    assert [still[f"sequences_to_{share}"] for share in (0.9, 0.5, 0.1)] == ["", "", ""]
    assert (int(still["sequences"]), float(still["loss_share"])) == (2_400, pytest.approx(1, abs=0.3))
    assert still["precision"] in ("float32", "bfloat16")


def test_the_forward_direction_goes_on_where_it_was(
    forward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the second call only the seed that has no line yet is trained; a file of other columns is left alone."""
    words = ["--problems", "5:6", "--sequences", "800", "--ways", "adamw:1e-9:0.1:16"]
    assert forward(*words) == 0
    before = (tmp_path / "out" / "forward.csv").read_text()
    capsys.readouterr()
    assert forward(*words, "--seeds", "0", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    after = (tmp_path / "out" / "forward.csv").read_text()
    assert after.startswith(before)
    with open(tmp_path / "out" / "forward.csv") as file:
        assert [line["seed"] for line in csv.DictReader(file)] == ["0", "1"]
    (tmp_path / "out" / "forward.csv").write_text(after[:-40])  # torn by a kill
    assert forward(*words) == 0, "nothing left to do, but what is torn is cut off"
    assert (tmp_path / "out" / "forward.csv").read_text() == before
    (tmp_path / "out" / "forward.csv").write_text(before[:20])  # torn in its header
    assert forward(*words) == 0
    assert len((tmp_path / "out" / "forward.csv").read_text().splitlines()) == 2
    (tmp_path / "out" / "forward.csv").write_text("N,P\n5,6\n")
    with pytest.raises(SystemExit):
        forward(*words)
    assert "has no column optimiser" in capsys.readouterr().err


def test_a_forward_training_that_fails_loses_no_other_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("forward_direction")
    done, lost = Future[dict[str, Any]](), Future[dict[str, Any]]()
    done.set_result({"N": 5, "ended": "learned"})
    lost.set_exception(MemoryError("not enough"))
    with open(tmp_path / "forward.csv", "w") as file:
        assert script.write_lines(file, {lost: "the lost job", done: "the other"}) == 1
    assert (tmp_path / "forward.csv").read_text() == "N,ended\n5,learned\n"
    assert "the lost job: not enough" in capsys.readouterr().err


def test_an_interrupted_forward_run_ends_at_once_and_keeps_its_lines(tmp_path: Path) -> None:
    """One short training and one that would take an hour; SIGINT to the group, as Ctrl-C gives it."""
    ways = ["adamw:3e-3:1:16", "adamw:1e-9:0.1:16"]
    words = ["--out", str(tmp_path), "--problems", "5:6", "--ways", *ways, "--workers", "1", "--sequences", "10000000"]
    command = [sys.executable, str(EXPERIMENTS / "forward_direction.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("N 5, P 6")
        os.killpg(run.pid, signal.SIGINT)
        _, error = run.communicate(timeout=60)
    assert (run.returncode, error.startswith("interrupted; ")) == (130, True), error
    assert len((tmp_path / "forward.csv").read_text().splitlines()) == 2
