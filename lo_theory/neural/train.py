"""Training: a plain loop that any objective, any network and any device share, and that survives kill -9.

All randomness is addressed by (key, step, row), so a checkpoint holds no random state: network, optimiser, average, the
objective's tensors and the step are everything. Re-running the same call continues from the last checkpoint and ends
in the same weights, bit for bit, on the same kind of CPU at the same recorded number of threads and the same torch
version. Nothing of the sort is promised across devices or numbers of ranks: there the rows are the same, bit for bit,
and the weights up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lo_theory.neural import checkpoint as checkpoints
from lo_theory.neural.config import SILENT, TrainConfig, learning_rate
from lo_theory.neural.flops import Meter
from lo_theory.neural.model import Transformer, TransformerConfig
from lo_theory.neural.objectives import Objective
from lo_theory.neural.parallel import current_ranks
from lo_theory.neural.prefetch import Prefetch
from lo_theory.neural.step import Training
from lo_theory.neural.threads import torch_threads
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Observer", "Trained", "train"]

OnLog = Callable[[int, Mapping[str, Any]], None]
Evaluate = Callable[[int, Transformer], Mapping[str, Any]]


@checked
@dataclass(frozen=True)
class Observer:
    """Who receives the progress of training, and may measure the network on the way.

    ``on_log(step, values)`` as in ``train``. Every ``evaluate_every`` steps and after the last one
    ``evaluate(step, model)`` is called with the network that training would return (the average with ``ema``), in eval
    mode and without gradients, on the first rank only; the values it returns are logged with the step's others, or as
    an ``event`` "evaluation" of their own, with ``flops``, ``training_seconds`` and ``processor_seconds``. What either
    raises ends training. ValueError if ``evaluate`` is given without a positive ``evaluate_every``.
    """

    on_log: OnLog | None = None
    evaluate: Evaluate | None = None
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        if self.evaluate is not None and self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1 to evaluate, got {self.evaluate_every}")

    def report(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell it, if anybody listens."""
        if self.on_log is not None:
            self.on_log(step, values)

    def is_due(self, step: int, steps: int) -> bool:
        """Whether the network is to be measured after ``step`` of ``steps`` steps."""
        return self.evaluate is not None and (step % self.evaluate_every == 0 or step == steps)

    @torch.no_grad()
    def measure(self, step: int, model: Transformer) -> dict[str, Any]:
        """What there is to say about the network after ``step`` steps."""
        if self.evaluate is None:
            return {}
        was_training = model.training
        try:
            return dict(self.evaluate(step, model.eval()))
        finally:
            model.train(was_training)


@dataclass(frozen=True)
class Trained:
    """What training leaves: the network (in eval mode; the average with ``ema``), and how it came about.

    ``resumed_from``: the step of the checkpoint that was continued, None for a fresh start. ``seconds``: wall time of
    this call. ``flops``: operations since the first step, see ``flop_per_token``.
    """

    model: Transformer
    threads: int
    precision: str
    resumed_from: int | None
    seconds: float
    flops: float = 0.0


def _resume(training: Training, path: Path) -> tuple[dict[str, Any], int]:
    """Restore ``training`` from the file; return what was recorded about the machine, and the sequences seen."""
    saved = checkpoints.load(path)
    found, expected = dict(saved.header), training.identity()
    for header in (found, expected):  # so that a difference names both sides, also where one is silent
        header["training"] = {**SILENT, **header.get("training", {})}
        header["model"] = {"embedding_scale": 1.0, **header.get("model", {})}  # came later
        header.setdefault("initial", None)
    for part in expected:
        checkpoints.refuse_difference(path, part, found.get(part), expected[part])
    machine: dict[str, Any] = dict(found["machine"])
    asked = training.config.threads
    if asked is not None and asked != machine["threads"]:
        raise ValueError(
            f"{path} was trained with {machine['threads']} threads, now {asked} are asked for, which would give "
            "other weights: "
            f"ask for {machine['threads']}, leave threads open, or delete the checkpoint"
        )
    training.restore(saved, path)
    training.precision = machine["precision"]
    return machine, int(found.get("sequences", training.step * training.config.batch))


