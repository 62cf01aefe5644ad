"""What one row of Figure 2 computes, as units of work: trainings, losses under each mask law, and a search for leaks.

A unit of losses sends the same contexts through every model, belief propagation and the exact posterior at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lo_theory.diffusion.leaks import find_leaks, leak_threshold
from lo_theory.diffusion.pattern_losses import PatternLosses
from lo_theory.lab import measures
from lo_theory.lab.settings import mask_law
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.posterior import Posterior

__all__ = ["CLASS_METRICS", "units"]

CLASS_METRICS = ("model", "exact", "kl", "log_ratio", "deterministic", "evidence")
"""What is kept class by class; by role, all of it is."""


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    s, row = s.named(s.size), s.row
    facts = measures.singles(measures.loss_lines(s.distribution))
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    for steps in row.lengths:
        learner, keys = _learner(s, steps), {"iterations": steps}
        measure = partial(measures.training, s, learner, keys)
        yield s.unit(f"training/{steps}", f"{steps}-step training", measure, learner=learner)
    texts, trainings = row.evaluation.texts(s.distribution.layout), [f"training/{steps}" for steps in row.lengths]
    for text in texts:
        yield s.unit(f"losses/{text}", f"losses under {text}", partial(_losses, s, text), trainings)
    measured = [f"losses/{text}" for text in texts]
    yield s.unit("leaks", "leaks", partial(_leaks, s, measured), measured)


def _learner(s: Subject, steps: int) -> Learner:
    return s.learner(f"{s.title} {steps}-step", str(steps), training=replace(s.row.training, steps=steps))


def _judged(s: Subject) -> dict[str, dict[str, Any]]:
    """Keys of everything that is judged, by name."""
    judged: dict[str, dict[str, Any]] = {
        f"model({steps})": {"posterior": "model", "iterations": steps} for steps in s.row.lengths
    }
    return judged | ({"bp": {"posterior": "bp", "iterations": ""}} if s.row.evaluation.bp else {})


def _posterior(s: Subject, keys: Mapping[str, Any]) -> Posterior:
    """The posterior of these keys; a model in float32, so that rounded logits do not count as its errors."""
    return s.bp() if keys["posterior"] == "bp" else s.model(_learner(s, keys["iterations"]), precision="float32")


def _losses(s: Subject, text: str) -> list[Finding]:
    setting = s.row.evaluation
    judged = {name: (keys, _posterior(s, keys)) for name, keys in _judged(s).items()}
    longest = f"model({s.row.lengths[-1]})" if setting.proxy else None
    exact = s.exact(setting.limit_states)
    measured = measures.law_losses(s, judged, exact, mask_law(text), setting.sequences, beside=longest)
    return [found for keys, losses in measured for found in _of_law(keys, losses)]


def _of_law(keys: Mapping[str, Any], losses: PatternLosses) -> list[Finding]:
    """Losses of one posterior under one law: all tokens, by role, by class and role.

    Of a law whose contexts all hide equally many, the rows by role are those by class: they name what is hidden.
    """
    kinds = {(latents, observations) for latents, observations, _ in losses.classes}
    hidden = next(iter(kinds)) if len(kinds) == 1 else ("", "")
    only = {"latents_hidden": hidden[0], "observations_hidden": hidden[1]}
    found = [Finding("losses", {**keys, "role": "all", **only}, losses.total)]
    found += [Finding("losses", {**keys, "role": role, **only}, sums) for role, sums in losses.roles.items()]
    for (latents, observations, role), sums in losses.classes.items() if len(kinds) > 1 else ():
        place = {"role": role, "latents_hidden": latents, "observations_hidden": observations}
        found.append(Finding("class_losses", {**keys, **place}, {name: sums[name] for name in CLASS_METRICS}))
    return found


def _leaks(s: Subject, measured: Sequence[str]) -> list[Finding]:
    """Rows of losses, of whatever class and role, whose evidence says that a posterior beats Bayes."""
    names = {f"row{s.index}/{name}" for name in measured}
    lines = [line for line in list(s.context.run.rows) if line.unit in names and line.metric == "evidence"]
    leaks = set(find_leaks({i: line.sums.total for i, line in enumerate(lines)}))
    found = []
    for keys in _judged(s).values():
        own = [i for i, line in enumerate(lines) if all(line.keys[name] == keys[name] for name in keys)]
        facts = {
            "rows_tested": len(own),
            "leaks": len(leaks.intersection(own)),
            "largest_evidence": max(lines[i].sums.total for i in own),
            "threshold": leak_threshold(len(lines)),
        }
        found.append(Finding("leaks", keys, measures.singles(facts)))
    return found
