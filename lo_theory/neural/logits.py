"""Anybody's model as a posterior: ``from_logits`` takes whatever makes logits of tokens, and changes nothing in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lo_theory.neural.posterior import in_batches
from lo_theory.neural.vocabulary import Ids, Vocabulary, name_values
from lo_theory.posterior import Marginals
from lo_theory.problem import Distribution
from lo_theory.problem.layout import MASK, Layout
from lo_theory.problem.seams import checked

__all__ = ["LogitsPosterior", "from_logits"]


class LogitsPosterior:
    """Marginals of a model that answers logits; ``from_logits`` makes one.

    Follows the Posterior protocol: softmax, in float64, over the ids of the values that each position takes; one-hot
    where revealed; log_evidence nan; every row counts as converged.
    """

    def __init__(
        self, fn: Callable[..., Any], vocabulary: Vocabulary, batch: int, device: torch.device, *, numpy: bool
    ) -> None:
        self.fn, self.vocabulary, self.batch, self.device, self.numpy = fn, vocabulary, batch, device, numpy
        self.name = getattr(fn, "__name__", type(fn).__name__)

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        return self.vocabulary.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """Marginals of int8[B, L], MASK = -1 where hidden: float64 probabilities [B, L, V].

        Cost: one pass of the model a row. Errors: see ``from_logits``.
        """
        rows = self.layout.check_tokens(tokens)
        _require_evaluation(self.fn, self.name)
        probs = np.empty((*rows.shape, self.layout.n_values))
        return in_batches(rows, probs, self.batch, self._probabilities)

    def _probabilities(self, rows: NDArray[np.int8]) -> torch.Tensor:
        """float64[B, L, V] on the CPU."""
        ids = self.vocabulary.encode(rows)
        given: Any = ids if self.numpy else torch.from_numpy(ids).to(self.device)
        logits = _as_tensor(self.fn(given), self.name)
        self._check_form(logits, len(rows))
        names = torch.from_numpy(np.maximum(self.vocabulary.names, 0)).to(logits.device)
        own = logits[:, torch.arange(self.layout.length, device=logits.device)[:, None], names]
        own = own.detach().to("cpu", torch.float64)
        taken = torch.from_numpy(self.vocabulary.names >= 0)
        own = own.masked_fill(~taken, -torch.inf)
        self._check_values(own.numpy(), rows)
        return torch.softmax(own, dim=-1)

    def _check_form(self, logits: torch.Tensor, rows: int) -> None:
        """Raise ValueError unless these are logits [rows, L, at least so many ids], on the device of the tokens."""
        length, least = self.layout.length, int(self.vocabulary.names.max()) + 1
        if not self.numpy and logits.device != self.device:
            raise ValueError(
                f"{self.name} answers on {logits.device}, its tokens were on {self.device}: pass "
                f"device={str(logits.device)!r}, or move the model to {self.device}"
            )
        if not logits.is_floating_point():
            raise ValueError(
                f"{self.name} answers {logits.dtype}: logits are floating-point, one for each token id; token ids "
                "themselves are no answer"
            )
        shape = tuple(logits.shape)
        if len(shape) != 3:
            raise ValueError(
                f"{self.name} answers with shape {shape}: logits have the shape [batch, length, vocabulary] = "
                f"[{rows}, {length}, {least} or more]"
            )
        if shape[0] != rows:
            raise ValueError(f"{self.name} answers {shape[0]} rows for {rows} sequences: give one for each")
        if shape[1] != length:
            swapped = ": transpose them to [batch, length, vocabulary]" if shape[2] == length else ""
            raise ValueError(
                f"{self.name} answers for length {shape[1]}, the sequences of this problem have {length} tokens (N + "
                f"P){swapped or ': drop what the model adds before or after'}"
            )
        if shape[2] < least:
            raise ValueError(
                f"{self.name} answers over {shape[2]} token ids, the values have ids up to {least - 1}: make its "
                f"vocabulary at least {least}, or name the values by smaller ids="
            )

    def _check_values(self, logits: NDArray[np.float64], rows: NDArray[np.int8]) -> None:
        """Raise ValueError for logits [B, L, V] of the values that are no logits."""
        wrong = np.isnan(logits) | (logits == np.inf)
        if wrong.any():
            row, position, value = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{self.name} answers the logit {logits[row, position, value]} for value {value} in row {row} at "
                f"position {position} ({int(wrong.sum())} such in this batch): logits are finite, or -inf for what is "
                "excluded; look for a division by zero, or an overflow in half precision"
            )
        empty = (rows == MASK) & np.isneginf(logits).all(axis=2)
        if empty.any():
            row, position = (int(i) for i in np.argwhere(empty)[0])
            ids = self.vocabulary.names[position][: self.layout.values[position]].tolist()
            raise ValueError(
                f"{self.name} answers -inf for all values (ids {ids}) in row {row} at hidden position {position}: at "
                "least one is possible; check ids= and mask_id="
            )


@checked
def from_logits(
    fn: Callable[..., Any],
    problem: Distribution,
    *,
    mask_id: int | None = None,
    ids: Ids | None = None,
    batch: int = 256,
    device: torch.device | str | None = None,
    numpy: bool = False,
) -> LogitsPosterior:
    """p(x_i = v | revealed) = softmax over v of the logits that ``fn`` answers: anybody's model as a posterior.

    ``fn`` is called with token ids int64[b, L], b <= ``batch``, and answers logits [b, L, S], or an object with
    ``.logits`` (as Hugging Face models do): a torch module, a function on torch tensors, or with ``numpy`` one on numpy
    arrays. ``ids``: the ids of the values 0..V-1, or {"latent": [q], "observation": [r]}; 0..V-1 when left out.
    ``mask_id``: the id of a hidden token; one above all ids when left out. S holds all ids of values, others count for
    nothing; values that a role does not take are dropped and the rest renormalised, in float64. ``device``: where
    tokens are put; that of the module's weights, else the CPU, when left out. No gradients.

    Errors, some at the first question: ValueError for ids that collide, for a module in training mode (its dropout
    would draw anew at every question, and changing the mode is its owner's business: call .eval()), and for answers of
    another shape, device or kind, with nan or +inf, or that exclude every value of a hidden token. Not seen: a module
    in training mode inside a function, and rows that depend on each other.
    """
    if isinstance(fn, type) or not callable(fn):
        raise ValueError(f"fn must take token ids and answer logits, such as a torch module; got {fn!r}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    vocabulary = name_values(problem.layout, ids, mask_id)
    return LogitsPosterior(fn, vocabulary, batch, _device(fn, device), numpy=numpy)


def _device(fn: Any, device: torch.device | str | None) -> torch.device:
    """Where the tokens go; ValueError for a device that is not there, or is not that of the module's weights."""
    weights = [*fn.parameters(), *fn.buffers()] if isinstance(fn, torch.nn.Module) else []
    if device is None:
        return weights[0].device if weights else torch.device("cpu")
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"there is no device {str(device)!r} here: {str(error).splitlines()[0]}") from error
    if weights and weights[0].device != found:
        raise ValueError(
            f"the module's weights are on {weights[0].device} and device is {str(device)!r}: leave device out, or move "
            "the module"
        )
    return found


def _require_evaluation(fn: Any, name: str) -> None:
    if isinstance(fn, torch.nn.Module) and any(part.training for part in fn.modules()):
        raise ValueError(
            f"{name} is in training mode: dropout draws anew at every question and batch norm mixes the rows; call "
            ".eval() on it first (and .train() before the next step of training)"
        )


def _as_tensor(answer: Any, name: str) -> torch.Tensor:
    """The logits in whatever a model answers."""
    found = getattr(answer, "logits", answer)
    if isinstance(found, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(found))
    if not isinstance(found, torch.Tensor):
        raise ValueError(
            f"{name} answers {type(answer).__name__}: give a function that returns logits, a torch tensor or a numpy "
            "array, such as lambda tokens: model(tokens)[0]"
        )
    return found
