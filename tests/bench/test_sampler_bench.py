"""Throughput of the samplers on one core, for L&O-NAE-SAT at (25, 275).

Goals, as ratios of medians taken in turns in one run (rates drift by half on a shared machine, ratios much less):

* ``sample(..., out=)`` into a touched array: at least 25 times a vectorised numpy sampler of the same law,
* and at least half of ``numpy.copyto`` onto the same array, counting the bytes that arrive.

Numpy stands twice: the same good code on whole arrays, as one writes it, and on chunks that stay in the second-level
cache, as one tunes it. The allocating call stands beside them: fresh pages cost as much as the sampling. Two sizes,
within and beyond a usual last-level cache. Run by ``make bench``; the ratios are printed and kept in the benchmark's
extra_info.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from lo_theory.problem import LODistribution, all_k_subsets, colouring, nae_sat, random_slab, sparse_parity
from lo_theory.rng import Key

KEY = Key(0).fold("bench")
PROBLEM = nae_sat(25, 275, seed=0)
SIZES = {"within cache": 16_384, "beyond cache": 262_144}
NUMPY_ROWS = 256  # the fastest of the chunk sizes tried


def numpy_sampler(
    problem: LODistribution, chunk: int | None = None
) -> Callable[[np.random.Generator, np.ndarray], None]:
    """A good vectorised sampler of NAE on bits: int8 logic in place, one transposed write; ``chunk`` rows at a time."""
    n_latents = problem.layout.n_latents
    first, second, third = (np.ascontiguousarray(column) for column in problem.observations.scopes.T)

    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        step = chunk or len(out)
        for begin in range(0, len(out), step):
            rows = out[begin : begin + step]
            latents = generator.integers(0, 2, (n_latents, len(rows)), np.int8)
            differs, middle = latents[first], latents[second]
            differs ^= middle
            middle ^= latents[third]
            differs |= middle
            rows[:, :n_latents] = latents.T
            rows[:, n_latents:] = differs.T

    return fill


def contenders(n: int) -> dict[str, Callable[[], object]]:
    """What is compared, each writing n rows; arrays are touched before."""
    out, source = np.zeros((n, PROBLEM.layout.length), np.int8), np.ones((n, PROBLEM.layout.length), np.int8)
    generator = np.random.default_rng(0)
    whole, by_chunks = numpy_sampler(PROBLEM), numpy_sampler(PROBLEM, NUMPY_ROWS)
    return {
        "sample into out": lambda: PROBLEM.sample(KEY, n, out=out),
        "sample, allocating": lambda: PROBLEM.sample(KEY, n),
        "numpy": lambda: whole(generator, out),
        "numpy by chunks": lambda: by_chunks(generator, out),
        "copyto": lambda: np.copyto(out, source),
    }


def test_the_numpy_sampler_has_the_same_law():
    """A rival that is fast because it is wrong would be no rival."""
    rows = np.empty((1000, PROBLEM.layout.length), np.int8)
    numpy_sampler(PROBLEM, NUMPY_ROWS)(np.random.default_rng(0), rows)
    assert np.isfinite(PROBLEM.log_prob(rows)).all()
    assert abs(PROBLEM.layout.split(rows)[0].mean() - 0.5) < 0.02


@pytest.mark.parametrize("name", ["sample into out", "sample, allocating", "numpy", "numpy by chunks", "copyto"])
@pytest.mark.parametrize("size", SIZES)
def test_throughput(benchmark, size, name):
    benchmark.group = f"(25, 275), {SIZES[size]} rows, {size}"
    benchmark.extra_info["rows"] = SIZES[size]
    benchmark.pedantic(contenders(SIZES[size])[name], rounds=9, iterations=1, warmup_rounds=1)


@pytest.mark.parametrize("size", SIZES)
def test_ratios(benchmark, capsys, size):
    """The contenders in turns; what is benchmarked is one turn of all."""
    n, times = SIZES[size], {}
    actions = contenders(n)

    def turn() -> None:
        for name, action in actions.items():
            begin = time.perf_counter()
            action()
            times.setdefault(name, []).append(time.perf_counter() - begin)

    benchmark.group = "ratios"
    benchmark.pedantic(turn, rounds=15, iterations=1, warmup_rounds=1)
    nanoseconds = {name: 1e9 * median(values[1:]) / n for name, values in times.items()}
    sampling = nanoseconds["sample into out"]
    ratios = {
        "times numpy (goal 25)": nanoseconds["numpy"] / sampling,
        "times numpy by chunks": nanoseconds["numpy by chunks"] / sampling,
        "of copyto (goal 0.5)": nanoseconds["copyto"] / sampling,
        "times the allocating call": nanoseconds["sample, allocating"] / sampling,
    }
    benchmark.extra_info.update(ns_per_row=nanoseconds, ratios=ratios)
    with capsys.disabled():
        print(f"\n{size}, {n} rows: " + ", ".join(f"{name} {value:.1f} ns/row" for name, value in nanoseconds.items()))
        print("    sample into out is " + ", ".join(f"{value:.2f} {name}" for name, value in ratios.items()))


OTHERS = {
    "nae k=4": lambda: nae_sat(25, 275, seed=0, k=4),
    "parity k=3, noise 0.1": lambda: sparse_parity(25, 275, 3, 0.1, seed=0),
    "nae q=3": lambda: nae_sat(25, 275, seed=0, q=3),
    "all pairs, 3-colouring (17, 272)": lambda: all_k_subsets(colouring(3), 17),
    "slab": lambda: random_slab(25, 275, 0.6, seed=0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_problems(benchmark, name):
    problem, n = OTHERS[name](), 16_384
    out = np.zeros((n, problem.layout.length), np.int8)
    benchmark.group = f"other problems, {n} rows"
    benchmark.pedantic(lambda: problem.sample(KEY, n, out=out), rounds=7, iterations=1, warmup_rounds=1)
    benchmark.extra_info["ns_per_row"] = 1e9 * benchmark.stats.stats.median / n
