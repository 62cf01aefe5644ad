"""A new predicate: exactly one of k bits is 1 (positive 1-in-k SAT).

A predicate is its truth table. Samplers, exact posterior, belief propagation and thresholds see nothing else.
"""

from pathlib import Path

import numpy as np

from lo_theory import MASK, ExactPosterior, Key, LODistribution, Predicate
from lo_theory.problem import from_function, predicate_observations, random_scopes


def exactly_one(k: int = 3) -> Predicate:
    """1 if exactly one of k bits is 1. gamma = k / 2**k."""
    return from_function(lambda *bits: sum(bits) == 1, q=2, k=k, name=f"1-in-{k}")


def one_in_three(n_latents: int, n_observations: int, *, seed: int, noise: float = 0.0) -> LODistribution:
    """Observe it on random triples of uniform bits, each value flipped with probability ``noise``."""
    scopes = random_scopes(n_latents, n_observations, 3, seed=seed)
    return LODistribution(np.full((n_latents, 2), 0.5), predicate_observations(exactly_one(), scopes, noise))


def main(folder: str | None = None) -> None:
    """Print what the theory asks of it; with ``folder``, store the problem for experiment files."""
    predicate, problem = exactly_one(), one_in_three(12, 24, seed=0)
    print(f"{predicate.name}: gamma = {predicate.gamma}, Assumption B.11: {predicate.satisfies_assumption_b11}")
    rows = problem.sample(Key(1), 20_000)
    print(f"share of ones among 20,000 x 24 observations: {problem.layout.split(rows)[1].mean():.3f}")
    rows[:, problem.layout.latent_positions] = MASK
    evidence = ExactPosterior(problem).marginals(rows).log_evidence
    print(f"H(latents | observations) = {problem.entropy() + evidence.mean():.3f} of {problem.entropy():.3f} nats")
    if folder is not None:
        problem.save(Path(folder) / "one_in_three.npz")


if __name__ == "__main__":
    main()
