"""What generated sequences and a denoiser are worth.

The four accuracies by name, consistency, and the observation mean.

The paper's Table 1 has one column "accuracy" and does not say which; the four definitions differ by tens of per cent
(docs/concepts.md), so each is reported under its name. Every answer is a ``Sums`` over sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.contexts import BATCH, at_truth, draw_contexts, row_means
from lo_theory.diffusion.decode import Decoded
from lo_theory.diffusion.masks import MaskLaw, TwoRates
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import POSTERIOR, ask
from lo_theory.problem.distribution import LODistribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.observations import TableObservations
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["conditional_accuracy", "dead_checks", "find_dead_ends", "generated_accuracies", "infill_accuracies"]

_CHUNK = 4096  # rows whose [rows, P, r] probabilities are held at once


@checked
def generated_accuracies(distribution: LODistribution, tokens: NDArray[np.int8], key: Key) -> dict[str, Sums]:
    """Judge generated sequences int8[n, L].

    ``self_consistency``: share of observations equal to the most likely value given the *generated* latents (values
    tied for most likely all count); an exact sampler reaches ``self_consistency_ceiling``, the mean probability of most
    likely values given its own latents (1 without noise). ``unpaired``: share equal to the observations of an unrelated
    sequence of the data. ``consistent``: 1 if the whole sequence has positive probability. ``observation_mean``: mean
    value of the observations, and ``data_observation_mean`` that of as many fresh data.
    """
    rows = distribution.layout.check_tokens(tokens, complete=True)
    truth = distribution.sample(key.fold("unrelated"), len(rows))
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for first in range(0, len(rows), _CHUNK):
        latents, observed = distribution.layout.split(rows[first : first + _CHUNK])
        _, unrelated = distribution.layout.split(truth[first : first + _CHUNK])
        probabilities = distribution.observations.probabilities(latents)
        largest = probabilities.max(axis=2)
        for name, values in (
            ("self_consistency", _most_likely(probabilities, observed).mean(axis=1)),
            (
                "self_consistency_ceiling",
                (probabilities * (probabilities >= largest[..., None])).sum(axis=2).mean(axis=1),
            ),
            ("unpaired", (observed == unrelated).mean(axis=1)),
            ("observation_mean", observed.mean(axis=1)),
            ("data_observation_mean", unrelated.mean(axis=1)),
        ):
            parts.setdefault(name, []).append(values)
    result = {name: Sums.of(np.concatenate(values)) for name, values in parts.items()}
    result["consistent"] = Sums.of(np.isfinite(distribution.log_prob(rows)))
    return result


def _most_likely(probabilities: NDArray[np.float64], observed: NDArray[Any]) -> NDArray[np.bool_]:
    """bool[n, P]: whether an observed value is (tied for) most likely, given ``probabilities`` [n, P, r]."""
    likely: NDArray[np.bool_] = at_truth(probabilities, observed) >= probabilities.max(axis=2)
    return likely


@checked
def dead_checks(distribution: LODistribution, decoded: Decoded) -> dict[str, Sums]:
    """Which checks were decided after a dead end, and how many of the others are wrong; shares per generated sequence.

    A check is an observation with the latents that it reads. After tokens of one step have excluded each other the
    exact posterior has nothing left to say, and what is written is a coin flip. ``dead_checks``: observations that were
    written after that, or one of whose latents was, as may happen long after the observation; such a check agrees by
    chance. ``live_errors``: observations of other checks that are not the most likely value given their latents: tokens
    of one step that exclude each other themselves. 1 - self-consistency is ``live_errors`` and the wrong ones among the
    dead. Cost: n P (r + k).
    """
    law, layout, parts = distribution.observations, distribution.layout, []
    for rows in (slice(first, first + _CHUNK) for first in range(0, len(decoded.tokens), _CHUNK)):
        written, dead = (part.astype(np.bool_) for part in layout.split(decoded.after_dead_end[rows].astype(np.int8)))
        if isinstance(law, TableObservations):
            dead |= written[:, law.scopes].any(axis=2)
        else:  # every latent is read
            dead |= written.any(axis=1, keepdims=True)
        latents, observed = layout.split(decoded.tokens[rows])
        wrong = ~dead & ~_most_likely(law.probabilities(latents), observed)
        parts.append((dead.mean(axis=1), wrong.mean(axis=1)))
    both = zip(*parts, strict=True)
    return {
        name: Sums.of(np.concatenate(found)) for name, found in zip(("dead_checks", "live_errors"), both, strict=True)
    }


@checked
def find_dead_ends(exact: Posterior, decoded: Decoded) -> Decoded:
    """The same decode with ``dead_from`` as ``exact`` sees it, for a denoiser that does not know its evidence.

    A context that is impossible stays so, whatever is written into it, so bisection finds the first step that met one:
    some log2(steps) calls of n rows each. Errors: ValueError for a posterior that does not know its evidence either.
    """
    POSTERIOR.check(exact, "exact")
    tokens = exact.layout.check_tokens(decoded.tokens, complete=True)
    low, high = np.zeros(len(tokens), np.int32), decoded.step_revealed.max(axis=1)

    def impossible(steps: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether what each row had revealed before its step of ``steps`` is impossible."""
        contexts = np.where(decoded.step_revealed < steps[:, None], tokens, MASK).astype(np.int8)
        parts = []
        for first in range(0, len(contexts), BATCH):
            part = contexts[first : first + BATCH]
            evidence = ask(exact, part, exact.layout, rows=range(first, first + len(part))).log_evidence
            if np.isnan(evidence).any():
                row = first + int(np.argmax(np.isnan(evidence)))
                raise ValueError(
                    f"{type(exact).__name__} does not know the evidence of row {row} (nan), which says what is "
                    "impossible: find dead ends with ExactPosterior"
                )
            parts.append(np.isneginf(evidence))
        return np.concatenate(parts)

    ends = impossible(high)
    while (low < high).any():
        middle = (low + high) // 2
        found = impossible(middle)
        low, high = np.where(found, low, middle + 1), np.where(found, middle, high)
    return replace(decoded, dead_from=np.where(ends, high, -1).astype(np.int32))


