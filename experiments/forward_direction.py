"""How many sequences until a masked model knows the forward direction: observations from latents that are all given.

    python experiments/forward_direction.py --out DIR [--problems 32:64 64:128] [--ways muon:1e-3:0.1:16 ...]

The easiest fill-in problem of L&O data (no inference: every observation is a function of three visible tokens), and
the slowest to be learned as N grows: which three? Each way, ``optimiser:rate:embedding scale:batch``, trains a network
on masks ``two_rates(0,1)`` alone, at a constant rate after a warm-up, until the running loss on fresh data falls below
a tenth of the entropy of a single observation, or ``--sequences`` are used up. Writes ``forward.csv`` to DIR, one line
as each training ends: sequences and operations until the loss is below 0.9, 0.5 and 0.1 of that entropy (empty: it
never was), and where it ended. On a GPU: ``--device cuda --shape 19M --workers 1 --problems 25:275 30:270``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lo_theory.diffusion.masks import TwoRates
from lo_theory.neural import Masked, Observer, TrainConfig, TransformerConfig, flop_per_token, train
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

SHARES = (0.9, 0.5, 0.1)  # of the entropy of a single observation
SINGLE = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # of an NAE of three distinct latents, nats
WINDOW = 800  # sequences over which the running loss is taken
WARM = 100  # steps


class Way(NamedTuple):
    """What is varied: optimiser, learning rate, standard deviation of the initial embeddings, sequences a step."""

    optimiser: str
    rate: float
    scale: float
    batch: int


def way(text: str) -> Way:
    """``muon:1e-3:0.1:16``."""
    optimiser, rate, scale, batch = text.split(":")
    return Way(optimiser, float(rate), float(scale), int(batch))


def problem(text: str) -> tuple[int, int]:
    """``N:P``."""
    n, p = text.split(":")
    return int(n), int(p)


class Learned(Exception):
    """Raised out of training when the loss has fallen far enough."""


def measure(size: tuple[int, int], choice: Way, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network; a line of the table."""
    n, p = size
    form: dict[str, Any] = {"n_values": 2, "length": n + p, "positions": "learned", "embedding_scale": choice.scale}
    if options.shape == "laptop":
        network = TransformerConfig(layers=3, heads=8, width=96, inner=192, **form)
    else:
        network = TransformerConfig.of(options.shape, **form)
    config = TrainConfig(
        steps=-(-options.sequences // choice.batch), batch=choice.batch, learning_rate=choice.rate, final_ratio=1.0,
        warmup=WARM, optimiser=choice.optimiser, precision="auto", device=options.device, threads=options.threads,
        log_every=max(1, WINDOW // choice.batch), compile=options.compile,
    )  # fmt: skip
    reached: dict[float, int] = {}
    last = (0, math.nan)

    def look(step: int, values: Mapping[str, Any]) -> None:
        nonlocal last
        if "loss" not in values:
            return
        last = (step * choice.batch, values["loss"] / SINGLE)
        reached.update({share: last[0] for share in SHARES if last[1] < share and share not in reached})
        if len(reached) == len(SHARES):
            raise Learned

    objective = Masked(nae_sat(n, p, seed=0), TwoRates(0.0, 1.0))
    began = time.perf_counter()
    with contextlib.suppress(Learned):
        train(network, config, objective, Key(seed).fold("forward direction"), on_log=Observer(look))
    operations = flop_per_token(network) * network.length
    line: dict[str, Any] = {"N": n, "P": p, **choice._asdict(), "shape": options.shape, "seed": seed}
    line |= {f"sequences_to_{share}": reached.get(share, "") for share in SHARES}
    line |= {f"flops_to_{share}": f"{operations * reached[share]:.3g}" if share in reached else "" for share in SHARES}
    line |= {"sequences": last[0], "loss_share": round(last[1], 4), "seconds": round(time.perf_counter() - began, 1)}
    return line | {"torch": torch.__version__, "device": options.device}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=problem, nargs="+", default=[(16, 32), (32, 64)], metavar="N:P")
    parser.add_argument("--ways", type=way, nargs="+", metavar="optimiser:rate:scale:batch", default=[
        way("muon:4e-3:1:16"), way("muon:1e-3:1:16"), way("muon:2e-3:0.1:16"), way("muon:1e-3:0.1:16"),
        way("adamw:1e-3:1:16"), way("adamw:1e-3:0.1:16"),
    ])  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sequences", type=int, default=48_000, help="at most so many a training")
    parser.add_argument("--shape", default="laptop", help="laptop (3 layers, width 96) or small, 6M, 19M")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for each training")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(size, choice, seed) for size in options.problems for choice in options.ways for seed in options.seeds]
    with (
        open(options.out / "forward.csv", "w", newline="") as file,
        ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool,
    ):
        table: csv.DictWriter[str] | None = None
        for found in as_completed([pool.submit(measure, *job, options) for job in jobs]):
            line = found.result()
            if table is None:
                table = csv.DictWriter(file, list(line), lineterminator="\n")
                table.writeheader()
            table.writerow(line)
            file.flush()
            print(", ".join(f"{name} {value}" for name, value in line.items() if value != ""), flush=True)


if __name__ == "__main__":
    main()
