"""Posteriors in copies and pickles, and the number of their threads."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from lo_theory.posterior import BPPosterior, ExactPosterior, _bp_closing_kernels, _bp_kernels, _kernels, _slab_kernels
from lo_theory.posterior.bp import BPOptions, run_batch
from lo_theory.problem import nae_sat, random_slab
from lo_theory.rng import Key

MODULES = (_kernels, _slab_kernels, _bp_kernels, _bp_closing_kernels)
NAE = nae_sat(6, 18, seed=0)
POSTERIORS: dict[str, Callable[..., Any]] = {
    "exact": lambda **more: ExactPosterior(NAE, limit=2**20, method="elimination", **more),
    "slabs": lambda **more: ExactPosterior(random_slab(6, 5, 1.0, seed=1), **more),
    "bp": lambda **more: BPPosterior(NAE, options=BPOptions(noise=0.3, iterations=7), key=Key(5), **more),
}
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda given: pickle.loads(pickle.dumps(given)),
}


def compiled() -> int:
    """How many forms of the kernels are compiled: a writeable array in place of a frozen one makes another."""
    kernels = [value for module in MODULES for value in vars(module).values() if isinstance(value, Dispatcher)]
    return sum(len(kernel.signatures) for kernel in kernels)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", POSTERIORS)
def test_a_copy_answers_the_same_bits_with_the_same_kernels(name: str, how: str) -> None:
    first = POSTERIORS[name](threads=3)
    tokens = np.where(np.arange(first.layout.length) % 2, -1, first.distribution.sample(Key(1), 70)).astype(np.int8)
    answer, before = first.marginals(tokens), compiled()
    second = COPIES[how](first)
    again = second.marginals(tokens)
    assert type(second) is type(first)
    assert np.array_equal(again.probs, answer.probs)
    assert np.array_equal(again.log_evidence, answer.log_evidence)
    assert np.array_equal(again.converged, answer.converged)
    assert (compiled(), second.threads) == (before, 3)
    if name != "bp":
        assert (second.limit, second.method) == (first.limit, first.method)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**9, 2.0, True, "two", None])
@pytest.mark.parametrize("name", POSTERIORS)
def test_threads_are_a_number_that_a_process_can_start(name: str, threads: Any) -> None:
    message = "threads must be a whole number"
    with pytest.raises(ValueError, match=message):
        POSTERIORS[name](threads=threads)
    made = POSTERIORS[name]()
    tokens = np.full((2, made.layout.length), -1, np.int8)
    if threads is not None:  # left out: those of the posterior
        with pytest.raises(ValueError, match=message):
            made.marginals(tokens, threads=threads)
    with pytest.raises(ValueError, match=message):
        run_batch([], key=Key(0), threads=threads)
