"""Soak: the exact posterior of (100, 200) against two independent programs, a model counter and a knowledge compiler.

``pip install pyganak pysdd`` brings them; neither is a dependency. A test that skips has compared nothing.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior
from lo_theory.problem import LODistribution, nae_sat
from tests.posterior.test_elimination import masked

MISSING = "NOT COMPARED: {} is not installed (pip install {}); the posterior was not checked against it"


def clauses_of(distribution: LODistribution, row: np.ndarray) -> list[list[int]]:
    """What a context says about latents 1..N, as clauses."""
    n = distribution.layout.n_latents
    clauses = [[i + 1 if row[i] else -i - 1] for i in range(n) if row[i] >= 0]
    for scope, value in zip(distribution.observations.scopes + 1, row[n:], strict=True):  # type: ignore[union-attr]
        a, b, c = scope.tolist()
        if value == 1:
            clauses += [[a, b, c], [-a, -b, -c]]
        elif value == 0:
            clauses += [[a, -b], [b, -c], [c, -a]]
    return clauses


def positions_to_check(row: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Some masked latents and as many masked observations."""
    rng, hidden = np.random.default_rng(seed), np.flatnonzero(row < 0)
    return np.concatenate(
        [rng.permutation(hidden[hidden < 100])[:count], rng.permutation(hidden[hidden >= 100])[:count]]
    )


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.8, 0.9, None])
def test_against_a_model_counter(rate: float | None) -> None:
    """ln evidence = ln count - N ln 2, and a marginal is a quotient of counts."""
    pyganak = pytest.importorskip("pyganak", reason=MISSING.format("pyganak", "pyganak"))

    def count(clauses: list[list[int]]) -> int:
        counter = pyganak.Counter()
        counter.new_vars(100)
        counter.add_clauses(clauses)
        return int(counter.count())

    for seed in range(3):
        distribution = nae_sat(100, 200, seed=seed)
        row = masked(distribution, 1, rate or 0.0, seed, latents=rate or 1.0)[0]
        answer = ExactPosterior(distribution).marginals(row)
        clauses = clauses_of(distribution, row)
        whole = count(clauses)
        assert answer.log_evidence[0] == pytest.approx(math.log(whole) - 100 * math.log(2), abs=1e-11)
        for position in positions_to_check(row, 4, seed):
            fixed = row.copy()
            fixed[position] = 0
            share = count(clauses_of(distribution, fixed)) / whole
            assert answer.probs[0, position, 0] == pytest.approx(share, abs=1e-12)


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.5, 0.6, 0.8])
def test_against_a_knowledge_compiler(rate: float) -> None:
    """Every latent marginal at once, by weighted model counting on a sentential decision diagram."""
    sdd = pytest.importorskip("pysdd.sdd", reason=MISSING.format("pysdd", "pysdd"))
    for seed in range(3):
        distribution = nae_sat(100, 200, seed=seed)
        row = masked(distribution, 1, rate, seed)[0]
        answer = ExactPosterior(distribution).marginals(row)
        clauses = clauses_of(distribution, row)
        lines = [f"p cnf 100 {len(clauses)}", *(f"{' '.join(map(str, clause))} 0" for clause in clauses)]
        manager, formula = sdd.SddManager.from_cnf_string("\n".join(lines))
        counter = formula.wmc(log_mode=False)
        whole = counter.propagate()
        shares = [counter.literal_pr(manager.literal(i + 1)) for i in range(100)]
        assert answer.log_evidence[0] == pytest.approx(math.log(whole) - 100 * math.log(2), abs=1e-9)
        assert np.abs(answer.probs[0, :100, 1] - shares).max() < 1e-9
