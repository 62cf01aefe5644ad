"""The units of work of one row of the experiment on recipes: its trainings, evaluated on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lo_theory.diffusion import Sums
from lo_theory.lab.recipes.row import Row
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.units import Unit
from lo_theory.lab.work import ProblemWork, network_facts

__all__ = ["RowWork"]


@dataclass(frozen=True)
class RowWork(ProblemWork):
    """The units of one row."""

    row: Row

    @property
    def title(self) -> str:
        """The pair (N, P) and the recipe, as a screen shows them."""
        return f"{super().title} {self.row.name}"

    @property
    def names(self) -> Mapping[str, Any]:
        """The recipe."""
        return {"recipe": self.row.name}

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        cost = self.row.training.steps * self.row.training.batch * self.distribution.layout.length
        yield Unit(f"row{self.index}/problem", f"{self.title} problem", self._problem)
        for draw in range(self.row.draws):
            name, label = f"row{self.index}/training/{draw}", f"{self._label(draw)} training"
            yield Unit(name, label, partial(self._train, draw), cost=cost)

    def _label(self, draw: int) -> str:
        return f"{self.title} #{draw}" if self.row.draws > 1 else self.title

    def _problem(self) -> list[Line]:
        return self.rows("problem", "problem", {}, {name: Sums.single(value) for name, value in self.lines.items()})

    def _train(self, draw: int) -> list[Line]:
        """Train; a recipe under which the loss is no longer finite has diverged, which is a result."""
        from lo_theory.lab.training import Learner, make_masked, make_network, train_model

        row, file, unit = self.row, f"{self.index}-{draw}", f"training/{draw}"
        network = make_network(row.model, self.distribution.layout)
        objective = make_masked(row.objective, self.distribution, row.training.steps)
        key = self.key.fold("training").fold(draw)
        learner = Learner(self._label(draw), file, network, row.training, objective, key, self.lines)
        try:
            facts = {**network_facts(train_model(learner, self.context).model), "diverged": Sums.single(0)}
        except FloatingPointError:  # the journal has it
            facts = {"diverged": Sums.single(1)}
        keys = {"draw": draw}
        return self.rows(unit, "training", keys, facts) + self.held_out_rows(unit, file, keys)
