"""Losses mask pattern by mask pattern and role by role: any posteriors against the exact one, on the same contexts.

The key of a row is (law, latents hidden, observations hidden, role). Its values are means over the *scored* tokens of
that role in a context (those to which the law gives weight: the hidden ones, or for a suffix the next one), one value a
context, in nats per scored token, so that rows add. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.leaks import evidence
from lo_theory.diffusion.losses import kl_divergence
from lo_theory.diffusion.masks import MaskLaw, describe, draw_masks
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.seams import check_count, checked
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

_BATCH = 1024  # contexts sent through the posteriors at once

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


@dataclass(frozen=True)
class _Batch:
    """Contexts of one batch: true tokens and weights [B, L], and the class [B, 2] of each."""

    start: int
    truth: NDArray[np.int8]
    masked: NDArray[np.bool_]
    weight: Values
    kinds: NDArray[np.int64]

    @property
    def contexts(self) -> NDArray[np.int8]:
        return np.where(self.masked, np.int8(MASK), self.truth)

    def at_truth(self, probs: Values) -> Values:
        """Probability of the true token, float64[B, L]."""
        return np.take_along_axis(probs, self.truth.astype(np.intp)[:, :, None], axis=2)[:, :, 0]


@dataclass
class _Collected:
    """Values of one posterior, batch by batch."""

    total: dict[str, list[Values]] = field(default_factory=dict)
    kinds: dict[str, list[NDArray[np.int64]]] = field(default_factory=lambda: {role: [] for role in ROLES})
    roles: dict[str, list[dict[str, Values]]] = field(default_factory=lambda: {role: [] for role in ROLES})


def _batches(distribution: LODistribution, law: MaskLaw, key: Key, n: int) -> Iterator[_Batch]:
    """The contexts that ``losses`` draws from the same key."""
    layout = distribution.layout
    for start in range(0, n, _BATCH):
        truth = distribution.sample(key.fold("data"), min(_BATCH, n - start), start=start)
        masks, weights = draw_masks(law, key.fold("masks"), truth, layout, start=start)
        if len(masks) != 1:
            raise ValueError(
                f"{law.name} gives {len(masks)} masks a sequence, whose losses are not independent: measure a law "
                "that gives one"
            )
        kinds = np.stack(describe(masks[0], layout), axis=1)
        yield _Batch(start, truth, masks[0], weights[0].astype(np.float64), kinds)


def _check_possible(true: Values, batch: _Batch) -> None:
    """Say which true token the exact posterior excludes."""
    excluded = ~(true > 0)
    if excluded.any():
        row, position = (int(i) for i in np.argwhere(excluded)[0])
        raise ValueError(
            f"the exact posterior gives the true token of sequence {batch.start + row} at position {position} the "
            "probability 0: it is bound to another problem than the data, or it is not exact"
        )


def _token_values(batch: _Batch, p: Values, q: Values, beside: Values | None) -> dict[str, Values]:
    """float64[B, L] for every position."""
    exact, true = -np.log(batch.at_truth(p)), batch.at_truth(q)
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
        values["proxy_log_ratio"] = np.square(model + np.log(np.maximum(batch.at_truth(beside), LEAST)))
        values["kl_above"] = values["kl"] - kl_divergence(p, np.maximum(beside, LEAST))
    return values


def _ratios(batch: _Batch, p: Values, q: Values) -> Values:
    """q(true)/p(true) where a posterior could beat the exact one, nan where that is certain: float64[B, L].

    What is bet on depends on the context only, so the bets stay fair.
    """
    return np.where(p.max(axis=2) > 1 - CERTAIN, np.nan, batch.at_truth(q) / batch.at_truth(p))


def _means(values: Values, at: NDArray[np.bool_], default: float) -> Values:
    """Mean of [B, L] over the positions ``at`` of every row, or ``default`` where there are none: float64[B]."""
    count = at.sum(axis=1)
    mean: Values = np.where(count > 0, np.where(at, values, 0.0).sum(axis=1) / np.maximum(count, 1), default)
    return mean


def _collect(
    into: _Collected, batch: _Batch, layout: Layout, tokens: Mapping[str, Values], rows: Mapping[str, Values]
) -> None:
    """Add one value a context: of ``tokens`` [B, L] the mean over the scored tokens of each role, and ``rows`` [B]."""
    scored = batch.weight > 0
    for name in ("model", "exact", "kl", *(["kl_above"] if "kl_above" in tokens else [])):
        into.total.setdefault(name, []).append(np.where(scored, batch.weight * tokens[name], 0.0).sum(axis=1))
    for role, own in zip(ROLES, (layout.is_latent, ~layout.is_latent), strict=True):
        here = scored & own
        kept = here.any(axis=1)
        means = {name: _means(part, here, 0.0)[kept] for name, part in tokens.items() if name != "ratio"}
        means["ratio"] = _means(tokens["ratio"], here & ~np.isnan(tokens["ratio"]), 1.0)[kept]
        into.kinds[role].append(batch.kinds[kept])
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
        kinds = np.concatenate(collected.kinds[role])
        if len(kinds) == 0:
            continue
        roles[role] = _summed(values)
        found, number = np.unique(kinds, axis=0, return_inverse=True)
        ranked = np.argsort(number.ravel(), kind="stable")
        ends = np.searchsorted(number.ravel()[ranked], np.arange(1, len(found)))
        for kind, members in zip(found.tolist(), np.split(ranked, ends), strict=True):
            classes[kind[0], kind[1], role] = _summed({name: part[members] for name, part in values.items()})
    total = {name: Sums.of(np.concatenate(parts)) for name, parts in collected.total.items()}
    return PatternLosses(law, total, roles, dict(sorted(classes.items())))


def _check(
    posteriors: Mapping[str, Posterior], distribution: LODistribution, key: Key, n: int, beside: str | None
) -> None:
    if not isinstance(posteriors, Mapping):
        raise ValueError(f"posteriors must be a mapping of names, such as {{'model': posterior}}; got {posteriors!r}")
    check_count(n, "losses are measured on at least one context")
    if beside is not None and beside not in posteriors:
        raise ValueError(f"beside is {beside!r}, and must be one of the posteriors ({', '.join(posteriors) or 'none'})")


@checked
def pattern_losses(
    posteriors: Mapping[str, Posterior],
    exact: Posterior,
    distribution: LODistribution,
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
    _check(posteriors, distribution, key, n, beside)
    layout, collected = distribution.layout, {name: _Collected() for name in posteriors}
    latents = layout.latent_positions
    with ThreadPoolExecutor(1) as pool:
        for batch in _batches(distribution, law, key, n):
            contexts = batch.contexts
            truth = pool.submit(ask, exact, contexts, layout, name="the exact posterior", start=batch.start)
            answers = {
                name: ask(posterior, contexts, layout, name=name, start=batch.start)
                for name, posterior in posteriors.items()
            }
            p = np.asarray(truth.result().probs, np.float64)
            _check_possible(batch.at_truth(p), batch)
            q = {name: np.asarray(answer.probs, np.float64) for name, answer in answers.items()}
            deterministic = (p[:, latents].max(axis=2) > 1 - CERTAIN).all(axis=1).astype(np.float64)
            for name, answer in answers.items():
                rows = {"deterministic": deterministic, "converged": answer.converged.astype(np.float64)}
                other = None if beside is None or name == beside else q[beside]
                values = {**_token_values(batch, p, q[name], other), "ratio": _ratios(batch, p, q[name])}
                _collect(collected[name], batch, layout, values, rows)
    return {name: _finish(law.name, parts) for name, parts in collected.items()}
