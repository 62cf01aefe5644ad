"""Optimisers: which parameters each one moves, and their tensors by name. Touches torch only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lo_theory.neural.config import TrainConfig
from lo_theory.neural.model import Transformer
from lo_theory.neural.muon import Muon

__all__ = ["Optimisers"]

_ADAMW, _MUON = "optimiser/", "muon/"  # as the tensors of each are named in a checkpoint

Named = list[tuple[str, nn.Parameter]]


def _adamw(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    """Fused AdamW; the decay spares embeddings and norms."""
    decayed = {name for name, value in named if value.ndim > 1 and not name.startswith(("tokens.", "positions."))}
    groups = [
        {"params": [value for name, value in named if name in decayed], "weight_decay": config.weight_decay},
        {"params": [value for name, value in named if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _muon(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    return Muon([value for _, value in named], lr=config.learning_rate, weight_decay=config.weight_decay)


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of a block: neither embedding nor norm nor head."""
    return name.startswith("blocks.") and parameter.ndim == 2


class Optimisers:
    """All that moves the weights of one network, as one.

    "adamw": AdamW for everything. "muon": Muon for the matrices of the blocks (query, key and value, stored as one
    matrix, are orthogonalised as one), AdamW for the rest.
    """

    def __init__(self, model: Transformer, config: TrainConfig) -> None:
        named = list(model.named_parameters())
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if config.optimiser == "muon":
            self._parts[_MUON] = _muon([pair for pair in named if is_hidden(*pair)], config)
            named = [pair for pair in named if not is_hidden(*pair)]
        self._parts[_ADAMW] = _adamw(named, config)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Move the weights at learning rate ``rate``. Never waits for the device."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the optimisers, by name."""
        return {
            f"{prefix}{parameter}/{entry}": value
            for prefix, part in self._parts.items()
            for parameter, entries in part.state_dict()["state"].items()
            for entry, value in entries.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave, on the device of the weights."""
        for prefix, part in self._parts.items():
            entries: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                if name.startswith(prefix):
                    parameter, entry = name.removeprefix(prefix).split("/")
                    entries.setdefault(int(parameter), {})[entry] = value
            part.load_state_dict({"state": entries, "param_groups": part.state_dict()["param_groups"]})
