from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Ranks, current_ranks, join_ranks, load, train
from tests.neural import ranked
from tests.neural.ranked import TOGETHER, Recorded
from tests.neural.small import KEY, NETWORK, PROBLEM
from tests.processes import Process, wait_until
from tests.ranks import start_ranks

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)


def launched(job: str, folder: Path, count: int = 2, **settings: Any) -> AbstractContextManager[list[Process]]:
    """The ranks of a job."""
    return start_ranks(partial(Process, ranked.main, job, str(folder), json.dumps(settings)), count)


def finished(job: str, folder: Path, count: int = 2, **settings: Any) -> list[dict[str, Any]]:
    """Run a job to its end; what each rank wrote down."""
    folder.mkdir(exist_ok=True)
    with launched(job, folder, count, **settings) as ranks:
        said = [rank.communicate()[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * count, said
    facts = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]
    assert [fact["ranks"] for fact in facts] == [[rank, count] for rank in range(count)]
    return facts


def arrays(folder: Path, count: int) -> list[dict[str, np.ndarray]]:
    found = []
    for rank in range(count):
        with np.load(folder / f"rank-{rank}.npz") as stored:
            found.append({name: stored[name] for name in stored.files})
    return found


def wait_for(process: Process, step: int) -> None:
    """Wait until it has printed this step."""
    wait_until(lambda: any(int(line) >= step for line in process.said()[0].split("\n")[:-1]))


def alone(folder: Path, **settings: Any) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor], list[float]]:
    """The same run in this one process: rows, weights, losses."""
    objective, losses = Recorded(PROBLEM, Uniform()), []
    trained = train(
        NETWORK,
        replace(TOGETHER, **settings),
        objective,
        KEY,
        on_log=lambda step, values: losses.extend([values["loss"]] if "loss" in values else []),
    )
    return objective.kept, trained.model.state_dict(), losses


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain", marks=pytest.mark.soak),
        pytest.param({"optimiser": "muon", "ema": 0.9, "microbatch": 2, "prefetch": 0}, id="everything"),
    ],
)
def test_two_ranks_see_the_rows_of_one_and_learn_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    facts = finished("plain", tmp_path, **settings)
    first, second = arrays(tmp_path, 2)
    rows, weights, losses = alone(tmp_path, **settings)
    for name, values in rows.items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), values, err_msg=name)
        assert (len(first[name]), len(second[name])) == (4, 5)
    for name, expected in weights.items():
        np.testing.assert_array_equal(first[f"weights/{name}"], second[f"weights/{name}"])
        np.testing.assert_allclose(first[f"weights/{name}"], expected.numpy(), rtol=1e-3, atol=1e-4)
    # Seen rows and a step that takes only a rank's own share would be far outside of that.
    assert max(np.abs(value.numpy() - first[f"weights/{name}"]).max() for name, value in weights.items()) < 1e-2
    # Only the first rank tells, and what it tells is about the whole batch.
    told = facts[0]["told"]
    assert facts[1]["told"] == []
    assert told[0][1]["ranks"] == 2
    assert [values["loss"] for _, values in told[1:]] == pytest.approx(losses, rel=1e-3)
    assert [step for step, values in told if "evaluated_by" in values] == [6, 12]
    assert {values["evaluated_by"] for _, values in told if "evaluated_by" in values} == {0}
    assert facts[0]["result"]["flops"] == facts[1]["result"]["flops"] == told[-1][1]["flops"]
    assert load(tmp_path / "model").header["step"] == 12


def test_objectives_of_several_passes_learn_on_two_ranks_what_they_learn_on_one(tmp_path: Path) -> None:
    finished("proposals", tmp_path)
    for name, objective in ranked.PROPOSALS.items():
        with np.load(tmp_path / f"{name}-0.npz") as first, np.load(tmp_path / f"{name}-1.npz") as second:
            apart = []
            half = ranked.weights(train(NETWORK, replace(TOGETHER, batch=4), objective, KEY))
            for part, value in ranked.weights(train(NETWORK, TOGETHER, objective, KEY)).items():
                np.testing.assert_array_equal(first[part], second[part])
                np.testing.assert_allclose(first[part], value, rtol=1e-3, atol=1e-4)
                apart.append(np.abs(half[part] - value).max())
            assert max(apart) > 1e-2, "the share of the first rank alone teaches something else"


