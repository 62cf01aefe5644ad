"""Two masks a sequence that hide opposite ends of the same random numbers, so that their losses are anticorrelated.

Both masks have the law of one alone, so the mean of the two losses is that of the plain loss; only the noise of the
masks is less, at two forward passes a sequence. MIRROR, arXiv 2511.18159. (Its released code draws the second mask by
itself and gives it no weight of its own; here it is the paper's.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion.masks import Masks, check_length, hide_subset, per_hidden, row_integers
from lo_theory.diffusion.rates import RATES, Rates, UniformRates, draw_rates, factors, p_pots, row_units, weight_spread
from lo_theory.problem.layout import Layout
from lo_theory.problem.seams import checked
from lo_theory.rng import Key

__all__ = ["Mirror", "MirrorUniform", "mirror_p_pots"]


@checked
@dataclass(frozen=True)
class Mirror:
    """A rate t from ``rates`` and one uniform u a position: masks u < t and u >= 1 - t, weight 1/(p(t) t L) in both.

    Each hides with probability t; they are disjoint where t <= 1/2, and hide everything together where t >= 1/2. With
    the loss of a mask written as a sum over sets S of c_S prod (b_i - t), b_i = 1 where hidden, the covariance of the
    two is the sum over S, not empty, of c_S**2 (-min(t, 1 - t)**2)**|S|, and the variance of one that of
    c_S**2 (t (1 - t))**|S|: sets of odd size help, sets of even size hurt. ``rates`` uniform: infinite variance, see
    ``rates``.
    """

    rates: Rates = field(default_factory=UniformRates)

    def __post_init__(self) -> None:
        RATES.check(self.rates, "rates")

    @property
    def name(self) -> str:
        """``mirror``, or ``mirror_`` and the name of other rates than uniform ones."""
        return "mirror" if isinstance(self.rates, UniformRates) else f"mirror_{self.rates.name}"

    def weight_spread(self, length: int) -> float:
        """Standard deviation of the sum of a row's weights; see ``draw_masks``."""
        return weight_spread(self.rates, length)

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw: two masks."""
        check_length(tokens, layout)
        rates = draw_rates(self.rates, key.fold("rate"), len(tokens), start=start)
        units = row_units(key.fold("positions"), tokens.shape, start=start)
        masked = np.stack([units < rates[:, None], units >= 1 - rates[:, None]])
        weight = masked * (factors(self.rates, rates) / layout.length)[:, None]
        return masked, weight.astype(np.float32)


@dataclass(frozen=True)
class MirrorUniform:
    """The mirror of ``Uniform``: size n uniform on 1..L, the first n and the last n of one uniform order; weight 1/n.

    ``Mirror`` with the ranks of the u in place of them: weights are at most 1, and all variances finite.
    """

    @property
    def name(self) -> str:
        """``mirror_uniform``."""
        return "mirror_uniform"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw: two masks, the first of them that of ``Uniform``."""
        check_length(tokens, layout)
        masked, shown = np.zeros(tokens.shape, np.bool_), np.zeros(tokens.shape, np.bool_)
        sizes = 1 + row_integers(key.fold("size"), len(tokens), layout.length, start=start)
        positions = np.arange(layout.length, dtype=np.int32)
        hide_subset(masked, key.fold("subset"), start, positions, sizes)
        hide_subset(shown, key.fold("subset"), start, positions, layout.length - sizes)
        (one, weight), (other, its) = per_hidden(masked), per_hidden(~shown)
        return np.concatenate([one, other]), np.concatenate([weight, its])


@checked
def mirror_p_pots(ratio: float) -> Mirror:
    """``Mirror`` at the rates of ``p_pots(ratio)``."""
    return Mirror(p_pots(ratio).rates)