def _one_pass(
    posterior: Posterior, distribution: LODistribution, law: MaskLaw, key: Key, n: int, argmax: Mapping[str, bool]
) -> dict[str, Sums]:
    """Share of the hidden observations equal to the data's, per sequence that hides any, by names in ``argmax``.

    Every hidden position is filled in one pass, independently from its marginal: with its most likely value where
    ``argmax`` says so, else with a drawn one.
    """
    layout, words = distribution.layout, key.fold("tokens").words()
    shares: dict[str, list[NDArray[np.float64]]] = {name: [] for name in argmax}
    for batch, *_ in draw_contexts(distribution, law, key, n):
        hidden = batch.masked & ~layout.is_latent
        answer, nothing = batch.ask(posterior), np.zeros_like(batch.masked)
        for name, most_likely in argmax.items():
            filled, steps = batch.tokens.copy(), np.zeros(batch.tokens.shape, np.int32)
            shape = (layout.values, 0, 1.0, most_likely, batch.start)
            _kernels.reveal(filled, steps, batch.masked, nothing, answer.probs, *shape, *words)
            shares[name].append(row_means(filled == batch.truth, hidden)[hidden.any(axis=1)])
    return {name: Sums.of(np.concatenate(values)) for name, values in shares.items()}


@checked
def conditional_accuracy(posterior: Posterior, distribution: LODistribution, key: Key, n: int) -> Sums:
    """True latents given, all observations hidden, one pass, most likely values.

    Share of observations equal to the data's.

    Exact posterior without noise: 1.
    """
    return _one_pass(posterior, distribution, TwoRates(0, 1), key, n, {"conditional": True})["conditional"]


@checked
def infill_accuracies(
    posterior: Posterior, distribution: LODistribution, law: MaskLaw, key: Key, n: int
) -> dict[str, Sums]:
    """Hidden observations of a randomly masked true sequence, one pass: share equal to the data's, per sequence.

    ``infill``: most likely values; ``infill_drawn``: values drawn from the marginals. Sequences with no hidden
    observation do not count.
    """
    return _one_pass(posterior, distribution, law, key, n, {"infill": True, "infill_drawn": False})
