"""One training step, and all that must be kept from one to the next. Knows no files and no clocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lo_theory.neural import checkpoint as checkpoints
from lo_theory.neural.average import Average
from lo_theory.neural.compiled import compile_network, compiling
from lo_theory.neural.config import TrainConfig, learning_rate
from lo_theory.neural.memory import require_memory
from lo_theory.neural.model import Transformer, TransformerConfig
from lo_theory.neural.objectives import Batch, Objective, State, most_passes
from lo_theory.neural.optimisers import Optimisers
from lo_theory.neural.parallel import Ranks
from lo_theory.neural.posterior import autocast, resolve_precision
from lo_theory.neural.watch import Watch
from lo_theory.rng import Key

__all__ = ["Training"]

_STATE, _RUNNING = "objective/", "running_loss"


class Training:
    """The moving parts of one run: network, optimisers, average, the objective's tensors, step, watch over the loss.

    ``network`` is what a step calls: the compiled network, or ``model`` itself. Nothing in a step waits for the device
    unless the watch looks at every step.
    """

    def __init__(
        self,
        network: TransformerConfig | Transformer,
        config: TrainConfig,
        objective: Objective,
        key: Key,
        ranks: Ranks,
    ) -> None:
        self.config, self.objective, self.key, self.ranks = config, objective, key, ranks
        self.rows = ranks.rows(config.batch)
        form = network.config if isinstance(network, Transformer) else network
        require_memory(form, config, ranks, most_passes(objective, config.steps))
        self.device = ranks.device(config.device)
        make: type[Transformer] = getattr(objective, "network", Transformer)
        self.model = make(form, seed=key.fold("initialisation").torch_seed())
        self.start: dict[str, str] = {}
        if isinstance(network, Transformer):  # heads that it lacks begin anew, those that it alone has are left out
            own = self.model.state_dict()
            given = {name: value for name, value in network.state_dict().items() if name in own}
            self.model.load_state_dict({**own, **given})
            self.start = {"initial": checkpoints.digest({}, checkpoints.model_tensors(network))}
        objective.check(self.model)
        self.model.to(self.device)
        self.network: Transformer = self.model
        if config.compile:
            self.network = compile_network(self.model, self.device)  # type: ignore[assignment]
        self.optimisers = Optimisers(self.model, config)
        self.average = None if config.ema is None else Average(self.model, config.ema)
        self.state: State = {name: value.to(self.device) for name, value in objective.initial_state().items()}
        self._refuse_split_state()
        self.step = 0
        self.watch = Watch(config, self.device)
        self.precision = resolve_precision(config.precision, config.device)

    def _refuse_split_state(self) -> None:
        """An objective that remembers sees its rows together, or it would remember something else."""
        at_once = min(self.config.microbatch or self.config.batch, self.rows[1])
        if self.state and at_once < self.config.batch:
            raise ValueError(
                f"this objective keeps {', '.join(self.state)} from step to step, which needs all {self.config.batch} "
                f"rows of a step at once, not {at_once}: train on one rank and without microbatch"
            )

    @property
    def result(self) -> Transformer:
        """The network that training is for: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def identity(self) -> dict[str, Any]:
        """Return what two runs must share to be the same run, as JSON would give it back."""
        values = {
            "model": asdict(self.model.config),
            "training": self.config.identity(),
            "objective": self.objective.describe(),
            "seed": {"seed": int(self.key.seed), "path": list(self.key.path)},
            **self.start,
        }
        result: dict[str, Any] = json.loads(json.dumps(values))
        return result

    def draw(self, step: int) -> Batch:
        """Draw this rank's rows of a step. Any thread may."""
        return self.objective.draw(self.key, step, self.rows)

    def advance(self, batch: Mapping[str, Tensor]) -> None:
        """Take one step on the rows that ``draw`` gave, on the device.

        FloatingPointError if loss or gradient was not finite: here, or where the watch is looked at.
        """
        self.optimisers.zero_grad()
        with compiling() if self.config.compile else nullcontext():
            loss = self._accumulate(batch)
        parameters = list(self.model.parameters())
        self.ranks.add_up([*(value.grad for value in parameters if value.grad is not None), loss])
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self.watch.see(self.step, loss, norm)
        self.optimisers.step(learning_rate(self.config, self.step))
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1

    def _accumulate(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Gradients of this rank's share of the batch's mean loss; return that share."""
        share = torch.zeros((), device=self.device)
        for part, weight in self._parts(batch):
            with autocast(self.precision, self.config.device):
                loss, self.state = self.objective.loss(self.network, part, self.state)
            loss = loss if weight == 1 else loss * weight
            loss.backward()  # type: ignore[no-untyped-call]
            share = loss.detach() if weight == 1 else share + loss.detach()
        return share

    def _parts(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[Mapping[str, Tensor], float]]:
        """The rows in parts of at most ``microbatch``, each with its share of the whole batch."""
        count, whole = self.rows[1], self.config.batch
        size = min(self.config.microbatch or count, count)
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            yield {name: value[part] for name, value in batch.items()}, (part.stop - part.start) / whole

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint must hold, by name; FloatingPointError if any of it is not finite."""
        self.watch.look()
        result = checkpoints.model_tensors(self.model) | self.optimisers.tensors()
        if self.average is not None:
            result |= checkpoints.model_tensors(self.average.model, checkpoints.AVERAGE)
        self.watch.require_finite(result, self.step)
        result |= {f"{_STATE}{name}": value for name, value in self.state.items()}
        return {**result, _RUNNING: self.watch.running}

    def restore(self, saved: checkpoints.Checkpoint, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        checkpoints.restore_model(self.model, saved, path)
        if self.average is not None:
            checkpoints.restore_model(self.average.model, saved, path, checkpoints.AVERAGE)
        self.optimisers.restore(saved.tensors)
        objective = {
            name.removeprefix(_STATE): value for name, value in saved.tensors.items() if name.startswith(_STATE)
        }
        self.state = {name: value.to(self.device) for name, value in objective.items()}
        self.watch.begin_again(saved.tensors[_RUNNING])
        self.step = int(saved.header["step"])
