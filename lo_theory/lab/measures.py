"""What experiments measure, as functions that return findings: losses, accuracies, decodes, uncertainty, thresholds.

A measure takes the subject or its problem, whom to judge, a key and a number of sequences. Costs are those of the
functions of ``lo_theory.diffusion`` and ``lo_theory.thresholds`` that it calls.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import (
    DecodeCost,
    Decoded,
    MaskLaw,
    Sums,
    Uniform,
    conditional_accuracy,
    dead_checks,
    diversity,
    find_leaks,
    generated_accuracies,
    infill_accuracies,
    leak_threshold,
)
from lo_theory.diffusion.orders import OrderLosses
from lo_theory.diffusion.pattern_losses import PatternLosses, pattern_losses
from lo_theory.diffusion.uncertainty import Uncertainty
from lo_theory.lab.runs import journal
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.training import learning_curve
from lo_theory.posterior import Posterior
from lo_theory.problem import Distribution, LODistribution, TableObservations
from lo_theory.rng import Key
from lo_theory.thresholds import Curve, Fold, Starts, Transition, transition_columns

if TYPE_CHECKING:
    from lo_theory.lab.training import Learner


T = TypeVar("T", bound=Hashable)

CLASS_METRICS = ("model", "exact", "kl", "log_ratio", "deterministic", "evidence")
"""What ``by_pattern`` keeps class by class; by role, all of it is."""

_CURVE_POINTS = 40


def singles(values: Mapping[str, float]) -> dict[str, Sums]:
    """Numbers that are no means over sequences, as rows keep them."""
    return {name: Sums.single(value) for name, value in values.items()}


def problem(distribution: LODistribution, **more: float) -> list[Finding]:
    """The known lines of a problem, see ``lines``, and whatever else is fixed with it."""
    return [Finding("problem", {}, singles({**lines(distribution), **more}))]


def loss_lines(distribution: Distribution) -> dict[str, float]:
    """``floor`` H/L, the Bayes optimum under the uniform law, and ``marginals_only`` sum_i H_i/L, nats per token."""
    length = distribution.layout.length
    return {"floor": distribution.entropy() / length, "marginals_only": distribution.marginal_entropy() / length}


def lines(distribution: LODistribution) -> dict[str, float]:
    """The known lines of a problem.

    ``floor`` and ``marginals_only``: see ``loss_lines``. ``constant`` and ``independent``: accuracy of observations
    that are always their most likely value, and that are drawn from their single-token marginals, regardless of the
    latents. ``observation_mean``: mean of the observations in the data. ``self_consistency_...``: a value counts where
    it is (tied for) most likely given the latents, which are data; ``..._ceiling``: drawn given the latents,
    E max_v P(o = v | latents) where nothing is tied.
    """
    observed = distribution.token_marginals[distribution.layout.observation_positions]
    return {
        **loss_lines(distribution),
        "constant": float(observed.max(axis=1).mean()),
        "independent": float(np.square(observed).sum(axis=1).mean()),
        "observation_mean": float((observed @ np.arange(observed.shape[1])).mean()),
        **_consistency_lines(distribution, observed),
    }


def _consistency_lines(distribution: LODistribution, observed: NDArray[np.float64]) -> dict[str, float]:
    """Self-consistency lines; ``observed`` [P, V] are the single-token marginals of the observations."""
    law = distribution.observations
    if isinstance(law, TableObservations):
        given = law.tables[law.index]  # [P, states, r]
        top, weights = given >= given.max(axis=2, keepdims=True), distribution.scope_weights
        ceiling = float((weights[:, :, None] * given * top).sum(axis=(1, 2)).mean())
        agree = np.einsum("ps,psr->pr", weights, top)  # P(value v counts), by observation
    else:
        ceiling, agree = 1.0, observed[:, : law.r]  # a slab's values are certain given the latents
    drawn = observed[:, : law.r]
    constant = np.take_along_axis(agree, drawn.argmax(axis=1)[:, None], axis=1)
    return {
        "self_consistency_ceiling": ceiling,
        "self_consistency_constant": float(constant.mean()),
        "self_consistency_independent": float((drawn * agree).sum(axis=1).mean()),
    }


def training(
    s: Subject, learner: Learner, keys: Mapping[str, Any], on_the_way: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Train a learner: its parameters in all and outside embeddings and head, and its held-out losses by step.

    ``on_the_way``: keys of the held-out losses where they are others.
    """
    network = s.trained(learner).model
    parameters = sum(part.numel() for part in network.parameters())
    facts = singles({"parameters": parameters, "core_parameters": network.core_parameters()})
    found = [Finding("training", keys, facts)]
    return found + held_out(s, learner, keys if on_the_way is None else on_the_way)


