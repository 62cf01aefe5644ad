"""Objectives: what one training step sees, and its loss.

``draw`` runs on the CPU and answers by address (key, step, rows), so a rank can take its slice of a step's rows and a
resumed run sees the same batches; ``loss`` runs on the network's device. An objective holds no mutable state: what it
must remember between steps travels as a dictionary of tensors and goes into the checkpoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lo_theory.diffusion.masks import MaskLaw, draw_masks
from lo_theory.neural.model import Transformer
from lo_theory.problem import Distribution, LODistribution
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Batch", "Causal", "Masked", "Objective", "Stage", "State"]

Batch = Mapping[str, NDArray[np.generic]]
State = dict[str, Tensor]


class Objective(Protocol):
    """What training minimises, in nats per token.

    One that needs heads beside the denoiser has an attribute ``network``, a subclass of ``Transformer`` that has them:
    training makes one of it, and moves, averages and keeps its parameters like all others. ``passes(steps)``, where it
    has one: of the first ``steps`` steps the stretches (length, passes), in which each step sends one row through the
    network so many times, all kept for the backward pass; once where it has none.
    """

    @property
    def distribution(self) -> Distribution:
        """The problem that is learned."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values that name the objective and its problem; a checkpoint with other values is refused."""
        ...

    def label(self, step: int) -> str:
        """Name what this step trains (a mask law, an order): losses of different labels are not comparable."""
        ...

    def check(self, model: Transformer) -> None:
        """Raise ValueError if the network cannot be trained on this objective."""
        ...

    def initial_state(self) -> State:
        """Tensors that travel from step to step; mostly none."""
        ...

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw rows ``(start, count)`` of the batch of ``step``, as arrays whose first axis is the row."""
        ...

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """Mean loss of the rows, and the state for the next step."""
        ...


Stretches = list[tuple[int, int]]


def stretches(objective: Objective, steps: int) -> Stretches:
    """The stretches (length, passes) of the first ``steps`` steps of any objective; none is empty."""
    passes = getattr(objective, "passes", None)
    return [(length, each) for length, each in ([(steps, 1)] if passes is None else passes(steps)) if length]


def count_passes(objective: Objective, steps: int) -> int:
    """Sequences that go through the network for one row in the first ``steps`` steps of any objective."""
    return sum(length * each for length, each in stretches(objective, steps))


def most_passes(objective: Objective, steps: int) -> int:
    """The most that go through it for one row in one of the first ``steps`` steps."""
    return max((each for _, each in stretches(objective, steps)), default=1)


@checked
@dataclass(frozen=True)
class Stage:
    """A first part of a curriculum: ``law`` for the next ``steps`` steps, on data of another ``prior`` if given.

    ``prior`` float64[q]: probabilities of the values of every latent. Observations follow the problem's own law given
    the latents, so the forward direction p(observation | all latents) is the same under any prior.
    """

    steps: int
    law: MaskLaw
    prior: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"a stage lasts at least 0 steps, got {self.steps}")

    def data(self, distribution: Distribution) -> Distribution:
        """The problem with the stage's prior; ValueError where that is no law over the q values of a latent."""
        if self.prior is None:
            return distribution
        if not isinstance(distribution, LODistribution):
            raise ValueError(
                f"a stage changes the prior of an L&O problem, and {type(distribution).__name__} has none: leave its "
                "prior out"
            )
        if len(self.prior) != distribution.layout.q:
            raise ValueError(
                f"the prior of a stage gives the {distribution.layout.q} values of a latent a probability each, got "
                f"{len(self.prior)} numbers"
            )
        return replace(distribution, prior=np.tile(self.prior, (distribution.layout.n_latents, 1)))

    @property
    def name(self) -> str:
        """Name of the mask law, and of the prior where there is one."""
        prior = "" if self.prior is None else f", prior {'/'.join(f'{share:g}' for share in self.prior)}"
        return f"{self.law.name}{prior}"


