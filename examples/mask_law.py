"""A new mask law: one contiguous block is hidden, as in span infilling.

Rows are addressed: row i of an answer depends on the key and on ``start + i`` only, so that neither batches nor ranks
change what is hidden.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory import ExactPosterior, Key, Layout, losses, nae_sat
from lo_theory.diffusion import Uniform, per_hidden, row_integers
from lo_theory.diffusion.masks import Masks


@dataclass(frozen=True)
class Block:
    """A block of positions, length uniform on 1..L, beginning anywhere and wrapping around; weight 1/length.

    Every position weighs 1/L in expectation, as under the uniform law: only the company of hidden tokens differs.
    """

    name: str = "block"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        n, length = tokens.shape
        sizes = 1 + row_integers(key.fold("size"), n, length, start=start)
        firsts = row_integers(key.fold("first"), n, length, start=start)
        return per_hidden((np.arange(length) - firsts[:, None]) % length < sizes[:, None])


def main() -> None:
    """Print the least loss of any model under both laws: what a block leaves to be known."""
    problem = nae_sat(8, 24, seed=0)
    exact = ExactPosterior(problem)
    print(f"floor, entropy/L: {problem.entropy() / problem.layout.length:.4f} nats per token")
    for law in (Uniform(), Block()):
        low, high = losses(exact, exact, problem, law, key=Key(1), n=20_000).exact.interval()
        print(f"Bayes loss under {law.name}: {low:.4f} to {high:.4f} nats per token")


if __name__ == "__main__":
    main()
