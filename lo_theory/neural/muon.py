"""Muon: momentum whose matrices are made nearly orthogonal before every step. Touches torch only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalise"]

_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)  # a s + b s**3 + c s**5 takes singular values in (0, 1] near to 1 in a few rounds
_ROUNDS = 5
_ADAMW = 0.2  # root mean square of a step of AdamW, in learning rates


def orthogonalise(matrices: Tensor) -> Tensor:
    """U S' V' of matrices U S V', [n, rows, columns], with singular values S' between 0.5 and 1.5: Newton-Schulz.

    Five rounds X <- a X + (b X X' + c (X X')**2) X from X / |X|. In bfloat16 on a GPU; in float32 on a processor, where
    these products are small and bfloat16 without native support is ten times slower. Zero stays zero. Cost: 5 x
    2 n (2 s**2 t + s**3) operations for the smaller side s and the larger t. Source: Jordan et al. 2024 (Muon).
    """
    x = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """W <- (1 - rate decay) W - 0.2 rate sqrt(max(rows, columns)) O, with O the orthogonalised Nesterov momentum.

    M <- 0.95 M + 0.05 G for the gradient G; O is that of 0.05 G + 0.95 M. A step then has the root mean square of one
    of AdamW at the same ``rate``. Takes matrices only; those of one shape are multiplied together.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights once. Never waits for the device."""
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for shape, weights in alike.items():
                momenta = [self._momentum(weight, weight.grad) for weight in weights if weight.grad is not None]
                updates = orthogonalise(torch.stack(momenta))
                rate = _ADAMW * group["lr"] * math.sqrt(max(shape))
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)

    def _momentum(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(state["momentum_buffer"], _MOMENTUM)
