"""ProSeCo: a network that learns to fill in, and to mend what it has filled in itself. Touches torch only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lo_theory.diffusion import _kernels
from lo_theory.neural.model import Transformer
from lo_theory.neural.objectives import Batch, State, Stretches, check_form, cross_entropy
from lo_theory.problem import Distribution
from lo_theory.problem.layout import MASK
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["ProSeCo"]


@checked
@dataclass(frozen=True)
class ProSeCo:
    """Mean over rows of 1/(t L) [sum over hidden of -ln q(x_i | z) + ``weight`` sum over all of -ln q(x_i | y)].

    Each position is hidden with probability t, uniform on [``least``, 1], which gives z; y is at every position the
    value of its role that the network finds most likely given z, or with ``drawn`` one drawn from its marginals,
    without gradient (arXiv 2602.11590; the released default keeps revealed tokens in y). In nats per token. The first
    sum is the plain loss without rates below ``least``; the second, whose mean 1/t would be infinite without that
    bound, is least where the network knows p(x_i | y). ``weight`` 0 makes no second pass.

    Data at ``key.fold("data").fold(step)``, masks and draws at ``key.fold("masks").fold(step)``. Cost: two passes a
    row, both kept for the backward pass. Errors: ValueError for a negative weight, and a ``least`` outside (0, 1].
    """

    distribution: Distribution
    weight: float = 1.0
    drawn: bool = False
    least: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if not 0 < self.least <= 1:
            raise ValueError(f"least, the smallest rate of hiding, must lie in (0, 1], got {self.least}")

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        settings = {"weight": float(self.weight), "drawn": bool(self.drawn), "least": float(self.least)}
        return {"kind": "proseco", "problem": self.distribution.fingerprint(), **settings}

    def label(self, step: int) -> str:
        """``proseco(weight)``, with ``drawn`` added where tokens are drawn."""
        return f"proseco({self.weight:g}{',drawn' if self.drawn else ''})"

    def passes(self, steps: int) -> Stretches:
        """See Objective: the masked row, and with a ``weight`` what is made of it."""
        return [(steps, 2 if self.weight else 1)]

    def check(self, model: Transformer) -> None:
        """See Objective."""
        check_form(model, self.distribution.layout, causal=False)

    def initial_state(self) -> State:
        """Return no tensors."""
        return {}

    def draw(self, key: Key, step: int, rows: tuple[int, int]) -> Batch:
        """Draw tokens int8[n, L], masked bool[n, L], weight 1/(t L) float32[n], and with ``drawn`` uniform numbers
        units float64[n, L].
        """
        start, count = rows
        tokens = self.distribution.sample(key.fold("data").fold(step), count, start=start)
        place, length = key.fold("masks").fold(step), tokens.shape[1]
        rate, masked = np.empty(count), np.zeros(tokens.shape, np.bool_)
        _kernels.draw_units(rate, start, *place.fold("rate").words())
        rate = 1 - (1 - self.least) * rate
        _kernels.hide_at_rates(masked, start, *place.fold("positions").words(), rate, np.ones(length))
        batch = {"tokens": tokens, "masked": masked, "weight": (1 / (rate * length)).astype(np.float32)}
        if not self.drawn:
            return batch
        units = np.empty(tokens.shape)
        _kernels.draw_rows_of_units(units, start, *place.fold("tokens").words())
        return {**batch, "units": units}

    def loss(self, model: Transformer, batch: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """See Objective."""
        targets, masked = batch["tokens"].long(), batch["masked"]
        logits = model(torch.where(masked, MASK, targets))
        entropies = cross_entropy(logits, targets) * masked
        if self.weight:
            corrected = model(self.own_tokens(logits.detach(), batch))
            entropies = entropies + self.weight * cross_entropy(corrected, targets)
        return (entropies * batch["weight"][:, None]).sum() / len(targets), state

    def own_tokens(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """y int64[n, L] of logits [n, L, V]: of the values of each role the most likely one, or one drawn."""
        layout = self.distribution.layout
        if (layout.values < layout.n_values).any():
            allowed = torch.from_numpy(np.arange(layout.n_values) < layout.values[:, None])
            logits = torch.where(allowed.to(logits.device), logits, -torch.inf)
        if not self.drawn:
            return logits.argmax(dim=-1)
        below = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)[..., :-1]
        return (below <= batch["units"][..., None]).sum(dim=-1)
