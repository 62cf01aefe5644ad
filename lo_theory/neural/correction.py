"""Decoding with a network that corrects itself: corrector passes between the steps that reveal (ProSeCo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.decode import Rewritten
from lo_theory.diffusion.policies import View
from lo_theory.neural.posterior import TrainedPosterior
from lo_theory.problem.seams import checked

__all__ = ["SelfCorrection"]


@checked
@dataclass(frozen=True)
class SelfCorrection:
    """y <- argmax q(. | y), ``passes`` times or until y stays, at every ``every``-th step (arXiv 2602.11590).

    y begins as the context with the most likely values in its hidden positions. Then tokens that the decode has
    revealed become those of y, and hidden ones are chosen and drawn by the laws of the last pass; given tokens stay. A
    ``rewriter`` of ``DecodeOptions``, for the network that decodes, trained to see its own tokens (``ProSeCo``). The
    defaults are those of the released code; here each row stops by itself. Cost: at most ``passes`` forwards a row at
    such a step, which ``Decoded.forwards`` counts. Nothing keeps the law of the data. Errors: ValueError for counts
    below one.
    """

    posterior: TrainedPosterior
    every: int = 2
    passes: int = 4

    def __post_init__(self) -> None:
        for name in ("every", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def __call__(self, view: View) -> Rewritten | None:
        """See Rewriter."""
        given = view.memory.setdefault("given of self-correction", ~view.masked)
        if (view.step + 1) % self.every:
            return None
        draft = np.where(view.masked, self._likely(view.marginals.probs), view.tokens)
        probs, forwards = np.array(view.marginals.probs), np.zeros(len(draft), np.int64)
        rows = np.flatnonzero(view.asked)
        for _ in range(self.passes):
            probs[rows] = self.posterior.everywhere(draft[rows])
            forwards[rows] += 1
            corrected = np.where(given[rows], draft[rows], self._likely(probs[rows]))
            moved = (corrected != draft[rows]).any(axis=1)
            draft[rows] = corrected
            rows = rows[moved]
            if not rows.size:
                break
        return Rewritten(draft, probs, forwards)

    def _likely(self, probs: NDArray[Any]) -> NDArray[np.int8]:
        """The most likely value of each role: int8[B, L]."""
        layout = self.posterior.layout
        allowed = np.arange(layout.n_values) < layout.values[:, None]
        return np.where(allowed, probs, -1.0).argmax(axis=-1).astype(np.int8)
