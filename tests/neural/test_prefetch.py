from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Masked, train
from lo_theory.neural.prefetch import THREAD, Prefetch
from tests.neural.small import KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_train import Stopped, stop_at

CPU = torch.device("cpu")


def background() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD)]


class Draws:
    """Draws that say which step they are of, and remember when and where they were asked for."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.threads: set[int] = set()
        self.fails_at = fails_at

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        if step == self.fails_at:
            raise OSError(f"no rows for step {step}")
        self.steps.append(step)
        self.threads.add(threading.get_ident())
        return {"step": np.array([step])}


def settle(draws: Draws, count: int) -> None:
    """Wait until so many draws were made, and then a little, in case there are more."""
    until = time.monotonic() + 20
    while len(draws.steps) < count and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_every_batch_comes_once_and_in_order(depth: int) -> None:
    draws = Draws()
    with Prefetch(draws, range(4, 11), depth=depth, device=CPU) as batches:
        assert [int(batch["step"]) for batch in batches] == list(range(4, 11))
    assert draws.steps == list(range(4, 11))
    assert (threading.get_ident() in draws.threads) == (depth == 0)
    assert len(draws.threads) == 1
    assert not background()


def test_no_more_batches_wait_than_asked_for() -> None:
    draws = Draws()
    with Prefetch(draws, range(100), depth=3, device=CPU) as batches:
        settle(draws, 3)
        assert draws.steps == [0, 1, 2]
        next(batches)
        settle(draws, 4)
        assert draws.steps == [0, 1, 2, 3]
        assert len(background()) == 1
    assert not background()
    assert len(draws.steps) <= 4


@pytest.mark.parametrize("depth", [0, 2])
def test_what_a_draw_raises_reaches_the_caller_where_the_batch_is_due(depth: int) -> None:
    draws, came = Draws(fails_at=5), []

    def take_all() -> None:
        with Prefetch(draws, range(10), depth=depth, device=CPU) as batches:
            came.extend(int(batch["step"]) for batch in batches)

    def step_by_step() -> None:
        with Prefetch(draws, range(10), depth=depth, device=CPU) as batches:
            for batch in batches:
                came.append(int(batch["step"]))

    with pytest.raises(OSError, match="no rows for step 5"):
        step_by_step()
    assert came == [0, 1, 2, 3, 4]
    assert not background()
    with pytest.raises(OSError, match="no rows for step 5"):
        take_all()


@dataclass(frozen=True)
class Failing(Masked):
    """Cannot draw one step."""

    at: int = 7

    def draw(self, key: Any, step: int, rows: tuple[int, int]) -> Any:
        if step == self.at:
            raise OSError(f"the source has gone at step {step}")
        return super().draw(key, step, rows)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_training_ends_in_the_same_bytes_however_far_ahead_batches_are_drawn(prefetch: int, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(NETWORK, replace(TRAINING, prefetch=2), OBJECTIVE, KEY, checkpoint=first)
    train(NETWORK, replace(TRAINING, prefetch=prefetch), OBJECTIVE, KEY, checkpoint=second)
    assert first.read_bytes() == second.read_bytes()
    assert not background()


def test_a_failing_source_ends_training_at_its_step_and_leaves_no_thread(tmp_path: Path) -> None:
    seen: list[int] = []
    config = replace(TRAINING, log_every=1, prefetch=4)
    with pytest.raises(OSError, match="gone at step 7"):
        train(NETWORK, config, Failing(PROBLEM, Uniform()), KEY, on_log=lambda step, _: seen.append(step))
    assert seen == list(range(8))  # the start and seven steps
    assert not background()


def test_a_run_that_is_stopped_leaves_no_thread() -> None:
    with pytest.raises(Stopped):
        train(NETWORK, replace(TRAINING, steps=1000, prefetch=4), OBJECTIVE, KEY, on_log=stop_at(5))
    assert not background()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_reach_a_gpu_as_they_were_drawn() -> None:
    def draw(step: int) -> dict[str, np.ndarray]:
        return {"rows": np.random.default_rng(step).normal(size=(64, 300)).swapaxes(0, 1)}

    with Prefetch(draw, range(50), depth=3, device=torch.device("cuda")) as batches:
        for step, batch in enumerate(batches):
            assert batch["rows"].is_cuda
            np.testing.assert_array_equal(batch["rows"].cpu().numpy(), draw(step)["rows"])
