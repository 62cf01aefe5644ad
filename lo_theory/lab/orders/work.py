"""The units of work of one row of the experiment on orders: named, each leaving rows, each after what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from lo_theory.diffusion import Sums
from lo_theory.lab.orders.learners import Networks, readers
from lo_theory.lab.orders.measure import Finding, Measures
from lo_theory.lab.orders.row import Row
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.runs import journal
from lo_theory.lab.table1.work import problem_lines
from lo_theory.lab.units import Unit
from lo_theory.lab.work import ProblemWork, network_facts

__all__ = ["RowWork", "pooled"]

_CURVE_POINTS = 40


def pooled(losses: Mapping[int, float], points: int = _CURVE_POINTS) -> dict[int, Sums]:
    """Pool losses by step into at most ``points`` groups of even width in ln(step), each under its last step."""
    groups: dict[int, list[int]] = {}
    last = max(losses, default=1)
    for step in sorted(losses):
        groups.setdefault(int(points * math.log(step) / math.log(last + 1)), []).append(step)
    return {steps[-1]: Sums.of([losses[step] for step in steps]) for steps in groups.values()}


@dataclass(frozen=True)
class RowWork(ProblemWork):
    """The units of one row: trainings, then what is measured of them."""

    row: Row

    @cached_property
    def lines(self) -> dict[str, float]:
        """Known lines of the problem."""
        return problem_lines(self.distribution)

    @cached_property
    def networks(self) -> Networks:
        """The trained networks."""
        return Networks(self.index, self.row, self.distribution, self.context, self.lines)

    @cached_property
    def measures(self) -> Measures:
        """What is measured of them."""
        return Measures(self.row, self.distribution, self.networks, self.context)

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        row, whole, measures = self.row, self.row.training.steps, self.measures
        both, everyone = readers(row, self.distribution.layout), [learner.name for learner in row.masked]
        yield self._unit("problem", "problem", self._problem)
        for steps in row.budgets():
            for reader in both:
                yield self._training(reader.name, steps, partial(self.networks.causal, reader, steps))
            for learner in row.masked:
                yield self._training(learner.name, steps, partial(self.networks.masked, learner, steps))
        for steps in row.budgets():
            for reader in both:
                name, needed = f"along/{reader.name}/{steps}", [reader.name, *(everyone if steps == whole else ())]
                label = f"along {reader.name}, {steps} steps"
                yield self._measure(name, label, partial(measures.along, reader, steps), needed, steps)
            for learner in row.masked:
                name, label = f"masked/{learner.name}/{steps}", f"{learner.name}, {steps} steps, uniform law"
                yield self._measure(name, label, partial(measures.masked, learner, steps), [learner.name], steps)
        yield self._measure("generate/data", "sequences of the data", measures.data, [], whole)
        for reader in both:
            name, label = f"generate/{reader.name}", f"{reader.name}, sampling"
            yield self._measure(name, label, partial(measures.sample, reader), [reader.name], whole)
        for learner in row.masked:
            for policy in row.generation.policies:
                name, label = f"generate/{learner.name}/{policy}", f"{learner.name}, decoding by {policy}"
                yield self._measure(name, label, partial(measures.decode, learner, policy), [learner.name], whole)

    def _unit(
        self, name: str, label: str, compute: Callable[[], list[Finding]], needs: Iterable[str] = (), cost: int = 0
    ) -> Unit:
        needed = frozenset(f"row{self.index}/{other}" for other in needs)
        return Unit(
            f"row{self.index}/{name}", f"{self.title} {label}", lambda: self._lines(name, compute()), needed, cost
        )

    def _measure(
        self, name: str, label: str, compute: Callable[[], list[Finding]], learners: Iterable[str], steps: int
    ) -> Unit:
        """A unit that needs the trainings of ``steps`` of some learners."""
        return self._unit(name, label, compute, (f"training/{learner}/{steps}" for learner in learners))

    def _training(self, name: str, steps: int, make: Callable[[], Any]) -> Unit:
        cost = steps * self.row.training.batch * self.distribution.layout.length
        label = f"{name}, {steps} steps training"
        return self._unit(f"training/{name}/{steps}", label, partial(self._train, name, steps, make), cost=cost)

    def _lines(self, name: str, findings: Iterable[Finding]) -> list[Line]:
        return [line for found in findings for line in self.rows(name, found.kind, found.keys, found.metrics)]

    def _problem(self) -> list[Finding]:
        facts = self.lines | {"reached": self.row.evaluation.reached}
        return [Finding("problem", {}, {name: Sums.single(value) for name, value in facts.items()})]

    def _train(self, name: str, steps: int, make: Callable[[], Any]) -> list[Finding]:
        """Train; what was logged on the way is in the run's journal, sessions that were killed included."""
        keys = {"learner": name, "training_steps": steps, "flops": self.networks.flops(steps)}
        found = [Finding("training", keys, network_facts(make().model))]
        logged = self._logged(self.networks.file(name, steps))
        for step, sums in pooled(logged).items():
            place = {"step": step, "flops": self.networks.flops(step)}
            found.append(Finding("curve", keys | place, {"loss": sums}))
        return found + [Finding("held_out", *pair) for pair in self.held_out(self.networks.file(name, steps), keys)]

    def _logged(self, file: str) -> dict[int, float]:
        """Losses under the final law by step, of one training; later sessions win over what they repeat."""
        entries = [entry for entry in journal(self.context.run.folder) if entry.get("model") == file]
        final = {"causal", "uniform"}
        return {
            int(entry["step"]): float(entry["loss"])
            for entry in entries
            if "loss" in entry and entry.get("law", "uniform") in final
        }
