"""``check`` on laws that are not L&O: right subjects pass, a wrong one of each kind is rejected."""

from __future__ import annotations

import numpy as np
import pytest

from lo_theory import check
from lo_theory.diffusion import FixedCount, OneAtATime, PuzzleThenMoves, Uniform, margin
from lo_theory.diffusion.masks import Masks
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.posterior import EnumeratedPosterior, MarginalsOnly, Posterior
from lo_theory.posterior.conditioned import Conditioned, exact_posterior
from lo_theory.posterior.sudoku import SudokuPosterior
from lo_theory.posterior.weak import Sharpened
from lo_theory.problem import Distribution, Enumerated, Layout, nae_sat, sudoku
from lo_theory.problem.zebra_law import CluesAndCells
from lo_theory.rng import Key
from lo_theory.testing import Judge, assert_same_law
from lo_theory.testing.report import Report

GRIDS = sudoku.sudoku_4x4()
UNEQUAL = Enumerated(
    np.array([[0, 1, 2, 0], [1, 1, 0, 2], [2, 0, 0, 1], [2, 2, 1, 0], [0, 0, 0, 0]], np.int8),
    np.array([0.4, 0.25, 0.2, 0.1, 0.05]),
)
PROBLEM = nae_sat(5, 6, seed=1)
GIVEN = Conditioned(PROBLEM, np.array([1, 0, -1, -1, 1, -1], np.int8))
LAWS = {"grids": GRIDS, "unequal": UNEQUAL, "given": GIVEN}


class Heavier(Uniform):
    """The plain loss, with half its weight moved to masks that hide much."""

    def sample(self, key: Key, tokens: np.ndarray, layout: Layout, *, start: int = 0) -> Masks:
        masked, weight = super().sample(key, tokens, layout, start=start)
        share = masked.mean(axis=2, keepdims=True)
        return masked, (weight * (0.5 + share / share.mean() / 2)).astype(np.float32)


def failed(report: Report) -> list[str]:
    return list(report.failed)


@pytest.mark.parametrize("name", list(LAWS))
def test_what_is_right_passes_for_every_law(name: str) -> None:
    law, exact = LAWS[name], exact_posterior(LAWS[name])
    judge = Judge(lambda posterior, truth, masked: loss(posterior, truth, masked), "loss")
    for subject in (law, exact, margin(), (exact, margin(), OneAtATime()), Uniform(), judge):
        report = check(subject, law, seed=3)
        assert report.ok, str(report)
    assert f"{law.layout.length} tokens of {law.layout.n_values} values" in str(check(law, law, n=200))
    assert_same_law(law, law)


def loss(posterior: Posterior, truth: np.ndarray, masked: np.ndarray) -> np.ndarray:
    probs = posterior.marginals(np.where(masked, -1, truth).astype(np.int8)).probs
    true = np.take_along_axis(probs, truth[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    return np.asarray((masked * -np.log(true)).sum(axis=1) / np.maximum(masked.sum(axis=1), 1))


@pytest.mark.parametrize("name", list(LAWS))
def test_a_sampler_of_some_sequences_alone_is_rejected(name: str) -> None:
    law = LAWS[name]
    listed = getattr(law, "enumerated", law).sequences[:-1] if name != "given" else law.sample(Key(9), 1)
    report = check(lambda key, n: listed[key.generator().integers(0, len(listed), n)], law)
    assert "law of the data: joint" in failed(report)


@pytest.mark.parametrize("name", list(LAWS))
def test_wrong_posteriors_and_wrong_decoders_are_rejected(name: str) -> None:
    law, exact = LAWS[name], exact_posterior(LAWS[name])
    assert "KL to the exact marginals" in failed(check(Sharpened(exact, 0.5), law))
    assert {"calibration", "ELBO = entropy"} & set(failed(check(Sharpened(exact, 1.0), law)))
    assert "law of the data: joint" in failed(check((exact, margin(), FixedCount(1)), law))
    assert "law of the data: joint" in failed(check((Sharpened(exact, 1.0), margin(), OneAtATime()), law))


def test_wrong_weights_and_wrong_judges_are_rejected() -> None:
    assert "mask weights unbiased" in failed(check(Heavier(), UNEQUAL))
    careless = Judge(lambda posterior, truth, masked: 0.9 * loss(posterior, truth, masked), "loss")
    assert failed(check(careless, GRIDS)) == ["loss is that of the exact posterior"]


def test_a_law_whose_exact_posterior_is_not_known_needs_one() -> None:
    law = PuzzleThenMoves(GRIDS, "rows")
    assert check(law, law, n=2000).ok, "a sampler needs none"
    with pytest.raises(ValueError, match=r"PuzzleThenMoves.*or give exact="):
        check(Uniform(), law)

    class Bare:
        """A law that the package does not know."""

        def __init__(self) -> None:
            self.layout, self.token_marginals = UNEQUAL.layout, UNEQUAL.token_marginals
            self.sample, self.log_prob, self.entropy = UNEQUAL.sample, UNEQUAL.log_prob, UNEQUAL.entropy
            self.marginal_entropy, self.fingerprint = UNEQUAL.marginal_entropy, UNEQUAL.fingerprint

    own: Distribution = Bare()  # type: ignore[assignment]
    exact = EnumeratedPosterior(UNEQUAL)
    assert check(exact, own, exact=exact).ok
    assert check(margin(), own, exact=exact).ok
    joint = next(line for line in check(own, own).checks if line.name == "law of the data: joint")
    assert joint.p_value is None, "its sequences are not listed"


def test_laws_whose_posterior_refuses_contexts_are_refused_but_for_samplers_and_masks() -> None:
    zebra, grids = CluesAndCells(3, 2, 5), sudoku.DrawnGrids(9)
    assert check(zebra, zebra, n=2000).ok
    with pytest.raises(ValueError, match=r"check hides any tokens.*hides a token of a clue"):
        check(exact_posterior(zebra), zebra)
    with pytest.raises(ValueError, match=r"check hides any tokens.*completions"):
        check(margin(), grids, n=200)


@pytest.mark.parametrize("name", ["grids", "given"])
def test_uncertainty_of_laws_of_latents(name: str) -> None:
    law, exact = LAWS[name], exact_posterior(LAWS[name])
    judged = {"it": SudokuPosterior(4) if name == "grids" else exact, "single": Sharpened(exact, -0.5)}
    found = uncertainty(judged, exact, law, Uniform(), key=Key(1), n=400)
    assert found.truth["refused"].mean == 0
    assert found.truth["latent_entropy"].mean == pytest.approx(found.truth["token_entropy"].mean)
    assert found.judged["it"]["kl_token"].mean == pytest.approx(0, abs=1e-9)
    assert found.judged["it"]["evidence_error"].mean == pytest.approx(0, abs=1e-9)
    assert found.judged["single"]["kl_token"].mean > 0.001


def test_marginals_only_is_told_from_the_exact_posterior_where_it_takes_a_law() -> None:
    assert "KL to the exact marginals" in failed(check(MarginalsOnly(UNEQUAL), UNEQUAL))
