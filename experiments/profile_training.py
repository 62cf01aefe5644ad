"""How fast the paper's network trains on a device, against the device's own matrix rate, and where the time goes.

    python experiments/profile_training.py --device cuda --out DIR [--batches 64 256] [--shape 19M] [--steps 60]

Writes to DIR: ``rates.csv``, one line for each batch and way of running (``loop``: network, loss and optimiser on one
batch in memory; ``train``: the trainer, which draws its batches; each eager and compiled), and ``kernels.csv``, the
device's time by kind of kernel in the compiled loop. Operations are counted as ``flop_per_token`` does. On a CPU it
runs too (give small batches), without kernels. It changes nothing of the device and needs nothing but the package.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Masked, TrainConfig, TransformerConfig, flop_per_token, measure_matmul_rate, train
from lo_theory.neural.parallel import current_ranks
from lo_theory.neural.step import Training
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

KEY = Key(0).fold("profile of training")
OBJECTIVE = Masked(nae_sat(25, 275, seed=0), Uniform())
WARM = 10  # steps that are not counted: compiling, choosing kernels, filling caches
KINDS = (  # by what the kernels of torch and of its compiler are called, the first that fits
    ("attention, backward", ("flash_bwd", "fmha_bwd", "attention_backward", "flash_bprop", "dot_do_o", "convert_dq")),
    ("attention, forward", ("flash_fwd", "fmha", "attention", "flash_fprop")),
    ("matrix products", ("gemm", "cutlass", "nvjet", "cublas", "xmma", "splitk")),
    ("optimiser and gradient norm", ("multi_tensor", "fused_adam", "lpnorm", "foreach")),
    ("fused elementwise work, norms and sums", ("triton",)),
    ("copies", ("memcpy", "memset")),
)


def wait(device: torch.device) -> None:
    """Wait until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def loop(network: TransformerConfig, config: TrainConfig, steps: int) -> tuple[float, Callable[[], None]]:
    """Seconds a step with one batch in memory, and a function that takes another step."""
    training = Training(network, config, OBJECTIVE, KEY, current_ranks())
    batch = {name: torch.from_numpy(value).to(training.device) for name, value in training.draw(0).items()}

    def step() -> None:
        training.advance(batch)

    for _ in range(WARM):
        step()
    wait(training.device)
    times = []
    for _ in range(5):  # the median over five stretches
        began = time.perf_counter()
        for _ in range(max(1, steps // 5)):
            step()
        wait(training.device)
        times.append((time.perf_counter() - began) / max(1, steps // 5))
    return median(times), step


def trainer(network: TransformerConfig, config: TrainConfig) -> float:
    """Seconds a step of ``train``, which draws its batches and watches its loss; the median over its logs."""
    logs: list[float] = []

    def on_log(step: int, values: Mapping[str, Any]) -> None:
        if "tokens_per_second" in values:
            logs.append(config.batch * network.length / values["tokens_per_second"])

    train(network, config, OBJECTIVE, KEY, on_log=on_log)
    return median(logs[1:])


def kernels(step: Callable[[], None], steps: int = 5) -> list[tuple[str, str, float, float]]:
    """Kind and name of each kernel of a step, its calls and its microseconds, longest first."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    rows = []
    for event in seen.key_averages():
        if event.device_type == torch.autograd.DeviceType.CUDA and event.self_device_time_total > 0:
            name = event.key.lower()
            kind = next((kind for kind, words in KINDS if any(word in name for word in words)), "other")
            rows.append((kind, event.key[:120], event.count / steps, event.self_device_time_total / steps))
    return sorted(rows, key=lambda row: -row[3])


def write(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default="19M")
    parser.add_argument("--positions", default="learned")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ways", nargs="+", default=["eager", "compiled"], choices=["eager", "compiled"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    on_gpu = torch.device(options.device).type == "cuda"
    rate = measure_matmul_rate(options.device)
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    network = TransformerConfig.of(options.shape, n_values=2, length=300, positions=options.positions)
    operations = flop_per_token(network) * network.length
    print(f"{name}, torch {torch.__version__}: bfloat16 matrix rate {rate / 1e12:.3g} TFLOP/s", flush=True)
    rates: list[tuple[Any, ...]] = []
    for way in options.ways:
        for batch in options.batches:
            config = TrainConfig(
                steps=WARM + options.steps, batch=batch, precision="bfloat16", device=options.device, log_every=WARM,
                compile=way == "compiled",
            )  # fmt: skip
            seconds, step = loop(network, config, options.steps)
            for what, taken in (("loop", seconds), ("train", trainer(network, config))):
                share = operations * batch / taken / rate
                rates.append((name, torch.__version__, rate, options.shape, batch, way, what, taken, share))
                print(f"batch {batch:4d}, {way}, {what}: {1e3 * taken:.2f} ms a step, {share:.1%}", flush=True)
            header = ("device", "torch", "matrix_flops", "shape", "batch", "way", "what", "seconds", "utilisation")
            write(options.out / "rates.csv", header, rates)
            if on_gpu and way == "compiled" and batch == max(options.batches):
                found = kernels(step)
                write(options.out / "kernels.csv", ("kind", "kernel", "calls", "microseconds"), found)
                by_kind: dict[str, float] = defaultdict(float)
                for kind, _, _, microseconds in found:
                    by_kind[kind] += microseconds
                for kind, microseconds in sorted(by_kind.items(), key=lambda item: -item[1]):
                    print(f"  {microseconds / 1e3:7.2f} ms  {kind}")


if __name__ == "__main__":
    main()
