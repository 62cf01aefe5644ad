"""Checks of a mask law: whether its weights add up to the loss that it estimates, and whether rows are addressed.

The first is test T0: for a fixed predictor that is not Bayes, the loss of drawn masks must equal the loss enumerated
over all masks. Predictors are tables of one loss for every mask and position, some smooth in the number hidden, some
random, so that no error of the weights cancels in all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.contexts import at_truth, draw_contexts
from lo_theory.diffusion.masks import MaskLaw, draw_masks
from lo_theory.diffusion.pattern_losses import LEAST
from lo_theory.posterior import Posterior
from lo_theory.problem import Distribution, Layout
from lo_theory.rng import Key
from lo_theory.testing.claims import Claims, measure_of
from lo_theory.testing.of_posteriors import surprise_spread
from lo_theory.testing.p_values import mean_test
from lo_theory.testing.report import Check, exact, not_applicable, statistical

__all__ = ["law_checks"]

_LARGEST_LENGTH = 10
_RANDOM_PREDICTORS = 4
_ELBO_CONTEXTS = 20_000
_DEVIATIONS = 6.0  # standard errors that a test at 1e-4 finds with probability 0.98


def law_checks(law: MaskLaw, problem: Distribution, truth: Posterior, key: Key, n: int, claims: Claims) -> list[Check]:
    """Draw n masks, of fresh data, and compare."""
    tokens, layout = problem.sample(key.fold("data"), n), problem.layout
    try:
        masked, weight = draw_masks(law, key.fold("masks"), tokens, layout)
    except ValueError as error:
        return [exact("well formed", 1, False, "", str(error))]
    return [
        exact("well formed", 0, True, "weights are finite, zero where nothing is hidden, and sum to 1 on average", ""),
        _unbiased(law, layout, masked, weight, key, claims),
        _elbo(law, problem, truth, key, min(n, _ELBO_CONTEXTS), claims),
        _addressed(law, layout, tokens, key),
        _mirrored(masked, claims),
    ]


def _every_mask(length: int) -> NDArray[np.bool_]:
    """bool[2**L, L]; row m hides the positions of the bits of m."""
    return np.asarray((np.arange(2**length)[:, None] >> np.arange(length)) & 1, np.bool_)


def _predictors(masks: NDArray[np.bool_], layout: Layout, key: Key) -> list[NDArray[np.float64]]:
    """Losses float64[2**L, L] in nats, each of mean about 1; that of a mask of one position is small, because a law
    with 1/t in its weights has its tail there.
    """
    share = masks.mean(axis=1, keepdims=True)
    generator = key.fold("predictors").generator()
    random = [generator.exponential(size=masks.shape) for _ in range(_RANDOM_PREDICTORS)]
    place = np.linspace(0.2, 1.8, layout.length)
    tables = [np.ones(masks.shape), 2 * np.square(share), 2 * (1 - share), place, layout.is_latent.astype(float) + 0.5]
    return [share * table + np.zeros(masks.shape) for table in (*tables, *random)]


def _unbiased(
    law: MaskLaw,
    layout: Layout,
    masked: NDArray[np.bool_],
    weight: NDArray[np.float32],
    key: Key,
    claims: Claims,
) -> Check:
    name, length = "mask weights unbiased", layout.length
    if length > _LARGEST_LENGTH:
        return not_applicable(
            name, f"all masks are enumerated up to L = {_LARGEST_LENGTH}, this problem has L = {length}"
        )
    measure, _, whose = measure_of(law, claims)
    masks = _every_mask(length)
    expected, numbers = measure(masks, layout), masked @ (1 << np.arange(length))
    p_values, off, errors = [], [], []
    for losses in _predictors(masks, layout, key):
        enumerated = float((expected * losses).sum())
        drawn = (weight * losses[numbers]).sum(axis=2, dtype=np.float64).mean(axis=0)
        p_values.append(mean_test(drawn, enumerated))
        off.append(drawn.mean() / enumerated - 1)
        errors.append(drawn.std() / np.sqrt(len(drawn)) / enumerated)
    worst = int(np.argmin(p_values))
    return statistical(
        name,
        min(1.0, len(p_values) * min(p_values)),
        f"for predictors that are not Bayes its loss is {whose}",
        f"for a predictor that is not Bayes its loss is {off[worst]:+.2%} off {whose}"
        + ("" if claims.measure or whose != "the plain loss" else " (another is claimed by Claims(measure=...))"),
        f"finds a loss that is off by {_DEVIATIONS * max(errors):.2%}",
    )


def _elbo(law: MaskLaw, problem: Distribution, truth: Posterior, key: Key, n: int, claims: Claims) -> Check:
    name = "ELBO of the Bayes predictor = entropy"
    if not measure_of(law, claims)[1]:
        return not_applicable(name, "its loss is no bound on -ln p(x)")
    try:
        parts, spreads = [], []
        for batch in draw_contexts(problem, law, key.fold("elbo"), n):
            answers = [copy.ask(truth).probs for copy in batch]
            losses = [
                (copy.weight * -np.log(np.maximum(at_truth(probs, copy.truth), LEAST))).sum(axis=1)
                for copy, probs in zip(batch, answers, strict=True)
            ]
            parts.append(np.mean(losses, axis=0))
            spreads += [surprise_spread(probs, copy.weight) for copy, probs in zip(batch, answers, strict=True)]
    except ValueError as error:
        return not_applicable(name, str(error))
    found, floor = np.concatenate(parts), problem.entropy() / problem.layout.length
    return statistical(
        name,
        mean_test(found, floor, spread=(float(np.sqrt(np.square(np.concatenate(spreads)).mean())), 0.0)),
        f"the exact posterior loses entropy/L = {floor:.4f} nats per token under it",
        f"the exact posterior loses {found.mean():.4f} nats per token under it, and entropy/L is {floor:.4f}",
        f"finds {_DEVIATIONS * found.std() / np.sqrt(len(found)):.2g} nats per token",
    )


def _addressed(law: MaskLaw, layout: Layout, tokens: NDArray[np.int8], key: Key) -> Check:
    half, where = len(tokens) // 2, key.fold("masks")
    whole = draw_masks(law, where, tokens, layout)[0]
    parts = [draw_masks(law, where, tokens[:half], layout)[0]]
    parts += [draw_masks(law, where, tokens[half:], layout, start=half)[0]]
    changed = float((np.concatenate(parts, axis=1) != whole).any(axis=(0, 2)).mean())
    return exact(
        "rows independent of the batch",
        changed,
        changed == 0,
        "two half batches hide what the whole hides",
        f"{changed:.1%} of the rows hide other positions when the batch is drawn in two halves: what is hidden depends "
        "on batch or rank",
    )


def _mirrored(masked: NDArray[np.bool_], claims: Claims) -> Check:
    name = "paired masks are mirror images"
    if len(masked) != 2 or not claims.mirrored:
        return not_applicable(name, "it gives one mask a sequence" if len(masked) != 2 else "it claims no such thing")
    wrong = float(((masked[0] & masked[1]).any(axis=1) & ~(masked[0] | masked[1]).all(axis=1)).mean())
    return exact(
        name,
        wrong,
        wrong == 0,
        "the two masks are disjoint, or together hide everything",
        f"{wrong:.1%} of the pairs overlap without hiding everything: the second mask is drawn by itself, and what "
        "pairing saves is lost",
    )
