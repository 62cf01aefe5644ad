"""A new policy: reveal as many positions as are nearly certain, at least one, by the errors that a guess would make.

The most likely value of position i is wrong with probability 1 - c_i, so among those revealed together a guess is wrong
sum of (1 - c_i) times in expectation; this policy bounds that sum at each step.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory import ExactPosterior, Key, decode, generated_accuracies, nae_sat
from lo_theory.diffusion import OneAtATime, View


@dataclass(frozen=True)
class ExpectedErrors:
    """Reveal the surest positions while the errors of guessing them, sum of (1 - c_i), are at most ``bound``."""

    bound: float

    @property
    def name(self) -> str:
        """``expected_errors(bound)``."""
        return f"expected_errors({self.bound:g})"

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Policy; the budget is the least number of positions."""
        errors = np.where(view.masked, 1 - np.asarray(view.marginals.probs, np.float64).max(axis=-1), np.inf)
        rank = np.argsort(errors, axis=1, kind="stable")  # hidden positions first, the surest of them first
        expected = np.cumsum(np.take_along_axis(errors, rank, axis=1), axis=1)
        chosen = (expected <= self.bound + 1e-12) | (np.arange(errors.shape[1]) < budget[:, None])
        reveal = np.empty_like(view.masked)
        np.put_along_axis(reveal, rank, chosen, axis=1)
        return view.masked & ~reveal


def main() -> None:
    """Print passes against self-consistency, exact posterior: with bound 0 fewer passes cost nothing."""
    problem = nae_sat(8, 24, seed=0)
    exact = ExactPosterior(problem)
    for bound in (0.0, 0.1, 0.5, 1.0, 2.0):
        decoded = decode(exact, ExpectedErrors(bound), OneAtATime(), key=Key(1), n=2000)
        passes = np.mean([len(np.unique(steps)) for steps in decoded.step_revealed])
        accuracy = generated_accuracies(problem, decoded.tokens, Key(2))["self_consistency"].mean
        print(f"bound {bound}: {passes:.1f} passes of {problem.layout.length}, self-consistency {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
