"""The mask law of discrete-time training: one of T rates for a sequence, and a weight for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.masks import Masks, check_length, keep_plain, row_integers
from lo_theory.problem.layout import Layout
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Timesteps"]


@checked
@dataclass(frozen=True)
class Timesteps:
    """Hide with probability (t + 1)/T, t uniform on 0..T-1, T = ``steps``; weight in proportion to ``form``.

    inverse: 1/(t + 1), as weight T/((t + 1) L), which tends to the plain loss as T grows. linear: T - t, as weight
    6 T (T - t)/((T + 1)(T + 2) L), another loss, in which contexts with little hidden count more (MGDM, arXiv
    2410.14157). Both sum to one a row on average. Errors: ValueError for fewer than one step and for other forms.
    """

    steps: int
    form: str = "inverse"

    def __post_init__(self) -> None:
        keep_plain(self)
        if self.steps < 1:
            raise ValueError(f"there is at least one time step, got {self.steps}")
        if self.form not in ("inverse", "linear"):
            raise ValueError(f"a weight over time is inverse or linear, got {self.form!r}")

    @property
    def name(self) -> str:
        """``timesteps(20,linear)``."""
        return f"timesteps({self.steps},{self.form})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        steps, length = self.steps, layout.length
        t = row_integers(key.fold("time"), len(tokens), steps, start=start)
        masked = np.zeros(tokens.shape, np.bool_)
        _kernels.hide_at_rates(masked, start, *key.fold("positions").words(), (t + 1) / steps, np.ones(length))
        each = steps / (t + 1) if self.form == "inverse" else 6 * steps * (steps - t) / ((steps + 1) * (steps + 2))
        weight = masked * (each / length)[:, None]
        return masked[None], weight.astype(np.float32)[None]
