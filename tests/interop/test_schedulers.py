"""diffusers' discrete schedulers on the truth: exact answers at two bits, and the claims of docs/interop.md."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory import ExactPosterior, LODistribution, TableObservations, decode
from lo_theory.diffusion import OneAtATime, vanilla
from lo_theory.neural.oracle import EXCLUDED
from lo_theory.problem import MASK
from lo_theory.problem.observations import flip
from lo_theory.testing.p_values import binomial, chi_square
from tests.budget import accept, reject

pytest.importorskip("diffusers", "0.42", reason="the extra is not installed: pip install '.[interop]'")

EXAMPLE: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "diffusers_schedulers.py"))
EQUAL, INDEPENDENT, NAE = EXAMPLE["PROBLEMS"].values()
CASES = {f"{case.name}: {case.settings}": case for case in EXAMPLE["cases"]()}
ROWS, INDEPENDENTLY = 2**15, np.array([36, 12, 12, 4]) / 64


def counts(name: str, problem: LODistribution) -> np.ndarray:
    """How often a sampler gives 0 0, 0 1, 1 0 and 1 1."""
    ids = CASES[name].sample(problem, ROWS, torch.Generator().manual_seed(0)).numpy()
    assert ids.shape == (ROWS, 2)
    assert set(np.unique(ids)) <= {0, 1}
    return np.bincount(2 * ids[:, 0] + ids[:, 1], minlength=4)


def test_the_oracle_of_uniform_noise_is_the_exact_posterior_of_a_problem_with_noisy_copies() -> None:
    """Every token is observed through the channel that redraws it: the package's own posterior says what is clean."""
    keep, length, n = 0.6, NAE.layout.length, NAE.layout.n_latents
    channel, scopes = flip((1 - keep) / 2), NAE.observations.scopes
    copy = np.repeat(np.eye(2), 4, axis=0)  # of the first latent of a scope
    clean = NAE.observations.tables[0]
    own = np.concatenate([np.arange(n)[:, None], (np.arange(n)[:, None] + [1, 2]) % n], axis=1)
    law_ = TableObservations(
        np.concatenate([scopes, own, scopes]),
        np.stack([clean, copy @ channel, clean @ channel]),
        np.repeat([0, 1, 2], [length - n, n, length - n]),
    )
    exact = ExactPosterior(LODistribution(NAE.prior, law_))
    noisy = np.random.default_rng(0).integers(0, 2, (20, length))
    tokens = np.full((20, exact.layout.length), MASK)
    tokens[:, length:] = noisy
    truth = exact.marginals(tokens).probs[:, :length]
    found = EXAMPLE["UniformOracle"](NAE)(torch.tensor(noisy), keep).double().softmax(-1)
    np.testing.assert_allclose(found, truth, atol=1e-6)


def test_a_denoiser_that_is_does_not_see_the_time_averages_over_it_by_evidence() -> None:
    oracle, noisy = EXAMPLE["UniformOracle"](INDEPENDENT), torch.tensor([[0, 0], [0, 1], [1, 1]])
    found = oracle(noisy, None).double().softmax(-1)
    keeps = (np.arange(64) + 0.5) / 64
    prior = np.array([0.75, 0.25])
    for row, (a, b) in enumerate(noisy.tolist()):
        total, first = 0.0, 0.0
        for keep in keeps:
            seen = keep * np.eye(2) + (1 - keep) / 2
            both = (prior * seen[:, a])[:, None] * (prior * seen[:, b])
            total, first = total + both.sum(), first + both[0].sum()
        assert float(found[row, 0, 0]) == pytest.approx(first / total, abs=1e-6)
    certain = oracle(torch.tensor([[0, 1]]), 1.0)[0]
    assert certain[0].tolist() == [0.0, EXCLUDED]


@pytest.mark.parametrize("steps", [8, 32])
def test_vqdiffusion_keeps_independent_tokens_and_errs_by_one_part_in_its_steps(steps: int) -> None:
    name = f"VQDiffusion: {steps} steps"
    accept("outside samplers", chi_square(counts(name, INDEPENDENT), INDEPENDENTLY))
    # Each token is revealed at one of steps - 1 steps, all alike; if at the same one, they differ half of the time.
    differ = int(counts(name, EQUAL)[1:3].sum())
    accept("outside samplers", binomial(differ, ROWS, 1 / (2 * (steps - 1))))


