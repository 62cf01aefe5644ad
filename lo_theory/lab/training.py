"""Train the model of one row, or go on where its checkpoint stands. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from lo_theory.diffusion import Rotation
from lo_theory.lab.settings import Shape, mask_law
from lo_theory.neural import Masked, Stage, TrainConfig, TrainedPosterior, TransformerConfig, train
from lo_theory.problem import Layout

if TYPE_CHECKING:
    from lo_theory.diffusion.masks import MaskLaw
    from lo_theory.lab.table1.row import Row
    from lo_theory.lab.table1.work import RowWork
    from lo_theory.problem import LODistribution

__all__ = ["choose_device", "make_network", "make_objective", "train_model"]

_ROWS_AT_ONCE = {"cpu": 128}  # activations that stay in the cache: a sixth faster than 1024


def choose_device(name: str) -> str:
    """Turn "auto" into cuda where there is one, else cpu; ValueError for a device that torch does not find."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; cpu always can") from error
    return name


def make_network(row: Row, layout: Layout) -> TransformerConfig:
    """The form of the row's network."""
    setting = row.model
    form: dict[str, Any] = {name: getattr(setting, name) for name in ("positions", "rope_base", "pad_to")}
    form |= {"n_values": layout.n_values, "length": layout.length}
    if isinstance(setting.shape, Shape):
        return TransformerConfig(**asdict(setting.shape), **form)
    return TransformerConfig.of(setting.shape, **form)


def _law(texts: tuple[str, ...]) -> MaskLaw:
    laws = tuple(mask_law(text) for text in texts)
    return laws[0] if len(laws) == 1 else Rotation(laws)


def make_objective(row: Row, distribution: LODistribution) -> Masked:
    """The row's objective."""
    stages = tuple(Stage(stage.steps, _law(stage.laws)) for stage in row.objective.stages)
    return Masked(distribution, _law(row.objective.laws), stages)


def train_model(work: RowWork) -> TrainedPosterior:
    """Bring the row's model to its last step and bind it to its layout. The checkpoint lies in the run folder."""
    row, layout, context = work.row, work.distribution.layout, work.context
    options = context.options
    setting = row.training
    if setting is None:
        raise ValueError(f"row {work.index} has no training settings, so it has no model")
    torch.set_num_threads(options.threads)  # for decoding; the trainer sets its own
    config = TrainConfig(**asdict(setting), device=options.device, threads=options.threads)

    def report(step: int, values: Mapping[str, Any]) -> None:
        facts = {name: value for name, value in values.items() if name not in ("event", "seconds")}
        context.run.log(str(values.get("event", "training")), row=work.index, step=step, **facts)
        context.progress.training(work.name, step, setting.steps, {**work.lines, **values})
        context.stop.check()

    trained = train(
        make_network(row, layout),
        config,
        make_objective(row, work.distribution),
        work.key.fold("training"),
        checkpoint=context.run.folder / f"model-{work.index}.safetensors",
        checkpoint_seconds=options.checkpoint_seconds,
        on_log=report,
    )
    batch = _ROWS_AT_ONCE.get(options.device, 1024)
    return TrainedPosterior(trained.model, layout, batch=batch, precision=trained.precision)
