"""Train a network for an experiment, or go on where its checkpoint stands. Loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lo_theory.diffusion import Rotation
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.lab.held_out import HeldOut
from lo_theory.lab.laws import mask_law
from lo_theory.lab.machine import available_processors
from lo_theory.lab.settings import Model, Shape, Training
from lo_theory.lab.settings import Objective as ObjectiveSetting
from lo_theory.lab.units import Context
from lo_theory.neural import (
    Masked,
    Objective,
    Observer,
    Stage,
    TrainConfig,
    Trained,
    Transformer,
    TransformerConfig,
    measure_matmul_rate,
    train,
)
from lo_theory.neural.watch import NotFinite
from lo_theory.problem import Layout, LODistribution
from lo_theory.rng import Key

__all__ = ["Learner", "choose_device", "make_masked", "make_network", "train_model"]


def choose_device(name: str) -> str:
    """Turn "auto" into cuda where there is one, else cpu; ValueError for a device that torch cannot compute on."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()  # a device that only plans ("meta") has no number to give back
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; cpu always can") from error
    return name


def make_network(setting: Model, layout: Layout, *, causal: bool = False) -> TransformerConfig:
    """The form of a network for sequences of ``layout``."""
    form: dict[str, Any] = {
        name: getattr(setting, name) for name in ("positions", "rope_base", "pad_to", "embedding_scale")
    }
    form |= {"n_values": layout.n_values, "length": layout.length, "causal": causal}
    if isinstance(setting.shape, Shape):
        return TransformerConfig(**asdict(setting.shape), **form)
    return TransformerConfig.of(setting.shape, **form)


def _law(texts: tuple[str, ...]) -> MaskLaw:
    laws = tuple(mask_law(text) for text in texts)
    return laws[0] if len(laws) == 1 else Rotation(laws)


def make_masked(setting: ObjectiveSetting, distribution: LODistribution, steps: int) -> Masked:
    """The masked-diffusion objective of a setting, in a training of ``steps``."""
    stages = tuple(Stage(stage.length(steps), _law(stage.laws)) for stage in setting.stages)
    return Masked(distribution, _law(setting.laws), stages)


_OURS = ("warmup_share", "evaluations", "evaluation_contexts")  # settings that the trainer does not know


@dataclass(frozen=True)
class Learner:
    """A network to be trained.

    ``name`` is what a screen calls it, ``file`` names its checkpoint ``model-<file>.safetensors`` in the run folder,
    ``key`` is the root of its randomness, ``lines`` hold the losses ``floor`` and ``marginals_only`` that the progress
    shows beside its own.
    """

    name: str
    file: str
    network: TransformerConfig
    setting: Training
    objective: Objective
    key: Key
    lines: Mapping[str, float]


def train_model(learner: Learner, context: Context) -> Trained:
    """Bring a network to its last step; what the trainer logs goes to the journal and the progress.

    FloatingPointError naming training, step and checkpoint at a loss that is not finite; the journal has it too.
    """
    options = context.options
    torch.set_num_threads(options.threads)  # for decoding; the trainer sets its own
    # What share of the device's own matrix rate is used, for the progress; on shared CPU cores it would mean little.
    measured = torch.device(options.device).type == "cuda" and context.intercept is None
    peak = measure_matmul_rate(options.device) if measured else None
    setting = {name: value for name, value in asdict(learner.setting).items() if name not in _OURS}
    setting["warmup"] = learner.setting.warmup_steps
    config = TrainConfig(**setting, device=options.device, threads=options.threads, peak_flops=peak)
    if context.intercept is not None:
        context.intercept(learner, config)
    evaluations = learner.setting.evaluations

    def report(step: int, values: Mapping[str, Any]) -> None:
        facts = {name: value for name, value in values.items() if name not in ("event", "seconds")}
        context.run.log(str(values.get("event", "training")), model=learner.file, step=step, **facts)
        if "excess" in values:
            context.run.sync_journal()
        context.progress.training(learner.name, step, learner.setting.steps, {**learner.lines, **values})
        context.stop.check()

    checkpoint = context.run.folder / f"model-{learner.file}.safetensors"
    try:
        return train(
            learner.network,
            config,
            learner.objective,
            learner.key,
            checkpoint=checkpoint,
            checkpoint_seconds=options.checkpoint_seconds,
            on_log=Observer(
                report,
                _evaluation(learner, context) if evaluations else None,
                -(-config.steps // evaluations) if evaluations else 0,  # rounded up: never more of them than asked for
            ),
        )
    except NotFinite as error:
        context.run.log("not finite", model=learner.file, step=error.step, error=str(error))
        raise FloatingPointError(f"{learner.name}, {checkpoint}: {error}") from error


def _evaluation(learner: Learner, context: Context) -> Callable[[int, Transformer], Mapping[str, Any]]:
    """What measures the network on the way, on held-out data at ``learner.key.fold("held out")``."""
    setting, options, objective = learner.setting, context.options, learner.objective
    held_out = HeldOut(
        objective.distribution,
        learner.key.fold("held out"),
        setting.evaluation_contexts,
        max(1, available_processors() // options.workers),
        options.rows_at_once,
        setting.precision,
    )
    reading = getattr(objective, "reading", None)
    return lambda step, model: held_out.values(held_out.excess(model, reading))
