"""Throughput of training, for L&O-NAE-SAT at (25, 275): tokens and operations per second, and what the trainer adds.

Goals:

* on a GPU the 19M network at L = 300 in bfloat16, compiled, reaches at least 30 % of the device's own bfloat16 matrix
  rate as ``measure_matmul_rate`` finds it (6 x 18,880,896 + 12 x 8 x 384 x 300 operations a token);
* on the CPU ``train`` (drawing, prefetch, watching, logging) takes at most 3 % longer a step than a plain torch loop
  of the same network and optimiser whose one batch lies in memory, the two taken in turns of a few steps.

Where there is a GPU the first is measured on it, otherwise a step of the same network on the CPU, with the share of the
CPU's own matrix rate. Each with one torch thread. Run by ``make bench``; figures are printed and kept in extra_info.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import (
    Masked,
    TrainConfig,
    Transformer,
    TransformerConfig,
    estimate_memory,
    flop_per_token,
    measure_matmul_rate,
    train,
)
from lo_theory.neural.memory import free_memory
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

KEY = Key(0).fold("bench of training")
OBJECTIVE = Masked(nae_sat(25, 275, seed=0), Uniform())
SMALL = TransformerConfig.of("small", n_values=2, length=300)
PAPER = TransformerConfig.of("19M", n_values=2, length=300)
TURN = 8  # steps of one loop before the other has its turn


class Plain:
    """The loop one writes first: the batch in memory, forward, backward, clip, step."""

    def __init__(self, network: TransformerConfig, config: TrainConfig) -> None:
        self.model = Transformer(network, seed=KEY.torch_seed()).to(config.device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.half = config.precision == "bfloat16"
        drawn = OBJECTIVE.draw(KEY, 0, (0, config.batch))
        self.batch = {name: torch.from_numpy(values).to(config.device) for name, values in drawn.items()}

    def step(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.batch["tokens"].device.type, torch.bfloat16, enabled=self.half):
            loss, _ = OBJECTIVE.loss(self.model, self.batch, {})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_overhead_over_a_plain_loop(benchmark: Any, capsys: Any, precision: str) -> None:
    """In turns: whenever training logs, the plain loop takes as many steps.

    By the clock, where the drawing of batches may hide behind the steps, and in processor time of all threads, where it
    cannot, and which other work on the machine moves less.
    """
    turns = 25
    config = TrainConfig(
        steps=TURN * (turns + 2), batch=8, precision=precision, threads=1, log_every=TURN, warmup=10, learning_rate=1e-3
    )
    plain, last = Plain(SMALL, config), np.zeros(2)
    ours: list[Any] = []
    theirs: list[Any] = []

    def now() -> Any:
        return np.array([time.perf_counter(), time.process_time()])

    def on_log(step: int, values: Mapping[str, Any]) -> None:
        nonlocal last
        began = now()
        if "loss" in values:
            ours.append(began - last)
        for _ in range(TURN):
            plain.step()
        last = now()
        theirs.append(last - began)

    benchmark.group = "overhead"
    benchmark.pedantic(lambda: train(SMALL, config, OBJECTIVE, KEY, on_log=on_log), rounds=1, iterations=1)
    tokens = TURN * config.batch * 300
    own, other = np.array(ours[2:]), np.array(theirs[2 : len(ours)])
    overhead, processor = np.median(own / other, axis=0) - 1
    facts = {
        "tokens_per_second": tokens / float(np.median(own[:, 0])),
        "plain_tokens_per_second": tokens / float(np.median(other[:, 0])),
        "overhead": float(overhead),
        "processor_overhead": float(processor),
    }
    benchmark.extra_info.update(facts)
    with capsys.disabled():
        print(
            f"\nsmall, {precision}: {facts['tokens_per_second']:.0f} tokens/s, a plain loop "
            f"{facts['plain_tokens_per_second']:.0f}, overhead {facts['overhead']:+.1%} (goal: at most 3 %), in processor time {facts['processor_overhead']:+.1%}"
        )


def rates(network: TransformerConfig, config: TrainConfig) -> dict[str, float]:
    """Medians over the logs of a run, without the first, which holds what is done once."""
    logs: list[Mapping[str, Any]] = []

    def on_log(step: int, values: Mapping[str, Any]) -> None:
        logs.extend([values] if "flops_per_second" in values else [])

    train(network, config, OBJECTIVE, KEY, on_log=on_log)
    names = ("tokens_per_second", "flops_per_second", "utilisation")
    return {name: median(values[name] for values in logs[1:]) for name in names}


def show(capsys: Any, what: str, found: Mapping[str, float]) -> None:
    with capsys.disabled():
        print(
            f"\n{what}: {found['tokens_per_second']:.0f} tokens/s, {found['flops_per_second'] / 1e9:.1f} GFLOP/s, "
            f"{found['utilisation']:.1%} of the bfloat16 matrix rate {found['matrix_rate'] / 1e9:.0f} GFLOP/s"
        )


@pytest.mark.parametrize(("shape", "batch"), [("small", 32), ("19M", 2)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_throughput_on_the_cpu(benchmark: Any, capsys: Any, shape: str, batch: int, precision: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rate = measure_matmul_rate("cpu", seconds=0.5)
    torch.set_num_threads(before)
    network = TransformerConfig.of(shape, n_values=2, length=300)
    config = TrainConfig(
        steps=6 if shape == "19M" else 24, batch=batch, precision=precision, threads=1, peak_flops=rate, log_every=1
    )
    benchmark.group = f"throughput, {shape}"
    found = benchmark.pedantic(rates, args=(network, config), rounds=1, iterations=1) | {"matrix_rate": rate}
    benchmark.extra_info.update(found, flop_per_token=flop_per_token(network))
    show(capsys, f"{shape}, {batch} rows, {precision}, one thread", found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("batch", [64, 128, 256, 512])
def test_throughput_on_a_gpu(benchmark: Any, capsys: Any, batch: int, compiled: bool) -> None:
    """The goal of 30 %; the first log holds the compiling."""
    rate = measure_matmul_rate("cuda", seconds=1.0)
    config = TrainConfig(
        steps=100, batch=batch, precision="bfloat16", device="cuda", compile=compiled, peak_flops=rate, log_every=20
    )
    if estimate_memory(PAPER, config) > (free_memory(torch.device("cuda")) or 0):
        pytest.skip(f"{batch} rows do not fit this GPU")
    benchmark.group = "throughput, 19M on a GPU"
    found = benchmark.pedantic(rates, args=(PAPER, config), rounds=1, iterations=1) | {"matrix_rate": rate}
    benchmark.extra_info.update(found, flop_per_token=flop_per_token(PAPER))
    show(capsys, f"19M, {batch} rows, {'compiled' if compiled else 'eager'} (goal: 30 %)", found)
