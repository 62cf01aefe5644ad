"""Population dynamics: the kernel against its twin, exact identities, closed forms, and reproducibility."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from lo_theory.problem import colouring, flip, nae, xor
from lo_theory.rng import Key
from lo_theory.testing import t_test
from lo_theory.thresholds import (
    Dynamics,
    PlantedEnsemble,
    kesten_stigum,
    planted_ensemble,
    poisson_degrees,
    run_at_degree,
    run_at_overlap,
)
from lo_theory.thresholds._kernels import BLOCK, sweep_blocks
from tests.budget import accept, reject
from tests.thresholds.reference import sweep
from tests.thresholds.test_kesten_stigum import random_ensemble

ENSEMBLES = {
    "colouring": planted_ensemble(colouring(4)),
    "nae all": planted_ensemble(nae(3, 3), observed="all"),
    "noisy parity": planted_ensemble(xor(3), observed="all", channel=flip(0.05)),
    "no symmetry": random_ensemble(5, 3, 3, 2),
}


REPLICAS = 8


def replicas(seed: str, measure: Callable[[Key], object]) -> np.ndarray:
    """What independent runs measure, one row each.

    Sweeps of one run are correlated, runs are not; each is an average over 1e5 messages or so and close to normal. The
    bias of a finite population, measured at these sizes to be at most a third of the scatter of one run, is far below
    the twelve standard errors at which a test fails.
    """
    return np.array([measure(Key(0).fold(seed).fold(i)) for i in range(REPLICAS)])


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_kernel_equals_its_twin(name, rate):
    dynamics = Dynamics(ENSEMBLES[name], BLOCK + 40, rate=rate)
    degrees = poisson_degrees(3.0, dynamics.size, 0.4)
    messages = 0.5 * dynamics.planted(0.7) + 0.5 * dynamics.uniform()
    messages *= Key(2).generator().random(messages.shape) + 0.2
    messages /= messages.sum(axis=2, keepdims=True)
    words, reveal = np.array(Key(1).words(), np.uint64), int(rate * 2.0**64)
    out, blocks = np.empty_like(messages), 2
    sums = np.zeros((dynamics.n_populations, blocks, 4))
    sweep_blocks(out, sums, messages, degrees, dynamics.law, np.uint64(reveal), words, 0, blocks)
    expected, expected_sums = sweep(messages, degrees, dynamics.law, reveal, words)
    assert np.allclose(out, expected, rtol=1e-9, atol=1e-12)
    assert np.allclose(sums.sum(axis=(0, 1)), expected_sums, rtol=1e-9)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_uniform_population_is_the_paramagnet(name):
    dynamics = Dynamics(ENSEMBLES[name], 600)
    series = run_at_degree(dynamics, 4.0, dynamics.uniform(), Key(0), sweeps=2, discard=0)
    for values in (series.excess, series.slope, series.overlap):
        assert np.abs(values).max() < 1e-12
    gammas, shares = dynamics.ensemble.gammas, dynamics.ensemble.shares
    expected = math.log(dynamics.ensemble.q) + 4.0 / dynamics.ensemble.k * (shares * np.log(gammas)).sum()
    assert dynamics.ensemble.paramagnet(4.0) == pytest.approx(expected)


def test_planted_values_are_drawn_from_the_likelihood():
    """Codes drawn through the alias table have the law of the other planted values; a uniform law is rejected."""
    law = Dynamics(ENSEMBLES["no symmetry"], 600).law
    ensemble = ENSEMBLES["no symmetry"]
    n_codes = law.other.shape[1]
    for x in range(ensemble.q):
        mass = law.accept[x].astype(float) / 2.0**64 / n_codes
        found = mass.copy()
        np.add.at(found, law.other[x], 1 / n_codes - mass)
        tables, shares = ensemble.views()
        expected = (shares[:, None] * tables[:, x]).ravel()
        assert np.allclose(found, expected / expected.sum(), atol=1e-12)
        assert np.abs(found - 1 / n_codes).max() > 0.01


def test_degrees_are_poisson_and_stratified():
    degrees = poisson_degrees(8.46, 20_000, 0.3)
    assert (np.diff(degrees) >= 0).all()
    assert abs(degrees.mean() - 8.46) < 1e-3
    counts = np.bincount(degrees, minlength=30)[:30]
    assert np.abs(counts - 20_000 * stats.poisson.pmf(np.arange(30), 8.46)).max() <= 1.0001


@pytest.mark.parametrize("k", [3, 4])
def test_parity_follows_its_closed_curve(k):
    """At fixed overlap r, c = -ln(1 - r)/r**(k-1) on the stable and on the unstable branch."""
    dynamics = Dynamics(planted_ensemble(xor(k)), 4000)
    for r in (0.5, 0.9):
        expected, start = -math.log(1 - r) / r ** (k - 1), dynamics.planted(r)

        def degree(key: Key, r=r, near=expected * 1.1, start=start) -> float:
            return run_at_overlap(dynamics, r, near, start, key, sweeps=25, discard=25).c.mean()

        found = replicas(f"parity {k} {r}", degree)
        accept("parity curve", t_test(found, expected))
        reject("parity curve", t_test(found, -math.log(1 - r) / r**k))  # k factors in place of k - 1
        reject("parity curve", t_test(found, 1.05 * expected))


def test_free_entropy_of_a_parity():
    """Excess over the paramagnet in closed form, at the overlap that each run has."""
    k = 3
    c = -math.log(1 - 0.9) / 0.9 ** (k - 1)
    dynamics = Dynamics(planted_ensemble(xor(k)), 4000)

    def difference(key: Key) -> float:
        series = run_at_degree(dynamics, c, dynamics.planted(0.9), key, sweeps=30, discard=20)
        r = series.overlap.mean()
        # Z_i is 2**(d' - 1) for d' > 0 informative factors and Z_a is 2 where all its messages are sure.
        expected = math.log(2) * (c * r ** (k - 1) - r - c * (k - 1) / k * r**k)
        return series.excess.mean() - expected

    found = replicas("free entropy", difference)
    accept("parity free entropy", t_test(found, 0.0))
    reject("parity free entropy", t_test(found + math.log(2) * c / k * 0.9**k, 0.0))  # k in place of k - 1 factors


def population_gaps(key: Key, c: float = 5.0) -> list[float]:
    """Overlap, excess and slope of 3-colouring at c = 5 with one population for all values, minus those at degree ``c``
    with one for each value.
    """
    results = []
    for symmetrised, size, degree in ((True, 6000, 5.0), (False, 2000, c)):
        dynamics = Dynamics(planted_ensemble(colouring(3)), size, symmetrised=symmetrised)
        assert dynamics.n_populations == (1 if symmetrised else 3)
        series = run_at_degree(dynamics, degree, dynamics.planted(), key.fold(size), sweeps=15, discard=20)
        assert series.overlap.mean() > 0.5
        results.append([series.overlap.mean(), series.excess.mean(), series.slope.mean()])
    return np.subtract(*results).tolist()


def test_one_population_and_one_per_value_agree():
    gaps = replicas("populations", population_gaps)
    accept("one population or several", [t_test(gap, 0.0) for gap in gaps.T])
    for gap in replicas("populations", lambda key: population_gaps(key, 5.3)).T:
        reject("one population or several", t_test(gap, 0.0))


def test_balance_is_what_keeps_values_apart(monkeypatch):
    """At c = 3, below Kesten-Stigum, a tilt towards one value dies; without the balance it grows by 1.5 a sweep."""
    dynamics = Dynamics(planted_ensemble(colouring(3)), 2000, symmetrised=False)
    tilted = np.broadcast_to(np.array([0.35, 0.33, 0.32]), (3, 2000, 3)).copy()
    balanced = run_at_degree(dynamics, 3.0, tilted, Key(4), sweeps=1, discard=40)
    assert balanced.overlap[-1] < 0.01
    monkeypatch.setattr("lo_theory.thresholds.population._balance", lambda messages: None)
    without = run_at_degree(dynamics, 3.0, tilted, Key(4), sweeps=1, discard=40)
    assert without.overlap[-1] > 0.1


def test_ensemble_without_symmetry_has_its_kesten_stigum_point():
    """A weak overlap m is held at c_KS + a m + ..., found here without any linear algebra: 2 c(m) - c(2 m) is c_KS."""
    ensemble = PlantedEnsemble("loud", random_ensemble(5, 3, 2, 1).likelihoods, np.ones(1), 1.0)
    dynamics, critical = Dynamics(ensemble, 1000), kesten_stigum(ensemble).value
    assert dynamics.n_populations == 3
    start = 0.8 * dynamics.uniform() + 0.2 * dynamics.planted()

    def extrapolated(key: Key) -> float:
        c = [
            run_at_overlap(dynamics, m, critical, start, key.fold(f"{m}"), sweeps=25, discard=30).c.mean()
            for m in (0.01, 0.02)
        ]
        return 2 * c[0] - c[1]

    found = replicas("weak", extrapolated)
    accept("weak overlaps", t_test(found, critical))
    reject("weak overlaps", t_test(found, 1.06 * critical))
    reject("weak overlaps", t_test(found, 0.94 * critical))


def test_any_number_of_threads_and_any_repetition_give_the_same_bits():
    runs = []
    for threads in (1, 2, 3, 1):
        dynamics = Dynamics(ENSEMBLES["nae all"], 5 * BLOCK + 7, threads=threads)
        runs.append(run_at_overlap(dynamics, 0.6, 7.0, dynamics.planted(0.6), Key(9), sweeps=4, discard=2))
    for run in runs[1:]:
        assert (run.messages == runs[0].messages).all()
        assert (run.c == runs[0].c).all()
        assert (run.excess == runs[0].excess).all()
    other = run_at_overlap(dynamics, 0.6, 7.0, dynamics.planted(0.6), Key(10), sweeps=4, discard=2)
    assert (other.c != runs[0].c).all()


def test_symmetry_is_found_where_it_is():
    assert planted_ensemble(colouring(5)).value_symmetry().shape == (5, 24, 5)
    assert planted_ensemble(xor(3)).value_symmetry().shape == (2, 1, 2)  # a flip undone by flipping one other argument
    assert random_ensemble(5, 3, 3, 2).value_symmetry() is None
    with pytest.raises(ValueError, match="no value symmetry"):
        Dynamics(random_ensemble(5, 3, 3, 2), 600, symmetrised=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 10}, "messages, got 10"),
        ({"size": 0}, "messages, got 0"),
        ({"size": 2**25}, "messages, got 33554432"),
        ({"size": 600, "rate": 1.0}, r"\[0, 1\), got 1.0"),
        ({"size": 600, "threads": 0}, "threads"),
    ],
)
def test_bad_dynamics_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Dynamics(ENSEMBLES["colouring"], **arguments)


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan, 1e6])
def test_bad_degrees_are_refused(c):
    dynamics = Dynamics(ENSEMBLES["colouring"], 600)
    with pytest.raises(ValueError, match="mean degree"):
        run_at_degree(dynamics, c, dynamics.uniform(), Key(0), sweeps=1, discard=0)
    with pytest.raises(ValueError, match="mean degree"):
        run_at_overlap(dynamics, 0.5, c, dynamics.uniform(), Key(0), sweeps=1, discard=0)


def test_too_large_a_table_is_refused_before_memory_is_taken():
    """Seven values and eight arguments: 46 MB of likelihoods that the ensemble holds, and 8 times that in its views."""
    ensemble = PlantedEnsemble("wide", np.ones((1, *(7,) * 8)), np.ones(1), 1.0)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match="a table of 5764801 states is over the limit of 1048576: take a smaller q or k"
    ):
        Dynamics(ensemble, 600)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_latents_that_no_observation_names_know_nothing():
    """Degree 0.05: most messages are of isolated latents; they stay uniform and add nothing to the free entropy."""
    dynamics = Dynamics(ENSEMBLES["nae all"], 600)
    series = run_at_degree(dynamics, 0.05, dynamics.planted(), Key(3), sweeps=3, discard=0)
    assert (poisson_degrees(0.05, 600, 0.5) == 0).mean() > 0.9
    assert ((series.messages == 1 / 3).all(axis=2)).mean() > 0.9
    assert np.isfinite([series.excess, series.slope, series.overlap]).all()
    assert abs(series.overlap[-1]) < 0.01


def test_bad_runs_are_refused():
    dynamics = Dynamics(ENSEMBLES["colouring"], 600)
    with pytest.raises(ValueError, match="overlap to hold"):
        run_at_overlap(dynamics, 1.0, 3.0, dynamics.uniform(), Key(0), sweeps=1, discard=0)
    with pytest.raises(ValueError, match="at least 1 sweep"):
        run_at_degree(dynamics, 3.0, dynamics.uniform(), Key(0), sweeps=0, discard=0)
    with pytest.raises(ValueError, match="share"):
        dynamics.planted(1.5)
