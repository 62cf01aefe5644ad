"""kill -9 at any moment, Ctrl-C, and a disk that fills up: the same command again ends in the same rows and weights."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lo_theory.cli import main
from lo_theory.lab.runs import journal
from tests.lab.tiny import tiny

_PATIENCE = 60.0  # seconds until a subprocess that does nothing is given up


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return path


@pytest.fixture(scope="module")
def reference(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("reference")
    assert main(["run", str(config), "--out", str(out), "--threads", "1", "--workers", "1", "--quiet"]) == 0
    return results(out)


def results(out: Path) -> dict[str, bytes]:
    """Rows, weights and outputs of the only run below ``out``."""
    (folder,) = (out / "tiny").iterdir()
    assert (folder / "done.json").exists()
    names = ("rows.jsonl", "model-0.safetensors", "table.csv", "table.md", "classes.csv")
    return {name: (folder / name).read_bytes() for name in names}


def command(config: Path, out: Path) -> list[str]:
    options = ["--out", str(out), "--threads", "1", "--checkpoint-seconds", "0", "--quiet"]
    return [sys.executable, "-m", "lo_theory.cli", "run", str(config), *options]


def start(config: Path, out: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """The command in a process of its own, allowed files of ``limit`` bytes at most."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return subprocess.Popen(
        command(config, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )


def disturb(process: subprocess.Popen[str], moment: Callable[[], bool], number: int) -> tuple[bool, str]:
    """Send a signal when ``moment`` comes; whether it came before the end, and what was said on standard error."""
    began = time.monotonic()
    while process.poll() is None and not moment():
        assert time.monotonic() - began < _PATIENCE
        time.sleep(0.002)
    came = process.poll() is None
    if came:
        process.send_signal(number)
    return came, process.communicate(timeout=_PATIENCE)[1]


def checkpoints(out: Path, count: int) -> Callable[[], bool]:
    """The moment at which the checkpoint has been written ``count`` times since now."""
    seen: set[int] = set()

    def moment() -> bool:
        for path in out.glob("tiny/*/model-0.safetensors"):
            seen.add(path.stat().st_mtime_ns)
        return len(seen) > count

    return moment


def units(out: Path, count: int) -> Callable[[], bool]:
    """The moment at which the rows of ``count`` units are on disk."""
    return lambda: sum(path.read_bytes().count(b"\n\n") for path in out.glob("tiny/*/rows.jsonl")) >= count


def test_a_run_that_is_killed_interrupted_and_starved_ends_the_same(
    config: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """SIGKILL at three moments and near the end, Ctrl-C, and a limit on the size of files in place of a full disk, on one folder."""
    kills = [lambda: any(tmp_path.glob("tiny/*/started.json")), units(tmp_path, 2), checkpoints(tmp_path, 4)]
    came = [disturb(start(config, tmp_path), moment, signal.SIGKILL)[0] for moment in kills]
    assert came == [True, True, True]

    process = start(config, tmp_path)
    came_too, said = disturb(process, checkpoints(tmp_path, 10), signal.SIGINT)
    assert came_too
    assert process.returncode == 130
    assert said == "interrupted; what was computed is kept, and the same command continues from there\n"

    (folder,) = (tmp_path / "tiny").iterdir()
    resumed = [entry["step"] for entry in journal(folder) if entry["event"] == "resume"]
    assert any(0 < step < 150 for step in resumed), resumed

    process = start(config, tmp_path, limit=len(reference["model-0.safetensors"]) + 1000)  # the rows grow beyond that
    said = process.communicate(timeout=_PATIENCE)[1].strip()
    assert process.returncode == 2, said
    assert len(said.splitlines()) == 1
    assert "no space is left on the disk" in said
    assert "the same command continues from there" in said
    assert units(tmp_path, 5)()

    disturb(start(config, tmp_path), lambda: any(tmp_path.glob("tiny/*/table.csv")), signal.SIGKILL)
    last = subprocess.run(command(config, tmp_path), capture_output=True, text=True, check=True)
    assert "A tiny table" in last.stdout
    assert results(tmp_path) == reference


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_kill_9_at_random_moments(config: Path, tmp_path: Path, reference: dict[str, bytes], seed: int) -> None:
    delays = random.Random(seed)
    for _ in range(20):
        process = start(config, tmp_path)
        end = time.monotonic() + delays.uniform(0, 8)
        if not disturb(process, lambda end=end: time.monotonic() > end, signal.SIGKILL)[0]:  # type: ignore[misc]
            break
    subprocess.run(command(config, tmp_path), capture_output=True, check=True)
    assert results(tmp_path) == reference


def test_a_checkpoint_that_does_not_fit_is_one_clear_line(config: Path, tmp_path: Path) -> None:
    process = start(config, tmp_path, limit=20_000)
    said = process.communicate(timeout=_PATIENCE)[1].strip()
    assert process.returncode == 2, said
    assert len(said.splitlines()) == 1
    assert "no space is left on the disk" in said
    assert not list(tmp_path.glob("tiny/*/.*.tmp"))
