"""Focal weights: tokens that are predicted well already count less. Touches torch only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lo_theory.neural.objectives import Masked
from lo_theory.problem.seams import checked

__all__ = ["Focal"]


@checked
@dataclass(frozen=True)
class Focal(Masked):
    """``Masked`` with (1 - e^-c)^gamma c in place of the cross-entropy c of each hidden token (MGDM, arXiv 2410.14157).

    Weights over time are those of the mask law: ``Timesteps`` has the two of the proposal. With ``gamma`` 0 it is
    ``Masked``. Otherwise it is no proper score: for a binary token of marginal p the best answer is the q with
    p F'(q) = (1 - p) F'(1 - q), F(q) = -(1 - q)^gamma ln q, so gamma = 1 and p = 0.75 give q = 0.650. Which value is
    the more likely, and which of two tokens is the surer, survive; calibration does not. The paper's constant factor is
    left out. Errors: ValueError for a gamma that is negative or not finite.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"gamma must be finite and not negative, got {self.gamma}")

    def describe(self) -> dict[str, Any]:
        """See Objective."""
        return {**super().describe(), "kind": "focal", "gamma": float(self.gamma)}

    def label(self, step: int) -> str:
        """``focal(gamma)`` before the name of the step's mask law: other losses than the plain one's."""
        return f"focal({self.gamma:g}) {super().label(step)}"

    def cost(self, entropies: Tensor) -> Tensor:
        """(1 - e^-c)^gamma c."""
        # At c = 0, which certain tokens have, the power has no derivative for gamma < 1, and the product has 0.
        missed = (-torch.expm1(-entropies)).clamp_min(torch.finfo(entropies.dtype).tiny)
        return missed**self.gamma * entropies