def held_out(s: Subject, learner: Learner, keys: Mapping[str, Any]) -> list[Finding]:
    """Nats per token above the floor on held-out data during a training, by step; nothing where none were measured.

    ``clock`` names the seconds that are fair: of the processor on shared cores, of the wall where a device works.
    """
    clock = "processor_seconds" if s.context.options.device == "cpu" else "training_seconds"
    return [
        Finding("held_out", {**keys, "step": point.step, "flops": point.flops, "clock": clock}, point.metrics)
        for point in learning_curve(s.context.run.folder, learner.file)
    ]


def logged_losses(s: Subject, learner: Learner) -> dict[int, float]:
    """The training's own losses under its final law, from the journal, by step; later entries win."""
    final = learner.goal().label(learner.training.steps - 1)
    return {
        int(entry["step"]): float(entry["loss"])
        for entry in journal(s.context.run.folder)
        if entry.get("model") == learner.file and "loss" in entry and entry.get("law", final) == final
    }


def training_losses(s: Subject, learner: Learner, keys: Mapping[str, Any]) -> list[Finding]:
    """The training's own losses under its final law in at most 40 groups of steps."""
    return [
        Finding("curve", {**keys, "step": step, "flops": learner.flops(step)}, {"loss": sums})
        for step, sums in pooled(logged_losses(s, learner)).items()
    ]


def pooled(losses: Mapping[int, float], points: int = _CURVE_POINTS) -> dict[int, Sums]:
    """Pool losses by step into at most ``points`` groups of even width in ln(step), each under its last step."""
    groups: dict[int, list[int]] = {}
    last = max(losses, default=1)
    for step in sorted(losses):
        groups.setdefault(int(points * math.log(step) / math.log(last + 1)), []).append(step)
    return {steps[-1]: Sums.of([losses[step] for step in steps]) for steps in groups.values()}


def law_losses(
    s: Subject,
    judged: Mapping[str, tuple[Mapping[str, Any], Posterior]],
    exact: Posterior,
    law: MaskLaw,
    n: int,
    *,
    beside: str | None = None,
) -> list[tuple[Mapping[str, Any], PatternLosses]]:
    """Losses of posteriors under a mask law, all on the same n contexts, see ``pattern_losses``: keys and losses.

    ``judged``: keys and posterior by name. ``beside``: the one that the others are also compared with.
    """
    posteriors = {name: s.watched(posterior) for name, (_, posterior) in judged.items()}
    key = s.key.fold("losses").fold(law.name)
    found = pattern_losses(posteriors, s.watched(exact), s.distribution, law, key=key, n=n, beside=beside)
    return [({"law": law.name, **keys}, found[name]) for name, (keys, _) in judged.items()]


def by_pattern(keys: Mapping[str, Any], losses: PatternLosses) -> list[Finding]:
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


def leaks(evidence: Mapping[T, float], own: Iterable[T]) -> dict[str, float]:
    """Of the rows ``own`` among all of a family, named with their ``evidence``: how many say that Bayes is beaten."""
    mine, over = set(own), set(find_leaks(evidence))
    return {
        "rows_tested": len(mine),
        "leaks": len(over & mine),
        "largest_evidence": max(evidence[name] for name in mine),
        "threshold": leak_threshold(len(evidence)),
    }


