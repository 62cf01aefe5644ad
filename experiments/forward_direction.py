"""How many sequences until a masked model knows the forward direction: observations from latents that are all given.

    python experiments/forward_direction.py --out DIR [--problems 32:64 64:128] [--ways muon:1e-3:0.1:16 ...]

The easiest fill-in problem of L&O data: no inference, every observation is a function of three visible tokens, but
which three must be learned. Each way, ``optimiser:rate:embedding scale:batch``, trains a network on masks
``two_rates(0,1)`` alone, at a constant rate after a warm-up, until the running loss on fresh data falls below a tenth
of the entropy of a single observation (``ended``: learned), ``--sequences`` are used up, or the loss is no number any
more (diverged). Writes ``forward.csv`` to DIR, one line as each training ends: sequences and operations until the loss
is below 0.9, 0.5 and 0.1 of that entropy (empty: it never was), and where it ended. The same command goes on where it
was interrupted: trainings that have their line are not done again. A training that fails otherwise is told on stderr,
and the exit code is then 1.
On a GPU: ``--device cuda --shape 19M --workers 1 --problems 25:275 30:270``.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch

from lo_theory.diffusion.masks import TwoRates
from lo_theory.lab.machine import processor
from lo_theory.lab.training import choose_device
from lo_theory.neural import Masked, Observer, TrainConfig, TransformerConfig, flop_per_token, train
from lo_theory.neural.model import SHAPES
from lo_theory.neural.posterior import resolve_precision
from lo_theory.problem import nae_sat
from lo_theory.problem.seams import check_threads
from lo_theory.rng import Key

SHARES = (0.9, 0.5, 0.1)  # of the entropy of a single observation
SINGLE = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # of an NAE of three distinct latents, nats
WINDOW = 800  # sequences over which the running loss is taken
WARM = 1_600  # sequences, so that batches are compared by sequences alone


class Way(NamedTuple):
    """What is varied: optimiser, learning rate, standard deviation of the initial embeddings, sequences a step."""

    optimiser: str
    rate: float
    scale: float
    batch: int


def way(text: str) -> Way:
    """``muon:1e-3:0.1:16``."""
    try:
        optimiser, rate, scale, batch = text.split(":")
        return Way(optimiser, float(rate), float(scale), int(batch))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no optimiser:rate:scale:batch, such as muon:1e-3:0.1:16"
        ) from None


def problem(text: str) -> tuple[int, int]:
    """``N:P``."""
    try:
        n, p = text.split(":")
        return int(n), int(p)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no N:P, such as 32:64") from None


Job = tuple[tuple[int, int], Way, int]  # problem, way, seed
_IGNORED = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers


class Learned(Exception):
    """Raised out of training when the loss has fallen far enough."""


def make_training(
    size: tuple[int, int], choice: Way, options: argparse.Namespace
) -> tuple[TransformerConfig, TrainConfig, Masked]:
    """What is to be trained; ValueError for what cannot be."""
    n, p = size
    if choice.batch < 1 or options.sequences < max(WINDOW, choice.batch):
        raise ValueError(
            f"a batch has at least 1 sequence, and a training at least {WINDOW} and a batch: got a batch of "
            f"{choice.batch} and --sequences {options.sequences}"
        )
    form: dict[str, Any] = {"n_values": 2, "length": n + p, "positions": "learned", "embedding_scale": choice.scale}
    if options.shape == "laptop":
        network = TransformerConfig(layers=3, heads=8, width=96, inner=192, **form)
    else:
        network = TransformerConfig.of(options.shape, **form)
    window = max(1, WINDOW // choice.batch)  # steps
    config = TrainConfig(
        steps=window * max(1, options.sequences // (window * choice.batch)), batch=choice.batch,
        learning_rate=choice.rate, final_ratio=1.0, warmup=WARM // choice.batch, optimiser=choice.optimiser,
        precision=resolve_precision("auto", options.device), device=options.device, threads=options.threads,
        log_every=window, compile=options.compile,
    )  # fmt: skip
    return network, config, Masked(nae_sat(n, p, seed=0), TwoRates(0.0, 1.0))


def identity(size: tuple[int, int], choice: Way, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The columns that say which training a line is of."""
    place = {"N": size[0], "P": size[1], **choice._asdict()}
    return {**place, "shape": options.shape, "seed": seed, "at_most": options.sequences, "device": options.device}


