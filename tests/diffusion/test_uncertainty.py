"""Uncertainty under a mask law against enumeration, refusals, and posteriors that must be told apart from the truth."""

from __future__ import annotations

import numpy as np
import pytest

from lo_theory.diffusion import TwoRates, Uniform
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.posterior import BPPosterior, ExactPosterior, Marginals
from lo_theory.problem import MASK, LODistribution, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import joint_law

KEY = Key(3)


class Flat:
    """A wrong posterior: uniform at every hidden token, whatever is revealed."""

    def __init__(self, distribution: LODistribution) -> None:
        self.layout, self.exact = distribution.layout, ExactPosterior(distribution)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        answer = self.exact.marginals(tokens)
        probs = np.where((tokens == MASK)[:, :, None], 0.5, answer.probs)
        return Marginals(probs, np.full(len(tokens), -np.inf), np.zeros(len(tokens), bool))


@pytest.mark.parametrize("rates", [(1.0, 0.0), (1.0, 0.5), (0.5, 0.7), (0.7, 1.0), (0.0, 0.5)])
def test_entropies_are_those_of_enumeration(rates: tuple[float, float]) -> None:
    distribution, law, n = nae_sat(6, 7, seed=1), TwoRates(*rates), 20
    layout = distribution.layout
    found = uncertainty({}, ExactPosterior(distribution), distribution, law, key=KEY, n=n).truth
    sequences, weights = joint_law(distribution)
    truth = distribution.sample(KEY.fold("data"), n)
    masked = law.sample(KEY.fold("masks"), truth, layout)[0][0]
    single, joint, tokens, certain = [], [], [], []
    for row, hidden in zip(truth, masked, strict=True):
        agree = (sequences[:, ~hidden] == row[~hidden]).all(axis=1)
        rest, p = sequences[agree], weights[agree] / weights[agree].sum()
        entropies = np.zeros(layout.length)
        for position in np.flatnonzero(hidden):
            q = np.array([p[rest[:, position] == value].sum() for value in (0, 1)])
            entropies[position] = -(q[q > 0] * np.log(q[q > 0])).sum()
        latents = hidden & layout.is_latent
        certain.append(float((entropies[latents] < 1e-9).all()))
        if hidden.any():
            tokens.append(entropies[hidden].mean())
        if latents.any():
            same = (rest[:, layout.is_latent] == row[layout.is_latent]).all(axis=1)
            single.append(entropies[latents].mean())
            joint.append(-np.log(p[same].sum()) / latents.sum())
    wanted = {"latent_entropy": single, "joint_entropy": joint, "token_entropy": tokens, "deterministic": certain}
    for name, values in wanted.items():
        assert found[name].n == len(values)
        if values:
            assert found[name].mean == pytest.approx(np.mean(values), abs=1e-10), name
    assert found["refused"].mean == 0


def test_the_exact_posterior_passes_and_a_wrong_one_does_not() -> None:
    distribution = nae_sat(6, 18, seed=0)
    exact = ExactPosterior(distribution)
    judged = {"exact": exact, "flat": Flat(distribution), "bp": BPPosterior(distribution)}
    found = uncertainty(judged, exact, distribution, TwoRates(0.5, 0.2), key=KEY, n=60).judged
    assert found["exact"]["kl_latent"].mean == pytest.approx(0, abs=1e-12)
    assert found["exact"]["evidence_error"].mean == pytest.approx(0, abs=1e-12)
    assert found["flat"]["kl_latent"].interval()[0] > 0.1
    assert found["flat"]["converged"].mean == 0
    assert found["flat"]["contradicted"].mean == 1
    assert found["flat"]["evidence_error"].n == 0
    bare = uncertainty(judged, exact, distribution, TwoRates(0.1, 0.2), key=KEY, n=60)
    hiding = bare.truth["latent_entropy"].n
    assert 0 < hiding < 60
    assert bare.judged["exact"]["evidence_error"].n == bare.judged["bp"]["evidence_error"].n == hiding
    assert abs(found["bp"]["evidence_error"].mean) > 1e-9


def test_marginals_are_blind_to_the_global_flip_and_the_joint_law_and_evidence_are_not() -> None:
    distribution = nae_sat(8, 40, seed=0)
    exact, judged = ExactPosterior(distribution), {"bp": BPPosterior(distribution)}
    found = uncertainty(judged, exact, distribution, TwoRates(1, 0), key=KEY, n=40)
    assert found.truth["latent_entropy"].mean == pytest.approx(np.log(2))
    assert found.judged["bp"]["kl_latent"].mean == pytest.approx(0, abs=1e-9)
    assert found.truth["joint_entropy"].mean == pytest.approx(np.log(2) / 8, rel=0.2)
    assert found.judged["bp"]["evidence_error"].interval()[1] < -0.5


def test_contexts_that_do_not_fit_are_counted_and_left_out() -> None:
    distribution = nae_sat(20, 30, seed=0)
    small, large = ExactPosterior(distribution, limit=64), ExactPosterior(distribution)
    judged = {"bp": BPPosterior(distribution)}
    some = uncertainty(judged, small, distribution, TwoRates(0.6, 0.5), key=KEY, n=60)
    refused = some.truth["refused"]
    assert 0 < refused.mean < 1
    assert refused.n == 60
    assert some.judged["bp"]["converged"].n == some.truth["deterministic"].n == round(60 * (1 - refused.mean))
    tiny = ExactPosterior(distribution, limit=1)
    none = uncertainty(judged, tiny, distribution, TwoRates(1, 0), key=KEY, n=5)
    assert none.truth["refused"].mean == 1
    assert none.judged == {}
    assert uncertainty({}, large, distribution, TwoRates(0.6, 0.5), key=KEY, n=60).truth["refused"].mean == 0


def test_no_context_is_refused() -> None:
    distribution = nae_sat(5, 5, seed=0)
    with pytest.raises(ValueError, match="n = 0"):
        uncertainty({}, ExactPosterior(distribution), distribution, Uniform(), key=KEY, n=0)
