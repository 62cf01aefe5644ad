"""A new posterior: what a model that memorises its training set would answer.

The Bayes-optimal denoiser of M training sequences looks up those that agree with what is revealed and counts. Beside
the exact posterior it tells memorisation from knowledge of the law; decoder and evaluation take it like any other.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory import ExactPosterior, Key, Layout, Marginals, decode, nae_sat
from lo_theory.diffusion import OneAtATime, Uniform, vanilla


class Memory:
    """Marginals of the empirical law of ``sequences`` int8[M, L]; a context that none of them fits is impossible."""

    def __init__(self, sequences: NDArray[np.int8], layout: Layout) -> None:
        self.layout = layout
        self._sequences = layout.check_tokens(sequences, complete=True)
        self._onehot = (
            (self._sequences[..., None] == np.arange(layout.n_values)).reshape(len(sequences), -1).astype(float)
        )

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """See Posterior. Cost: B x M x L comparisons."""
        rows, layout = self.layout.check_tokens(tokens), self.layout
        fits = ((rows[:, None] < 0) | (rows[:, None] == self._sequences)).all(axis=-1)
        count = fits.sum(axis=1)
        counted = (fits.astype(float) @ self._onehot).reshape(*rows.shape, layout.n_values)
        uniform = (np.arange(layout.n_values) < layout.values[:, None]) / layout.values[:, None]
        revealed = np.arange(layout.n_values) == rows[..., None]
        probs = np.where(count[:, None, None] > 0, counted / np.maximum(count, 1)[:, None, None], uniform)
        with np.errstate(divide="ignore"):
            evidence = np.log(count / len(self._sequences))
        return Marginals(np.where((rows >= 0)[..., None], revealed, probs), evidence, np.ones(len(rows), bool))


def main() -> None:
    """Print how far memory is from the law, and how many different sequences it generates (the law has 64)."""
    problem, fresh = nae_sat(6, 18, seed=0), Key(2)
    truth = problem.sample(fresh, 2000)
    masked, _ = Uniform().sample(fresh.fold("masks"), truth, problem.layout)
    contexts = np.where(masked[0], -1, truth)
    exact = ExactPosterior(problem).marginals(contexts).probs
    for size in (16, 64, 256, 1024):
        seen = problem.sample(Key(1), size)
        memory = Memory(seen, problem.layout)
        answer = memory.marginals(contexts)
        distance = np.abs(answer.probs - exact).sum(axis=-1)[masked[0]].mean() / 2
        unknown = np.isneginf(answer.log_evidence).mean()
        decoded = decode(memory, vanilla(), OneAtATime(), key=Key(3), n=1000).tokens
        distinct = len(np.unique(decoded, axis=0))
        print(f"{size:5} seen: distance {distance:.3f}, no answer {unknown:.1%}, {distinct} sequences generated")


if __name__ == "__main__":
    main()
