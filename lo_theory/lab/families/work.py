"""The units of work of one row of the experiment on families: trainings, losses along the order, losses by mask law."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.diffusion.orders import AlongOrder, order_losses
from lo_theory.diffusion.pattern_losses import PatternLosses, pattern_losses
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.families.row import Row, evaluation_law
from lo_theory.lab.machine import available_processors
from lo_theory.lab.orders.learners import Networks, Reader, readers
from lo_theory.lab.orders.row import Row as OrdersRow
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.units import Unit, Watched
from lo_theory.lab.work import ProblemWork, network_facts
from lo_theory.posterior import BPPosterior, ExactPosterior, Marginals
from lo_theory.problem import MASK, Layout, LODistribution, TableObservations

__all__ = ["ROLE_METRICS", "RowWork", "SingleTokens"]

ROLE_METRICS = ("model", "exact", "kl", "kl_above", "deterministic", "excluded", "converged")
"""What is kept role by role; ``kl_above``: minus belief propagation, where there is a factor graph."""


@dataclass(frozen=True)
class SingleTokens:
    """The posterior that reads nothing: every hidden token has its law before anything is revealed.

    What lies between it and the exact posterior is what there is to know under a mask law.
    """

    distribution: LODistribution

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.distribution.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """See Posterior; knows no evidence (nan)."""
        rows = self.layout.check_tokens(tokens)
        probs = np.repeat(np.asarray(self.distribution.token_marginals, np.float64)[None], len(rows), axis=0)
        row, position = np.nonzero(rows != MASK)
        probs[row, position] = 0.0
        probs[row, position, rows[row, position]] = 1.0
        return Marginals(probs, np.full(len(rows), np.nan), np.ones(len(rows), np.bool_))


@dataclass(frozen=True)
class RowWork(ProblemWork):
    """The units of one row; all posteriors answer the same contexts, both learners see the same data step by step."""

    row: Row

    @property
    def names(self) -> Mapping[str, Any]:
        """The name of the family."""
        return {"family": self.row.name}

    @cached_property
    def orders_row(self) -> OrdersRow:
        """The row as the networks are told it."""
        return self.row.as_orders()

    @cached_property
    def reader(self) -> Reader:
        """The order-aware learner: latents first."""
        return readers(self.orders_row, self.distribution.layout)[0]

    @cached_property
    def networks(self) -> Networks:
        """The trained networks."""
        return Networks(self.index, self.orders_row, self.distribution, self.context, self.lines)

    @cached_property
    def exact(self) -> Watched:
        """The exact posterior, on the processors that the other units leave."""
        threads = max(1, available_processors() // self.context.options.workers)
        inner = ExactPosterior(self.distribution, limit=self.row.evaluation.limit_states, threads=threads)
        return Watched(inner, self.context.stop)

    def units(self) -> Iterator[Unit]:
        """Yield all units, in the order in which their rows are kept."""
        aware, masked, budgets = self.reader.name, self.row.masked.name, self.orders_row.budgets()
        yield self._unit("problem", "problem", self._problem)
        for steps in budgets:
            yield self._training(aware, steps, partial(self.networks.causal, self.reader, steps))
            yield self._training(masked, steps, partial(self.networks.masked, self.row.masked, steps))
        needs = [f"training/{aware}/{steps}" for steps in budgets]
        yield self._unit("along", f"along {aware}", self._along, needs)
        needs = [f"training/{masked}/{steps}" for steps in budgets]
        for text in self.row.evaluation.laws:
            yield self._unit(f"losses/{text}", f"losses under {text}", partial(self._losses, text), needs)

    def _unit(
        self, name: str, label: str, compute: Callable[[], list[Line]], needs: Iterable[str] = (), cost: int = 0
    ) -> Unit:
        needed = frozenset(f"row{self.index}/{other}" for other in needs)
        return Unit(f"row{self.index}/{name}", f"{self.row.name}: {label}", compute, needed, cost)

    def _training(self, name: str, steps: int, make: Callable[[], Any]) -> Unit:
        cost = steps * self.row.training.batch * self.distribution.layout.length
        compute = partial(self._train, name, steps, make)
        return self._unit(f"training/{name}/{steps}", f"{name}, {steps} steps training", compute, cost=cost)

    def _budget(self, steps: int) -> dict[str, Any]:
        return {"training_steps": steps, "flops": self.networks.flops(steps)}

    def _problem(self) -> list[Line]:
        facts = self.lines | {"learned": self.row.evaluation.learned}
        return self.rows("problem", "problem", {}, {name: Sums.single(value) for name, value in facts.items()})

    def _train(self, name: str, steps: int, make: Callable[[], Any]) -> list[Line]:
        keys = {"learner": name, **self._budget(steps)}
        unit, facts = f"training/{name}/{steps}", network_facts(make().model)
        return self.rows(unit, "training", keys, facts) + self.held_out_rows(
            unit, self.networks.file(name, steps), {"learner": name, "training_steps": steps}
        )

    def _along(self) -> list[Line]:
        """Losses of the order-aware learner along its own order, after every training on the same sequences."""
        tokens = self.distribution.sample(self.key.fold("along"), self.row.evaluation.sequences)
        laws = AlongOrder(self.exact, self.reader.reading).conditionals(tokens)
        found = []
        for steps in self.orders_row.budgets():
            measured = order_losses(self.networks.causal(self.reader, steps), laws, tokens)
            arrays = {name: getattr(measured, name) for name in ("model", "exact", "kl")}
            sums = {name: Sums.of(values.mean(axis=1)) for name, values in arrays.items()}
            found += self.rows("along", "along", {"learner": self.reader.name, **self._budget(steps)}, sums)
        return found

    def _judged(self) -> dict[str, tuple[dict[str, Any], Watched]]:
        """Everything that is judged under mask laws: its keys, and the posterior, which stops when work is to stop."""
        none: dict[str, Any] = {"training_steps": "", "flops": ""}
        stop, judged = self.context.stop, {}
        for steps in self.orders_row.budgets():
            keys = {"posterior": "mdm", **self._budget(steps)}
            judged[f"mdm({steps})"] = (keys, Watched(self.networks.masked(self.row.masked, steps), stop))
        # A random slab reads all latents in one linear form: it has no factor graph.
        if self.row.evaluation.bp and isinstance(self.distribution.observations, TableObservations):
            judged["bp"] = ({"posterior": "bp", **none}, Watched(BPPosterior(self.distribution), stop))
        judged["marginals"] = ({"posterior": "marginals", **none}, Watched(SingleTokens(self.distribution), stop))
        return judged

    def _losses(self, text: str) -> list[Line]:
        law, judged = evaluation_law(text), self._judged()
        measured = pattern_losses(
            {name: posterior for name, (_, posterior) in judged.items()},
            self.exact,
            self.distribution,
            law,
            key=self.key.fold("losses").fold(law.name),
            n=self.row.evaluation.contexts,
            beside="bp" if "bp" in judged else None,
        )
        return [
            line
            for name, (keys, _) in judged.items()
            for line in self._law_lines(f"losses/{text}", {"law": law.name, **keys}, measured[name])
        ]

    def _law_lines(self, unit: str, keys: Mapping[str, Any], losses: PatternLosses) -> list[Line]:
        lines = self.rows(unit, "losses", {**keys, "role": "all"}, losses.total)
        for role, sums in losses.roles.items():
            kept = {name: sums[name] for name in ROLE_METRICS if name in sums}
            lines += self.rows(unit, "losses", {**keys, "role": role}, kept)
        return lines
