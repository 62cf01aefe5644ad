"""A new schedule: the cosine, which reveals few positions at first and many at the end."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory import ExactPosterior, Key, decode, generated_accuracies, nae_sat
from lo_theory.diffusion import FixedCount, vanilla


@dataclass(frozen=True)
class Cosine:
    """After step s of S a share cos(pi s / 2S) of the positions is still hidden, rounded to the nearest."""

    count: int

    @property
    def name(self) -> str:
        """``cosine(steps)``."""
        return f"cosine({self.count})"

    def steps(self, hidden: int) -> int:
        """See Schedule."""
        return self.count

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """What is hidden now, less what is to be hidden after the step; a function of the masks only."""
        now, then = (math.cos(math.pi / 2 * (step + i) / self.count) for i in (0, 1))
        hidden = masked.sum(axis=1)
        return hidden - np.rint(hidden * (max(then, 0.0) / now)).astype(np.int64) if then > 1e-12 else hidden


def main() -> None:
    """Print what each reveals, and the self-consistency of the exact posterior in as many steps."""
    problem = nae_sat(8, 24, seed=0)
    exact = ExactPosterior(problem)
    for schedule in (FixedCount(8), Cosine(8)):
        decoded = decode(exact, vanilla(), schedule, key=Key(1), n=4000)
        revealed = np.bincount(decoded.step_revealed[0])
        accuracy = generated_accuracies(problem, decoded.tokens, Key(2))["self_consistency"].mean
        print(f"{schedule.name} reveals {revealed.tolist()}: self-consistency {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
