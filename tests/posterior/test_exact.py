"""The exact posterior against brute force, on every kind of problem, and its behaviour on bad and impossible input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_theory.posterior import ExactPosterior, Marginals, Posterior
from lo_theory.problem import LODistribution, SlabObservations, TableObservations, nae_sat, random_slab, sparse_parity
from lo_theory.rng import Key
from lo_theory.testing import BruteForcePosterior, brute_force
from tests.posterior.reference import FAMILIES, random_contexts, random_prior, random_problem

TOLERANCE = 1e-12


def largest_error(answer: Marginals, probs: np.ndarray, log_evidence: np.ndarray) -> float:
    """Largest difference of any probability and of any ln evidence; impossible rows must be the same ones."""
    assert np.array_equal(np.isneginf(answer.log_evidence), np.isneginf(log_evidence))
    possible = np.isfinite(log_evidence)
    gaps = np.abs(answer.log_evidence[possible] - log_evidence[possible])
    errors = np.concatenate([np.abs(answer.probs - probs).ravel(), gaps])
    assert np.isfinite(errors).all()
    assert (answer.probs >= 0).all()
    return float(errors.max())


def compare(kind: str, count: int, seed: int) -> tuple[float, int, int]:
    """Largest error over ``count`` random problems of a family, contexts seen, impossible ones among them."""
    rng = np.random.default_rng([seed, FAMILIES.index(kind)])
    worst, seen, impossible = 0.0, 0, 0
    for _ in range(count):
        distribution = random_problem(rng, kind)
        tokens = random_contexts(rng, distribution, 6)
        expected = brute_force(distribution, tokens)
        worst = max(worst, largest_error(ExactPosterior(distribution).marginals(tokens), *expected))
        seen, impossible = seen + len(tokens), impossible + int(np.isneginf(expected[1]).sum())
    return worst, seen, impossible


@pytest.mark.parametrize("kind", FAMILIES)
def test_agrees_with_brute_force(kind: str) -> None:
    worst, seen, impossible = compare(kind, 1250, seed=1)
    print(f"{kind}: 1250 problems, {seen} contexts, {impossible} impossible, largest error {worst:.2e}")
    assert worst < TOLERANCE
    assert 0 < impossible < seen / 2


@pytest.mark.soak
@pytest.mark.parametrize("kind", FAMILIES)
def test_agrees_with_brute_force_at_length(kind: str) -> None:
    worst, seen, impossible = compare(kind, 12500, seed=2)
    print(f"{kind}: 12500 problems, {seen} contexts, {impossible} impossible, largest error {worst:.2e}")
    assert worst < TOLERANCE


@pytest.mark.parametrize("kind", FAMILIES)
def test_agrees_with_the_joint_table_of_all_sequences(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        distribution = random_problem(rng, kind, states=27, most=4)
        tokens = random_contexts(rng, distribution, 12)
        expected = BruteForcePosterior(distribution).marginals(tokens)
        answer = ExactPosterior(distribution).marginals(tokens)
        assert largest_error(answer, expected.probs, expected.log_evidence) < TOLERANCE


@pytest.mark.parametrize("width", [0.3, 1.0])
def test_slabs_agree_with_brute_force(width: float) -> None:
    rng = np.random.default_rng(4)
    worst, impossible = 0.0, 0
    for seed in range(40):
        n = int(rng.integers(1, 9))
        p = int(rng.integers(1, 10))
        vectors = random_slab(n, p, width, seed=seed).observations.vectors  # type: ignore[union-attr]
        if seed % 2:  # small integers put many sums exactly on the edge
            vectors = np.round(2 * vectors)
        order = rng.permutation(n + p)
        distribution = LODistribution(random_prior(rng, n, 2), SlabObservations(vectors, width), order)
        tokens = random_contexts(rng, distribution, 20)
        expected = brute_force(distribution, tokens)
        worst = max(worst, largest_error(ExactPosterior(distribution).marginals(tokens), *expected))
        impossible += int(np.isneginf(expected[1]).sum())
    print(f"slabs: largest error {worst:.2e}, {impossible} impossible contexts")
    assert worst < TOLERANCE
    assert impossible > 0


def test_slab_edges_fall_as_in_the_sampler() -> None:
    # Sums of 0.1 depend on the order of addition: every complete sequence the sampler writes must be possible.
    vectors = np.full((3, 9), 0.1) * np.array([[1], [2], [3]])
    distribution = LODistribution(np.full((9, 2), 0.5), SlabObservations(vectors, 0.1))
    tokens = distribution.sample(Key(5), 500)
    posterior = ExactPosterior(distribution)
    assert np.allclose(posterior.marginals(tokens).log_evidence, -9 * np.log(2), atol=TOLERANCE)
    tokens[:, :9] = -1
    probs, log_evidence = brute_force(distribution, tokens[:50])
    assert largest_error(posterior.marginals(tokens[:50]), probs, log_evidence) < TOLERANCE


@pytest.mark.parametrize(
    "distribution",
    [
        nae_sat(9, 30, seed=1, noise=0.1),
        sparse_parity(8, 20, 4, 0.05, seed=2),
        nae_sat(6, 20, seed=3, q=3),
        random_slab(7, 9, 0.8, seed=4),
    ],
)
def test_evidence_of_complete_rows_is_log_prob(distribution: LODistribution) -> None:
    tokens = distribution.sample(Key(6), 200)
    tokens[100:] = np.random.default_rng(0).integers(0, distribution.layout.values, tokens[100:].shape)
    answer = ExactPosterior(distribution).marginals(tokens)
    expected = distribution.log_prob(tokens)
    assert np.array_equal(np.isneginf(answer.log_evidence), np.isneginf(expected))
    possible = np.isfinite(expected)
    assert np.abs(answer.log_evidence[possible] - expected[possible]).max() < 1e-11
    assert np.array_equal(answer.probs, np.eye(distribution.layout.n_values)[tokens])
    assert answer.converged.all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(FAMILIES), st.integers(0, 2**32), st.data())
def test_revealing_one_more_token_multiplies_the_evidence(kind: str, seed: int, data: st.DataObject) -> None:
    """P(revealed, x_p = v) = P(revealed) P(x_p = v | revealed), for every masked position and value at once."""
    rng = np.random.default_rng(seed)
    distribution = random_problem(rng, kind, states=4096, most=14)
    layout = distribution.layout
    context = random_contexts(rng, distribution, 4)[2 * data.draw(st.integers(0, 1), label="row") + 1].copy()
    position = data.draw(st.integers(0, layout.length - 1), label="position")
    context[position] = -1
    posterior = ExactPosterior(distribution)
    before = posterior.marginals(context)
    revealed = np.repeat(context[None], layout.values[position], axis=0)
    revealed[:, position] = np.arange(layout.values[position])
    after = np.exp(posterior.marginals(revealed).log_evidence)
    if np.isneginf(before.log_evidence[0]):
        assert (after == 0).all()
    else:
        shares = np.exp(before.log_evidence[0]) * before.probs[0, position, : layout.values[position]]
        assert np.allclose(after, shares, rtol=1e-10, atol=1e-300)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(FAMILIES), st.integers(0, 2**32))
def test_the_order_only_moves_positions(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distribution = random_problem(rng, kind)
    plain = LODistribution(distribution.prior, distribution.observations)
    tokens = random_contexts(rng, distribution, 8)
    answer = ExactPosterior(distribution).marginals(tokens)
    by_role = ExactPosterior(plain).marginals(tokens[:, distribution.order])
    assert np.array_equal(answer.probs[:, distribution.order], by_role.probs)
    assert np.array_equal(answer.log_evidence, by_role.log_evidence)


def test_hundreds_of_noisy_factors_neither_underflow_nor_lose_digits() -> None:
    rng = np.random.default_rng(7)
    for noise, n_observations in ((0.1, 280), (1e-3, 3000), (1e-100, 500)):
        distribution = nae_sat(8, n_observations, seed=8, noise=noise)
        tokens = rng.integers(0, 2, (3, 8 + n_observations)).astype(
            np.int8
        )  # no sequence of the model: all weights are tiny
        tokens[:, :8] = -1
        tokens[1, 100:200] = -1
        probs, log_evidence = brute_force(distribution, tokens)
        answer = ExactPosterior(distribution).marginals(tokens)
        print(f"noise {noise}: ln evidence {log_evidence.min():.0f}")
        assert np.abs(answer.probs - probs).max() < 1e-9
        assert np.allclose(answer.log_evidence, log_evidence, rtol=1e-13, atol=0)
    assert log_evidence.min() < -10000


@pytest.mark.parametrize("law", [nae_sat(7, 12, seed=1).observations, random_slab(7, 12, 0.7, seed=1).observations])
def test_priors_of_any_size_neither_underflow_nor_lose_digits(law: TableObservations | SlabObservations) -> None:
    """Assignments differ by hundreds of orders of magnitude, met from the smallest to the largest and the other way."""
    rng = np.random.default_rng(8)
    for flipped in (False, True, None):
        rare = 10.0 ** -rng.uniform(20, 150, 7)
        prior = np.stack([rare, 1 - rare], axis=1)
        flips = rng.random(7) < 0.5 if flipped is None else np.full(7, flipped)
        prior[flips] = prior[flips, ::-1]
        distribution = LODistribution(prior, law)
        uniform = LODistribution(np.full((7, 2), 0.5), law)
        tokens = uniform.sample(Key(9), 40)
        tokens[:, :7] = -1
        tokens[:, 7:][rng.random((40, 12)) < 0.4] = -1
        probs, log_evidence = brute_force(distribution, tokens)
        answer = ExactPosterior(distribution).marginals(tokens)
        assert np.abs(answer.probs - probs).max() < TOLERANCE
        assert np.allclose(answer.log_evidence, log_evidence, rtol=1e-13, atol=1e-13)
        assert log_evidence.min() < -200


def test_impossible_rows_are_flagged_and_spare_the_others() -> None:
    law = TableObservations([[0, 1], [1, 2]], np.eye(2)[[[0, 1, 1, 0]]])
    distribution = LODistribution([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]], law)
    tokens = np.array([[-1, -1, 0, 0, 0], [-1, 1, -1, -1, -1], [1, -1, -1, 0, -1], [-1, -1, 1, -1, 0]])
    answer = ExactPosterior(distribution).marginals(tokens)
    assert np.isneginf(answer.log_evidence).tolist() == [False, True, True, True]
    assert answer.log_evidence[0] == pytest.approx(np.log(0.25))
    assert answer.converged.all()
    expected = np.where(tokens[1:, :, None] < 0, 0.5, np.eye(2)[tokens[1:]])
    assert np.array_equal(answer.probs[1:], expected)


@pytest.mark.parametrize("distribution", [nae_sat(10, 40, seed=1, noise=0.05), random_slab(7, 9, 1.0, seed=1)])
def test_bits_do_not_depend_on_threads_or_batches(distribution: LODistribution) -> None:
    rng = np.random.default_rng(9)
    tokens = distribution.sample(Key(10), 300)
    tokens[rng.random(tokens.shape) < rng.random((300, 1))] = -1
    posterior = ExactPosterior(distribution)
    whole = posterior.marginals(tokens)
    for threads in (2, 3, 8):
        answer = posterior.marginals(tokens, threads=threads)
        assert np.array_equal(answer.probs, whole.probs)
        assert np.array_equal(answer.log_evidence, whole.log_evidence)
    alone = ExactPosterior(distribution, threads=2).marginals(tokens[137])
    assert np.array_equal(alone.probs[0], whole.probs[137])
    assert posterior.marginals(tokens[:0]).probs.shape == (0, *whole.probs.shape[1:])


def test_too_wide_a_component_is_refused_by_name() -> None:
    distribution = nae_sat(40, 200, seed=1, noise=0.1)
    tokens = distribution.sample(Key(11), 3)
    tokens[1, :33] = -1
    posterior = ExactPosterior(distribution)
    with pytest.raises(ValueError, match=r"row 1: of its 33 .* 25 hang together .* limit of 67108864: use belief prop"):
        posterior.marginals(tokens)
    tokens[1, 5:33] = 0
    assert np.isfinite(posterior.marginals(tokens).log_evidence).all()
    with pytest.raises(ValueError, match=r"row 1: of its 5 .* table of 32 states .*, over the limit of 31"):
        ExactPosterior(distribution, limit=31).marginals(tokens)
    tokens[:] = -1  # forty components of one latent each
    assert np.array_equal(ExactPosterior(distribution, limit=8).marginals(tokens).log_evidence, np.zeros(3))


def test_what_the_limit_allows_but_no_machine_holds_is_said() -> None:
    distribution = nae_sat(110, 220, seed=0, noise=0.1)
    tokens = distribution.sample(Key(1), 1)
    tokens[:, :110] = -1
    posterior = ExactPosterior(distribution, limit=2**61)
    (numbers,) = posterior.estimate_cost(tokens).numbers
    assert 2**45 < numbers < 2**61  # more than 47 bits of addresses
    with pytest.raises(
        ValueError, match=r"row 0 takes .* within the limit of \d+ but more than .* memory: lower limit"
    ):
        posterior.marginals(tokens)


def test_joint_laws_that_would_not_fit_are_refused() -> None:
    """Scopes of four latents, three of them in one component of 64 states and one apart: 64 + 4 cells an observation."""
    rng = np.random.default_rng(12)
    tables = rng.dirichlet(np.ones(2), size=(1, 256))
    scopes = np.concatenate([[[0, 1, 2, 2]], np.tile([0, 1, 2, 3], (20, 1))])
    distribution = LODistribution(np.full((4, 4), 0.25), TableObservations(scopes, tables))
    tokens = np.full((1, 25), -1)
    tokens[0, 4] = 1
    answer = ExactPosterior(distribution).marginals(tokens)
    assert largest_error(answer, *brute_force(distribution, tokens)) < TOLERANCE
    with pytest.raises(ValueError, match=r"row 0: .* \(1360 numbers in all\), over the limit of 64"):
        ExactPosterior(distribution, limit=64).marginals(tokens)


def test_too_many_masked_latents_of_slabs_are_refused() -> None:
    distribution = random_slab(30, 5, 1.0, seed=1)
    with pytest.raises(ValueError, match=r"row 0: its 30 masked .*1.074e\+09 assignments.*reveal more latents"):
        ExactPosterior(distribution).marginals(np.full((1, 35), -1))


def test_bad_input_is_named() -> None:
    distribution = nae_sat(5, 6, seed=1)
    with pytest.raises(ValueError, match=r"outside -1\.\.1"):
        ExactPosterior(distribution).marginals(np.full((2, 11), 2))
    with pytest.raises(ValueError, match=r"\[B, 11\]"):
        ExactPosterior(distribution).marginals(np.zeros((2, 10), int))
    with pytest.raises(ValueError, match=r"limit must lie in .* got 0"):
        ExactPosterior(distribution, limit=0)
    with pytest.raises(ValueError, match=r"threads must be a whole number .* got 0"):
        ExactPosterior(distribution).marginals(np.zeros((2, 11), int), threads=0)

    class OtherLaw(TableObservations):
        pass

    other = LODistribution(
        distribution.prior, OtherLaw(distribution.observations.scopes, distribution.observations.tables)
    )  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="OtherLaw: it takes SlabObservations, TableObservations"):
        ExactPosterior(other)


def test_protocol_and_imports() -> None:
    posterior: Posterior = ExactPosterior(nae_sat(4, 5, seed=1))
    assert posterior.layout.length == 9
    code = "import sys, lo_theory.posterior; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