def measure(size: tuple[int, int], choice: Way, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network; a line of the table."""
    network, config, objective = make_training(size, choice, options)
    reached: dict[float, int] = {}
    last, ended = (0, math.nan), "used up"

    def note_loss(step: int, values: Mapping[str, Any]) -> None:
        nonlocal last
        if "loss" not in values:
            return
        last = (step * choice.batch, values["loss"] / SINGLE)
        reached.update({share: last[0] for share in SHARES if last[1] < share and share not in reached})
        if len(reached) == len(SHARES):
            raise Learned

    began = time.perf_counter()
    try:
        train(network, config, objective, Key(seed).fold("forward direction"), on_log=Observer(note_loss))
    except Learned:
        ended = "learned"
    except FloatingPointError:  # a rate at which training diverges is a result, too
        ended = "diverged"
    operations = flop_per_token(network) * network.length
    line: dict[str, Any] = identity(size, choice, seed, options)
    line |= {f"sequences_to_{share}": reached.get(share, "") for share in SHARES}
    line |= {f"flops_to_{share}": f"{operations * reached[share]:.3g}" if share in reached else "" for share in SHARES}
    line |= {"ended": ended, "sequences": last[0], "loss_share": round(last[1], 4)}
    line |= {"seconds": round(time.perf_counter() - began, 1), "threads": options.threads}
    name = torch.cuda.get_device_name() if torch.device(options.device).type == "cuda" else processor()
    return line | {"precision": config.precision, "torch": torch.__version__, "machine": name}


def main() -> int:
    """Measure, print and write; 1 if a training failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=problem, nargs="+", default=[(16, 32), (32, 64)], metavar="N:P")
    parser.add_argument("--ways", type=way, nargs="+", metavar="optimiser:rate:scale:batch", default=[
        way("muon:4e-3:1:16"), way("muon:1e-3:1:16"), way("muon:2e-3:0.1:16"), way("muon:1e-3:0.1:16"),
        way("adamw:1e-3:1:16"), way("adamw:1e-3:0.1:16"),
    ])  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sequences", type=int, default=48_000, help="at most so many a training")
    parser.add_argument("--shape", default="laptop", choices=["laptop", *SHAPES], help="laptop: 3 layers, width 96")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for each training")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once")
    options = parser.parse_args()
    jobs = [(size, choice, seed) for size in options.problems for choice in options.ways for seed in options.seeds]
    try:
        check_threads(options.workers, "--workers")
        options.device = choose_device(options.device)
        for size, choice, _ in jobs:
            make_training(size, choice, options)
        options.out.mkdir(parents=True, exist_ok=True)
        file = open(options.out / "forward.csv", "a+", newline="")  # noqa: SIM115 (closed below)
        done = read_lines(file, identity(*jobs[0], options))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    left = [job for job in jobs if {name: str(value) for name, value in identity(*job, options).items()} not in done]
    with file:
        try:
            return train_all(file, left, options)
        except KeyboardInterrupt:
            print("interrupted; the lines written are kept, and the same command goes on from there", file=sys.stderr)
            return 130


def read_lines(file: TextIO, names: Iterable[str]) -> list[dict[str, str]]:
    """The columns ``names`` of the lines of a file; what a kill has torn is cut off. ValueError if it lacks one."""
    file.seek(0)
    text = file.read()
    whole = text[: text.rfind("\n") + 1]
    table = csv.DictReader(whole.splitlines())
    missing = [name for name in names if table.fieldnames is not None and name not in table.fieldnames]
    if missing:
        raise ValueError(f"{file.name} has no column {missing[0]}, it is of another version: give another --out")
    if whole != text:
        file.truncate(len(whole.encode()))
        file.seek(0, 2)
    return [{name: line[name] for name in names} for line in table]


def train_all(file: TextIO, jobs: Sequence[Job], options: argparse.Namespace) -> int:
    """Do the trainings that are left; 1 if one failed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context, initializer=signal.signal, initargs=_IGNORED) as pool:
        try:
            return write_lines(file, {pool.submit(measure, *job, options): job for job in jobs})
        except BaseException:  # do not go through the queue first
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def write_lines(file: TextIO, running: Mapping[Future[dict[str, Any]], Job]) -> int:
    """Write and print what each training found as it ends; 1 if one failed."""
    failed = 0
    for found in as_completed(running):
        if (error := found.exception()) is not None:
            failed = 1
            print(f"{running[found]}: {error}", file=sys.stderr, flush=True)
            continue
        line = found.result()
        table = csv.DictWriter(file, list(line), lineterminator="\n")
        if not file.tell():
            table.writeheader()
        table.writerow(line)
        file.flush()
        print(", ".join(f"{name} {value}" for name, value in line.items() if value != ""), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
