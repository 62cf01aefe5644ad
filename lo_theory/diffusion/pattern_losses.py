"""Losses mask pattern by mask pattern and role by role: any posteriors against the exact one, on the same contexts.

The key of a row is (law, latents hidden, observations hidden, role). Its values are means over the *scored* tokens of
that role in a context (those to which the law gives weight: the hidden ones, or for a suffix the next one), one value a
context, in nats per scored token, so that rows add. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.contexts import Contexts, at_truth, by_class, draw_contexts, row_means
from lo_theory.diffusion.leaks import evidence
from lo_theory.diffusion.losses import kl_divergence
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["CERTAIN", "LEAST", "ROLES", "PatternLosses", "pattern_losses"]

ROLES = ("latent", "observation")

LEAST = 1e-12
"""Smaller probabilities of the posteriors that are judged count as this.

A posterior that excludes a possible value (belief propagation does) errs by at most 27.6 nats a token and not by
infinitely many; ``excluded`` says how often.
"""

CERTAIN = 1e-9
"""A context is deterministic if every latent has a value of exact probability above 1 - CERTAIN."""

Values = NDArray[np.float64]
Class = tuple[int, int, str]


@dataclass(frozen=True)
class PatternLosses:
    """What one posterior loses under one mask law.

    ``classes``: by (latents hidden, observations hidden, role), ``roles``: pooled by role, each a mapping of ``Sums``
    over contexts:

    * ``model``, ``exact``: cross-entropy at the true token, of the posterior and of the exact one (the Bayes loss);
      ``excess`` their paired difference;
    * ``kl``: KL(exact marginal, posterior's), whose expectation is that of ``excess``, with less noise;
      ``kl_deterministic``: the same over the deterministic contexts alone;
    * ``log_ratio``: (ln q(true) - ln p(true))**2, the error of the paper's Figure 2;
    * where there is a posterior to compare with (``beside``): ``proxy_log_ratio``, the same with its probability for p,
      as the paper measures by a proxy; ``kl_above``, ``kl`` minus its own in the same context: what contexts differ by
      cancels;
    * ``deterministic``: 1 where the exact posterior leaves one assignment of the latents: every latent has a value of
      probability above 1 - ``CERTAIN``. With noise no assignment is excluded; then all others have together at most N
      ``CERTAIN`` of the posterior;
    * ``excluded``: share of true tokens below ``LEAST``; ``converged``: as the posterior says;
    * ``evidence``: a single number, ln of the wealth won by betting that the posterior beats Bayes on the tokens of
      which the exact one is not certain (see ``leaks``).

    ``total``: ``model``, ``exact``, ``kl`` and ``kl_above`` over all contexts in nats per token, weighted as the law
    says.
    """

    law: str
    total: Mapping[str, Sums]
    roles: Mapping[str, Mapping[str, Sums]]
    classes: Mapping[Class, Mapping[str, Sums]]


@dataclass
class _Collected:
    """Values of one posterior, batch by batch."""

    total: dict[str, list[Values]] = field(default_factory=dict)
    roles: dict[str, list[dict[str, NDArray[Any]]]] = field(default_factory=lambda: {role: [] for role in ROLES})


def _check_possible(true: Values, batch: Contexts) -> None:
    """Say which true token the exact posterior excludes."""
    excluded = ~(true > 0)
    if excluded.any():
        row, position = (int(i) for i in np.argwhere(excluded)[0])
        raise ValueError(
            f"the exact posterior gives the true token of sequence {batch.start + row} at position {position} the "
            "probability 0: it is bound to another problem than the data, or it is not exact"
        )


def _token_values(truth: NDArray[np.int8], p: Values, q: Values, beside: Values | None) -> dict[str, Values]:
    """float64[B, L] for every position."""
    exact, true = -np.log(at_truth(p, truth)), at_truth(q, truth)
    model = -np.log(np.maximum(true, LEAST))
    values = {
        "model": model,
        "exact": exact,
        "excess": model - exact,
        "kl": kl_divergence(p, np.maximum(q, LEAST)),
        "log_ratio": np.square(model - exact),
        "excluded": (true < LEAST).astype(np.float64),
    }
    if beside is not None:
        values["proxy_log_ratio"] = np.square(model + np.log(np.maximum(at_truth(beside, truth), LEAST)))
        values["kl_above"] = values["kl"] - kl_divergence(p, np.maximum(beside, LEAST))
    return values


def _ratios(truth: NDArray[np.int8], p: Values, q: Values) -> Values:
    """q(true)/p(true) where a posterior could beat the exact one, nan where that is certain: float64[B, L].

    What is bet on depends on the context only, so the bets stay fair.
    """
    return np.where(p.max(axis=2) > 1 - CERTAIN, np.nan, at_truth(q, truth) / at_truth(p, truth))


def _collect(into: _Collected, batch: Contexts, tokens: Mapping[str, Values], rows: Mapping[str, NDArray[Any]]) -> None:
    """Add one value a context: of ``tokens`` [B, L] the mean over the scored tokens of each role, and ``rows`` [B]."""
    scored, is_latent = batch.weight > 0, batch.layout.is_latent
    for name in ("model", "exact", "kl", *(["kl_above"] if "kl_above" in tokens else [])):
        into.total.setdefault(name, []).append(np.where(scored, batch.weight * tokens[name], 0.0).sum(axis=1))
    for role, own in zip(ROLES, (is_latent, ~is_latent), strict=True):
        here = scored & own
        kept = here.any(axis=1)
        means = {name: row_means(part, here)[kept] for name, part in tokens.items() if name != "ratio"}
        means["ratio"] = row_means(tokens["ratio"], here & ~np.isnan(tokens["ratio"]), 1.0)[kept]
        into.roles[role].append({**means, **{name: part[kept] for name, part in rows.items()}})


def _summed(values: Mapping[str, Values]) -> dict[str, Sums]:
    """Sums over the contexts of a row."""
    sums = {name: Sums.of(part) for name, part in values.items() if name != "ratio"}
    sums["kl_deterministic"] = Sums.of(values["kl"][values["deterministic"] == 1])
    sums["evidence"] = Sums.of([evidence(values["ratio"])])
    return sums


def _finish(law: str, collected: _Collected) -> PatternLosses:
    """Group what was collected by role and by class."""
    roles: dict[str, Mapping[str, Sums]] = {}
    classes: dict[Class, Mapping[str, Sums]] = {}
    for role, parts in collected.roles.items():
        values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        kinds = values.pop("class")
        if len(kinds) == 0:
            continue
        roles[role] = _summed(values)
        for kind, members in by_class(kinds).items():
            classes[*kind, role] = _summed({name: part[members] for name, part in values.items()})
    total = {name: Sums.of(np.concatenate(parts)) for name, parts in collected.total.items()}
    return PatternLosses(law, total, roles, dict(sorted(classes.items())))


def _check(posteriors: Mapping[str, Posterior], beside: str | None) -> None:
    if not isinstance(posteriors, Mapping):
        raise ValueError(f"posteriors must be a mapping of names, such as {{'model': posterior}}; got {posteriors!r}")
    if beside is not None and beside not in posteriors:
        raise ValueError(f"beside is {beside!r}, and must be one of the posteriors ({', '.join(posteriors) or 'none'})")


@checked
def pattern_losses(
    posteriors: Mapping[str, Posterior],
    exact: Posterior,
    distribution: Distribution,
    law: MaskLaw,
    *,
    key: Key,
    n: int,
    beside: str | None = None,
) -> dict[str, PatternLosses]:
    """Judge all ``posteriors`` by the ``exact`` one on the same n contexts: fresh data under a mask law.

    The contexts are those of ``losses`` with the same key. ``beside`` names one of the posteriors that the
    others are compared with, too: their errors against it in place of the exact posterior, as the paper measures by a
    proxy, and their KL minus its own, context by context. Cost: n rows through each
    posterior; the exact one answers a batch, in as many threads as it was made with, while the others answer it.
    Errors: ValueError for answers that are no probabilities, and if the exact posterior excludes a true token.
    """
    _check(posteriors, beside)
    latents, collected = distribution.layout.latent_positions, {name: _Collected() for name in posteriors}
    with ThreadPoolExecutor(1) as pool:
        for (batch,) in draw_contexts(distribution, law, key, n, independent=True):
            truth = pool.submit(batch.ask, exact, "the exact posterior")
            answers = {name: batch.ask(posterior, name) for name, posterior in posteriors.items()}
            p = np.asarray(truth.result().probs, np.float64)
            _check_possible(at_truth(p, batch.truth), batch)
            q = {name: np.asarray(answer.probs, np.float64) for name, answer in answers.items()}
            deterministic = (p[:, latents].max(axis=2) > 1 - CERTAIN).all(axis=1).astype(np.float64)
            for name, answer in answers.items():
                rows = {
                    "deterministic": deterministic,
                    "converged": answer.converged.astype(np.float64),
                    "class": batch.classes,
                }
                other = None if beside is None or name == beside else q[beside]
                values = _token_values(batch.truth, p, q[name], other) | {"ratio": _ratios(batch.truth, p, q[name])}
                _collect(collected[name], batch, values, rows)
    return {name: _finish(law.name, parts) for name, parts in collected.items()}
