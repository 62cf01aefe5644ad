"""A posterior as a torch module that answers logits: anybody's sampler runs on the truth, or on a known weakness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from lo_theory.neural.vocabulary import Ids, Vocabulary, name_values
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import POSTERIOR, ask
from lo_theory.problem.seams import checked

__all__ = ["EXCLUDED", "Oracle", "as_module"]

EXCLUDED = -1e4
"""The logit of a token of probability zero.

Finite, so that no sampler makes nan of it (0 * -inf in an entropy, -inf - -inf in guidance), and so low that its
softmax is exactly zero in every floating-point type, at temperatures up to 13 in float64 and 90 in float32.
"""


class Oracle(torch.nn.Module):
    """ln p(x_i = v | revealed) as logits; ``as_module`` makes one. It has no weights and nothing to train.

    Its ``dtype`` is that of the logits, which ``.double()`` and ``.to(torch.bfloat16)`` change. They come on the device
    of the tokens; the posterior itself works on the CPU.
    """

    def __init__(self, posterior: Posterior, vocabulary: Vocabulary, size: int, *, wrapped: bool) -> None:
        super().__init__()
        self.posterior, self.vocabulary, self.size, self.wrapped = posterior, vocabulary, size, wrapped
        self.form: torch.Tensor
        self.register_buffer("form", torch.empty(0), persistent=False)  # moves with .to(...)
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return self.form.dtype

    @property
    def device(self) -> torch.device:
        """Where ``.to(...)`` has put it."""
        return self.form.device

    @torch.no_grad()
    def forward(
        self, input_ids: torch.Tensor, *further: Any, attention_mask: torch.Tensor | None = None, **named: Any
    ) -> Any:
        """Logits [B, L, S] of token ids [B, L]: ln p at hidden positions, ln one-hot at revealed ones.

        A time step, position ids and whatever else a sampler passes change nothing. ``attention_mask`` must be all
        ones: the posterior reads every token. Cost: one call of the posterior. Errors: ValueError for ids that name no
        value, and for another shape.
        """
        if attention_mask is not None and not bool((attention_mask != 0).all()):
            raise ValueError("attention_mask hides tokens, and a posterior reads all of them: hide by mask_id instead")
        rows = self.vocabulary.decode(input_ids.detach().to("cpu").numpy())
        probs = np.asarray(ask(self.posterior, rows, self.vocabulary.layout).probs, np.float64)
        with np.errstate(divide="ignore"):
            own = np.maximum(np.log(probs), EXCLUDED)
        logits = np.full((*rows.shape, self.size), EXCLUDED)
        taken = self.vocabulary.names >= 0
        position, value = np.nonzero(taken)
        logits[:, position, self.vocabulary.names[taken]] = own[:, position, value]
        found = torch.from_numpy(logits).to(input_ids.device, self.dtype)
        return SimpleNamespace(logits=found) if self.wrapped else found


@checked
def as_module(
    posterior: Posterior,
    *,
    mask_id: int | None = None,
    ids: Ids | None = None,
    vocabulary: int | None = None,
    wrapped: bool = False,
) -> Oracle:
    """Logits ln p(x_i = v | revealed) of any posterior, exact or weak, behind the face of a network.

    ``ids`` and ``mask_id`` as in ``from_logits``; ``vocabulary`` S, how many logits a position has (all ids, the mask's
    included, when left out): tokens that are no value of a position, the mask among them, have the logit ``EXCLUDED``.
    ``wrapped``: answer an object with ``.logits``, as callers of Hugging Face models expect. ``from_logits`` of it is
    ``posterior`` again, to the precision of its dtype. Errors: ValueError for ids that collide and a vocabulary that is
    too small for them.
    """
    POSTERIOR.check(posterior, "posterior")
    names = name_values(posterior.layout, ids, mask_id)
    least = int(names.names.max()) + 1
    size = names.size if vocabulary is None else int(vocabulary)
    if size < least:
        raise ValueError(f"vocabulary is {size}, the values have ids up to {least - 1}: make it at least {least}")
    return Oracle(posterior, names, size, wrapped=wrapped)
