"""Whether a posterior is as sure as it should be: against a slow twin, and of posteriors that are not."""

from __future__ import annotations

import numpy as np
import pytest

from lo_theory.diffusion import Uniform, calibration
from lo_theory.diffusion.contexts import draw_contexts
from lo_theory.posterior import ExactPosterior, MarginalsOnly, Posterior, Sharpened
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

PROBLEM, KEY, N = nae_sat(4, 8, q=3, seed=3), Key(5), 60
EXACT = ExactPosterior(PROBLEM)


def slowly(model: Posterior) -> list[list[float]]:
    """Mean c - e and |c - e| of the hidden tokens of each context, token by token."""
    found = []
    for (batch,) in draw_contexts(PROBLEM, Uniform(), KEY, N):
        laws, truth = (posterior.marginals(batch.tokens.copy()).probs for posterior in (model, EXACT))
        for row, masked in enumerate(batch.masked):
            apart = []
            for position in np.flatnonzero(masked):
                law = laws[row, position].tolist()
                value = law.index(max(law))
                apart.append(law[value] - truth[row, position, value])
            found.append([sum(apart) / len(apart), sum(map(abs, apart)) / len(apart)])
    return found


@pytest.mark.parametrize("model", [MarginalsOnly(PROBLEM), Sharpened(EXACT, 3.0)], ids=["marginals", "sharpened"])
def test_it_is_what_a_slow_twin_finds(model: Posterior) -> None:
    found = calibration(model, EXACT, PROBLEM, Uniform(), key=KEY, n=N)
    means = np.mean(slowly(model), axis=0)
    assert (found.overconfidence.mean, found.distance.mean) == pytest.approx(means.tolist(), abs=1e-12)
    assert (found.overconfidence.n, found.distance.n) == (N, N)


def test_the_exact_posterior_is_calibrated_and_others_are_not() -> None:
    exact, sharp, flat, blind = (
        calibration(model, EXACT, PROBLEM, Uniform(), key=KEY, n=N)
        for model in (EXACT, Sharpened(EXACT, 3.0), Sharpened(EXACT, -0.7), MarginalsOnly(PROBLEM))
    )
    assert (exact.overconfidence.mean, exact.distance.mean) == (0.0, 0.0)
    assert sharp.overconfidence.interval()[0] > 0 > flat.overconfidence.interval()[1]
    # Marginals alone are right in the mean over contexts, so a pooled calibration error would pass them.
    low, high = blind.overconfidence.interval()
    assert low < 0 < high
    assert blind.distance.interval()[0] > 0.1


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least one context"):
        calibration(EXACT, EXACT, PROBLEM, Uniform(), key=KEY, n=0)
