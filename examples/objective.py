"""A new objective: exact targets, the masked-diffusion loss without the noise of drawn labels.

Where the posterior is known, a network can be trained on the law of each hidden token instead of one draw from it. The
expected gradient is the same and its variance smaller: the difference of both trainings is the price of label noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lo_theory import (
    MASK,
    ExactPosterior,
    Key,
    TrainConfig,
    TrainedPosterior,
    Transformer,
    TransformerConfig,
    losses,
    nae_sat,
    train,
)
from lo_theory.diffusion import Uniform, gap_closed
from lo_theory.neural import Batch, Masked, State


@dataclass(frozen=True)
class ExactTargets(Masked):
    """``Masked`` with cross-entropy against the exact marginals, which are computed with the batch, on the CPU."""

    @cached_property
    def exact(self) -> ExactPosterior:
        """The posterior of the problem."""
        return ExactPosterior(self.distribution)

    def describe(self) -> dict[str, Any]:
        """See Objective: a checkpoint of another objective is refused."""
        return {**super().describe(), "kind": "exact targets"}

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Add targets float32[n, c, L, V] to what ``Masked`` draws, at the same addresses."""
        batch = super().draw(key, step, rows)
        contexts = np.where(batch["masked"], np.int8(MASK), batch["tokens"][:, None])
        probs = self.exact.marginals(contexts.reshape(-1, contexts.shape[-1])).probs
        return {**batch, "targets": probs.reshape(*contexts.shape, -1).astype(np.float32)}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective."""
        masked, targets = batch["masked"], batch["targets"]
        contexts = torch.where(masked, MASK, batch["tokens"].long()[:, None])
        logits = model(contexts.flatten(0, 1)).float().view(targets.shape)
        entropies = -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
        return (entropies * batch["weight"]).sum() / (len(masked) * masked.shape[1]), state


def main(steps: int = 200) -> None:
    """Train a small network on either, and print how much of the gap to the Bayes optimum each closes."""
    problem = nae_sat(6, 18, seed=0)
    network = TransformerConfig(layers=1, heads=2, width=32, n_values=2, length=problem.layout.length)
    config = TrainConfig(steps=steps, batch=16, learning_rate=1e-2, warmup=20, threads=1)
    for objective in (Masked(problem, Uniform()), ExactTargets(problem, Uniform())):
        model = TrainedPosterior(train(network, config, objective, Key(1)).model, problem.layout)
        measured = losses(model, ExactPosterior(problem), problem, Uniform(), key=Key(2), n=4000)
        closed = gap_closed(measured.kl.mean, problem)
        print(f"{objective.describe()['kind']}: gap closed {100 * closed:.1f} % after {steps} steps")


if __name__ == "__main__":
    main()
