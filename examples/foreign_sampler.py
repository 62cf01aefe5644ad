"""Testing samplers that are not ours: two in plain numpy, each with a fault that a glance does not see."""

import numpy as np
from numpy.typing import NDArray

from lo_theory import Key, LODistribution, nae_sat
from lo_theory.testing import same_law


def draw(laws: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """One value of each law along the last axis."""
    level = generator.random(laws.shape[:-1])[..., None]
    return np.minimum((level > laws.cumsum(axis=-1)).sum(axis=-1), laws.shape[-1] - 1)


def ancestral(
    problem: LODistribution, generator: np.random.Generator, n: int, *, fault: bool = False
) -> NDArray[np.int64]:
    """Latents from their prior, then every observation from its table; ``fault`` reads the states in Fortran order."""
    law, n_latents = problem.observations, len(problem.prior)
    latents = draw(np.broadcast_to(problem.prior, (n, *problem.prior.shape)), generator)
    powers = law.q ** np.arange(law.k)
    state = latents[:, law.scopes] @ (powers if fault else powers[::-1])
    tokens = np.empty((n, n_latents + len(law.scopes)), np.int64)
    tokens[:, problem.order] = np.concatenate([latents, draw(law.tables[law.index, state], generator)], axis=1)
    return tokens


def sweep(problem: LODistribution, generator: np.random.Generator, n: int, *, fault: bool = False) -> NDArray[np.int64]:
    """Data, each latent redrawn given all other tokens, which keeps the law; ``fault`` redraws all from one state."""
    law, layout = problem.observations, problem.layout
    latents, observed = layout.split(ancestral(problem, generator, n))
    before = latents.copy()
    for i in range(layout.n_latents):
        weights = np.broadcast_to(problem.prior[i], (n, layout.q)).copy()
        for value in range(layout.q):
            others = (before if fault else latents).copy()
            others[:, i] = value
            state = others[:, law.scopes] @ law.q ** np.arange(law.k)[::-1]
            weights[:, value] *= np.take_along_axis(law.tables[law.index, state], observed[:, :, None], 2).prod((1, 2))
        latents[:, i] = draw(weights / weights.sum(axis=1, keepdims=True), generator)
    return layout.join(latents, observed)


def main() -> None:
    """Both samplers, right and wrong, against the exact joint law of one problem."""
    problem = nae_sat(4, 3, seed=0, noise=0.1)
    for sampler in (ancestral, sweep):
        for fault in (False, True):

            def rows(key: Key, n: int, sampler=sampler, fault=fault) -> NDArray[np.int64]:
                return sampler(problem, key.generator(), n, fault=fault)

            print(f"{sampler.__name__}{', fault' if fault else ''}: {same_law(rows, problem)}")


if __name__ == "__main__":
    main()