def one_pass(posterior: Posterior, distribution: LODistribution, key: Key, n: int) -> dict[str, Sums]:
    """Accuracies of a single pass: observations given all latents, and observations under the uniform law."""
    return {
        "conditional": conditional_accuracy(posterior, distribution, key.fold("conditional"), n),
        **infill_accuracies(posterior, distribution, Uniform(), key.fold("infill"), n),
    }


def dead_ends(distribution: LODistribution, seen: Decoded) -> dict[str, Sums]:
    """What became of a decode whose dead ends the exact posterior has seen (``find_dead_ends``)."""
    found = {"impossible": Sums.of(seen.impossible), "alive_steps": Sums.of(seen.alive_steps)}
    return found | dead_checks(distribution, seen)


def costs(found: DecodeCost) -> dict[str, Sums]:
    """What a decode costs; what was not measured has no row (see ``decode_cost``)."""
    parts = {"cost": found.total, "dependence_error": found.dependence, "model_error": found.model}
    return {
        name: sums for name, sums in {**parts, "infinite_cost": found.infinite, "calls": found.calls}.items() if sums.n
    }


def generated(
    distribution: LODistribution, tokens: NDArray[np.int8], judge: Key, *more: Mapping[str, Sums]
) -> dict[str, Sums]:
    """Accuracies of generated sequences, ``more`` that was measured of them, and their diversity."""
    found = generated_accuracies(distribution, tokens, judge.fold("accuracy"))
    for others in more:
        found |= others
    spread = asdict(diversity(distribution, tokens, judge.fold("diversity")))
    return found | singles({name: value for name, value in spread.items() if not np.isnan(value)})


def order_totals(measured: OrderLosses) -> dict[str, Sums]:
    """Losses along an order, nats per token."""
    return {name: Sums.of(values.mean(axis=1)) for name, values in vars(measured).items() if values is not None}


def left_open(found: Uncertainty, kind: str, keys: Mapping[str, Any]) -> list[Finding]:
    """What contexts leave open, and by the key ``posterior`` how well others know it; see ``uncertainty``."""
    judged = [Finding(kind, {**keys, "posterior": name}, sums) for name, sums in found.judged.items()]
    return [Finding(kind, keys, found.truth), *judged]


def transition(found: Transition, keys: Mapping[str, Any]) -> list[Finding]:
    """The thresholds of an ensemble; what is infinite or absent leaves no row. The curve: see ``curve``."""
    columns = {name: float(value) for name, value in transition_columns(found).items() if value is not None}
    return [Finding("threshold", keys, singles(columns))]


def curve(found: Curve, keys: Mapping[str, Any]) -> list[Finding]:
    """The degree of the fixed point at each overlap, its standard error, and the excess of its free entropy."""
    return [
        Finding(
            "curve",
            {**keys, "overlap": round(float(overlap), 12)},
            singles({"c": c, "c_standard_error": error, "excess": excess}),
        )
        for overlap, c, error, excess in zip(found.overlap, found.c, found.error, found.excess, strict=True)
    ]


def fold(found: Fold, keys: Mapping[str, Any]) -> list[Finding]:
    """Whether two states coexist, from where to where, and where they are equally likely."""
    values: dict[str, float] = {"survives": found.survives, "resolution": found.resolution}
    for name in ("dynamic", "crossing", "spinodal"):
        threshold = getattr(found, name)
        if threshold is not None:
            values |= {f"{name}_c": threshold.value, f"{name}_c_error": threshold.error}
    return [Finding("fold", keys, singles(values))]


def starts(found: Starts, keys: Mapping[str, Any]) -> list[Finding]:
    """Population dynamics from the planted and from the uninformed start: overlaps, standard errors, the difference."""
    values = {
        "planted": found.planted[0],
        "planted_error": found.planted[1],
        "uninformed": found.uninformed[0],
        "uninformed_error": found.uninformed[1],
        "advantage": found.advantage[0],
        "coexist": float(found.coexist),
    }
    return [Finding("population", keys, singles(values))]
