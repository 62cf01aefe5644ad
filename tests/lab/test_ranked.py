"""``lo-theory run`` on several ranks: the rows of one process, one writer, and nothing lost when a rank dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from lo_theory.cli import main
from lo_theory.lab.config import load
from lo_theory.lab.execute import Request, execute, own_rank
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, journal
from tests.cli.complaint import complaint
from tests.lab.test_kill import checkpoints
from tests.lab.tiny import tiny
from tests.processes import Process, command, wait_until
from tests.ranks import start_ranks

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny() | {"default_preset": "longer"}, sort_keys=False))
    return path


def words(config: Path, out: Path, *extra: str) -> list[str]:
    return ["run", str(config), "--out", str(out), "--threads", "1", "--checkpoint-seconds", "0", *extra]


def by_model(row: Row) -> bool:
    return row.keys.get("denoiser") == "model" or row.keys["kind"] in ("losses", "class_losses")


def same_rows(found: list[Row], expected: list[Row]) -> None:
    """What no network enters is equal to the byte; what one enters, up to what rounding of its weights may move."""
    assert [(row.unit, row.metric, row.keys) for row in found] == [(row.unit, row.metric, row.keys) for row in expected]
    for one, other in zip(found, expected, strict=True):
        if not by_model(one):
            assert one == other
        elif one.keys["kind"] in ("losses", "class_losses"):
            assert one.sums.total == pytest.approx(other.sums.total, rel=1e-2, abs=1e-3), one.unit
        elif one.metric in ("self_consistency", "unpaired", "conditional", "infill"):
            assert one.sums.mean == pytest.approx(other.sums.mean, abs=0.1), one.unit
    assert sum(by_model(row) for row in found) > 20


def test_two_ranks_leave_the_rows_of_one_also_after_the_death_of_one(config: Path, tmp_path: Path) -> None:
    """Kill the second rank in the middle of training; the first says so and the same command continues from there."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    with start_ranks(partial(command, *words(config, together, "--quiet"))) as ranks:
        wait_until(checkpoints(together, 4))
        ranks[1].kill()
        out, said = ranks[0].communicate()
        assert ranks[0].returncode == 2, said
    assert out == ""
    assert len(said.splitlines()) == 1, said
    assert said.startswith("lo-theory: rank 0 of 2 has lost another rank, which died, stopped, or was silent")
    assert "the last checkpoint is kept; the same command continues from there" in said
    (folder,) = (together / "tiny").iterdir()
    assert not (folder / "done.json").exists()

    with start_ranks(partial(command, *words(config, together))) as ranks:
        shown = [rank.communicate() for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], shown
    assert "A tiny table" in shown[0][0]
    assert "[15/15]" in shown[0][1]
    assert shown[1] == ("", "")  # only the first rank shows anything
    resumed = [entry["step"] for entry in journal(folder) if entry["event"] == "resume"]
    assert len(resumed) == 1
    assert 0 < resumed[0] < 300
    facts = json.loads((folder / "done.json").read_text())
    assert facts["ranks"] == 2

    expected = execute(load(config), Request(alone, threads=1), SilentProgress())
    assert "ranks" not in expected.facts
    same_rows(FinishedRun(folder).rows, expected.rows)


@pytest.mark.soak
def test_torchrun_starts_it_and_ranks_with_other_settings_are_refused(config: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    whole = [*torchrun, "lo_theory.cli", *words(config, tmp_path, "--quiet")]
    root = Path(__file__).parents[2]
    done = subprocess.run(whole, cwd=root, capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.count("A tiny table") == 1
    with start_ranks(partial(Process, with_steps_of_its_own, words(config, tmp_path, "--quiet"))) as ranks:
        said = [rank.communicate()[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [2, 2], said
    assert any("ranks disagree on the run" in text for text in said), said


def with_steps_of_its_own(arguments: list[str]) -> None:
    sys.exit(main([*arguments, "--set", f"training.steps={20 + int(os.environ['RANK'])}"]))


def test_one_process_is_the_first_rank_and_a_sweep_refuses_to_be_one_of_several(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert own_rank() == 0
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert own_rank() == 1
    line = complaint(["sweep", str(config), "--out", str(tmp_path)], capsys)
    assert "a sweep starts its own workers, one a GPU: start it without torchrun" in line
    assert main(["run", str(config), "--preset", "exact", "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())  # where nothing is trained, the others have nothing to do
