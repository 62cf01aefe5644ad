"""NUMBA_DISABLE_JIT=1 runs every kernel as plain Python, with the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

from lo_theory import ExactPosterior, Key, decode, nae_sat, random_slab, sparse_parity
from lo_theory.diffusion import OneAtATime, margin
from lo_theory.posterior import BPOptions, BPPosterior


def answers() -> list[list[float]]:
    """Samples, exact posteriors by both methods, belief propagation by both schedules, and decoded tokens."""
    found: list[np.ndarray] = []
    problems = [nae_sat(4, 6, seed=0, noise=0.1), sparse_parity(4, 5, 3, 0.1, seed=0), random_slab(3, 4, 1.0, seed=0)]
    for problem in problems:
        tokens = problem.sample(Key(1), 4)
        found += [tokens, problem.log_prob(tokens)]
        found.append(decode(ExactPosterior(problem), margin(), OneAtATime(), key=Key(2), n=3).tokens)
        tokens[:, ::2] = -1
        methods = ("enumeration",) if problem is problems[-1] else ("enumeration", "elimination")
        asked = [ExactPosterior(problem, method=method) for method in methods]
        if problem is not problems[-1]:
            plans = [BPOptions(schedule=name, iterations=10) for name in ("flooding", "sequential")]
            asked += [BPPosterior(problem, options=options) for options in plans]
        for posterior in asked:
            answer = posterior.marginals(tokens)
            found += [answer.probs, answer.log_evidence]
    return [np.asarray(part, float).ravel().tolist() for part in found]


def test_the_interpreter_gives_the_numbers_of_the_compiler() -> None:
    code = "import json; from tests.jit.test_interpreted import answers; print(json.dumps(answers()))"
    command, environment = (
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        {**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    for interpreted, compiled in zip(json.loads(shown), answers(), strict=True):
        np.testing.assert_allclose(interpreted, compiled, rtol=0, atol=1e-14)