@checked
@dataclass(frozen=True)
class Masked:
    """The masked-diffusion objective: sum(weight x cross-entropy of hidden tokens) / rows, nats per token.

    With ``law`` Uniform it is the MDM loss of Proposition 2.1 divided by L. ``stages`` come before ``law``, one after
    another: a curriculum of mask laws and priors. Data at ``key.fold("data").fold(step)``, masks at
    ``key.fold("masks").fold(step)``.
    """

    distribution: Distribution
    law: MaskLaw
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        _ = self._data  # an error in a stage shows here

    @cached_property
    def _data(self) -> tuple[Distribution, ...]:
        """What the stages are trained on."""
        return tuple(stage.data(self.distribution) for stage in self.stages)

    def _at(self, step: int) -> tuple[Stage, Distribution]:
        """The stage of a step, and its data; a stage without an end after the last."""
        ends = itertools.accumulate(stage.steps for stage in self.stages)
        stages = zip(ends, self.stages, self._data, strict=True)
        last = (Stage(0, self.law), self.distribution)
        return next(((stage, data) for end, stage, data in stages if step < end), last)

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        stages = [  # a law's name may leave out parameters
            [stage.steps, repr(stage.law), *(() if stage.prior is None else (list(stage.prior),))]
            for stage in self.stages
        ]
        return {"kind": "masked", "problem": self.distribution.fingerprint(), "law": repr(self.law), "stages": stages}

    def label(self, step: int) -> str:
        """Name of the step's mask law, and of its prior where it has its own."""
        return self._at(step)[0].name

    def passes(self, steps: int) -> Stretches:
        """See Objective: each step has as many as its law gives masks."""
        row, layout, found = np.zeros((1, self.distribution.layout.length), np.int8), self.distribution.layout, []
        for stage in (*self.stages, Stage(steps, self.law)):
            length = min(stage.steps, steps)
            found.append((length, len(draw_masks(stage.law, Key(0), row, layout)[0])))
            steps -= length
        return found

    def check(self, model: Transformer) -> None:
        """See Objective."""
        check_form(model, self.distribution.layout, causal=False)

    def initial_state(self) -> State:
        """Return no tensors."""
        return {}

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw tokens int8[n, L], masked bool[n, c, L], weight float32[n, c, L] (c masks a sequence)."""
        start, count = rows
        stage, data = self._at(step)
        tokens = data.sample(key.fold("data").fold(step), count, start=start)
        place = key.fold("masks").fold(step)
        masked, weight = draw_masks(stage.law, place, tokens, self.distribution.layout, start=start)
        return {"tokens": tokens, "masked": masked.swapaxes(0, 1), "weight": weight.swapaxes(0, 1)}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective; averaged over the c masks of a row."""
        masked, length = batch["masked"], batch["masked"].shape[-1]
        targets = batch["tokens"].long()[:, None, :].expand(masked.shape).reshape(-1, length)
        logits = model(torch.where(masked.reshape(-1, length), MASK, targets))
        weighted = self.cost(cross_entropy(logits, targets)) * batch["weight"].reshape(-1, length)
        return weighted.sum() / len(targets), state

    def cost(self, entropies: Tensor) -> Tensor:
        """What tokens of these cross-entropies cost: the same, for a subclass to change."""
        return entropies


@checked
@dataclass(frozen=True)
class Causal:
    """The paper's pi-learner: next-token cross-entropy of a causal network that reads pi(x), nats per token.

    ``reading`` int[L] lists the positions first to last (latents, then observations when left out). The input is the
    mask id as start, then all tokens but the last, so one pass gives all L losses; output t of the network is about
    position ``reading[t]``.
    """

    distribution: Distribution
    reading: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        length = self.distribution.layout.length
        if self.reading is not None and sorted(self.reading) != list(range(length)):
            raise ValueError(
                f"a reading order is a permutation of the positions 0..{length - 1}, got {len(self.reading)} entries"
            )

    @property
    def places(self) -> NDArray[np.intp]:
        """The positions in the order of reading."""
        return np.array(self.distribution.layout.order if self.reading is None else self.reading, dtype=np.intp)

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        return {"kind": "causal", "problem": self.distribution.fingerprint(), "reading": self.places.tolist()}

    def label(self, step: int) -> str:
        """``causal`` at every step."""
        return "causal"

    def check(self, model: Transformer) -> None:
        """See Objective."""
        check_form(model, self.distribution.layout, causal=True)

    def initial_state(self) -> State:
        """Return no tensors."""
        return {}

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw tokens int8[n, L] in the order of reading, at ``key.fold("data").fold(step)``."""
        start, count = rows
        tokens = self.distribution.sample(key.fold("data").fold(step), count, start=start)
        return {"tokens": np.ascontiguousarray(tokens[:, self.places])}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective."""
        targets = batch["tokens"].long()
        logits = model(functional.pad(targets[:, :-1], (1, 0), value=MASK))
        return cross_entropy(logits, targets).sum() / targets.numel(), state


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln softmax(logits)[target] in float32: logits [B, L, V], targets int64[B, L], result [B, L]."""
    flat = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def check_form(model: Transformer, layout: Layout, *, causal: bool) -> None:
    """Say what keeps ``model`` from being trained on sequences of ``layout``."""
    config = model.config
    if (config.length, config.n_values) != (layout.length, layout.n_values):
        raise ValueError(
            f"the network reads sequences of length {config.length} over {config.n_values} values, the problem has "
            "length "
            f"{layout.length} over {layout.n_values}"
        )
    if config.causal != causal:
        needed = "causal=True" if causal else "causal=False (attention to both sides)"
        raise ValueError(f"this objective needs a network with {needed}, got causal={config.causal}")
