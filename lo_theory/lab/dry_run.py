"""What an experiment would take, said without computing it: parameters, memory, operations, seconds. Writes nothing.

Seconds come from a few measured steps of each shape on the device, or from a rate that is stated. Loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lo_theory.lab.config import Experiment
from lo_theory.lab.execute import Request, check_rows, choose_run_device, prepare
from lo_theory.lab.planning import MEASURED, Planned, duration, for_device, gib, measure_rate, plan_trainings
from lo_theory.lab.runs import Followed
from lo_theory.lab.table import Column, Table
from lo_theory.lab.units import Options


@dataclass(frozen=True)
class Estimate(Planned):
    """What one training, and what its row then sends through the network, takes.

    ``rate``: FLOP/s that training reaches, nan where nothing fits to be measured; ``free``: bytes, None if not known.
    """

    rate: float = math.nan
    free: int | None = None

    @cached_property
    def parameters(self) -> tuple[int, int]:
        """Parameters in all, and outside embeddings and head (the paper's count)."""
        from lo_theory.neural.flops import core_parameters
        from lo_theory.neural.memory import count_parameters

        return count_parameters(self.learner.network), core_parameters(self.learner.network)

    @property
    def fits(self) -> bool:
        """Whether the device has that memory free, as far as it says."""
        return self.free is None or self.memory <= self.free

    @property
    def seconds(self) -> float:
        """The training, and what the row then sends through the network, at the rate of training."""
        return (self.flops + self.forward_flops) / self.rate


def dry_run(experiment: Experiment, request: Request, rate: float | None = None) -> list[Estimate]:
    """Estimate every training of an experiment; ``rate`` in FLOP/s is that of a GPU that need not be here.

    Cost: the making of each problem, and without ``rate`` some seconds for each shape of network. Errors as
    ``execute`` before it computes; ValueError for a rate that is not positive.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--rate must be positive, got {rate / 1e12:g} TFLOP/s")
    prepared, folder = prepare(experiment, request)
    check_rows(prepared)
    device = choose_run_device(any(row.trains for row in prepared), request.device)
    options = Options(1, request.threads or 1, device)
    planned = plan_trainings(prepared, Followed(folder, {}), options)
    if rate is not None:
        return [Estimate(**vars(for_device(training, "cuda")), rate=rate) for training in planned]
    return _measured(planned)


def _measured(planned: Sequence[Planned]) -> list[Estimate]:
    import torch

    from lo_theory.neural.memory import free_memory

    estimates: list[Estimate] = []
    rates: dict[Any, float] = {}
    for training in planned:
        estimate = Estimate(**vars(training), free=free_memory(torch.device(training.config.device)))
        shape = (training.learner.network, replace(training.config, steps=1))
        if estimate.fits and shape not in rates:
            rates[shape] = measure_rate(training)
        estimates.append(replace(estimate, rate=rates.get(shape, math.nan)))
    return estimates


def _single(title: str, of: Callable[[Estimate], str], *, left: bool = False) -> Column:
    """A column that says nothing of all trainings together."""
    return Column(title, lambda line: of(line) if isinstance(line, Estimate) else "", left)


def _whole(title: str, of: Callable[[Sequence[Estimate]], str]) -> Column:
    """A column that says the same of one training and of all together."""
    return Column(title, lambda line: of([line] if isinstance(line, Estimate) else line))


def _memory(line: Estimate | Sequence[Estimate]) -> str:
    if isinstance(line, Estimate):
        return f"{gib(line.memory)}{'' if line.fits else ' !'}"
    return gib(max(one.memory for one in line))


_COLUMNS = (
    _single("training", lambda one: one.unit.label.removesuffix(" training"), left=True),
    _single("parameters", lambda one: f"{one.parameters[0]:,}"),
    _single("core", lambda one: f"{one.parameters[1]:,}"),
    _single("steps x batch", lambda one: f"{one.config.steps:,} x {one.config.batch}"),
    Column("GiB", _memory),
    _whole("FLOP", lambda part: f"{sum(one.flops for one in part):.2e}"),
    _whole("FLOP after", lambda part: f"{after:.2e}" if (after := sum(one.forward_flops for one in part)) else "-"),
    _single("TFLOP/s", lambda one: f"{one.rate / 1e12:.3g}"),
    _whole("time", lambda part: duration(sum(one.seconds for one in part))),
)


def estimate_table(
    experiment: Experiment, estimates: Sequence[Estimate], *, stated: bool, names: Sequence[str] = ()
) -> Table:
    """Every training a line, and all of them together; ``names`` of the rows in place of their numbers."""

    def name(one: Estimate) -> str:
        return names[one.row] if names else str(one.row)

    source = "stated" if stated else f"measured in {MEASURED} steps of each shape here, as busy as it is now"
    notes = [
        "One training after the other. GiB: memory of the device at the peak, without torch's own (on a GPU about 1). "
        f"TFLOP/s: {source}. FLOP after: decoding and evaluation of the model as far as units say (-: not counted), a "
        "third of a training step a sequence. Not in the time: the exact posterior, belief propagation, compiling."
    ]
    if any(not one.fits for one in estimates):
        free = min(one.free for one in estimates if one.free is not None)
        notes.append(f"! does not fit the {gib(free)} GiB free on this device: set training.microbatch.")
    title = f"{experiment.heading}{f' ({experiment.preset})' if experiment.preset else ''}"
    columns = [Column("row", lambda line: name(line) if isinstance(line, Estimate) else "all", left=True), *_COLUMNS]
    lines = [*estimates, estimates] if estimates else []
    return Table(f"Dry run: {title}", columns, lines, section=lambda line: isinstance(line, Estimate), notes=notes)
