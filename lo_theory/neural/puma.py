"""PUMA: contexts as a decoder meets them, from a pool of sequences that are revealed stage by stage.

The pool travels as the objective's tensors, so a resumed run continues with the same contexts. Touches torch only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lo_theory.diffusion import _kernels
from lo_theory.neural.model import Transformer
from lo_theory.neural.objectives import Batch, State, check_form, cross_entropy
from lo_theory.problem import Distribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Puma"]


@checked
@dataclass(frozen=True)
class Puma:
    """Mean over a pool of rows of sum(cross-entropy of hidden tokens)/hidden, nats per token (arXiv 2602.10314).

    A row is at a stage j = 0..K-1, K = ``stages``, row i of the first step at i mod K. After each step it goes to the
    next one: r is uniform on [j/K, (j+1)/K), and the hidden positions of largest top probability, by the logits of that
    step, get their true tokens until min(round(r L), L - 1) are revealed; ties (to 1e-12) at random. After the last
    stage a fresh sequence takes the row, with that many positions revealed at random. With ``tau`` (the proposal has
    0.9) all positions above it are revealed too; a row that this takes further than its stage is put at the stage
    where it is, and one with nothing left hidden is replaced.

    What is revealed depends on revealed tokens alone, so hidden ones have the law of the exact posterior in any
    context of the pool. Without ``tau`` their number, over all stages, is uniform but for rounding: P(L) = 1/(2L) and
    P(1) = 3/(2L); with K = 1 or constant scores the positions are uniform too, which is the plain loss but for that.

    Data at ``key.fold("data").fold(step)``, random orders and targets at ``key.fold("pool").fold(step)``. Cost: one
    pass a row. The pool needs all rows of a step at once: no ranks, no microbatches. Errors: ValueError for fewer than
    one stage, and a ``tau`` that is no probability above 0.
    """

    distribution: Distribution
    stages: int
    tau: float | None = None

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ValueError(f"a pool has at least one stage, got {self.stages}")
        if self.tau is not None and not 0 < self.tau <= 1:
            raise ValueError(f"tau must be a probability above 0, or None, got {self.tau}")

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        tau = None if self.tau is None else float(self.tau)
        return {"kind": "puma", "problem": self.distribution.fingerprint(), "stages": int(self.stages), "tau": tau}

    def label(self, step: int) -> str:
        """``puma(K)``, with tau ``puma(K,tau)``."""
        return f"puma({self.stages})" if self.tau is None else f"puma({self.stages},{self.tau:g})"

    def check(self, model: Transformer) -> None:
        """See Objective."""
        check_form(model, self.distribution.layout, causal=False)

    def initial_state(self) -> State:
        """An empty pool, which the first step fills: tokens int8[B, L], masked bool[B, L], stage int64[B]."""
        shape = (0, self.distribution.layout.length)
        return {
            "tokens": torch.zeros(shape, dtype=torch.int8),
            "masked": torch.zeros(shape, dtype=torch.bool),
            "stage": torch.zeros(0, dtype=torch.int64),
        }

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw for each row a fresh sequence, tokens int8[n, L], a random rank of its positions, order int64[n, L],
        and where in its stage a target lies, share float64[n, 2]: of a fresh row, and of the next stage.
        """
        start, count = rows
        tokens = self.distribution.sample(key.fold("data").fold(step), count, start=start)
        units = np.empty((count, 2 + tokens.shape[1]))
        _kernels.draw_rows_of_units(units, start, *key.fold("pool").fold(step).words())
        order = units[:, 2:].argsort(axis=1, kind="stable")
        return {"tokens": tokens, "order": order, "share": np.ascontiguousarray(units[:, :2])}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective; the state is the pool after the step."""
        pool = self.fill(batch, state)
        targets, masked = pool["tokens"].long(), pool["masked"]
        logits = model(torch.where(masked, MASK, targets))
        each = cross_entropy(logits, targets) * masked / masked.sum(dim=1, keepdim=True)
        scores = torch.softmax(logits.detach().double(), dim=-1).amax(dim=-1)
        return each.sum() / len(targets), self.advance(pool, scores, batch)

    def fill(self, batch: Mapping[str, Tensor], state: State) -> State:
        """The pool of a step: fresh rows of ``batch`` where ``state`` has rows at stage 0, and at first everywhere."""
        tokens, stage = batch["tokens"], state["stage"]
        if not len(stage):
            stage = torch.arange(len(tokens), device=tokens.device) % self.stages
            state = {"tokens": tokens, "masked": torch.ones_like(tokens, dtype=torch.bool)}
            fresh = torch.ones_like(stage, dtype=torch.bool)[:, None]
        else:
            fresh = (stage == 0)[:, None]
        hidden = batch["order"] >= self._target(stage, batch["share"][:, 0])[:, None]
        return {
            "tokens": torch.where(fresh, tokens, state["tokens"]),
            "masked": torch.where(fresh, hidden, state["masked"]),
            "stage": stage,
        }

    def advance(self, pool: State, scores: Tensor, batch: Mapping[str, Tensor]) -> State:
        """The pool after a step in which the positions had ``scores`` [B, L], larger ones revealed first.

        ``scores`` are top probabilities, in place of a network's those of any posterior. Only hidden positions count.
        Rows that come to stage 0 are replaced when the next step fills the pool.
        """
        masked, length = pool["masked"], pool["masked"].shape[1]
        stage = (pool["stage"] + 1) % self.stages
        missing = self._target(stage, batch["share"][:, 1]) - (~masked).sum(dim=1)
        level = (scores.double() * _kernels.TIE + 0.5).floor().long() * length + batch["order"]
        ranked = torch.where(masked, level, -1).argsort(dim=1, descending=True)
        rank = torch.empty_like(ranked).scatter_(
            1, ranked, torch.arange(length, device=ranked.device).expand_as(ranked)
        )
        masked = masked & (rank >= missing[:, None])
        if self.tau is not None:
            masked = masked & (scores <= self.tau)
            known = (~masked).sum(dim=1)
            ends = (stage == 0) | (known == length)
            stage = torch.where(ends, 0, torch.maximum(stage, known * self.stages // length))
        return {"tokens": pool["tokens"], "masked": masked, "stage": stage}

    def _target(self, stage: Tensor, share: Tensor) -> Tensor:
        """How many tokens are revealed ``share`` of the way through each stage: int64[B], never all."""
        length = self.distribution.layout.length
        return ((stage + share) / self.stages * length).round().long().clamp(max=length - 1)
