"""The queue of runs for a GPU: every command fits its experiment; order, limits, failures."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lo_theory.lab.config import load
from lo_theory.lab.sweep.grid import load_grid

SCRIPT = Path(__file__).parents[1] / "experiments" / "gpu_queue.sh"
ORDER = ["recipes", "tuned", "core-seed", "core-problem", "core-longer", "paper"]
ORDER += ["figure2", "orders", "hardness", "ratio", "proposals", "proposals-40", "longer", "proxy"]


def call(
    folder: Path, fails: str = "nothing", only: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run the script where `timeout` and `lo-theory` write down what they are given, and end at once."""
    for name, last in (("timeout", 'shift 5; exec "$@"'), ("lo-theory", f'case "$*" in *{fails}*) exit 3;; esac')):
        path = folder / name
        path.write_text(f"#!/bin/sh\nprintf '%s\\t' {name} \"$@\" >> {folder}/calls\necho >> {folder}/calls\n{last}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "ONLY": only}
    done = subprocess.run(
        ["sh", SCRIPT, "--device", "cpu"], env=environment, capture_output=True, text=True, check=False
    )
    return done, [line.split("\t")[:-1] for line in (folder / "calls").read_text().splitlines()]


def test_every_command_is_one_that_can_be_begun(tmp_path: Path) -> None:
    done, calls = call(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1].rstrip(",") for line in done.stdout.splitlines()] == ORDER
    limits, commands = calls[::2], calls[1::2]
    assert [words[:4] for words in limits[:2]] == [
        ["timeout", "--signal", "TERM", "--kill-after"],
        ["timeout", "--signal", "TERM", "--kill-after"],
    ]
    assert [words[5] for words in limits[:3]] == ["60m", "90m", "40m"]
    for name, command, path, *words in commands:
        assert name == "lo-theory"
        assert words[:1] + words[2:3] in (["--preset", "--set"], ["--preset", "--device"])
        assert words[-2:] == ["--device", "cpu"]
        make = {"run": load, "sweep": load_grid}[command]
        make(Path(path), preset=words[1], sets=words[3:-2])
    assert [words[1] for words in commands].count("sweep") == 1


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    done, calls = call(tmp_path, fails="orders.yaml")
    assert done.returncode == 1
    assert done.stderr == "not finished: orders; the same call resumes them\n"
    assert len(calls) == 2 * len(ORDER)


@pytest.mark.parametrize("only", ["figure2", "paper proxy"])
def test_some_by_name(only: str, tmp_path: Path) -> None:
    done, calls = call(tmp_path, only=only)
    assert done.returncode == 0
    assert [line.split()[1].rstrip(",") for line in done.stdout.splitlines()] == only.split()
    assert len(calls) == 2 * len(only.split())
