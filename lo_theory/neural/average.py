"""An exponential moving average of a network's weights. Touches torch only."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lo_theory.neural.model import Transformer
from lo_theory.problem.seams import checked

__all__ = ["Average"]


@checked
class Average:
    """average <- d average + (1 - d) weights after every step, d = min(decay, (1 + t) / (10 + t)) at step t (0-based).

    The ramp keeps the initial weights from weighing for 1 / (1 - decay) steps, which in a short run is all of it.
    ``model`` is a network of its own that holds the average. Cost: one pass over the weights a step, and their memory
    once more.
    """

    def __init__(self, model: Transformer, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval()
        self._own: list[Tensor] = list(self.model.parameters())
        self._live: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step``. Never waits for the device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._own, self._live, 1 - decay)
