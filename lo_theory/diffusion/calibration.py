"""Whether a posterior is as sure as it should be, context by context, where the exact posterior is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.contexts import draw_contexts, row_means
from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import Posterior
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Calibration", "calibration"]


@dataclass(frozen=True)
class Calibration:
    """c - e at hidden tokens: c the largest probability of a law, e what the exact posterior gives the same value.

    ``overconfidence`` its mean, in -1..1, above 0 where the posterior is surer than it should be; ``distance`` the mean
    of |c - e|, 0 only where every confidence is right. One value a context: the mean over its hidden tokens.
    """

    overconfidence: Sums
    distance: Sums


@checked
def calibration(
    model: Posterior, exact: Posterior, distribution: Distribution, law: MaskLaw, *, key: Key, n: int
) -> Calibration:
    """Measure the confidence of ``model`` on n contexts of a mask law, those that ``losses`` judges by the same key.

    The usual calibration error pools tokens of equal c, and a posterior that is too sure in one context and not sure
    enough in another passes it; here each context counts. Cost: n rows through each posterior. Errors: ValueError for
    answers that are no probabilities, and for n < 1.
    """
    apart: list[NDArray[np.float64]] = []
    for contexts in draw_contexts(distribution, law, key, n):
        for batch in contexts:
            p, q = (np.asarray(batch.ask(posterior).probs, np.float64) for posterior in (exact, model))
            top = q.argmax(axis=2)[:, :, None]
            errors = (np.take_along_axis(q, top, 2) - np.take_along_axis(p, top, 2))[:, :, 0]
            apart.append(row_means(np.stack([errors, np.abs(errors)]), batch.masked))
    overconfidence, distance = np.concatenate(apart, axis=1)
    return Calibration(Sums.of(overconfidence), Sums.of(distance))
