"""The units of work of one row of the experiment on recipes: its trainings, evaluated during the training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lo_theory.lab import measures
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit

__all__ = ["units"]


def units(s: Subject) -> Iterator[Unit]:
    """The facts of the problem, and each training."""
    s = s.named(f"{s.size} {s.row.name}", recipe=s.row.name)
    facts = measures.singles(measures.loss_lines(s.distribution))
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    for draw in range(s.row.draws):
        label = f"#{draw} " if s.row.draws > 1 else ""
        learner = s.learner(f"{s.title} {label}".strip(), str(draw), key=s.key.fold("training").fold(draw))
        yield s.unit(f"training/{draw}", f"{label}training", partial(_train, s, learner, draw), learner=learner)


def _train(s: Subject, learner: Learner, draw: int) -> list[Finding]:
    """Train; a recipe under which the loss is no longer finite has diverged, which is a result."""
    keys, diverged = {"draw": draw}, measures.singles({"diverged": 1})
    try:
        trained, *way = measures.training(s, learner, keys)
    except FloatingPointError:  # the journal has it
        return [Finding("training", keys, diverged), *measures.held_out(s, learner, keys)]
    return [trained, Finding("training", keys, measures.singles({"diverged": 0})), *way]
