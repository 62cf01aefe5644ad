"""A causal network along its order: all its conditionals in one pass, and ancestral sampling with a cache.

A network trained on ``Causal`` answers for one order only, and it can draw: each token is fed back once, keys and
values of what was read before are kept. Uses torch; draws by the decoder's own kernel and addresses, so that ``decode``
along a fixed order, one position a step, chooses the same tokens.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from lo_theory.diffusion import Decoded, DecodeOptions, _kernels
from lo_theory.neural.model import Attention, Transformer, rotate
from lo_theory.neural.posterior import autocast, resolve_precision
from lo_theory.problem.layout import MASK, Layout
from lo_theory.rng import Key

__all__ = ["CausalLearner"]


class _Cache:
    """Keys and values of every block for the tokens read so far, [B, heads, L, d] each, and one more token's pass."""

    def __init__(self, model: Transformer, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        config = model.config
        shape = (rows, config.heads, config.length, config.width // config.heads)
        self.model, self.time = model, 0
        self.kept = [[torch.zeros(shape, dtype=dtype, device=device) for _ in "kv"] for _ in model.blocks]

    def advance(self, ids: Tensor) -> Tensor:
        """Read int64[B], the tokens of this time (first the mask id); float32[B, V], logits of what comes next."""
        model = self.model
        x: Tensor = model.tokens(ids)
        if model.positions is not None:
            x = x + model.positions.weight[self.time]
        for block, kept in zip(model.blocks, self.kept, strict=True):
            x = x + self._attend(block.attention, block.attention_norm(x), kept)  # type: ignore[arg-type, operator]
            x = x + block.feedforward(block.feedforward_norm(x))  # type: ignore[operator]
        self.time += 1
        with torch.autocast(x.device.type, enabled=False):  # as in the whole pass: margins near 1 need float32
            logits: Tensor = model.head(model.norm(x).float())
        return logits

    def _attend(self, attention: Attention, x: Tensor, kept: list[Tensor]) -> Tensor:
        config, now = self.model.config, self.time
        parts = attention.query_key_value(x).view(len(x), 3, config.heads, config.width // config.heads)
        query, key, value = parts.unbind(1)
        if config.positions != "learned":
            angles = (self.model.cosine[now], self.model.sine[now])
            query, key = rotate(query, *angles), rotate(key, *angles)
        for store, fresh in zip(kept, (key, value), strict=True):
            store[:, :, now] = fresh
        keys, values = (store[:, :, : now + 1] for store in kept)
        mixed = functional.scaled_dot_product_attention(query[:, :, None].to(keys.dtype), keys, values)
        result: Tensor = attention.out(mixed.flatten(1))
        return result


class CausalLearner:
    """A causal network and the order it was trained on, as a ``Conditional`` and as a generator of sequences.

    ``reading``: positions first to last, the roles in order when left out. ``batch`` rows go through the network at
    once when sequences are given. Probabilities are softmax over the V values, values that a role cannot take included.
    """

    def __init__(
        self,
        model: Transformer,
        layout: Layout,
        reading: ArrayLike | None = None,
        *,
        batch: int = 128,
        precision: str = "float32",
    ) -> None:
        config = model.config
        if (config.length, config.n_values) != (layout.length, layout.n_values):
            raise ValueError(
                f"the network reads length {config.length} over {config.n_values} values, the layout has length "
                f"{layout.length} over {layout.n_values}"
            )
        if not config.causal:
            raise ValueError("a network that sees both sides has no order: take TrainedPosterior, or causal=True")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.model, self.layout, self.batch = model.eval(), layout, batch
        self.places = layout.reading(reading)
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(precision, self.device.type)

    @property
    def reading(self) -> tuple[int, ...]:
        """The positions, first to last."""
        return tuple(self.places.tolist())

    def conditionals(self, tokens: ArrayLike) -> NDArray[Any]:
        """See Conditional: float32[n, L, V] by time, of complete int8[n, L]. Cost: one forward pass a sequence."""
        rows = self.layout.check_tokens(tokens, complete=True)[:, self.places]
        probs = np.empty((*rows.shape, self.layout.n_values), np.float32)
        target = torch.from_numpy(probs)
        with torch.inference_mode(), autocast(self.precision, self.device.type):
            for first in range(0, len(rows), self.batch):
                part = slice(first, first + self.batch)
                read = torch.from_numpy(np.ascontiguousarray(rows[part, :-1])).to(self.device, torch.int64)
                logits = self.model(functional.pad(read, (1, 0), value=MASK))
                target[part] = torch.softmax(logits, dim=-1).to("cpu")
        return probs

    def generate(
        self, *, key: Key, n: int, given: ArrayLike | None = None, options: DecodeOptions | None = None
    ) -> Decoded:
        """Draw n sequences int8[n, L], token after token along the order: exact samples of the network's joint law.

        ``given`` int8[n, L] fixes a beginning of the order and hides the rest (MASK = -1). ``options``: temperature,
        argmax, and ``chunk`` rows at once, which change no draw; noise and threads are for ``decode``. Row i at time t
        draws at ``key.fold(t)``, as ``decode`` along ``fixed_order(reading)`` does. ``forwards`` counts single-token
        passes with a cache, L a sequence, which together cost about one whole pass. Memory: 2 x layers x width x L
        numbers a row of the chunk. Errors: ValueError if what is given is no beginning of the order.
        """
        options = DecodeOptions() if options is None else options
        if options.noise is not None or options.threads != 1:
            raise ValueError("along one order nothing is chosen: leave oracle noise out, and threads at 1")
        if n < 1:
            raise ValueError(f"generate draws at least one sequence, got n = {n}")
        shape = (n, self.layout.length)
        tokens = np.full(shape, MASK, np.int8) if given is None else self.layout.check_tokens(given).copy()
        if len(tokens) != n:
            raise ValueError(f"given holds {len(tokens)} sequences, n is {n}")
        known = _known(tokens[:, self.places])
        began, steps = time.perf_counter(), np.full(shape, -1, np.int32)
        with torch.inference_mode(), autocast(self.precision, self.device.type):
            for first in range(0, n, options.chunk):
                rows = slice(first, min(n, first + options.chunk))
                self._fill(tokens[rows], steps[rows], known, key, options, first)
        seconds = time.perf_counter() - began
        passes = n * self.layout.length
        return Decoded(tokens, steps, np.full(n, -1, np.int32), passes, passes, seconds)

    def _fill(
        self,
        tokens: NDArray[np.int8],
        steps: NDArray[np.int32],
        known: int,
        key: Key,
        options: DecodeOptions,
        start: int,
    ) -> None:
        """Fill in the rows of one chunk, the first of which is row ``start``, in place."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        cache = _Cache(self.model, len(tokens), dtype, self.device)
        probs = np.zeros((*tokens.shape, self.layout.n_values), np.float32)
        masked, nothing = np.zeros(tokens.shape, np.bool_), np.zeros(tokens.shape, np.bool_)
        ids = torch.full((len(tokens),), self.layout.n_values, device=self.device)
        for t, place in enumerate(self.places):
            logits = cache.advance(ids)
            if t >= known:
                probs[:, place] = torch.softmax(logits, dim=-1).cpu().numpy()
                masked[:, place] = True
                form = (self.layout.values, t - known, options.temperature, options.argmax, start)
                words = key.fold(t - known).fold("tokens").words()
                _kernels.reveal(tokens, steps, masked, nothing, probs, *form, *words)
                masked[:, place] = False
            ids = torch.from_numpy(tokens[:, place].astype(np.int64)).to(self.device)


def _known(along: NDArray[np.int8]) -> int:
    """How many tokens at the beginning of every row [n, L] are given; ValueError where others are."""
    hidden = along == MASK
    known = int((~hidden[0]).sum())
    if not (hidden == (np.arange(along.shape[1]) >= known)).all():
        row = int(np.argmax((hidden != (np.arange(along.shape[1]) >= known)).any(axis=1)))
        raise ValueError(
            f"given must be the same beginning of the order in every row, {known} tokens in row 0; row {row} has "
            "others: a causal network cannot look ahead"
        )
    return known
