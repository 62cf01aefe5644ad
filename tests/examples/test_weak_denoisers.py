"""Weak denoisers: the example runs at small size, and what it adds to the package answers known questions."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lo_theory import MASK, ExactPosterior, Key, Transformer, TransformerConfig, nae_sat, save_model
from lo_theory.diffusion.masks import draw_masks
from lo_theory.posterior.weak import MarginalsOnly, PropagationOnly
from lo_theory.problem import Layout

ROOT = Path(__file__).parents[2]
PROBLEM = nae_sat(4, 6, seed=1)
EXACT = ExactPosterior(PROBLEM)
N = 12


@pytest.fixture(scope="module")
def example() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "weak_denoisers.py")))


def totals(example: Any, denoiser: Any) -> dict[str, np.ndarray]:
    """Nats of each of the same N sequences by policy."""
    walks = example.Subject.walked(EXACT, denoiser, example.NAMES, N).walks
    return {name: walk.error.sum(axis=1) for name, walk in walks.items()}


def test_all_tables_are_printed_and_every_command_of_the_page_is_one(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = TransformerConfig(layers=1, heads=2, width=8, n_values=2, length=PROBLEM.layout.length)
    problem = nae_sat(4, 6, seed=0)
    save_model(tmp_path / "model.safetensors", Transformer(network, seed=0), problem=problem.fingerprint())
    small = ["--problem", "4", "6", "--sequences", "3"]
    example.main([*small, "--only", "bp", "no_forward", "--model", str(tmp_path / "model.safetensors")])
    shown = capsys.readouterr().out
    assert all(f"\n{title}\n" in shown for title, _, _ in example.TABLES.values())
    assert len(re.findall(r"(?m)^model ", shown)) == 4 + 2 + 8 + 1
    with pytest.raises(SystemExit):
        example.main([*small, "--only", "nobody"])
    page = (ROOT / "docs" / "weak_denoisers.md").read_text()
    commands = re.findall(r"`python examples/weak_denoisers\.py([^`]*)`", page)
    assert len(commands) >= 3
    known = example.denoisers(PROBLEM, EXACT)
    for command in commands:
        named = re.search(r"--only ([a-z_0-9. -]*?)(?= --|$)", command)
        assert named is None or set(named[1].split()) <= known.keys(), command


def test_the_answers_of_one_law_cost_the_same_in_every_order_and_others_do_not(example: Any) -> None:
    """Whatever the order, the product of the conditionals of one law is its probability of the sequence."""
    for denoiser in (MarginalsOnly(PROBLEM), EXACT):
        costs = totals(example, denoiser)
        for values in costs.values():
            np.testing.assert_allclose(values, costs["vanilla"], atol=1e-9)
    assert (totals(example, MarginalsOnly(PROBLEM))["margin"] > 0.1).any()
    costs = totals(example, PropagationOnly(PROBLEM))
    assert np.abs(costs["latents_first"]).max() < 1e-9
    assert costs["observations_first"].mean() > 0.5


def test_without_the_forward_direction_observations_first_is_free_and_latents_first_costs_what_observations_say(
    example: Any,
) -> None:
    costs = totals(example, example.NoForward(EXACT))
    assert np.abs(costs["observations_first"]).max() < 1e-9
    alone = PROBLEM.sample(example.KEY.fold("data"), N)
    alone[:, PROBLEM.layout.latent_positions] = MASK
    np.testing.assert_allclose(costs["latents_first"], -EXACT.marginals(alone).log_evidence, atol=1e-9)


def test_an_error_of_a_walk_has_the_role_of_its_token(example: Any) -> None:
    walks = example.Subject.walked(EXACT, MarginalsOnly(PROBLEM), example.NAMES, N).walks
    latents = PROBLEM.layout.n_latents
    assert walks["latents_first"].latent[:, :latents].all()
    assert not walks["latents_first"].latent[:, latents:].any()
    assert all((walk.latent.sum(axis=1) == latents).all() for walk in walks.values())


def test_observations_first_hides_an_observation_only_beneath_all_latents(example: Any) -> None:
    layout, n = Layout(3, 5, 2, 2), 400
    masked, weight = (
        part[0] for part in draw_masks(example.ObservationsFirst(), Key(3), np.zeros((n, 8), np.int8), layout)
    )
    late = masked[:, layout.observation_positions].any(axis=1)
    assert masked[late][:, layout.latent_positions].all()
    assert set(np.unique(masked.sum(axis=1))) == set(range(1, 9))
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-6)
    assert (weight[late][:, layout.latent_positions] == 0).all()
    assert (weight[~late][masked[~late]] > 0).all()


def test_places_are_the_same_at_every_call_and_as_many_as_asked(example: Any) -> None:
    rows = np.where(np.random.default_rng(0).random((300, 10)) < 0.7, np.int8(MASK), PROBLEM.sample(Key(5), 300))
    weak, hidden = MarginalsOnly(PROBLEM), rows == MASK
    none, some, all_of_them = (example.InPlaces(EXACT, weak, share).marginals(rows).probs for share in (0, 0.4, 1))
    np.testing.assert_array_equal(none, EXACT.marginals(rows).probs)
    np.testing.assert_array_equal(all_of_them, weak.marginals(rows).probs)
    np.testing.assert_array_equal(some, example.InPlaces(EXACT, weak, 0.4).marginals(rows).probs)
    differ = hidden & (none != all_of_them).any(axis=2)
    taken = (some == all_of_them).all(axis=2)[differ]
    assert 0.3 < taken.mean() < 0.5
