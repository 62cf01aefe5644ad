"""kill -9 at any moment, Ctrl-C, and a disk that fills up: the same command again ends in the same rows and weights."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_theory.cli import main
from lo_theory.lab.runs import journal
from tests.lab.tiny import tiny, tiny_of
from tests.processes import Process, command, wait_until


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


def start(config: Path, out: Path, **options: Any) -> Process:
    """The command in a process of its own, writing a checkpoint after every step."""
    extra = ["--out", str(out), "--threads", "1", "--checkpoint-seconds", "0", "--quiet"]
    return command("run", str(config), *extra, **options)


def disturb(process: Process, moment: Callable[[], bool], number: int) -> tuple[bool, str]:
    """Send a signal when ``moment`` comes; whether it came before the end, and what was said on standard error."""
    with process:
        wait_until(lambda: process.returncode is not None or moment())
        came = process.returncode is None
        process.send_signal(number)
        return came, process.communicate()[1]


def run_to_its_end(config: Path, out: Path, **options: Any) -> tuple[int | None, str, str]:
    """Exit code, and what was said on both streams."""
    with start(config, out, **options) as process:
        said = process.communicate()
        return process.returncode, *said


def checkpoints(out: Path, count: int, file: str = "model-0.safetensors") -> Callable[[], bool]:
    """The moment at which the checkpoint has been written ``count`` times since now."""
    seen: set[int] = set()

    def moment() -> bool:
        for path in out.glob(f"tiny/*/{file}"):
            seen.add(path.stat().st_mtime_ns)
        return len(seen) > count

    return moment


def kept(out: Path) -> int:
    """Units whose rows are on disk."""
    return sum(path.read_bytes().count(b"\n\n") for path in out.glob("tiny/*/rows.jsonl"))


def test_a_run_that_is_killed_interrupted_and_starved_ends_the_same(
    config: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """SIGKILL at three moments and near the end, Ctrl-C, and a limit on the size of files in place of a full disk, on one folder."""
    kills = [lambda: any(tmp_path.glob("tiny/*/started.json")), lambda: kept(tmp_path) >= 2, checkpoints(tmp_path, 4)]
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

    limit = len(reference["model-0.safetensors"]) + 1000  # the rows grow beyond that
    code, _, said = run_to_its_end(config, tmp_path, limit=limit)
    assert code == 2, said
    assert len(said.splitlines()) == 1
    assert "no space is left on the disk" in said
    assert "the same command continues from there" in said
    assert kept(tmp_path) >= 5

    written = lambda: any(tmp_path.glob("tiny/*/table.csv"))  # noqa: E731
    assert disturb(start(config, tmp_path, figures=True), written, signal.SIGKILL)[0]
    code, shown, _ = run_to_its_end(config, tmp_path)
    assert code == 0
    assert "A tiny table" in shown
    assert results(tmp_path) == reference


def test_a_killed_training_on_a_pool_continues_from_its_settings_to_the_same_weights(tmp_path: Path) -> None:
    """PUMA after a stage, by its name in the settings: its pool is in the checkpoint."""
    settings = tiny_of("proposals", experiment="tiny", draws=1)
    settings["training"] = {**settings["training"], "steps": 150}
    settings["decoding"] = {"sequences": 2, "denoisers": ["model"], "policies": ["vanilla"], "steps": [2]}
    settings["evaluation"] = {"sequences": 2}
    settings["rows"] = [{"name": "PUMA", "objective": {"kind": "puma(4,0.9)"}}]
    path, whole, killed, file = tmp_path / "puma.yaml", tmp_path / "whole", tmp_path / "killed", "model-0-0.safetensors"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    for out in (whole, killed):
        if out == killed:
            assert disturb(start(path, out), checkpoints(out, 20, file), signal.SIGKILL)[0]
        assert main(["run", str(path), "--out", str(out), "--threads", "1", "--workers", "1", "--quiet"]) == 0
    (one,), (other,) = ((out / "tiny").iterdir() for out in (whole, killed))
    (step,) = [entry["step"] for entry in journal(other) if entry["event"] == "resume"]
    assert 2 < step < 150, "the pool has moved on, and training has not ended"
    assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_checkpoint_that_does_not_fit_is_one_clear_line(config: Path, tmp_path: Path) -> None:
    code, _, said = run_to_its_end(config, tmp_path, limit=20_000)
    assert code == 2, said
    assert len(said.splitlines()) == 1
    assert "no space is left on the disk" in said
    assert not list(tmp_path.glob("tiny/*/.*.tmp"))


@pytest.mark.soak
def test_ten_kills_at_random_moments(config: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    """After random numbers of writes; a run is begun again until it ends by itself, then another, until ten kills."""
    chance, kills = random.Random(0), 0
    for number in itertools.count():
        out, came = tmp_path / str(number), True
        while came and kills < 10:
            count = chance.randrange(120)  # of the writes of a run, as many as are seen
            came, _ = disturb(start(config, out), writes(out, count), signal.SIGKILL)
            kills += came
            if came:
                print(f"kill {kills}: run {number}, after {count} writes, with {kept(out)} units on disk")
        assert run_to_its_end(config, out)[0] == 0
        assert results(out) == reference
        if kills == 10:
            break


def writes(out: Path, count: int) -> Callable[[], bool]:
    """The moment at which more than ``count`` states of files have been seen, of those that come from now on."""
    before = states(out)
    seen: set[tuple[Path, int]] = set()

    def moment() -> bool:
        seen.update(states(out) - before)
        return len(seen) > count

    return moment


def states(out: Path) -> set[tuple[Path, int]]:
    """Every file below ``out`` with the time of its last write."""
    found = set()
    for path in out.glob("tiny/*/*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary file
            found.add((path, path.stat().st_mtime_ns))
    return found
