"""The units of work of one row of the experiment on families: trainings, losses along the order, losses by mask law.

All posteriors answer the same contexts; both learners see the same data step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.diffusion.orders import AlongOrder, order_losses
from lo_theory.diffusion.pattern_losses import PatternLosses
from lo_theory.lab import measures
from lo_theory.lab.families.row import evaluation_law
from lo_theory.lab.orders.learners import Reader, causal, masked, readers
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.posterior import Marginals, Posterior
from lo_theory.problem import MASK, Layout, LODistribution, TableObservations

__all__ = ["ROLE_METRICS", "SingleTokens", "units"]

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


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    row, orders = s.row, s.row.as_orders()
    s = s.named(f"{row.name}:", family=row.name)
    reader, budgets = readers(orders, s.distribution.layout)[0], orders.budgets()
    facts = measures.singles(measures.loss_lines(s.distribution) | {"learned": row.evaluation.learned})
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    along = {steps: causal(s, orders, reader, steps) for steps in budgets}
    models = {steps: masked(s, orders, row.masked, steps) for steps in budgets}
    for steps in budgets:
        for name, learner in ((reader.name, along[steps]), (row.masked.name, models[steps])):
            label, measure = f"{name}, {steps} steps training", partial(_training, s, name, learner)
            yield s.unit(f"training/{name}/{steps}", label, measure, learner=learner)
    needs = [f"training/{reader.name}/{steps}" for steps in budgets]
    yield s.unit("along", f"along {reader.name}", partial(_along, s, reader, along), needs)
    needs = [f"training/{row.masked.name}/{steps}" for steps in budgets]
    for text in row.evaluation.laws:
        yield s.unit(f"losses/{text}", f"losses under {text}", partial(_losses, s, models, text), needs)


def _budget(learner: Learner) -> dict[str, Any]:
    return {"training_steps": learner.training.steps, "flops": learner.flops()}


def _training(s: Subject, name: str, learner: Learner) -> list[Finding]:
    way = {"learner": name, "training_steps": learner.training.steps}
    return measures.training(s, learner, {"learner": name, **_budget(learner)}, way)


def _along(s: Subject, reader: Reader, learners: Mapping[int, Learner]) -> list[Finding]:
    """Losses of the order-aware learner along its own order, after every training on the same sequences."""
    tokens = s.distribution.sample(s.key.fold("along"), s.row.evaluation.sequences)
    exact = s.watched(s.exact(s.row.evaluation.limit_states))
    laws, found = AlongOrder(exact, reader.reading).conditionals(tokens), []
    for learner in learners.values():
        totals = measures.order_totals(order_losses(s.causal(learner), laws, tokens))
        found.append(Finding("along", {"learner": reader.name, **_budget(learner)}, totals))
    return found


def _losses(s: Subject, models: Mapping[int, Learner], text: str) -> list[Finding]:
    """Losses under a mask law of the models, of belief propagation, and of the marginals that read nothing."""
    setting, none = s.row.evaluation, {"training_steps": "", "flops": ""}
    judged: dict[str, tuple[dict[str, Any], Posterior]] = {
        f"mdm({steps})": ({"posterior": "mdm", **_budget(learner)}, s.model(learner))
        for steps, learner in models.items()
    }
    # A random slab reads all latents in one linear form: it has no factor graph.
    if setting.bp and isinstance(s.distribution.observations, TableObservations):
        judged["bp"] = ({"posterior": "bp", **none}, s.bp())
    judged["marginals"] = ({"posterior": "marginals", **none}, SingleTokens(s.distribution))
    exact, law, beside = s.exact(setting.limit_states), evaluation_law(text), "bp" if "bp" in judged else None
    measured = measures.law_losses(s, judged, exact, law, setting.contexts, beside=beside)
    return [found for keys, losses in measured for found in _of_law(keys, losses)]


def _of_law(keys: Mapping[str, Any], losses: PatternLosses) -> list[Finding]:
    found = [Finding("losses", {**keys, "role": "all"}, losses.total)]
    for role, sums in losses.roles.items():
        kept = {name: sums[name] for name in ROLE_METRICS if name in sums}
        found.append(Finding("losses", {**keys, "role": role}, kept))
    return found
