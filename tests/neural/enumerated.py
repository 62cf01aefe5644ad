"""Predictors that are tables, and what a mask law makes of their losses, by enumeration of all strings and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lo_theory.problem import MASK, nae_sat
from lo_theory.testing import joint_law

SMALL = nae_sat(3, 3, seed=1, noise=0.1)
L = SMALL.layout.length
STRINGS, CHANCES = joint_law(SMALL)
MASKS = ((np.arange(2**L)[:, None] >> np.arange(L)) & 1).astype(bool)
SIZES = MASKS.sum(axis=1)


class Table(torch.nn.Module):
    """Logits [B, L, 2] looked up by the context; ``calls`` counts them."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.from_numpy(logits))
        self.calls = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.logits[(tokens - MASK) @ 3 ** torch.arange(L)]


def entropies(logits: np.ndarray, contexts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """-ln q(truth) [..., L] of ``logits`` [3**L, L, 2] in float64; contexts and truth int8[..., L]."""
    rows = logits[(contexts.astype(int) - MASK) @ 3 ** np.arange(L)].astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(logs, truth[..., None].astype(int), axis=-1)[..., 0]


def every_context() -> np.ndarray:
    """int8[S, 2**L, L]: each string with each mask."""
    return np.where(MASKS, np.int8(MASK), STRINGS[:, None])


def expected(logits: np.ndarray, weight: np.ndarray) -> float:
    """E over strings of the sum over masks of ``weight`` [2**L] x the sum of the entropies of hidden tokens."""
    contexts = every_context()
    losses = entropies(logits, contexts, np.broadcast_to(STRINGS[:, None], contexts.shape))
    return float(CHANCES @ (losses * MASKS).sum(axis=2) @ weight)


def at_rates(density: Callable[[np.ndarray], np.ndarray], least: float = 0.0) -> np.ndarray:
    """float64[2**L]: the integral over t in [least, 1] of ``density`` (t) times the chance of each mask at rate t."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t = least + (1 - least) * (nodes + 1) / 2
    chance = t[:, None] ** SIZES * (1 - t[:, None]) ** (L - SIZES)
    return (1 - least) / 2 * (weights * density(t)) @ chance
