"""Random small problems of every family, and contexts of them, to compare posteriors on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from lo_theory.problem import LODistribution, TableObservations
from lo_theory.testing import assignments, emissions

Array = np.ndarray


def _functions(q: int, k: int, kind: str) -> Array:
    """Emission tables [E, q**k, r] of a family."""
    digits = np.indices((q,) * k).reshape(k, -1)
    bits: dict[str, Callable[[], Array]] = {
        "nae": lambda: (digits != digits[0]).any(axis=0)[None],
        "xor": lambda: (digits.sum(axis=0) % 2 == 1)[None],
        "colouring": lambda: (digits[0] != digits[-1])[None],
        "sat": lambda: np.array(
            [(digits != np.array(s)[:, None]).any(axis=0) for s in itertools.product((0, q - 1), repeat=k)]
        ),
    }
    return np.eye(2)[bits[kind]().astype(int)]


FAMILIES = ("nae", "xor", "colouring", "sat", "stochastic", "stochastic with zeros", "function", "one table each")


def random_tables(rng: np.random.Generator, q: int, k: int, n_observations: int, kind: str) -> Array:
    r = int(rng.integers(2, 5))
    if kind == "stochastic":
        return rng.dirichlet(np.ones(r), size=(int(rng.integers(1, 4)), q**k))
    if kind == "stochastic with zeros":
        tables = rng.dirichlet(np.ones(r), size=(2, q**k)) * (rng.random((2, q**k, r)) < 0.5)
        tables[..., 0] += tables.sum(axis=-1) == 0
        return tables / tables.sum(axis=-1, keepdims=True)
    if kind == "function":
        return np.eye(r)[rng.integers(0, r, size=(2, q**k))]
    if kind == "one table each":
        shape = (n_observations, q**k)
        noisy = rng.random((n_observations, 1, 1)) < 0.5
        return np.where(noisy, rng.dirichlet(np.ones(r), shape), np.eye(r)[rng.integers(0, r, shape)])
    tables = _functions(q, k, kind)
    if rng.random() < 0.4:
        rate = rng.choice([0.01, 0.2])
        tables = tables * (1 - rate) + (1 - tables) * rate
    return tables


def random_prior(rng: np.random.Generator, n: int, q: int) -> Array:
    kind = rng.integers(4)
    if kind == 0:
        return np.full((n, q), 1 / q)
    prior = rng.dirichlet(np.ones(q), size=n)
    if kind == 1:
        return prior
    prior = prior * (rng.random((n, q)) < 0.7)
    prior[:, 0] += prior.sum(axis=1) == 0
    return prior / prior.sum(axis=1, keepdims=True)


def random_problem(rng: np.random.Generator, kind: str, *, states: int = 729, most: int = 8) -> LODistribution:
    """A small problem of a family: any q, k, P, prior, order; scopes with or without repeats."""
    q = 2 if kind == "xor" else int(rng.integers(2, 5))
    n = int(rng.integers(1, 1 + int(np.log(states) / np.log(q) + 1e-9)))
    k = int(rng.integers(1, 5 if q == 2 else 4))
    p = int(rng.integers(1, 1 + most))
    tables = random_tables(rng, q, k, p, kind)
    distinct = k <= n and rng.random() < 0.7
    scopes = np.array([rng.permutation(n)[:k] for _ in range(p)]) if distinct else rng.integers(0, n, (p, k))
    index = np.arange(p) if kind == "one table each" else rng.integers(0, len(tables), p)
    order = rng.permutation(n + p) if rng.random() < 0.7 else None
    return LODistribution(random_prior(rng, n, q), TableObservations(scopes, tables, index), order)


def random_contexts(rng: np.random.Generator, distribution: LODistribution, n: int) -> Array:
    """Contexts int8[n, L]: complete, fully masked, random masks of possible sequences and of arbitrary ones (often impossible)."""
    layout = distribution.layout
    sequences = rng.integers(0, layout.values, (n, layout.length)).astype(np.int8)
    states = assignments(distribution)
    weights = distribution.prior[np.arange(layout.n_latents), states].prod(axis=1)
    for b in range(0, n, 2):  # every other row is drawn from the model
        x = states[rng.choice(len(states), p=weights / weights.sum())]
        laws = emissions(distribution, x[None])[0]
        sequences[b] = layout.join(x, np.array([rng.choice(layout.r, p=law) for law in laws]))
    masked = rng.random((n, layout.length)) < rng.random((n, 1))
    masked[0], masked[1 % n] = False, True
    if n > 2:
        masked[2, layout.latent_positions], masked[2, layout.observation_positions] = True, False
    return np.where(masked, -1, sequences).astype(np.int8)
