"""The variance of the gradient that a batch of masked sequences gives, at fixed weights of the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lo_theory.diffusion.masks import MaskLaw
from lo_theory.diffusion.statistics import Sums
from lo_theory.neural.model import Transformer
from lo_theory.neural.objectives import Masked
from lo_theory.problem import Distribution
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = ["GradientVariance", "gradient_variance"]


@dataclass(frozen=True)
class GradientVariance:
    """``noise`` tr Cov(G) and ``signal`` |E G|**2 of the gradient G of one batch, (nats per token per weight)**2.

    A batch is ``sequences`` sequences with ``copies`` masks each. tr Cov(G) is inversely proportional to the number of
    sequences; of one pass, tr Cov(G) x ``sequences`` x ``copies``.
    """

    law: str
    sequences: int
    copies: int
    noise: Sums
    signal: Sums


@checked
def gradient_variance(
    model: Transformer, distribution: Distribution, law: MaskLaw, *, key: Key, passes: int, pairs: int
) -> GradientVariance:
    """Measure tr Cov(G) = E|G - G'|**2/2 and |E G|**2 = E G.G' over independent pairs of batches.

    G is the gradient of ``Masked(distribution, law)`` in all parameters, at the weights as they are, on ``passes``
    masked rows: half as many sequences where the law gives two masks. Laws with one key see the same sequences.
    Cost: 2 ``pairs`` forward and backward passes of ``passes`` rows, and two gradients in memory. Errors: ValueError
    for counts below 1, ``passes`` that the law's masks do not divide, and a network of another problem.
    """
    check_count(pairs, "a variance is measured on at least one pair of batches")
    objective = Masked(distribution, law)
    objective.check(model)
    copies = objective.draw(key, 0, (0, 1))["masked"].shape[1]
    if passes < 1 or passes % copies:
        raise ValueError(f"{law.name} takes a number of passes that {copies} divides, at least {copies}, got {passes}")
    noise, signal = np.empty(pairs), np.empty(pairs)
    for i in range(pairs):
        one, two = (_gradient(model, objective, key, 2 * i + j, passes // copies) for j in range(2))
        noise[i] = sum(float((a - b).double().square().sum()) for a, b in zip(one, two, strict=True)) / 2
        signal[i] = sum(float((a.double() * b.double()).sum()) for a, b in zip(one, two, strict=True))
    return GradientVariance(law.name, passes // copies, copies, Sums.of(noise), Sums.of(signal))


def _gradient(model: Transformer, objective: Masked, key: Key, step: int, rows: int) -> tuple[Tensor, ...]:
    device = next(model.parameters()).device
    batch = objective.draw(key, step, (0, rows))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in batch.items()}
    loss, _ = objective.loss(model, tensors, {})
    return torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
