"""What an experiment will train, known before anything is trained, and whether it fits the device. Loads torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from lo_theory.lab.engine import Stop
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.task import Prepared
from lo_theory.lab.units import Context, Folder, Options, Unit

if TYPE_CHECKING:
    from lo_theory.lab.training import Learner
    from lo_theory.neural import Ranks, TrainConfig


_MOST_FLOP = 2e10  # a measured step on a processor: about a second of one core
MEASURED = 3
"""Steps that a rate is measured in, after one that holds what is done once."""


def gib(size: float) -> str:
    """Bytes in gibibytes, as text."""
    return f"{size / 2**30:.2f}"


@dataclass(frozen=True)
class Planned:
    """A training to come: the number of its row, its unit, what is trained and how, and the unit's neighbours.

    ``forwards``: sequences that evaluations on the way send through the network, and the other units of the row, as far
    as they say.
    """

    row: int
    unit: Unit
    learner: Learner
    config: TrainConfig
    forwards: int

    @property
    def sequence_flop(self) -> float:
        """Operations of a training step for one sequence."""
        from lo_theory.neural import flop_per_token

        network = self.learner.network
        return float(network.places * flop_per_token(network))

    @property
    def flops(self) -> float:
        """Operations of the training."""
        return self.learner.flops()

    @property
    def passes(self) -> int:
        """Passes of a row that a step keeps for the backward pass, at most."""
        from lo_theory.neural.objectives import most_passes

        return most_passes(self.learner.goal(), self.config.steps)

    @property
    def memory(self) -> int:
        """Bytes of the device at the peak of the training."""
        from lo_theory.neural import estimate_memory

        return estimate_memory(self.learner.network, self.config, passes=self.passes)

    @property
    def forward_flops(self) -> float:
        """Operations of what is only sent forward through the network: a third of a training step each."""
        return self.forwards * self.sequence_flop / 3


def plan_trainings(prepared: Sequence[Prepared], run: Folder, options: Options) -> list[Planned]:
    """Every training of an experiment, in the order of its units; computes nothing.

    ValueError where settings do not make a network or an objective.
    """
    context, found = Context(run, options, SilentProgress(), Stop()), []
    for i, row in enumerate(prepared):
        units = list(row.units(i, context)) if row.trains else []
        for unit in units:
            if unit.learner is not None:
                unit.learner.goal()
                looks = len(unit.learner.evaluated) * unit.learner.training.evaluation_contexts
                forwards = looks + sum(other.forwards for other in units if unit.name in other.needs)
                found.append(Planned(i, unit, unit.learner, unit.learner.config(options), forwards))
    return found


def require_fit(planned: Sequence[Planned], ranks: Ranks, workers: int) -> None:
    """ValueError naming the training if one of them, or ``workers`` of them at once, exceed the memory that is free."""
    from lo_theory.neural.memory import free_memory, require_memory

    for training in planned:
        try:
            require_memory(training.learner.network, training.config, ranks, training.passes)
        except ValueError as error:
            raise ValueError(f"rows[{training.row}], {training.unit.label}: {error}") from error
    if not planned or ranks.count > 1:  # several ranks train one after the other
        return
    device = ranks.device(planned[0].config.device)
    needed = sorted((one.memory for one in planned), reverse=True)
    free, together = free_memory(device), min(workers, len(needed))
    if free is not None and sum(needed[:together]) > free:
        raise ValueError(
            f"{together} trainings at once need about {gib(sum(needed[:together]))} GiB of memory, {device} has "
            f"{gib(free)} GiB free; one alone fits: give --workers 1, or set training.microbatch"
        )


def for_device(training: Planned, device: str) -> Planned:
    """The same training on a device that need not be here; "auto" is then bfloat16."""
    config = training.config
    precision = "bfloat16" if config.precision == "auto" else config.precision
    return replace(training, config=replace(config, device=device, precision=precision))


def measure_rate(training: Planned) -> float:
    """FLOP/s of a few steps of a training, on fewer rows where whole ones would take long."""
    from lo_theory.neural import train

    config = training.config
    rows = config.batch
    if config.device == "cpu":
        rows = max(1, min(rows, int(_MOST_FLOP / training.sequence_flop)))
    rates: list[float] = []

    def see(step: int, values: Mapping[str, Any]) -> None:
        if "flops_per_second" in values:
            rates.append(float(values["flops_per_second"]))

    short = replace(config, steps=1 + MEASURED, batch=rows, log_every=1)
    learner = training.learner
    train(learner.network, short, learner.goal(), learner.key, on_log=see)
    return median(rates[1:])


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``."""
    if math.isnan(seconds):
        return "-"
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def announcement(planned: Sequence[Planned], workers: int) -> str:
    """One line on the trainings to come: how many, of how many steps, and about how long they take here.

    The rate is measured in a few steps of the largest of them; ``workers`` of them run at once, none is split.
    """
    largest = max(planned, key=lambda one: one.flops)
    rate = measure_rate(largest)
    seconds = [(one.flops + one.forward_flops) / rate for one in planned]
    steps = sorted({one.config.steps for one in planned})
    many = f"{len(planned)} trainings" if len(planned) > 1 else "1 training"
    length = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    about = duration(max(sum(seconds) / min(workers, len(planned)), *seconds, 0.0))
    return (
        f"{many} of {length} steps, then the models' decodes and losses: about {about} ({rate / 1e9:.3g} GFLOP/s "
        "measured now); what the exact posterior takes comes on top"
    )
