"""Networks to be trained, as settings, and how one is trained for an experiment or continued from its checkpoint.

Torch is loaded when a network is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion import Rotation
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.lab.held_out import HeldOut
from lo_theory.lab.laws import mask_law
from lo_theory.lab.machine import available_processors
from lo_theory.lab.settings import Model, Objective, Shape, Training
from lo_theory.problem import Layout, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.lab.units import Context, Options
    from lo_theory.neural import Causal, Masked, TrainConfig, Trained, Transformer, TransformerConfig

__all__ = ["Learner", "choose_device", "make_masked", "make_network", "train_model"]

_OURS = ("warmup_share", "evaluations", "evaluation_contexts")  # settings that the trainer does not know


def choose_device(name: str) -> str:
    """Turn "auto" into cuda where there is one, else cpu; ValueError for a device that torch cannot compute on."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()  # a device that only plans ("meta") has no number to give back
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; cpu always can") from error
    return name


def make_network(setting: Model, layout: Layout, *, causal: bool = False) -> TransformerConfig:
    """The form of a network for sequences of ``layout``."""
    from lo_theory.neural import TransformerConfig

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


def make_masked(setting: Objective, distribution: LODistribution, steps: int) -> Masked:
    """The masked-diffusion objective of a setting, in a training of ``steps``."""
    from lo_theory.neural import Masked, Stage

    stages = tuple(Stage(stage.length(steps), _law(stage.laws)) for stage in setting.stages)
    return Masked(distribution, _law(setting.laws), stages)


@dataclass(frozen=True)
class Learner:
    """A network to be trained: what a unit of work carries, so that it can be planned before anything is computed.

    ``name`` is what a screen shows, ``file`` names the checkpoint ``model-<file>.safetensors`` in the run folder,
    ``key`` is the root of all randomness. ``reading``: a causal network reads the positions in this order; None: a
    masked diffusion model with the mask laws of ``objective``.
    """

    name: str
    file: str
    distribution: LODistribution
    model: Model
    training: Training
    key: Key
    objective: Objective = field(default_factory=Objective)
    reading: tuple[int, ...] | None = None

    @property
    def cost(self) -> int:
        """Tokens of the whole training: the longest begins first."""
        return self.training.steps * self.training.batch * self.distribution.layout.length

    @cached_property
    def network(self) -> TransformerConfig:
        """Shape of the network."""
        return make_network(self.model, self.distribution.layout, causal=self.reading is not None)

    def flops(self, steps: int | None = None) -> float:
        """Floating-point operations of the first ``steps`` steps (None: all), see ``flop_per_token``."""
        from lo_theory.neural.flops import flop_per_token

        steps = self.training.steps if steps is None else steps
        return float(steps * self.training.batch * self.network.places * flop_per_token(self.network))

    def goal(self) -> Masked | Causal:
        """What is minimised."""
        from lo_theory.neural import Causal

        if self.reading is not None:
            return Causal(self.distribution, self.reading)
        return make_masked(self.objective, self.distribution, self.training.steps)

    def config(self, options: Options) -> TrainConfig:
        """How it is trained."""
        from lo_theory.neural import TrainConfig

        setting = {name: value for name, value in asdict(self.training).items() if name not in _OURS}
        setting["warmup"] = self.training.warmup_steps
        return TrainConfig(**setting, device=options.device, threads=options.threads)


def train_model(learner: Learner, context: Context) -> Trained:
    """Bring a network to its last step; what the trainer logs goes to the journal and the progress.

    FloatingPointError naming training, step and checkpoint at a loss that is not finite; the journal has it too.
    """
    import torch

    from lo_theory.neural import Observer, measure_matmul_rate, train
    from lo_theory.neural.watch import NotFinite

    options, setting, distribution = context.options, learner.training, learner.distribution
    torch.set_num_threads(options.threads)  # for decoding; the trainer sets its own
    config = learner.config(options)
    if torch.device(options.device).type == "cuda":
        # The share of the device's own matrix rate is shown; on shared CPU cores it would mean little.
        config = replace(config, peak_flops=measure_matmul_rate(options.device))
    length, evaluations = distribution.layout.length, setting.evaluations
    lines = {"floor": distribution.entropy() / length, "marginals_only": distribution.marginal_entropy() / length}

    def report(step: int, values: Mapping[str, Any]) -> None:
        facts = {name: value for name, value in values.items() if name not in ("event", "seconds")}
        context.run.log(str(values.get("event", "training")), model=learner.file, step=step, **facts)
        if "excess" in values:
            context.run.sync_journal()
        context.progress.training(learner.name, step, setting.steps, {**lines, **values})
        context.stop.check()

    checkpoint = context.run.folder / f"model-{learner.file}.safetensors"
    try:
        return train(
            learner.network,
            config,
            learner.goal(),
            learner.key,
            checkpoint=checkpoint,
            checkpoint_seconds=options.checkpoint_seconds,
            on_log=Observer(
                report,
                _evaluation(learner, options) if evaluations else None,
                -(-config.steps // evaluations) if evaluations else 0,  # rounded up: never more of them than asked for
            ),
        )
    except NotFinite as error:
        context.run.log("not finite", model=learner.file, step=error.step, error=str(error))
        raise FloatingPointError(f"{learner.name}, {checkpoint}: {error}") from error


def _evaluation(learner: Learner, options: Options) -> Callable[[int, Transformer], Mapping[str, Any]]:
    """What measures the network during training, on held-out data at ``learner.key.fold("held out")``."""
    held_out = HeldOut(
        learner.distribution,
        learner.key.fold("held out"),
        learner.training.evaluation_contexts,
        max(1, available_processors() // options.workers),
        options.rows_at_once,
        learner.training.precision,
    )
    return lambda step, model: held_out.values(held_out.excess(model, learner.reading))
