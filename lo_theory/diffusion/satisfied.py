"""A mask law that looks at the data: only satisfied observations are revealed. May touch what it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.masks import Masks, TwoRates, draw_masks, keep_plain, per_hidden
from lo_theory.problem.layout import Layout
from lo_theory.rng import Key

__all__ = ["Satisfied"]


@dataclass(frozen=True)
class Satisfied:
    """Observations of value 1 revealed, all others hidden, latents hidden with probability ``latents``; weight 1/size.

    The mask depends on the values it hides, so it is no law to train on, and losses at the true token under it are not
    comparable with a log-likelihood: whoever knows the law knows that a hidden observation is not 1. A posterior takes
    hidden tokens as missing at random and does not use that, neither does the exact one; the KL divergence between two
    posteriors' marginals given the same visible tokens is well defined all the same. The constraints revealed are
    those of planted satisfiability: every one of them holds.
    """

    latents: float = 1.0

    def __post_init__(self) -> None:
        keep_plain(self)
        TwoRates(self.latents, 0.0)

    @property
    def name(self) -> str:
        """``satisfied`` with all latents hidden, else ``satisfied(rate)``."""
        return "satisfied" if self.latents == 1 else f"satisfied({float(self.latents)!r})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw; ValueError if observations take more than the two values 0 and 1."""
        if layout.r != 2:
            raise ValueError(f"satisfied reads observations as 0 or 1, this problem has r = {layout.r} values")
        masks, _ = draw_masks(TwoRates(self.latents, 0.0), key, tokens, layout, start=start)
        return per_hidden(masks[0] | (~layout.is_latent & (tokens != 1)))
