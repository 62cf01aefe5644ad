"""How uncertain the truth is under a mask law, and how far posteriors are from it: one value a context, so rows add.

Where ``pattern_losses`` judges at the tokens that were drawn, this file reads the exact posterior itself: entropies,
and evidence, which sees what single marginals are blind to (the global flip of an NAE problem leaves every marginal
uniform). A context that the exact posterior refuses is counted and left out. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.contexts import Contexts, draw_contexts, row_means
from lo_theory.diffusion.losses import kl_divergence
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.pattern_losses import CERTAIN, LEAST
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Marginals, Posterior
from lo_theory.problem.distribution import entropies
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = ["Uncertainty", "uncertainty"]

EXACT = Seam("an exact posterior", ("layout", "marginals"), "ExactPosterior(problem)")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Uncertainty:
    """What one mask law leaves open, as ``Sums`` over contexts, all entropies and distances in nats.

    ``truth``, over the contexts that the exact posterior answers, those with h > 0 hidden latents where it says so:

    * ``latent_entropy``: mean entropy of the exact marginals of the hidden latents (h > 0); ``token_entropy``: the same
      over all hidden tokens;
    * ``joint_entropy``: -ln P(hidden latents | context)/h at the true latents (h > 0), whose expectation is the
      entropy of their joint law per hidden latent. Without noise it is ln(assignments left)/h in each context;
    * ``deterministic``: 1 where every latent has a value of probability above 1 - ``CERTAIN``;
    * ``refused``: 1 where the exact posterior does not fit its limit, over *all* contexts.

    ``judged``, by posterior: ``kl_latent`` and ``kl_token``, KL from the exact marginals per hidden latent (h > 0) and
    per hidden token, probabilities below ``LEAST`` counted as that; ``converged``; ``evidence_error``: (its ln
    P(context) - the exact one)/h where it gives a finite one (h > 0), and ``contradicted``: 1 where it calls the
    context impossible.
    """

    law: str
    truth: Mapping[str, Sums]
    judged: Mapping[str, Mapping[str, Sums]]


def _hidden_means(values: Values, hidden: NDArray[np.bool_]) -> Values:
    """Mean over the hidden positions of each row that hides any."""
    return row_means(values, hidden)[hidden.any(axis=1)]


def _truth(batch: Contexts, p: Values, evidence: Values, complete: Values) -> dict[str, Sums]:
    """See ``Uncertainty``; ``complete`` is the evidence of the same contexts with their latents given."""
    latents = batch.masked & batch.layout.is_latent
    count = latents.sum(axis=1)
    left, certain = entropies(p), p[:, batch.layout.latent_positions].max(axis=2) > 1 - CERTAIN
    return {
        "latent_entropy": Sums.of(_hidden_means(left, latents)),
        "token_entropy": Sums.of(_hidden_means(left, batch.masked)),
        "joint_entropy": Sums.of((evidence - complete)[count > 0] / count[count > 0]),
        "deterministic": Sums.of(certain.all(axis=1)),
    }


def _judge(batch: Contexts, answer: Marginals, p: Values, evidence: Values) -> dict[str, Sums]:
    latents = batch.masked & batch.layout.is_latent
    distance = kl_divergence(p, np.maximum(np.asarray(answer.probs, np.float64), LEAST))
    count, own = latents.sum(axis=1), np.asarray(answer.log_evidence, np.float64)
    known = (count > 0) & np.isfinite(own)
    return {
        "kl_latent": Sums.of(_hidden_means(distance, latents)),
        "kl_token": Sums.of(_hidden_means(distance, batch.masked)),
        "converged": Sums.of(answer.converged),
        "evidence_error": Sums.of((own - evidence)[known] / count[known]),
        "contradicted": Sums.of(np.isneginf(own)),
    }


@checked
def uncertainty(
    posteriors: Mapping[str, Posterior],
    exact: Posterior,
    distribution: Distribution,
    law: MaskLaw,
    *,
    key: Key,
    n: int,
) -> Uncertainty:
    """Measure what n contexts (fresh data under ``law``) leave open, and judge ``posteriors`` on the same ones.

    An ``exact`` posterior with ``estimate_cost`` says beforehand which contexts it refuses; another one answers all.
    Contexts are those of ``losses`` with the same key. Cost: two passes of the exact posterior, the second with all
    latents given, one of each other, and an estimate of the cost of each row. Errors: ValueError for n < 1 and for a
    law with several masks a sequence.
    """
    EXACT.check(exact, "exact")
    ((batch,),) = draw_contexts(distribution, law, key, n, size=n, independent=True)
    fits = exact.estimate_cost(batch.tokens).fits if hasattr(exact, "estimate_cost") else np.ones(n, np.bool_)
    refused = {"refused": Sums.of(~fits)}
    if not fits.any():
        return Uncertainty(law.name, refused, {})
    batch = replace(batch, **{name: getattr(batch, name)[fits] for name in ("truth", "masked", "weight")})
    answer = batch.ask(exact, "the exact posterior")
    complete = replace(batch, masked=batch.masked & ~batch.layout.is_latent).ask(exact, "the exact posterior")
    p, evidence = np.asarray(answer.probs, np.float64), answer.log_evidence
    judged = {name: _judge(batch, batch.ask(posterior, name), p, evidence) for name, posterior in posteriors.items()}
    return Uncertainty(law.name, {**_truth(batch, p, evidence, complete.log_evidence), **refused}, judged)
