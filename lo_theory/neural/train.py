"""Training: a plain loop that any objective, any network and any device share, and that survives kill -9.

All randomness is addressed by (key, step, row), so a checkpoint holds no random state: network, optimiser, the
objective's tensors and the step are everything. Re-running the same call continues from the last checkpoint and ends
in the same weights, bit for bit, on the same kind of CPU at the same recorded number of threads and the same torch
version. Nothing of the sort is promised across devices.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lo_theory.neural import checkpoint as checkpoints
from lo_theory.neural.model import Transformer, TransformerConfig
from lo_theory.neural.objectives import Objective, State
from lo_theory.neural.posterior import PRECISIONS, autocast, resolve_precision
from lo_theory.rng import Key

__all__ = ["TrainConfig", "Trained", "learning_rate", "train"]

_OPTIMISER, _STATE, _RUNNING = "optimiser/", "objective/", "running_loss"

OnLog = Callable[[int, Mapping[str, Any]], None]


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    AdamW on a cosine: ``learning_rate`` is reached after ``warmup`` steps and falls to ``final_ratio`` of itself at
    ``steps``. ``clip`` bounds the norm of the gradient. ``weight_decay`` acts on matrices, not on embeddings and
    norms. ``precision``: "float32", "bfloat16" (autocast; weights stay float32) or "auto". ``threads``: torch threads
    on the CPU; None takes the current number, or on resuming the recorded one.
    """

    steps: int
    batch: int
    learning_rate: float = 4e-3
    final_ratio: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    precision: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("weight_decay", 0), ("log_every", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"final_ratio must lie in [0, 1], got {self.final_ratio}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True)
class Trained:
    """What training leaves: the network (in eval mode), and how it came about.

    ``resumed_from``: the step of the checkpoint that was continued, None for a fresh start. ``seconds``: wall time of
    this call.
    """

    model: Transformer
    threads: int
    precision: str
    resumed_from: int | None
    seconds: float


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step (0-based): linear warm-up, then a cosine to ``final_ratio`` of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = config.final_ratio + (1 - config.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * share


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_optimiser(model: Transformer, config: TrainConfig) -> torch.optim.AdamW:
    named = list(model.named_parameters())
    decayed = {name for name, value in named if value.ndim > 1 and not name.startswith(("tokens.", "positions."))}
    groups = [
        {"params": [value for name, value in named if name in decayed], "weight_decay": config.weight_decay},
        {"params": [value for name, value in named if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


class _Training:
    """The moving parts of one run: network, optimiser, the objective's tensors, step, loss since the last log."""

    def __init__(self, network: TransformerConfig, config: TrainConfig, objective: Objective, key: Key) -> None:
        self.config, self.objective, self.key = config, objective, key
        self.model = Transformer(network, seed=key.fold("initialisation").torch_seed())
        objective.check(self.model)
        self.model.to(config.device)
        self.optimiser = _make_optimiser(self.model, config)
        self.state: State = {name: value.to(config.device) for name, value in objective.initial_state().items()}
        self.step = 0
        self.running = 0.0
        self.precision = resolve_precision(config.precision, config.device)

    def identity(self) -> dict[str, Any]:
        """Return what two runs must share to be the same run, as JSON would give it back."""
        training = {name: value for name, value in asdict(self.config).items() if name not in ("threads", "log_every")}
        values = {
            "model": asdict(self.model.config),
            "training": training,
            "objective": self.objective.describe(),
            "seed": {"seed": int(self.key.seed), "path": list(self.key.path)},
        }
        result: dict[str, Any] = json.loads(json.dumps(values))
        return result

    def advance(self) -> float:
        """Take one step; return the norm of the gradient before clipping.

        FloatingPointError if loss or gradient is not finite.
        """
        drawn = self.objective.draw(self.key, self.step, (0, self.config.batch))
        batch = {name: torch.from_numpy(values).to(self.config.device) for name, values in drawn.items()}
        with autocast(self.precision, self.config.device):
            loss, state = self.objective.loss(self.model, batch, self.state)
        value = float(loss.detach())
        self._require_finite("loss", value)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        self._require_finite("gradient norm", norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        self.optimiser.step()
        self.state, self.running, self.step = state, self.running + value, self.step + 1
        return norm

    def _require_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} at step {self.step} of {self.config.steps}: training stopped, the last "
                "checkpoint is kept; "
                f"try a learning rate below {self.config.learning_rate:g}, a longer warm-up or float32"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint must hold, by name."""
        result = checkpoints.model_tensors(self.model)
        for parameter, entries in self.optimiser.state_dict()["state"].items():
            result |= {f"{_OPTIMISER}{parameter}/{entry}": value for entry, value in entries.items()}
        result |= {f"{_STATE}{name}": value for name, value in self.state.items()}
        return {**result, _RUNNING: torch.tensor(self.running, dtype=torch.float64)}

    def restore(self, saved: checkpoints.Checkpoint, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        checkpoints.restore_model(self.model, saved, path)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in saved.tensors.items():
            if name.startswith(_OPTIMISER):
                parameter, entry = name.removeprefix(_OPTIMISER).split("/")
                entries.setdefault(int(parameter), {})[entry] = value
        self.optimiser.load_state_dict({"state": entries, "param_groups": self.optimiser.state_dict()["param_groups"]})
        objective = {
            name.removeprefix(_STATE): value for name, value in saved.tensors.items() if name.startswith(_STATE)
        }
        self.state = {name: value.to(self.config.device) for name, value in objective.items()}
        self.running = float(saved.tensors[_RUNNING])
        self.step = int(saved.header["step"])


def _resume(training: _Training, path: Path) -> dict[str, Any]:
    """Restore ``training`` from the file if it is there, and return what was recorded about the machine."""
    saved = checkpoints.load(path)
    found, expected = saved.header, training.identity()
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
    return machine


def train(
    network: TransformerConfig,
    config: TrainConfig,
    objective: Objective,
    key: Key,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    on_log: OnLog | None = None,
) -> Trained:
    """Train a network, or continue where the file ``checkpoint`` stands.

    The file is written at the start, every ``checkpoint_seconds`` and at the end; its folder must exist.
    ``on_log(step, values)`` is told how the run starts (``event``, ``threads``, ``precision``, ``torch``, and
    ``recorded_torch`` if another version wrote the checkpoint), and every ``log_every`` steps the mean ``loss`` since
    the last time (nats per token), ``learning_rate``, ``gradient_norm`` and ``seconds``. Errors: ValueError if the
    checkpoint is damaged or of another run, or was trained with another number of threads than asked for;
    FloatingPointError at a loss that is not finite, the last checkpoint untouched; OSError if it cannot be written.
    """
    began = time.perf_counter()
    training = _Training(network, config, objective, key)
    path = None if checkpoint is None else Path(checkpoint)
    threads = config.threads or torch.get_num_threads()
    machine: dict[str, Any] = {"threads": threads, "precision": training.precision, "torch": torch.__version__}
    resumed_from = None
    if path is not None and path.exists():
        machine = _resume(training, path)
        resumed_from = training.step
    report = on_log or (lambda step, values: None)
    recorded = {"recorded_torch": machine["torch"]} if machine["torch"] != torch.__version__ else {}
    start = {"event": "start" if resumed_from is None else "resume", **machine, "torch": torch.__version__, **recorded}
    report(training.step, start)

    def save() -> float:
        if path is not None:
            header = {**training.identity(), "step": training.step, "machine": machine}
            checkpoints.save(path, checkpoints.Checkpoint(header, training.tensors()))
        return time.perf_counter()

    with _threads(machine["threads"]):
        training.model.train()
        saved = save() if resumed_from is None else time.perf_counter()
        while training.step < config.steps:
            norm = training.advance()
            if training.step % config.log_every == 0:
                mean, training.running = training.running / config.log_every, 0.0
                rate = learning_rate(config, training.step - 1)
                values = {
                    "loss": mean,
                    "law": objective.label(training.step - 1),
                    "learning_rate": rate,
                    "gradient_norm": norm,
                }
                report(training.step, {**values, "seconds": time.perf_counter() - began})
            if training.step == config.steps or time.perf_counter() - saved >= checkpoint_seconds:
                saved = save()
    return Trained(
        training.model.eval(), machine["threads"], training.precision, resumed_from, time.perf_counter() - began
    )
