"""Speed of the exact posterior, per query of a batch on one core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior
from lo_theory.problem import LODistribution, nae_sat
from lo_theory.rng import Key


def contexts(distribution: LODistribution, latents: int, observations: int, rows: int) -> np.ndarray:
    """Sequences with so many latents and observations masked at random."""
    layout = distribution.layout
    tokens, rng = distribution.sample(Key(1), rows), np.random.default_rng(2)
    for positions, count in ((layout.latent_positions, latents), (layout.observation_positions, observations)):
        drawn = rng.permuted(np.broadcast_to(positions, (rows, len(positions))), axis=1)[:, :count]
        np.put_along_axis(tokens, drawn, -1, axis=1)
    return tokens


def measure(benchmark: Any, distribution: LODistribution, tokens: np.ndarray) -> None:
    posterior = ExactPosterior(distribution)
    posterior.marginals(tokens[:2])
    benchmark(posterior.marginals, tokens)
    benchmark.extra_info["microseconds per query"] = 1e6 * benchmark.stats.stats.median / len(tokens)
    print(f"\n{1e6 * benchmark.stats.stats.median / len(tokens):.1f} microseconds per query (median)")


@pytest.mark.parametrize(("latents", "observations"), [(11, 154), (15, 210), (19, 268), (20, 280)])
def test_paper_size(benchmark: Any, latents: int, observations: int) -> None:
    """(20, 280), batch of 2,000. Goals: 11 + 154 masked 50 microseconds a query on two cores, 19 + 268 masked 10 milliseconds."""
    distribution = nae_sat(20, 280, seed=0)
    measure(benchmark, distribution, contexts(distribution, latents, observations, 2000))


@pytest.mark.parametrize(("N", "P"), [(6, 18), (8, 24), (12, 48)])
def test_decoding_sizes(benchmark: Any, N: int, P: int) -> None:
    """Sequences half masked as in the middle of a decode, batch of 2,000. Goal: tens of microseconds a query."""
    distribution = nae_sat(N, P, seed=0)
    measure(benchmark, distribution, contexts(distribution, N // 2, P // 2, 2000))


def test_no_zero_to_prune(benchmark: Any) -> None:
    """(12, 48), noise 0.1, all latents masked and all observations revealed: 4,096 states a row and no pruning."""
    distribution = nae_sat(12, 48, seed=0, noise=0.1)
    measure(benchmark, distribution, contexts(distribution, 12, 0, 100))
