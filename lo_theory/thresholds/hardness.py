"""Windows of mask rates at which the paper's propositions place hard masking problems.

A masked L&O sequence with all latents masked is a planted problem whose degree is set by the mask rate alpha: each
observation is revealed with probability 1 - alpha. Between condensation and Kesten-Stigum recovery is possible but
believed to be hard (Proposition 3.3). For noisy parities and random slabs the propositions name mask rates directly
(B.2, B.5). All of it is conjectural in the sense of its assumptions, which every window states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lo_theory.problem.seams import checked
from lo_theory.thresholds.ensemble import PlantedEnsemble
from lo_theory.thresholds.units import Threshold

__all__ = [
    "MaskWindow",
    "all_subsets_window",
    "observations_window",
    "parity_window",
    "slab_capacity",
    "slab_window",
]


@dataclass(frozen=True)
class MaskWindow:
    """Mask rates lowest..highest at which masking problems are hard, and on what ground.

    ``all_latents_masked`` is the probability that an independent mask hides every latent, at the lowest and the highest
    rate: the propositions speak of those masks. ``empty`` windows have ``lowest`` > ``highest`` or lie outside [0, 1];
    ``statement`` says why.
    """

    lowest: float
    highest: float
    n_latents: int
    ground: str
    reason: str = ""

    @property
    def empty(self) -> bool:
        """Whether no mask rate is in the window."""
        return bool(self.reason)

    @property
    def all_latents_masked(self) -> tuple[float, float]:
        """alpha**N at the two ends; nan for an empty window."""
        if self.empty:
            return math.nan, math.nan
        return self.lowest**self.n_latents, self.highest**self.n_latents

    @property
    def statement(self) -> str:
        """The window in words."""
        if self.empty:
            return f"no mask rate is in the window: {self.reason} ({self.ground})"
        low, high = self.all_latents_masked
        return (
            f"hard for mask rates {self.lowest:.6g} to {self.highest:.6g} ({self.ground}); "
            f"all {self.n_latents} latents are masked with probability {low:.3g} to {high:.3g}"
        )


_NO_WINDOW = {
    True: "condensation and Kesten-Stigum coincide at c = {critical:.6g}, the transition of {name} is continuous",
    False: "the planted state of {name} dominates from c = {condensation:.6g} on only, where belief propagation "
    "already learns something (Kesten-Stigum c = {critical:.6g})",
}


def _degree_window(
    ensemble: PlantedEnsemble, most: float, n_latents: int, condensation: Threshold, critical: Threshold
) -> MaskWindow:
    """Rates at which the mean degree (1 - alpha) ``most`` lies between condensation and Kesten-Stigum."""
    if condensation.k != ensemble.k or critical.k != ensemble.k:
        raise ValueError(f"thresholds are for k = {condensation.k} and {critical.k}, the ensemble has k = {ensemble.k}")
    ground = "Proposition 3.3, on Conjecture B.13"
    if ensemble.revealed < 1:
        ground += ", for a solver that uses only the satisfied of the revealed observations"
    # An eigenvalue's last bits differ between processors and must not open a window of rounding errors.
    coincide = math.isclose(condensation.value, critical.value, rel_tol=1e-9)
    if coincide or condensation.value > critical.value:
        reason = _NO_WINDOW[coincide].format(
            name=ensemble.name, condensation=condensation.value, critical=critical.value
        )
    elif most < condensation.value:
        reason = (
            f"with everything revealed but the latents the degree is {most:.6g}, below condensation at "
            f"{condensation.value:.6g}: recovery is impossible at every rate"
        )
    else:
        reason = ""
    lowest = max(0.0, 1 - critical.value / most)
    return MaskWindow(lowest, 1 - condensation.value / most, n_latents, ground, reason)


@checked
def observations_window(
    ensemble: PlantedEnsemble, n_latents: int, n_observations: int, *, condensation: Threshold, kesten_stigum: Threshold
) -> MaskWindow:
    """Window of Proposition 3.3 for N latents and P observations.

    1 - c_KS N/(gamma k P) <= alpha <= 1 - c_cond N/(gamma k P); gamma is the share of observations that the ensemble
    reveals: P(g = 1) for observed = "satisfied", 1 for "all". Where even alpha = 0 stays below Kesten-Stigum the window
    begins at 0. Exact in the limit of many latents; at finite N the degrees are means.
    """
    if n_latents < ensemble.k or n_observations < 1:
        raise ValueError(
            f"a window needs N >= k = {ensemble.k} latents and P >= 1 observations, "
            f"got {n_latents} and {n_observations}"
        )
    most = ensemble.revealed * ensemble.k * n_observations / n_latents
    return _degree_window(ensemble, most, n_latents, condensation, kesten_stigum)


@checked
def all_subsets_window(
    ensemble: PlantedEnsemble, n_latents: int, *, condensation: Threshold, kesten_stigum: Threshold
) -> MaskWindow:
    """Window of Proposition 3.3 for all ordered k-subsets (Example 3.2): P = N!/(N - k)!.

    So the degree is gamma k (N-1)...(N-k+1) at alpha = 0. The paper writes N**(k-1) for that product; at N = 30, k = 3
    the two differ by 10 %.
    """
    if n_latents < ensemble.k:
        raise ValueError(f"all ordered {ensemble.k}-subsets need N >= {ensemble.k} latents, got {n_latents}")
    count = math.perm(n_latents, ensemble.k)
    return observations_window(ensemble, n_latents, count, condensation=condensation, kesten_stigum=kesten_stigum)


@checked
def parity_window(n_latents: int, n_observations: int, k: int) -> MaskWindow:
    """Window of Proposition B.2 for noisy sparse parities: 1 - 1/N <= alpha <= 1 - 1/(2N).

    Conjectural: it rests on the Sparse Learning Parity with Noise assumption (Definition B.3, inverse-polynomial noise)
    and is a statement about large N in the regime N**2 log N << P <= N**(0.49 k). The lower end of the regime is an
    asymptotic relation; what is tested here is P > N**2 ln N, a necessary reading of it, and the upper bound as
    printed. Outside, the window is empty and says so.
    """
    if n_latents < 2 or n_observations < 1 or k < 2:
        raise ValueError(
            f"a parity window needs N >= 2, P >= 1 and k >= 2, got N={n_latents}, P={n_observations}, k={k}"
        )
    lowest_p, highest_p = n_latents**2 * math.log(n_latents), n_latents ** (0.49 * k)
    reason = ""
    if not lowest_p < n_observations <= highest_p:
        reason = (
            f"P = {n_observations} is outside the regime N^2 ln N = {lowest_p:.6g} < P <= N^(0.49 k) = {highest_p:.6g}"
            + ("" if lowest_p < highest_p else f", which no P meets at k = {k}: take k of at least 5 and a larger N")
        )
    ground = "Proposition B.2, conjectural: Sparse Learning Parity with Noise"
    return MaskWindow(1 - 1 / n_latents, 1 - 0.5 / n_latents, n_latents, ground, reason)


@checked
def slab_capacity(width: float) -> float:
    """Observations per latent, -ln 2 / ln P(|Z| <= width), at which random slabs have one solution on average.

    The first-moment capacity of the symmetric perceptron; the constant c_beta of Proposition B.5 is not above it, and
    the paper asserts only that c_beta exists.
    """
    if not width > 0:
        raise ValueError(f"the width of a slab must be positive, got {width}")
    inside = math.erf(width / math.sqrt(2))
    return math.inf if inside >= 1 else -math.log(2) / math.log(inside)


@checked
def slab_window(n_latents: int, n_observations: int, *, c_beta: float, c: float) -> MaskWindow:
    """Window of Proposition B.5 for random slabs: 1 - c_beta N/(2P) <= alpha <= 1 - cN/P, for stable algorithms.

    Here c and c_beta count revealed observations per latent. The proposition asserts that c_beta > 0 exists for every
    width without giving its value (``slab_capacity`` bounds it), asks for P > c_beta N**2, and is empty unless c <=
    c_beta/2.
    """
    if n_latents < 1 or n_observations < 1:
        raise ValueError(f"a slab window needs N >= 1 and P >= 1, got N={n_latents}, P={n_observations}")
    if not 0 < c < c_beta:
        raise ValueError(f"Proposition B.5 asks for 0 < c < c_beta, got c={c} and c_beta={c_beta}")
    reason = ""
    if c > c_beta / 2:
        reason = f"c = {c:.6g} is above c_beta/2 = {c_beta / 2:.6g}"
    elif n_observations <= c_beta * n_latents**2:
        reason = f"P = {n_observations} is not above c_beta N^2 = {c_beta * n_latents**2:.6g}, as the proposition asks"
    ground = "Proposition B.5, conjectural beyond stable algorithms; c_beta is an input"
    lowest = 1 - c_beta * n_latents / (2 * n_observations)
    return MaskWindow(lowest, 1 - c * n_latents / n_observations, n_latents, ground, reason)
