"""The forward pass on a processor, without gradients: the numbers of ``Transformer.forward``, where tokens are hidden.

Matrix products are torch's, in float32 or bfloat16; what lies between them is in ``_kernels``, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lo_theory.neural import _kernels
from lo_theory.neural.model import NORM_EPSILON, Transformer, rotate
from lo_theory.problem.layout import MASK

__all__ = ["Inference"]

_AT_ONCE = 2048  # tokens of a thread that go through the network together: their activations stay in its cache
_NARROW, _MANY = 24, 32  # our attention is the faster one for heads up to this width and for more queries than this


class _Layer:
    """The matrices of a block in one precision, SwiGLU's gate and up as one; its norms."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        attention, feedforward = block.attention, block.feedforward
        self.parts, self.out = attention.query_key_value.weight.to(dtype), attention.out.weight.to(dtype)
        self.gate_up = torch.cat((feedforward.gate.weight, feedforward.up.weight)).to(dtype)
        self.down = feedforward.down.weight.to(dtype)
        self.first_norm = block.attention_norm.weight.detach()
        self.second_norm = block.feedforward_norm.weight.detach()


class Inference:
    """Probabilities of a network that sees both sides, at hidden positions. The weights are read here, once.

    The last block is computed at hidden positions only. What the first block projects depends on the token and its
    place alone: where there are ``rows`` enough to pay for it, it is computed once and looked up.
    """

    def __init__(self, model: Transformer, precision: str, rows: int) -> None:
        config = model.config
        self.model, self.heads, self.width = model, config.heads, config.width
        self.dtype: torch.dtype = getattr(torch, precision)
        self.layers = [_Layer(block, self.dtype) for block in model.blocks]
        self.norms = [*(layer.first_norm for layer in self.layers[1:]), model.norm.weight.detach()]
        self.at_once = max(1, _AT_ONCE * torch.get_num_threads() // config.places)
        self.places, self.table = torch.arange(config.places), None
        if rows > config.token_ids:
            self.table = self._begin(torch.arange(config.token_ids)[:, None].expand(-1, config.places))

    def probabilities(self, tokens: NDArray[np.int8]) -> Tensor:
        """Softmax of the logits where int8[B, L] is MASK: float32[B, L, V], with other numbers where it is not."""
        given, rows = torch.from_numpy(tokens).long(), torch.arange(len(tokens))[:, None]
        hidden = given == MASK
        asked = hidden.byte().argsort(dim=1, descending=True, stable=True)[:, : int(hidden.sum(dim=1).max())]
        ids = self.model.ids(given)
        x, parts = self._begin(ids) if self.table is None else (known[ids, self.places] for known in self.table)
        for layer, following, norm in zip(self.layers[:-1], self.layers[1:], self.norms[:-1], strict=True):
            parts = self._project(following, self._finish(layer, x, parts, parts, norm))
        x, query = x[rows, asked], parts[..., : self.width][rows, asked]
        x = self._finish(self.layers[-1], x, query, parts, self.norms[-1])
        logits = functional.linear(x, self.model.head.weight)
        probs = logits.new_zeros((*tokens.shape, logits.shape[-1]))
        probs[rows, asked] = torch.softmax(logits, dim=-1)
        return probs

    def _begin(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the first block reads, and its queries, keys and values."""
        x = self.model.embed(ids)
        return x, self._project(self.layers[0], _normalise(x, torch.zeros_like(x), self.layers[0].first_norm))

    def _project(self, layer: _Layer, x: Tensor) -> Tensor:
        """Queries, keys and values, float32[B, places, 3 width]."""
        parts = self._product(x, layer.parts)
        if self.model.rotation is not None:
            for part in parts.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)[:2]:
                part.copy_(rotate(part, *self.model.rotation))
        return parts

    def _finish(self, layer: _Layer, x: Tensor, query: Tensor, parts: Tensor, norm: Tensor) -> Tensor:
        """Add the block's attention and SwiGLU to ``x`` in place; return the sum through the next ``norm``."""
        mixed = self._attend(query, parts)
        pair = self._product(_normalise(x, self._product(mixed, layer.out), layer.second_norm), layer.gate_up)
        inner = pair.new_empty((*pair.shape[:-1], pair.shape[-1] // 2))
        _by_rows(_kernels.gate, pair.flatten(0, 1), inner.flatten(0, 1))
        return _normalise(x, self._product(inner, layer.down), norm)

    def _attend(self, query: Tensor, parts: Tensor) -> Tensor:
        """Attention of the queries, the first columns of ``query``, to all places: float32[B, Q, width]."""
        if self.width // self.heads <= _NARROW and query.shape[1] > _MANY:
            mixed = query.new_empty((*query.shape[:-1], self.width))
            _by_rows(partial(_kernels.attend, self.heads), query, parts, mixed)
            return mixed
        each = (query[..., : self.width], *parts.chunk(3, dim=-1)[1:])
        split = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in each)
        return functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x.to(self.dtype), weight).float()


def _normalise(x: Tensor, change: Tensor, weight: Tensor) -> Tensor:
    """Add ``change`` to ``x`` in place; return RMSNorm of the sum."""
    normed = torch.empty_like(x)
    kernel = partial(_kernels.add_and_normalise, weight.numpy(), NORM_EPSILON)
    _by_rows(kernel, *(part.flatten(0, 1) for part in (x, change, normed)))
    return normed


def _by_rows(kernel: Callable[..., None], *tensors: Tensor) -> None:
    """Call the kernel on shares of the rows, in as many threads as torch has; their last tensor is the answer."""
    arrays, rows = [tensor.numpy() for tensor in tensors], len(tensors[0])
    threads = min(torch.get_num_threads(), rows)
    if threads < 2:
        kernel(*arrays)
        return
    bounds = [rows * share // threads for share in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(kernel, *(array[low:high] for array in arrays)) for low, high in pairwise(bounds)]
    for job in jobs:
        job.result()
