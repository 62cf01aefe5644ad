"""What looking at every answer costs a decode of 2,000 sequences with the exact posterior, L&O-NAE-SAT at (8, 24).

Goal: at most 5 % of the decode's processor time. With and without the check are taken in turn in one process; beside
their ratio, which the machine disturbs, the time inside the check itself is added up. Run by ``make bench``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import POLICIES, FixedCount, decode
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

PROBLEM = nae_sat(8, 24, seed=0)
EXACT = ExactPosterior(PROBLEM)
ROWS, STEPS, TURNS = 2_000, 8, 15


class Clock:
    """Asks without a check, or with it and a clock around everything but the posterior's own answer."""

    def __init__(self, checked: Any) -> None:
        self.checked, self.inside, self.answering, self.layout = checked, 0.0, 0.0, PROBLEM.layout

    def marginals(self, tokens: np.ndarray) -> Marginals:
        """The exact posterior's answer, timed."""
        began = time.process_time()
        answer = EXACT.marginals(tokens)
        self.answering += time.process_time() - began
        return answer

    def check(self, posterior: Any, tokens: np.ndarray, layout: Any, **more: Any) -> Marginals:
        """``ask``, timed."""
        began = time.process_time()
        answer: Marginals = self.checked(self, tokens, layout, **more)
        self.inside += time.process_time() - began
        return answer

    @staticmethod
    def skip(posterior: Any, tokens: np.ndarray, layout: Any, **more: Any) -> Marginals:
        """Ask without looking at the answer."""
        answer: Marginals = posterior.marginals(tokens)
        return answer


@pytest.mark.parametrize("policy", ["vanilla", "margin"])
def test_cost_of_the_check(benchmark: Any, capsys: Any, monkeypatch: Any, policy: str) -> None:
    module: Any = sys.modules["lo_theory.diffusion.decode"]
    clock = Clock(module.ask)

    def run() -> tuple[float, float, float]:
        """Processor seconds of a decode with and without the check, least of several turns, and the check's share."""
        found: dict[str, list[float]] = {"check": [], "skip": []}
        clock.inside = clock.answering = 0.0
        for _ in range(TURNS):
            for name in found:
                monkeypatch.setattr(module, "ask", getattr(clock, name))
                began = time.process_time()
                decode(EXACT, POLICIES[policy](), FixedCount(STEPS), key=Key(0), n=ROWS)
                found[name].append(time.process_time() - began)
        return min(found["check"]), min(found["skip"]), (clock.inside - clock.answering) / sum(found["check"])

    run()
    benchmark.group = "check of answers"
    checked, skipped, share = benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info.update(share=share)
    with capsys.disabled():
        print(
            f"\n{policy}: decode of {ROWS} sequences in {STEPS} steps, {1e3 * checked:.1f} ms with the check, "
            f"{1e3 * skipped:.1f} ms without (ratio {checked / skipped:.3f}); the check itself {100 * share:.2f} %"
        )
    assert share < 0.05
