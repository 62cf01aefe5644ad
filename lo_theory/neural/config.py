"""The settings of a training: how long, how fast, with what. Plain values: no tensor is made here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lo_theory.neural.posterior import PRECISIONS
from lo_theory.problem.seams import check_threads, checked

__all__ = ["TrainConfig", "learning_rate"]

OPTIMISERS = ("adamw", "muon")

# Settings that change nothing of what is computed, so that a run may be continued with others.
_FREE = ("threads", "log_every", "prefetch", "peak_flops")
# Settings that came later, with what they did not do before: a checkpoint that is silent about them used these.
SILENT: dict[str, Any] = {"optimiser": "adamw", "ema": None, "microbatch": None, "compile": False}


@checked
@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    A cosine: ``learning_rate`` is reached after ``warmup`` steps and falls to ``final_ratio`` of itself at ``steps``; a
    ``warmup`` of more than ``steps`` never reaches it. ``clip`` bounds the norm of the gradient (of nats per token).
    ``weight_decay`` acts on matrices, not on embeddings and norms.
    ``optimiser``: "adamw", or "muon" (Muon for the matrices of the blocks, AdamW for the rest; ``betas``
    are AdamW's). ``ema``: the decay of an exponential moving average of the weights, which is then what training
    returns (see ``Average``). ``microbatch``: at most so many rows go through the network at once, gradients are
    added up; the mathematics of one batch, other rounding. ``compile``: the network, forward and backward, through
    torch.compile; faster where launching kernels or moving bytes is the bound, the first step takes a minute.
    ``precision``: "float32", "bfloat16" (autocast; weights stay float32) or "auto". ``threads``: torch threads on the
    CPU; None takes the current number, or on resuming the recorded one. ``prefetch``: batches drawn ahead by a
    background thread, 0 for none; never changes a bit. ``peak_flops``: FLOP/s of one device, against which
    ``utilisation`` is logged (see ``measure_matmul_rate``).
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
    optimiser: str = "adamw"
    ema: float | None = None
    microbatch: int | None = None
    compile: bool = False
    prefetch: int = 2
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "warmup": 0, "weight_decay": 0, "log_every": 1, "prefetch": 0}
        least |= {"microbatch": 1} if self.microbatch is not None else {}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if self.threads is not None:
            check_threads(self.threads)
        for name in ("learning_rate", "clip", *(("peak_flops",) if self.peak_flops is not None else ())):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"final_ratio must lie in [0, 1], got {self.final_ratio}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must lie strictly between 0 and 1 (such as 0.999) or be left out, got {self.ema}")
        for name, known in (("precision", PRECISIONS), ("optimiser", OPTIMISERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def identity(self) -> dict[str, Any]:
        """The settings that two runs must share to be the same run, bit for bit."""
        settings = asdict(self)
        silent = {name for name, value in SILENT.items() if settings[name] == value}
        return {name: value for name, value in settings.items() if name not in _FREE and name not in silent}


@checked
def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step (0-based): linear warm-up, then a cosine to ``final_ratio`` of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = config.final_ratio + (1 - config.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * share
