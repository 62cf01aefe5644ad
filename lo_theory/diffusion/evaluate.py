"""What generated sequences and a denoiser are worth.

The four accuracies by name, consistency, and the observation mean.

The paper's Table 1 has one column "accuracy" and does not say which; the four definitions differ by tens of per cent
(docs/concepts.md), so each is reported under its name. Every answer is a ``Sums`` over sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from lo_theory.problem.layout import MASK, Record
from lo_theory.problem.observations import TableObservations
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = [
    "FirstErrors",
    "conditional_accuracy",
    "dead_checks",
    "find_dead_ends",
    "first_errors",
    "generated_accuracies",
    "infill_accuracies",
]

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
    return replace(decoded, dead_from=_first_impossible(exact, decoded, decoded.step_revealed.max(axis=1)))


def _first_impossible(exact: Posterior, decoded: Decoded, last: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32[n]: the first step, up to ``last`` int32[n], before which what a row had revealed was impossible; or -1."""
    POSTERIOR.check(exact, "exact")
    tokens = exact.layout.check_tokens(decoded.tokens, complete=True)
    low, high = np.zeros(len(tokens), np.int32), last

    def impossible(steps: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether what each row had revealed before its step of ``steps`` is impossible."""
        contexts = np.where(decoded.step_revealed < steps[:, None], tokens, MASK).astype(np.int8)
        found = np.zeros(len(contexts), np.bool_)
        for first in range(0, len(contexts), BATCH):
            part = contexts[first : first + BATCH]
            evidence = ask(exact, part, exact.layout, rows=range(first, first + len(part))).log_evidence
            if np.isnan(evidence).any():
                row = first + int(np.argmax(np.isnan(evidence)))
                raise ValueError(
                    f"{type(exact).__name__} does not know the evidence of row {row} (nan), which says what is "
                    "impossible: find dead ends with ExactPosterior"
                )
            found[first : first + BATCH] = np.isneginf(evidence)
        return found

    ends = impossible(high)
    while (low < high).any():
        middle = (low + high) // 2
        found = impossible(middle)
        low, high = np.where(found, low, middle + 1), np.where(found, middle, high)
    return np.where(ends, high, -1).astype(np.int32)


@dataclass(frozen=True, eq=False, repr=False)
class FirstErrors(Record):
    """Where n decodes first wrote what cannot be, by the exact posterior of what was revealed before.

    ``step`` int32[n]: the step whose tokens made the row impossible, -1 where the finished sequence is possible.
    ``excluded`` bool[n, L]: tokens of that step with exact probability 0. ``dead`` bool[n, L]: tokens written later,
    when nothing could be right any more.
    """

    step: NDArray[np.int32]
    excluded: NDArray[np.bool_]
    dead: NDArray[np.bool_]

    @property
    def solved(self) -> NDArray[np.bool_]:
        """bool[n]: the finished sequence is possible."""
        return self.step < 0

    @property
    def by_model(self) -> NDArray[np.bool_]:
        """bool[n]: model error, the first wrong step wrote a token that the exact posterior excludes."""
        return np.asarray(self.excluded.any(axis=1), np.bool_)

    @property
    def by_dependence(self) -> NDArray[np.bool_]:
        """bool[n]: dependence error, each token of that step was possible, and all together were not."""
        return ~self.solved & ~self.by_model


@checked
def first_errors(exact: Posterior, decoded: Decoded) -> FirstErrors:
    """Judge each row of a decode by the first step that went wrong: model error, dependence error, or none.

    Of a policy that hides nothing again. Where what is given leaves one sequence, as a puzzle does, the first error is
    always the model's; one token a step has no dependence errors. Cost: some log2(steps) + 2 calls of n rows each.
    Errors: ValueError where what is given is impossible already, and those of ``find_dead_ends``.
    """
    revealed = decoded.step_revealed
    after = _first_impossible(exact, decoded, revealed.max(axis=1) + 1)
    if (after == 0).any():
        raise ValueError(f"what is given in row {int(np.argmax(after == 0))} is impossible before anything is decoded")
    step = np.where(after > 0, after - 1, -1).astype(np.int32)
    wrong = np.flatnonzero(step >= 0)
    excluded = np.zeros(decoded.tokens.shape, np.bool_)
    for rows in (wrong[first : first + BATCH] for first in range(0, len(wrong), BATCH)):
        written = revealed[rows] == step[rows, None]
        before = np.where(revealed[rows] < step[rows, None], decoded.tokens[rows], MASK).astype(np.int8)
        laws = ask(exact, before, exact.layout).probs
        excluded[rows] = written & (at_truth(laws, decoded.tokens[rows]) == 0)
    return FirstErrors(step, excluded, (step[:, None] >= 0) & (revealed > step[:, None]))


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
