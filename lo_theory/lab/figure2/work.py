"""What one row of Figure 2 computes, as units of work: trainings, losses under each mask law, and a search for leaks.

A unit of losses sends the same contexts through every model, belief propagation and the exact posterior at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.leaks import find_leaks, leak_threshold
from lo_theory.diffusion.pattern_losses import PatternLosses, pattern_losses
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.figure2.row import Row
from lo_theory.lab.machine import available_processors
from lo_theory.lab.once import Once
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.settings import mask_law
from lo_theory.lab.units import Unit, Watched
from lo_theory.lab.work import ProblemWork, network_facts
from lo_theory.posterior import BPPosterior, ExactPosterior

if TYPE_CHECKING:
    from lo_theory.neural import TrainedPosterior

__all__ = ["CLASS_METRICS", "RowWork"]

CLASS_METRICS = ("model", "exact", "kl", "log_ratio", "deterministic", "evidence")
"""What is kept class by class; by role, all of it is."""


@dataclass(frozen=True)
class RowWork(ProblemWork):
    """The units of one row; models and posteriors are made when a unit first asks for them."""

    row: Row
    _models: Once[TrainedPosterior] = field(default_factory=Once)

    @cached_property
    def threads(self) -> int:
        """Threads of the exact posterior and of belief propagation: the processors that the other units leave."""
        return max(1, available_processors() // self.context.options.workers)

    def model(self, steps: int) -> TrainedPosterior:
        """A trained model: trained, trained further from its checkpoint, or read."""
        return self._models.get(steps, lambda: self._train(steps))

    def _train(self, steps: int) -> TrainedPosterior:
        from lo_theory.lab.training import Learner, make_masked, make_network, train_model
        from lo_theory.neural import TrainedPosterior

        row, layout, options = self.row, self.distribution.layout, self.context.options
        if row.training is None:
            raise ValueError(f"row {self.index} has no training settings, so it has no model")
        network, objective = make_network(row.model, layout), make_masked(row.objective, self.distribution, steps)
        setting, key = replace(row.training, steps=steps), self.key.fold("training")  # one key: the same data in all
        name, file = self._training_label(steps), f"{self.index}-{steps}"
        trained = train_model(Learner(name, file, network, setting, objective, key, self.lines), self.context)
        # In float32 whatever it was trained in, so that rounded logits do not count as errors of the model.
        return TrainedPosterior(trained.model, layout, batch=options.rows_at_once, precision="float32")

    def _training_label(self, steps: int) -> str:
        return f"{self.title} {steps}-step"

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        texts = self.row.evaluation.texts(self.distribution.layout)
        yield self._unit("problem", "problem", lambda: self.rows("problem", "problem", {}, self._facts()))
        for steps in self.row.lengths:
            yield self._training_unit(steps)
        trainings = frozenset(f"row{self.index}/training/{steps}" for steps in self.row.lengths)
        for text in texts:
            yield replace(self._loss_unit(text), needs=trainings)
        measured = frozenset(f"row{self.index}/losses/{text}" for text in texts)
        yield replace(self._unit("leaks", "leaks", lambda: self._leaks(measured)), needs=measured)

    def _unit(self, name: str, label: str, compute: Callable[[], list[Line]]) -> Unit:
        return Unit(f"row{self.index}/{name}", f"{self.title} {label}", compute)

    def _training_unit(self, steps: int) -> Unit:
        batch = self.row.training.batch if self.row.training is not None else 0
        unit = self._unit(f"training/{steps}", f"{steps}-step training", lambda: self._network(steps))
        return replace(unit, cost=steps * batch * self.distribution.layout.length)

    def _loss_unit(self, text: str) -> Unit:
        return self._unit(f"losses/{text}", f"losses under {text}", lambda: self._losses(text))

    def _facts(self) -> dict[str, Sums]:
        return {name: Sums.single(value) for name, value in self.lines.items()}

    def _network(self, steps: int) -> list[Line]:
        unit, keys = f"training/{steps}", {"iterations": steps}
        facts = network_facts(self.model(steps).model)
        return self.rows(unit, "training", keys, facts) + self.held_out_rows(unit, f"{self.index}-{steps}", keys)

    def _judged(self) -> dict[str, dict[str, Any]]:
        """Keys of everything that is judged, by name."""
        judged: dict[str, dict[str, Any]] = {
            f"model({steps})": {"posterior": "model", "iterations": steps} for steps in self.row.lengths
        }
        return judged | ({"bp": {"posterior": "bp", "iterations": ""}} if self.row.evaluation.bp else {})

    def _posterior(self, keys: Mapping[str, Any]) -> Watched:
        """The posterior of these keys, which stops when work is to stop."""
        is_model = keys["posterior"] == "model"
        inner = self.model(keys["iterations"]) if is_model else BPPosterior(self.distribution, threads=self.threads)
        return Watched(inner, self.context.stop)

    def _losses(self, text: str) -> list[Line]:
        setting, law, judged = self.row.evaluation, mask_law(text), self._judged()
        exact = ExactPosterior(self.distribution, limit=setting.limit_states, threads=self.threads)
        measured = pattern_losses(
            {name: self._posterior(keys) for name, keys in judged.items()},
            Watched(exact, self.context.stop),
            self.distribution,
            law,
            key=self.key.fold("losses").fold(law.name),
            n=setting.sequences,
            beside=f"model({self.row.lengths[-1]})" if setting.proxy else None,
        )
        return [
            line for name, keys in judged.items() for line in self._law_rows(f"losses/{text}", keys, measured[name])
        ]

    def _law_rows(self, unit: str, posterior: Mapping[str, Any], losses: PatternLosses) -> list[Line]:
        """Rows of one posterior under one law: all tokens, by role, by class and role.

        Of a law whose contexts all hide equally many, the rows by role are those by class: they name what is hidden.
        """
        keys = {"law": losses.law, **posterior}
        kinds = {(latents, observations) for latents, observations, _ in losses.classes}
        hidden = next(iter(kinds)) if len(kinds) == 1 else ("", "")
        only = {"latents_hidden": hidden[0], "observations_hidden": hidden[1]}
        rows = self.rows(unit, "losses", {**keys, "role": "all", **only}, losses.total)
        for role, sums in losses.roles.items():
            rows += self.rows(unit, "losses", {**keys, "role": role, **only}, sums)
        for (latents, observations, role), sums in losses.classes.items() if len(kinds) > 1 else ():
            place = {"role": role, "latents_hidden": latents, "observations_hidden": observations}
            rows += self.rows(unit, "class_losses", {**keys, **place}, {name: sums[name] for name in CLASS_METRICS})
        return rows

    def _leaks(self, measured: frozenset[str]) -> list[Line]:
        """Rows of losses, of whatever class and role, whose evidence says that a posterior beats Bayes."""
        lines = [line for line in list(self.context.run.rows) if line.unit in measured and line.metric == "evidence"]
        found = find_leaks({i: line.sums.total for i, line in enumerate(lines)})
        rows = []
        for keys in self._judged().values():
            own = [i for i, line in enumerate(lines) if all(line.keys[name] == keys[name] for name in keys)]
            facts = {
                "rows_tested": len(own),
                "leaks": len(set(own) & set(found)),
                "largest_evidence": max(lines[i].sums.total for i in own),
                "threshold": leak_threshold(len(lines)),
            }
            metrics = {name: Sums.single(value) for name, value in facts.items()}
            rows += self.rows("leaks", "leaks", keys, metrics)
        return rows
