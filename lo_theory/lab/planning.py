"""What an experiment will train, known before anything is trained, and whether it fits the device. Loads torch.

Every task trains through ``train_model``; here its units are begun with a context that stops them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.task import Prepared
from lo_theory.lab.units import Context, Folder, Options, Unit
from lo_theory.lab.workers import Stop

if TYPE_CHECKING:
    from lo_theory.lab.training import Learner
    from lo_theory.neural import Ranks, TrainConfig

__all__ = ["Planned", "gib", "plan_trainings", "require_fit"]


def gib(size: float) -> str:
    """Bytes in gibibytes, as text."""
    return f"{size / 2**30:.2f}"


@dataclass(frozen=True)
class Planned:
    """A training to come: the number of its row, its unit, what is trained and how, and the unit's neighbours.

    ``forwards``: sequences that the other units of the row send through the network, as far as they say.
    """

    row: int
    unit: Unit
    learner: Learner
    config: TrainConfig
    forwards: int


class _Found(Exception):
    """Carries what a unit was about to train out of it."""

    def __init__(self, learner: Learner, config: TrainConfig) -> None:
        self.learner, self.config = learner, config


def _intercept(learner: Learner, config: TrainConfig) -> NoReturn:
    raise _Found(learner, config)


def plan_trainings(prepared: Sequence[Prepared], run: Folder, options: Options) -> list[Planned]:
    """Every training of an experiment, in the order of its units; computes nothing.

    ValueError where settings do not make a network.
    """
    context, found = Context(run, options, SilentProgress(), Stop(), _intercept), []
    for i, row in enumerate(prepared):
        units = list(row.units(i, context)) if row.trains else []
        for unit in units:
            if unit.cost:
                forwards = sum(other.forwards for other in units if unit.name in other.needs)
                try:
                    unit.compute()
                except _Found as caught:
                    found.append(Planned(i, unit, caught.learner, caught.config, forwards))
    return found


def require_fit(planned: Sequence[Planned], ranks: Ranks, workers: int) -> None:
    """ValueError naming the training if one of them, or ``workers`` of them at once, exceed the memory that is free."""
    from lo_theory.neural.memory import estimate_memory, free_memory, require_memory

    for training in planned:
        try:
            require_memory(training.learner.network, training.config, ranks)
        except ValueError as error:
            raise ValueError(f"rows[{training.row}], {training.unit.label}: {error}") from error
    if not planned or ranks.count > 1:  # several ranks train one after the other
        return
    device = ranks.device(planned[0].config.device)
    needed = sorted((estimate_memory(one.learner.network, one.config) for one in planned), reverse=True)
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
