"""A training step of a small network on one core: heads of 12 against heads of 32, torch's RMSNorm against ours.

And with memory given back to the system against memory kept. Goal: three heads of 32, our norm and kept memory take at
most two thirds of the time of eight heads of 12, torch's norm and memory given back. Processor time, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch.nn import functional

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Masked, TrainConfig, TransformerConfig
from lo_theory.neural.memory import keep_memory
from lo_theory.neural.model import NORM_EPSILON, RMSNorm
from lo_theory.neural.parallel import current_ranks
from lo_theory.neural.step import Training
from lo_theory.neural.threads import torch_threads
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

OURS = RMSNorm.forward


def of_torch(norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, (x.shape[-1],), norm.weight, NORM_EPSILON)


NORMS = {"torch's norm": of_torch, "our norm": OURS}


def step(pair: tuple[int, int], batch: int, heads: int) -> Callable[[], None]:
    """A step of training on one batch in memory."""
    problem = nae_sat(*pair, seed=0)
    network = TransformerConfig(layers=3, heads=heads, width=96, inner=192, n_values=2, length=sum(pair))
    config = TrainConfig(steps=1000, batch=batch, learning_rate=1e-3, precision="auto")
    training = Training(network, config, Masked(problem, Uniform()), Key(0), current_ranks())
    drawn = {name: torch.from_numpy(values) for name, values in training.draw(0).items()}
    return lambda: training.advance(drawn)


def milliseconds(steps: dict[int, Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, str], float]:
    """By heads and norm: the median of 15 steps, in turns, after one that is not counted."""
    seconds: dict[tuple[int, str], list[float]] = {}
    for _ in range(16):
        for heads, advance in steps.items():
            for name, forward in NORMS.items():
                monkeypatch.setattr(RMSNorm, "forward", forward)
                began = time.process_time()
                advance()
                seconds.setdefault((heads, name), []).append(time.process_time() - began)
    return {which: 1e3 * median(times[1:]) for which, times in seconds.items()}


@pytest.mark.parametrize(("pair", "batch"), [((25, 275), 16), ((12, 48), 64)], ids=str)
def test_step_of_a_small_network(
    benchmark: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch, pair: tuple[int, int], batch: int
) -> None:
    with torch_threads(1):
        steps = {heads: step(pair, batch, heads) for heads in (8, 3)}
        found = {"memory given back": milliseconds(steps, monkeypatch)} if pair == (25, 275) else {}
        keep_memory()  # of this process, from here on
        found["memory kept"] = milliseconds(steps, monkeypatch)
        monkeypatch.setattr(RMSNorm, "forward", OURS)
        benchmark.pedantic(steps[3], rounds=5)
    lines = [
        f"{pair}, {heads} heads, {norm}, {memory}: {value:.1f} ms"
        for memory, times in found.items()
        for (heads, norm), value in times.items()
    ]
    benchmark.extra_info["steps"] = lines
    with capsys.disabled():
        print("", *lines, sep="\n")
