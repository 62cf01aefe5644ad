"""Compile the kernels before they are needed: once, by one process, where many would otherwise do it at the same time.

A kernel is compiled at its first call and kept, for every process that comes later (``lo_theory/jit/cache.py``). The
calls here are those, on the smallest problems that reach all of them. Writes nothing but what is kept.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import numpy as np

from lo_theory.diffusion import (
    POLICIES,
    BinomialRule,
    DecodeOptions,
    Noise,
    OneAtATime,
    Pattern,
    RandomSizes,
    Suffix,
    TwoRates,
    Uniform,
    decode,
    generated_accuracies,
    losses,
    margin,
)
from lo_theory.posterior import BPOptions, BPPosterior, ExactPosterior
from lo_theory.problem import LODistribution, colouring, nae, nae_sat, random_slab, sparse_parity
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key
from lo_theory.thresholds import Dynamics, planted_ensemble, run_at_degree

_KEY = Key(0).fold("compile")
_ROWS = 8


def compile_kernels() -> None:
    """Call the kernels once, so that they are kept: a minute or so on two cores where none is, else seconds.

    Kernels are kept by the package's sources, processor and versions: in the folder that numba's setting
    NUMBA_CACHE_DIR names, else in the package's own, else in the user's cache, for this process and all later ones.
    """
    for problem in _with_tables():
        problem.sample(_KEY, _ROWS)  # what both processes need
    # Plain processes, not a pool: those of a pool outlive a parent that is killed, and wait for work for ever.
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=part, daemon=True) for part in _PARTS]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process that compiled kernels failed; its own lines say why")


def _compile_exact() -> None:
    for problem in _with_tables():
        _ask_exact(problem)
    _ask_exact(random_slab(6, 12, 1.0, seed=0))
    _decode(nae_sat(6, 12, seed=0))


def _compile_messages() -> None:
    for problem in _with_tables():
        _ask_bp(problem)
    # A context whose messages fall below what a float holds, which is what the kernels with exponents are for.
    BPPosterior(nae_sat(5, 15, seed=3)).marginals([[-1, 1, -1, -1, -1, 1, 1, 1, 0] + 11 * [1]])
    _run_populations()
    _ask_network(nae_sat(10, 40, seed=0))


_PARTS = (_compile_exact, _compile_messages)  # two thirds and one third of the work, with next to no kernel in common


def _with_tables() -> Iterator[LODistribution]:
    """Two values and three, certain and noisy, few latents (enumerated) and many (eliminated), and parities."""
    yield nae_sat(6, 12, seed=0)
    yield nae_sat(6, 12, seed=0, noise=0.1)
    yield nae_sat(40, 80, seed=0)
    yield nae_sat(6, 12, seed=0, q=3)
    yield sparse_parity(6, 12, 3, 0.1, seed=0)


def _ask_exact(problem: LODistribution) -> None:
    exact = ExactPosterior(problem)
    for law in (Uniform(), Pattern(1), Suffix(), TwoRates(1, 0), TwoRates(0.5, 0.5)):
        losses(exact, exact, problem, law, key=_KEY, n=_ROWS)


def _ask_bp(problem: LODistribution) -> None:
    tokens = problem.sample(_KEY, _ROWS)
    tokens[:, [0, 1, 2, -1]] = -1  # latents, and an observation
    for schedule in ("flooding", "sequential"):
        for closed_forms in (True, False):
            options = BPOptions(schedule=schedule, closed_forms=closed_forms, iterations=20)
            BPPosterior(problem, options=options).marginals(tokens)


def _ask_network(problem: LODistribution) -> None:
    from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig

    length = problem.layout.length
    config = TransformerConfig(layers=1, heads=1, width=8, n_values=problem.layout.n_values, length=length)
    TrainedPosterior(Transformer(config, seed=0), problem.layout).marginals(np.full((_ROWS, length), MASK))


def _decode(problem: LODistribution) -> None:
    exact = ExactPosterior(problem)
    for name in POLICIES:
        generated = decode(exact, POLICIES[name](), OneAtATime(), key=_KEY, n=_ROWS)
        generated_accuracies(problem, generated.tokens, _KEY)
    for schedule in (BinomialRule(4), RandomSizes(4)):
        decode(exact, margin(), schedule, key=_KEY, n=_ROWS, options=DecodeOptions(noise=Noise(0.5)))


def _run_populations() -> None:
    for predicate in (nae(2, 3), colouring(3)):
        dynamics = Dynamics(planted_ensemble(predicate), 1000)
        run_at_degree(dynamics, 2.0, dynamics.planted(0.5), _KEY, sweeps=1, discard=1)