def test_choosing_by_the_probability_of_the_drawn_token_moves_the_law_by_9_64() -> None:
    """Draw both, keep the more probable one, draw the other again: P(0 0) = (9/16 + 6/16) 3/4 = 45/64, not 36/64."""
    found = counts("BlockRefinement: temperature 1, one token a step (threshold 2)", INDEPENDENT)
    ones = np.array([found[0], found[1] + found[2], found[3]])  # any of two equal ones may be kept
    accept("outside samplers", chi_square(ones, np.array([45, 18, 1]) / 64))
    reject("outside samplers", chi_square(ones, np.array([36, 24, 4]) / 64))
    accept("outside samplers", binomial(round(EXAMPLE["drawn_confidence"]() * 2**18), 2**18, 45 / 64))


def test_amused_at_temperature_zero_reveals_all_that_is_tied() -> None:
    assert not (EXAMPLE["fair_bits"]() == EXAMPLE["MASK_ID"]).any()
    found = counts("Amused: one token a step, temperature 0 to 0", EQUAL)
    accept("outside samplers", chi_square(found, np.full(4, 0.25)))


def test_the_corrector_keeps_the_law_by_random_positions_only() -> None:
    """Positions of low confidence are chosen by odds (5/3)^2 for a 1 against a 0; either is drawn anew, 0 with 5/8."""
    odds = (5 / 3) / (5 / 3 + 3 / 5)
    after = (25 / 64 + 2 * 15 / 64 * odds) * 5 / 8
    least, random = (round(EXAMPLE["corrected"](name) * 2**18) for name in ("lowest_log_margin", "random"))
    accept("outside samplers", binomial(least, 2**18, after))
    reject("outside samplers", binomial(least, 2**18, 25 / 64))
    accept("outside samplers", binomial(random, 2**18, 25 / 64))


@pytest.mark.parametrize("steps", [8, 32])
def test_discrete_ddim_keeps_independent_tokens_and_tends_to_the_law_of_others(steps: int) -> None:
    name = f"DiscreteDDIM: temperature 1, {steps} steps"
    accept("outside samplers", chi_square(counts(name, INDEPENDENT), INDEPENDENTLY))
    assert counts(name, EQUAL)[1:3].sum() < 2 * ROWS / steps


def test_tokens_that_entropy_bound_did_not_accept_last_are_random() -> None:
    found = counts("EntropyBound: bound 0, temperature 1, 32 steps", EQUAL)
    accept("outside samplers", chi_square(found, np.full(4, 0.25)))


@pytest.mark.parametrize("name", CASES)
def test_every_case_gives_sequences_of_the_problem(name: str) -> None:
    for problem in (EQUAL, NAE):
        try:
            ids = CASES[name].sample(problem, 8, torch.Generator().manual_seed(1)).numpy()
        except NotImplementedError:
            continue
        problem.layout.check_tokens(ids, complete=True)


def test_vllms_policy_decodes_the_likeliest_sequence() -> None:
    pytest.importorskip("vllm_dllm_plugin", reason="install github.com/vllm-project/dllm-plugin: it is on no registry")
    name = "vLLM dllm plugin: likeliest tokens, one a step (threshold 1)"
    ids = CASES[name].sample(NAE, 8, torch.Generator()).numpy()
    assert np.isfinite(NAE.log_prob(ids)).all()
    assert (ids == ids[0]).all()


def test_the_page_holds_a_scheduler_to_the_law_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    (block,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(_NAMES + block, "docs/interop.md", "exec"), space)
    assert "ANOTHER LAW: an outcome that is impossible came" in capsys.readouterr().out
    exact = ExactPosterior(space["small"])
    assert space["same_law"](
        lambda key, n: decode(exact, vanilla(), OneAtATime(), key=key, n=n).tokens, space["small"], n=2000
    ).ok


_NAMES = "import torch\nfrom lo_theory import ExactPosterior, as_module, nae_sat\n"
