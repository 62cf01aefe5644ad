"""A trained network as a posterior: it answers the same question as the exact one, approximately."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from lo_theory.neural.compiled import compile_network, compiling
from lo_theory.neural.inference import Inference
from lo_theory.neural.model import Transformer
from lo_theory.posterior import Marginals
from lo_theory.posterior.protocol import reveal
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.seams import checked

__all__ = ["PRECISIONS", "TrainedPosterior", "autocast", "in_batches", "resolve_precision"]

PRECISIONS = ("float32", "bfloat16", "auto")


def resolve_precision(precision: str, device: str) -> str:
    """Turn "auto" into "bfloat16" where the device multiplies it natively, else "float32"; pass the others through.

    On a CPU that means AVX512-BF16 or AMX; elsewhere bfloat16 is emulated and slower than float32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch shows no public name for it
    return "bfloat16" if probe is not None and probe() else "float32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Context in which matrix products run in ``precision`` ("float32" or "bfloat16"); weights stay float32."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@checked
class TrainedPosterior:
    """Marginals of a bidirectional masked model: softmax over the V values at every position, float32.

    Follows the Posterior protocol. The evidence is not known (nan), every row counts as converged. At most ``batch``
    rows go through the network at once; torch's thread count is used as set. Probabilities of values that a role cannot
    take are the network's own, not removed. ``compiled``: the network through torch.compile, which pays on a GPU and
    takes seconds to a minute at first; fewer rows than ``batch`` are then filled up to it, so that one shape is
    compiled.
    Of the problem only the length and the values are compared here; ``load_model(path, problem=fingerprint)`` refuses a
    network that was trained on another. Errors: ValueError for another length or other values, and a causal network.
    """

    def __init__(
        self,
        model: Transformer,
        layout: Layout,
        *,
        batch: int = 128,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        config = model.config
        if (config.length, config.n_values) != (layout.length, layout.n_values):
            raise ValueError(
                f"the network answers for length {config.length} over {config.n_values} values, the layout has length "
                f"{layout.length} over {layout.n_values}"
            )
        if config.causal:
            raise ValueError("a causal network does not see what is revealed later: a posterior needs causal=False")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.model, self.layout, self.batch = model.eval(), layout, batch
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(precision, self.device.type)
        self.compiled = compiled
        self._network = compile_network(self.model, self.device) if compiled else self.model

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Marginals of int8[B, L]: probs float32[B, L, V], one-hot where revealed. Cost: one forward pass a row."""
        rows = self.layout.check_tokens(tokens)
        probs = np.empty((*rows.shape, self.layout.n_values), np.float32)

        if self.device.type == "cpu" and not self.compiled:
            with torch.inference_mode():
                inference = Inference(self.model, self.precision, len(rows))
                return in_batches(rows, probs, min(self.batch, inference.at_once), inference.probabilities)

        def answer(part: NDArray[np.int8]) -> torch.Tensor:
            return torch.softmax(self._logits(torch.from_numpy(part).to(self.device, torch.int64)), dim=-1)

        with autocast(self.precision, self.device.type):
            return in_batches(rows, probs, self.batch, answer)

    @torch.no_grad()
    def everywhere(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """What the network says at every position of int8[B, L], also of a token that it sees: float32[B, L, V].

        ``marginals`` is one-hot there. A network has learned to judge what it sees only if its objective says so, as
        ``ProSeCo``. Cost: one forward pass a row.
        """
        rows = torch.from_numpy(self.layout.check_tokens(tokens)).to(self.device, torch.int64)
        with autocast(self.precision, self.device.type):
            laws = [torch.softmax(self._logits(part), dim=-1).cpu() for part in rows.split(self.batch)]
        found: NDArray[np.float32] = torch.cat(laws).numpy()
        return found

    def _logits(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.compiled:
            logits: torch.Tensor = self._network(tokens)
            return logits
        missing = self.batch - len(tokens)
        with compiling():
            logits = self._network(functional.pad(tokens, (0, 0, 0, missing), value=MASK))
        return logits[: len(tokens)]


def in_batches(
    rows: NDArray[np.int8],
    probs: NDArray[np.floating[Any]],
    batch: int,
    answer: Callable[[NDArray[np.int8]], torch.Tensor],
) -> Marginals:
    """Fill ``probs`` [B, L, V] with what ``answer`` says of ``batch`` rows at a time, one-hot where they are revealed.

    No gradients. The evidence is not known (nan), every row counts as converged.
    """
    target = torch.from_numpy(probs)
    with torch.no_grad():
        for first in range(0, len(rows), batch):
            target[first : first + batch] = answer(rows[first : first + batch]).to("cpu")
    reveal(probs, rows)
    return Marginals(probs, np.full(len(rows), np.nan), np.ones(len(rows), np.bool_))
