"""Speed and reach of the exact posterior by elimination, on one or two cores; PySDD beside it where it is installed.

Run `pytest tests/bench/test_elimination_bench.py --benchmark-only -s`. Each rate is measured on the same rows in one
interleaved run. PySDD (pip install pysdd) is asked less: the marginals of the latents only.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from lo_theory.posterior import ExactPosterior
from lo_theory.problem import LODistribution, nae_sat
from lo_theory.rng import Key
from tests.bench.test_posterior_bench import contexts
from tests.posterior.test_counters import clauses_of

RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, None)


def masks(rate: float | None, seed: int, rows: int) -> tuple[LODistribution, np.ndarray]:
    """(100, 200) with every token masked at ``rate``; None: all latents masked and all observations revealed."""
    distribution = nae_sat(100, 200, seed=seed)
    tokens = distribution.sample(Key(seed).fold("bench"), rows)
    hidden = np.random.default_rng(seed).random(tokens.shape) < (rate or 0.0)
    tokens[distribution.layout.is_latent | hidden if rate is None else hidden] = -1
    return distribution, tokens


def knowledge_compiler(distribution: LODistribution, row: np.ndarray) -> Any:
    """Compile the context with PySDD and read the latent marginals."""
    sdd = pytest.importorskip("pysdd.sdd")
    clauses = clauses_of(distribution, row)
    lines = [f"p cnf 100 {len(clauses)}", *(f"{' '.join(map(str, clause))} 0" for clause in clauses)]
    manager, formula = sdd.SddManager.from_cnf_string("\n".join(lines))
    counter = formula.wmc(log_mode=False)
    counter.propagate()
    return [counter.literal_pr(manager.literal(i + 1)) for i in range(100)]


def median_seconds(calls: list[Any]) -> float:
    """Median wall time of the calls, once each."""
    seconds = []
    for call in calls:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


@pytest.mark.parametrize("rate", RATES)
def test_masks_of_the_paper(benchmark: Any, rate: float | None) -> None:
    """(100, 200), 20 problems x 50 masks. Goals, median of single rows: rate .5 0.3 ms, rate .8 10 ms; all masks answered.

    Printed: share answered under the default limit, widest table, milliseconds a row alone and in a batch on one and two
    threads, and how long the plan takes.
    """
    problems = [masks(rate, seed, 50) for seed in range(20)]
    posteriors = [ExactPosterior(distribution) for distribution, _ in problems]
    costs = [posterior.estimate_cost(tokens) for posterior, (_, tokens) in zip(posteriors, problems, strict=True)]
    answered = [
        (posterior, tokens[cost.fits]) for posterior, (_, tokens), cost in zip(posteriors, problems, costs, strict=True)
    ]
    share = np.concatenate([cost.fits for cost in costs]).mean()
    widest = max(int(cost.width.max()) for cost in costs)
    single = median_seconds([lambda p=p, r=r: p.marginals(r) for p, rows in answered for r in rows[:10]])
    plan = median_seconds([lambda p=p, r=rows: p.estimate_cost(r) for p, rows in answered]) / 50
    two = median_seconds([lambda p=p, r=rows: p.marginals(np.tile(r, (4, 1)), threads=2) for p, rows in answered]) / 200
    benchmark(lambda: [posterior.marginals(rows) for posterior, rows in answered])
    batch = benchmark.stats.stats.median / sum(len(rows) for _, rows in answered)
    benchmark.extra_info.update({"share answered": share, "single ms": 1e3 * single, "batch ms": 1e3 * batch})
    print(
        f"\nrate {rate}: answered {share:.4f}, widest {widest}, ms a row: alone {1e3 * single:.3f}, "
        f"batch {1e3 * batch:.3f}, two threads {1e3 * two:.3f}, plan {1e3 * plan:.3f}"
    )


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_beside_a_knowledge_compiler(benchmark: Any, rate: float) -> None:
    """(100, 200), the same 16 rows in turn, latent marginals by PySDD against all marginals here."""
    pytest.importorskip("pysdd", reason="NOT COMPARED: pysdd is not installed (pip install pysdd)")
    problems = [masks(rate, seed, 1) for seed in range(16)]
    posteriors = [ExactPosterior(distribution) for distribution, _ in problems]
    ours, theirs = [], []
    for _ in range(3):
        for posterior, (distribution, tokens) in zip(posteriors, problems, strict=True):
            ours.append(median_seconds([lambda p=posterior, t=tokens: p.marginals(t)]))
            theirs.append(median_seconds([lambda d=distribution, t=tokens: knowledge_compiler(d, t[0])]))
    benchmark(posteriors[0].marginals, problems[0][1])
    here, there = float(np.median(ours)), float(np.median(theirs))
    print(f"\nrate {rate}: {1e3 * here:.3f} ms, PySDD {1e3 * there:.1f} ms (medians), {there / here:.0f} times")


def test_batch_of_figure_2(benchmark: Any) -> None:
    """(20, 280), 11 + 154 masked, batch of 4,000 on two threads. Goal: 0.05 ms a query."""
    distribution = nae_sat(20, 280, seed=0)
    tokens = contexts(distribution, 11, 154, 4000)
    posterior = ExactPosterior(distribution, threads=2)
    posterior.marginals(tokens)
    benchmark(posterior.marginals, tokens)
    print(f"\n{1e3 * benchmark.stats.stats.median / len(tokens):.4f} ms a query, two threads")


def test_noisy_and_dense(benchmark: Any) -> None:
    """(20, 280), noise 0.1, all latents masked and half the observations revealed. Goal: 0.1 s a row; 2**20 states."""
    distribution = nae_sat(20, 280, seed=0, noise=0.1)
    tokens = contexts(distribution, 20, 140, 4)
    posterior = ExactPosterior(distribution)
    cost = posterior.estimate_cost(tokens)
    benchmark(posterior.marginals, tokens)
    seconds = benchmark.stats.stats.median / len(tokens)
    print(
        f"\n{seconds:.3f} s a row, widths {cost.width}, {cost.operations.mean() / seconds / 1e6:.0f} million operations/s"
    )
