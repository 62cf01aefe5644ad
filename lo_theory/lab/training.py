"""Networks to be trained, as settings; how one is trained or continued from its checkpoint, and measured on the way.

An evaluation is in nats above the entropy floor on held-out data. What is measured goes into the run's journal, whose
lines survive a kill, and is read from there. Torch is loaded when a network is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.diffusion import AfterClues, Rotation, Sums, Uniform, losses
from lo_theory.diffusion.contexts import draw_contexts
from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.orders import order_losses
from lo_theory.lab.rows import STATISTICS, read_sums
from lo_theory.lab.runs import journal
from lo_theory.lab.settings import Model, Objective, Shape, Training, mask_law
from lo_theory.lab.units import available_processors
from lo_theory.posterior import ExactPosterior, Marginals, Posterior
from lo_theory.posterior.conditioned import exact_posterior
from lo_theory.problem import Distribution, Enumerated, Layout, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.lab.units import Context, Options
    from lo_theory.neural import Causal, TrainConfig, Trained, Transformer, TransformerConfig
    from lo_theory.neural import Objective as TrainingObjective


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


def make_objective(setting: Objective, distribution: Distribution, steps: int) -> TrainingObjective:
    """The objective of a setting, in a training of ``steps``; ValueError for numbers that its kind does not take."""
    from lo_theory import neural

    stages = tuple(neural.Stage(stage.length(steps), _law(stage.laws), stage.prior) for stage in setting.stages)

    def masked() -> neural.Masked:
        return neural.Masked(distribution, _law(setting.laws), stages)

    makers: Mapping[str, Callable[..., TrainingObjective]] = {
        "masked": masked,
        "focal": lambda gamma: neural.Focal(distribution, _law(setting.laws), (), gamma),
        "puma": lambda count, tau: neural.Puma(distribution, count, tau),
        "proseco": lambda weight: neural.ProSeCo(distribution, weight),
        "learned_order": lambda c1, c2: neural.LearnedOrder(distribution, c1, c2),
        "row_order": lambda: neural.Masked(distribution, AfterClues("rows")),
        "solver_order": lambda: neural.Masked(distribution, AfterClues("solver")),
    }
    name, numbers = setting.named_kind()
    try:
        made = makers[name](*numbers)
    except (TypeError, ValueError) as error:
        raise ValueError(f"objective {setting.kind!r}: {error}") from error
    return made if name == "masked" or not stages else neural.Staged(masked(), made)


@dataclass(frozen=True)
class Learner:
    """A network to be trained: what a unit of work carries, so that it can be planned before anything is computed.

    ``name`` is what a screen shows, ``file`` names the checkpoint ``model-<file>.safetensors`` in the run folder,
    ``key`` is the root of all randomness. ``reading``: a causal network reads the positions in this order; None: a
    masked diffusion model by ``objective``. ``keep``: the network of each evaluation is kept beside
    the checkpoint, in ``snapshot(folder, step)``.
    """

    name: str
    file: str
    distribution: Distribution
    model: Model
    training: Training
    key: Key
    objective: Objective = field(default_factory=Objective)
    reading: tuple[int, ...] | None = None
    keep: bool = False

    @property
    def every(self) -> int:
        """Steps from one evaluation to the next, never more of them than asked for; 0 without any."""
        return -(-self.training.steps // self.training.evaluations) if self.training.evaluations else 0

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The steps after which the network is evaluated."""
        return (*range(self.every, self.training.steps, self.every), self.training.steps) if self.every else ()

    def snapshot(self, folder: Path, step: int) -> Path:
        """Where the network of an evaluation is kept."""
        return folder / f"model-{self.file}-step-{step}.safetensors"

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
        from lo_theory.neural.objectives import count_passes

        steps = self.training.steps if steps is None else steps
        rows = self.training.batch * count_passes(self.goal(), steps)
        return float(rows * self.network.places * flop_per_token(self.network))

    def goal(self) -> TrainingObjective | Causal:
        """What is minimised."""
        from lo_theory.neural import Causal

        if self.reading is not None:
            return Causal(self.distribution, self.reading)
        return make_objective(self.objective, self.distribution, self.training.steps)

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
    from lo_theory.neural.memory import keep_memory
    from lo_theory.neural.watch import NotFinite

    options, setting, distribution = context.options, learner.training, learner.distribution
    torch.set_num_threads(options.threads)  # for decoding; the trainer sets its own
    keep_memory()
    config = learner.config(options)
    if torch.device(options.device).type == "cuda":
        # The share of the device's own matrix rate is shown; on shared CPU cores it would mean little.
        config = replace(config, peak_flops=measure_matmul_rate(options.device))
    length = distribution.layout.length
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
                _evaluation(learner, context) if learner.every else None,
                learner.every,
            ),
        )
    except NotFinite as error:
        context.run.log("not finite", model=learner.file, step=error.step, error=str(error))
        raise FloatingPointError(f"{learner.name}, {checkpoint}: {error}") from error