class _Run:
    """One call of ``train``: a training, its file, its clocks, and its observers."""

    def __init__(self, training: Training, path: Path | None, seconds: float, observer: Observer) -> None:
        self.training, self.path, self.every, self.observer = training, path, seconds, observer
        self.began = time.perf_counter()
        config, ranks = training.config, training.ranks
        peak = None if config.peak_flops is None else ranks.count * config.peak_flops
        self.meter = Meter(training.model.config, rows=training.rows[1], batch=config.batch, peak_flops=peak)
        threads = config.threads or torch.get_num_threads()
        self.machine: dict[str, Any] = {
            "threads": threads,
            "precision": training.precision,
            "torch": torch.__version__,
        }
        self.resumed_from: int | None = None
        self.sequences = 0
        if path is not None and path.exists():
            self.machine, self.sequences = _resume(training, path)
            self.resumed_from = training.step
        # All ranks have looked for the file once they agree, so the first may now write it.
        same = [torch.__version__, training.precision, training.identity()]
        ranks.agree("the run (versions, precision, settings)", same, training.device)
        ranks.agree("the step to continue from (can all read the checkpoint?)", training.step, training.device)
        self.saved = time.perf_counter()

    def save(self) -> None:
        """Write the checkpoint, on the first rank."""
        training = self.training
        if self.path is not None and training.ranks.is_first:
            training.watch.look()  # waits for the device, whose work is no pause
            with self.meter.pause():
                header = {**training.identity(), "step": training.step, "machine": self.machine}
                if self.meter.sequences != training.step * training.config.batch:  # several masks a row
                    header["sequences"] = self.meter.sequences
                checkpoints.save(self.path, checkpoints.Checkpoint(header, training.tensors()))
        self.saved = time.perf_counter()

    def start(self) -> None:
        """Tell how the run begins; write its first checkpoint."""
        here = {**self.machine, "torch": torch.__version__}
        if self.machine["torch"] != torch.__version__:
            here["recorded_torch"] = self.machine["torch"]
        if self.training.ranks.count > 1:
            here["ranks"] = self.training.ranks.count
        self._report({"event": "start" if self.resumed_from is None else "resume", **here})
        self.meter.begin(self.sequences)
        if self.resumed_from is None:
            self.save()

    def after_step(self) -> None:
        """Log, evaluate and save what is due after a step."""
        training, config, values = self.training, self.training.config, {}
        if training.step % config.log_every == 0:
            running, norm = training.watch.look()
            training.watch.begin_again()
            values = {
                "loss": running / config.log_every,
                "law": training.objective.label(training.step - 1),
                "learning_rate": learning_rate(config, training.step - 1),
                "gradient_norm": norm,
                **self.meter.read(),
                **self.meter.spent(),
                "seconds": time.perf_counter() - self.began,
            }
        values = self._evaluate(values)
        if values:
            self._report(values)
        if training.step == config.steps or time.perf_counter() - self.saved >= self.every:
            self.save()

    def _evaluate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Add to the values of a log what an evaluation finds, where one is due."""
        training, observer = self.training, self.observer
        if not (training.ranks.is_first and observer.is_due(training.step, training.config.steps)):
            return values
        training.watch.look()
        values = values or {"event": "evaluation", "flops": self.meter.flops, **self.meter.spent()}
        with self.meter.pause():
            found = observer.measure(training.step, training.result)
        twice = found.keys() & {*values, "event"}
        if twice:
            raise ValueError(f"evaluate returned {', '.join(sorted(twice))}, which training logs itself: rename it")
        return {**values, **found}

    def _report(self, values: Mapping[str, Any]) -> None:
        if self.training.ranks.is_first:
            self.observer.report(self.training.step, values)

    def go(self) -> None:
        """Take the steps that are left."""
        training, config = self.training, self.training.config
        left = range(training.step, config.steps)
        batches = Prefetch(training.draw, left, depth=config.prefetch, device=training.device)
        training.model.train()
        self.start()
        with batches, self.meter.count(training.network):
            for batch in batches:
                training.advance(batch)
                self.after_step()
        training.watch.look()
        training.ranks.agree("the last step", training.step, training.device)  # the last checkpoint is written


@checked
def train(
    network: TransformerConfig | Transformer,
    config: TrainConfig,
    objective: Objective,
    key: Key,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    on_log: OnLog | Observer | None = None,
) -> Trained:
    """Train a network, or continue from the file ``checkpoint``.

    ``network``: the form of a new one, whose weights ``key`` draws; or a network whose weights training starts from
    (it is copied), such as ``load_model(path)``, with the optimiser, the average and the schedule at their beginning:
    so a trained network is trained further with another law or for more steps, in a checkpoint of its own.

    The file is written at the start, every ``checkpoint_seconds`` and at the end, never from numbers that are not
    finite; its folder must exist. ``on_log(step, values)`` receives how the run starts (``event``, ``threads``,
    ``precision``, ``torch``, ``recorded_torch`` if another version wrote the checkpoint, ``ranks`` if several), and
    every ``log_every`` steps the mean ``loss`` since the last time (nats per token), ``learning_rate``,
    ``gradient_norm``, ``flops`` so far, ``tokens_per_second`` and ``flops_per_second`` since the last time (without
    evaluations and checkpoints), ``utilisation`` if ``peak_flops`` is given, ``training_seconds`` and
    ``processor_seconds`` of this call without evaluations and checkpoints (see ``Meter.spent``), and ``seconds`` with
    them. An ``Observer`` may also evaluate the network on the way.

    Inside ``join_ranks`` the rows of each step are shared among the ranks; the first one logs and writes, all read
    ``checkpoint``, which may be continued by another number of ranks. Errors: ValueError if the checkpoint is damaged
    or of another run, or was trained with another number of threads than asked for, if memory will not suffice, if a
    compiler or an optimiser is missing; FloatingPointError at a loss that is not finite, naming the step, the last
    checkpoint untouched (on a GPU at the next log, evaluation or checkpoint); RuntimeError if another rank is lost;
    OSError if the file cannot be written; and whatever the objective's ``draw`` raises.
    """
    began = time.perf_counter()
    training = Training(network, config, objective, key, current_ranks())
    observer = on_log if isinstance(on_log, Observer) else Observer(on_log)
    run = _Run(training, None if checkpoint is None else Path(checkpoint), checkpoint_seconds, observer)
    with torch_threads(run.machine["threads"]):
        run.go()
    return Trained(
        training.result.eval(),
        run.machine["threads"],
        training.precision,
        run.resumed_from,
        time.perf_counter() - began,
        run.meter.flops,
    )