@pytest.mark.soak
def test_a_killed_run_goes_on_with_any_number_of_ranks(tmp_path: Path) -> None:
    """Killed with two ranks; continued by two to the same bytes, by one and by three to the same up to rounding."""
    settings = {"steps": 60, "ema": 0.9, "microbatch": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished("plain", whole, **settings)
    killed.mkdir()
    with launched("slow", killed, **settings) as ranks:
        wait_for(ranks[0], 20)
        for rank in ranks:
            rank.kill()
    left = (killed / "model").read_bytes()
    step = load(killed / "model").header["step"]
    assert 19 <= step < 60
    expected = load(whole / "model")
    for count in (2, 1, 3):
        folder = tmp_path / f"continued-{count}"
        folder.mkdir()
        (folder / "model").write_bytes(left)
        facts = finished("plain", folder, count, **settings)
        assert [fact["result"]["resumed_from"] for fact in facts] == [step] * count
        assert facts[0]["told"][0][1]["event"] == "resume"
        found = load(folder / "model")
        for name, value in expected.tensors.items():
            if count == 2:
                assert torch.equal(found.tensors[name], value), name
            torch.testing.assert_close(found.tensors[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dies", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_rank_that_dies_ends_the_others_with_an_error_and_one_alone_can_go_on(dies: int, tmp_path: Path) -> None:
    path, config = tmp_path / "model", replace(TOGETHER, steps=200, ema=0.9)
    with launched("slow", tmp_path, steps=200, ema=0.9) as ranks:
        wait_for(ranks[0], 10)
        ranks[dies].send_signal(signal.SIGKILL)
        _, said = ranks[1 - dies].communicate(timeout=60)
    assert ranks[1 - dies].returncode not in (0, None)
    assert f"RuntimeError: rank {1 - dies} of 2 has lost another rank" in said
    assert "the last checkpoint is kept; the same command continues from there" in said
    kept = load(path)
    assert 9 <= kept.header["step"] < 200
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())
    trained = train(NETWORK, config, Recorded(PROBLEM, Uniform()), KEY, checkpoint=path)
    assert trained.resumed_from == kept.header["step"]
    _, weights, _ = alone(tmp_path, steps=200, ema=0.9)
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-2, atol=1e-3)


def test_a_rank_that_falls_silent_is_waited_for_no_longer_than_stated(tmp_path: Path) -> None:
    with launched("slow", tmp_path, steps=100_000, timeout_seconds=3.0) as ranks:
        wait_for(ranks[0], 3)
        ranks[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        _, said = ranks[0].communicate(timeout=60)
        waited = time.monotonic() - began
        ranks[1].send_signal(signal.SIGCONT)
    assert ranks[0].returncode not in (0, None)
    assert "rank 0 of 2 has lost another rank" in said
    assert waited > 1.0  # it did wait, and ended by itself


def test_what_goes_wrong_for_all_is_said_by_all(tmp_path: Path) -> None:
    (tmp_path / "disk-0").mkdir()
    train(NETWORK, TOGETHER, Recorded(PROBLEM, Uniform()), KEY, checkpoint=tmp_path / "disk-0" / "model")
    facts = finished("endings", tmp_path)
    for rank, said in enumerate(fact["result"] for fact in facts):
        assert said["poisoned"].startswith("NotFinite: loss is nan at step 7 of 12")
        assert said["apart"].startswith("ValueError: ranks disagree on the step to continue from")
        assert f"rank {rank} has {(12, 0)[rank]}" in said["apart"]
        assert said["different"].startswith("ValueError: ranks disagree on the run")
    assert load(tmp_path / "model").header["step"] == 7


@pytest.mark.soak
def test_torchrun_starts_it(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.neural.ranked", "plain", str(tmp_path), "{}"]
    subprocess.run(
        command, cwd=Path(__file__).parents[2], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    first, second = arrays(tmp_path, 2)
    rows, weights, _ = alone(tmp_path)
    for name, values in rows.items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), values)
    for name, expected in weights.items():
        np.testing.assert_allclose(first[f"weights/{name}"], expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("compiled", [False, True])
def test_two_gpus_learn_as_one_cpu_does(compiled: bool, tmp_path: Path) -> None:
    finished("plain", tmp_path, device="cuda", compile=compiled, microbatch=2)
    first, second = arrays(tmp_path, 2)
    rows, weights, _ = alone(tmp_path)
    for name, values in rows.items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), values)
    for name, expected in weights.items():
        np.testing.assert_array_equal(first[f"weights/{name}"], second[f"weights/{name}"])
        np.testing.assert_allclose(first[f"weights/{name}"], expected.numpy(), rtol=0.02, atol=0.01)


@pytest.mark.parametrize(("batch", "count"), [(9, 2), (8, 3), (100, 7), (5, 5), (1, 1)])
def test_the_slices_of_the_ranks_are_the_batch(batch: int, count: int) -> None:
    slices = [Ranks(rank, count).rows(batch) for rank in range(count)]
    rows = [row for start, number in slices for row in range(start, start + number)]
    assert rows == list(range(batch))
    sizes = [number for _, number in slices]
    assert max(sizes) - min(sizes) <= 1


def test_more_ranks_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="batch of 3 rows cannot be shared by 4 ranks"):
        Ranks(0, 4).rows(3)


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with join_ranks() as ranks:
        assert ranks == current_ranks() == Ranks()
    assert not torch.distributed.is_initialized()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with (
        pytest.raises(ValueError, match=r"timeout_seconds must be positive, got 0\.0"),
        join_ranks(timeout_seconds=0.0),
    ):
        pass


def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    places: Sequence[tuple[Ranks, str, str]] = [
        (Ranks(), "cuda", "cuda"),
        (Ranks(3, 4, 3, 4), "cuda", "cuda:3"),
        (Ranks(5, 8, 1, 4), "cuda", "cuda:1"),
        (Ranks(1, 2, 1, 2), "cpu", "cpu"),
    ]
    for ranks, name, expected in places:
        assert str(ranks.device(name)) == expected
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ValueError, match="rank 1 of this machine needs a GPU of its own, there are 1"),
        join_ranks("cuda"),
    ):
        pass