def _evaluation(learner: Learner, context: Context) -> Callable[[int, Transformer], Mapping[str, Any]]:
    """What measures the network during training, on held-out data at ``learner.key.fold("held out")``."""
    from lo_theory.neural import save_model

    options, folder, problem = context.options, context.run.folder, learner.distribution.fingerprint()
    held_out = HeldOut(
        learner.distribution,
        learner.key.fold("held out"),
        learner.training.evaluation_contexts,
        max(1, available_processors() // options.workers),
        options.rows_at_once,
        learner.training.precision,
    )

    def evaluate(step: int, model: Transformer) -> Mapping[str, Any]:
        if learner.keep:
            save_model(learner.snapshot(folder, step), model, problem=problem)
        return {**held_out.values(held_out.excess(model, learner.reading)), **held_out.order(model, learner.goal())}

    return evaluate


CLOCKS = ("training_seconds", "processor_seconds")
"""What an evaluation notes of the time, evaluations left out: of the wall, of the training thread on a processor."""


class _Remembered:
    """The exact posterior, which answers the same tokens only once."""

    def __init__(self, exact: Posterior) -> None:
        self._exact = exact
        self._answers: dict[bytes, Marginals] = {}

    @property
    def layout(self) -> Layout:
        return self._exact.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        rows = np.ascontiguousarray(tokens, np.int8)
        if rows.tobytes() not in self._answers:
            self._answers[rows.tobytes()] = self._exact.marginals(rows)
        return self._answers[rows.tobytes()]


@dataclass(frozen=True)
class HeldOut:
    """Held-out data of a problem, the same at every call: ``n`` contexts of the uniform law, or ``n`` sequences.

    ``excess`` is in nats per token above the floor, context by context: the KL to the exact marginals, or, where the
    exact posterior does not fit in memory, the loss minus the floor; of a causal network the loss along ``reading``
    minus the floor.
    """

    distribution: Distribution
    key: Key
    n: int
    threads: int = 1
    batch: int = 128
    precision: str = "float32"

    @cached_property
    def exact(self) -> _Remembered | None:
        """The exact posterior, None where it does not fit. Its answers are kept: n x L x V float64."""
        if not isinstance(self.distribution, LODistribution):
            listed = isinstance(self.distribution, Enumerated)
            return _Remembered(exact_posterior(self.distribution)) if listed else None
        exact = ExactPosterior(self.distribution, threads=self.threads)
        batches = draw_contexts(self.distribution, Uniform(), self.key, self.n)
        fits = all(exact.estimate_cost(batch.tokens).fits.all() for (batch,) in batches)
        return _Remembered(exact) if fits else None

    @property
    def floor(self) -> float:
        """Loss of the Bayes optimum, nats per token."""
        return self.distribution.entropy() / self.distribution.layout.length

    @property
    def span(self) -> float:
        """Nats per token from the floor to the single-token marginals; nan where they coincide (``gap_span``)."""
        return gap_span(self.floor, self.distribution.marginal_entropy() / self.distribution.layout.length)

    def excess(self, model: Transformer, reading: ArrayLike | None = None) -> Sums:
        """Nats per token above the floor. Cost: ``n`` rows through the network, at first the exact ones too."""
        from lo_theory.neural import TrainedPosterior
        from lo_theory.neural.causal import CausalLearner

        layout, form = self.distribution.layout, {"batch": self.batch, "precision": self.precision}
        if model.config.causal:
            tokens = self.distribution.sample(self.key.fold("data"), self.n)
            learner = CausalLearner(model, layout, reading, **form)  # type: ignore[arg-type]
            return Sums.of(order_losses(learner, None, tokens).model.mean(axis=1) - self.floor)
        posterior = TrainedPosterior(model, layout, **form)  # type: ignore[arg-type]
        found = losses(posterior, self.exact, self.distribution, Uniform(), key=self.key, n=self.n)
        if self.exact is not None:
            return found.kl
        return found.model.shifted(-self.floor)

    def order(self, model: Transformer, objective: object) -> dict[str, float]:
        """``ORDER`` of an objective that learns one, of others nothing."""
        from lo_theory.neural import LearnedOrder, latents_first

        goal = getattr(objective, "objective", objective)  # after a first stage
        if not isinstance(goal, LearnedOrder):
            return {}
        tokens = self.distribution.sample(self.key.fold("data"), self.n)
        return dict(zip(ORDER, latents_first(goal, model, tokens), strict=True))

    def values(self, excess: Sums) -> dict[str, Any]:
        """What the journal keeps, and the progress shows."""
        facts: dict[str, Any] = {
            "excess": dict(zip(STATISTICS, (excess.n, excess.total, excess.deviations), strict=True))
        }
        if not math.isnan(self.span):
            low, high = excess.interval()
            facts |= {
                "gap_closed": 1 - excess.mean / self.span,
                "gap_half_interval": (high - low) / 2 / self.span,
            }
        return facts


ORDER = ("latents_first", "latents_first_reverse")
"""What an evaluation notes of an order that is learned, by both heads (``neural.latents_first``)."""


@dataclass(frozen=True)
class Point:
    """One evaluation: after how many steps and operations, with what result, and what else is one number: seconds
    (``CLOCKS``) and ``ORDER``.
    """

    step: int
    flops: float
    excess: Sums
    single: Mapping[str, float]

    @property
    def metrics(self) -> dict[str, Sums]:
        """As rows keep it."""
        return {"excess": self.excess, **{name: Sums.single(value) for name, value in self.single.items()}}


def _seconds_at(known: Mapping[int, Mapping[str, float]], step: int) -> dict[str, float]:
    """The clocks after ``step`` steps, between the lines that are known."""
    steps = sorted(known)
    return {name: float(np.interp(step, [0, *steps], [0.0, *(known[at][name] for at in steps)])) for name in CLOCKS}


def learning_curve(folder: Path, file: str) -> list[Point]:
    """Evaluations of the training of ``file`` from the journal in ``folder``, by step.

    A session that continues from a checkpoint takes the clocks from there (from the lines around it, to within the
    steps between two of them); what an earlier session did after that checkpoint was lost, and does not count.
    """
    clocks: dict[int, dict[str, float]] = {}
    points: dict[int, Point] = {}
    before = dict.fromkeys(CLOCKS, 0.0)
    for entry in journal(folder):
        if entry.get("model") != file:
            continue
        step = int(entry["step"])
        if entry["event"] in ("start", "resume"):
            before = _seconds_at(clocks, step)
            clocks = {at: seconds for at, seconds in clocks.items() if at <= step}
            points = {at: point for at, point in points.items() if at <= step}
        elif CLOCKS[0] in entry:
            clocks[step] = {name: before[name] + float(entry[name]) for name in CLOCKS}
            if "excess" in entry:
                kept = entry["excess"]  # older journals: n, sum, sum of squares
                names = ("n", "sum", "sum_of_squares")
                excess = read_sums(dict(zip(names, kept, strict=True)) if isinstance(kept, list) else kept)
                order = {name: float(entry[name]) for name in ORDER if name in entry}
                points[step] = Point(step, float(entry["flops"]), excess, {**clocks[step], **order})
    return [points[step] for step in sorted(points)]
