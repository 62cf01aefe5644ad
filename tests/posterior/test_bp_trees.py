"""On trees belief propagation is exact: marginals, masked observations, evidence; checked against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_theory.posterior.bp import BPOptions
from lo_theory.posterior.bp_posterior import BPPosterior
from lo_theory.rng import Key
from lo_theory.testing import brute_force
from tests.posterior.trees import make_forest

# (kind, q, k): the closed forms at a few sizes (each is compiled on its own), the general kernel at more.
SHAPES = [
    ("nae", 2, 3),
    ("nae", 3, 3),
    ("xor", 2, 3),
    *((kind, q, k) for kind in ("soft", "hard") for q in (2, 3) for k in (1, 2, 3)),
    ("hard", 2, 4),
]


def compare(shape: tuple[str, int, int], schedule: str, damping: float, noise: float, seed: int) -> tuple[float, bool]:
    """Largest error of marginals and log-evidence on one forest, and whether its context was impossible."""
    kind, q, k = shape
    distribution, tokens = make_forest(q, k, kind, seed)
    options = BPOptions(schedule=schedule, damping=damping, noise=noise, tolerance=1e-13, iterations=2000)
    answer = BPPosterior(distribution, options=options, key=Key(seed)).marginals(tokens[None])
    (probs,), (evidence,) = brute_force(distribution, tokens[None])
    assert answer.converged[0]
    if np.isneginf(evidence):
        assert answer.log_evidence[0] == -np.inf
        return float(np.abs(answer.probs[0] - probs).max()), True
    error = max(np.abs(answer.probs[0] - probs).max(), abs(answer.log_evidence[0] - evidence))
    return float(error), False


def check_forests(examples: int) -> None:
    errors: list[float] = []
    impossible: list[bool] = []

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        shape=st.sampled_from(SHAPES),
        schedule=st.sampled_from(["flooding", "sequential"]),
        damping=st.sampled_from([0.0, 0.0, 0.3]),
        noise=st.sampled_from([0.0, 0.02, 0.9]),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(shape: tuple[str, int, int], schedule: str, damping: float, noise: float, seed: int) -> None:
        error, contradiction = compare(shape, schedule, damping, noise, seed)
        errors.append(error)
        impossible.append(contradiction)
        assert error < 1e-10

    check()
    print(f"\n{len(errors)} forests, {sum(impossible)} impossible: largest error {max(errors):.2e}")
    assert len(errors) >= examples
    assert 0.02 * examples < sum(impossible) < 0.5 * examples  # both kinds were met


def test_a_thousand_forests() -> None:
    check_forests(1000)


@pytest.mark.soak
def test_ten_thousand_forests() -> None:
    check_forests(10_000)


def test_a_cycle_is_not_exact() -> None:
    """The comparison can fail: on loopy graphs the Bethe free entropy differs from the evidence."""
    from lo_theory.problem import nae_sat

    distribution = nae_sat(5, 8, seed=0)
    tokens = np.concatenate([np.full(5, -1), np.ones(8)]).astype(np.int8)
    answer = BPPosterior(distribution).marginals(tokens[None])
    _, evidence = brute_force(distribution, tokens[None])
    assert abs(answer.log_evidence[0] - evidence[0]) > 1e-3
