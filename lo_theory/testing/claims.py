"""What a subject claims of itself, where no checker could guess it: ``check(..., claims=Claims(...))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import (
    AtRates,
    Bernoulli,
    BinomialRule,
    FixedCount,
    MaskLaw,
    Mirror,
    MirrorUniform,
    OneAtATime,
    Pattern,
    PlackettLuce,
    Schedule,
    Suffix,
    TwoRates,
    Uniform,
    View,
    order_chances,
)
from lo_theory.diffusion.rates import factors, quadrature
from lo_theory.problem import Layout
from lo_theory.problem.seams import checked

__all__ = ["Claims", "Measure", "Score", "measure_of", "plain_measure", "revealed_by"]

Measure = Callable[[NDArray[np.bool_], Layout], NDArray[np.float64]]
"""Expected weight: of masks bool[M, L], P(mask) E[weight of position | mask], float64[M, L]."""

Score = Callable[[View], NDArray[np.float64]]


@checked
@dataclass(frozen=True)
class Claims:
    """What is claimed; what is left out is not tested, or tested against the default.

    Of a posterior: ``kl``, the largest KL from the exact marginals in nats per token, and ``rounding``, by how much a
    probability may depend on the batch. Of a decoder or policy: ``score(view)`` float64[B, L], whose largest values
    among the hidden positions are those revealed (of a ``TopK`` policy: ``policy.score``); ``revealed``, the expected
    share of positions revealed after each step; ``remasked``, the expected number of positions hidden again in a whole
    decode; ``budget`` "exact" or, for policies that may reveal more, "least". Of a mask law: ``measure``, the expected
    weight of every position under every mask, by which its loss is enumerated (the plain loss of Proposition 2.1 when
    left out), and ``elbo``, whether that loss is a bound on -ln p(x); ``mirrored``, whether two masks of a sequence are
    mirror images: disjoint, or together everything.
    """

    kl: float = 1e-6
    rounding: float = 1e-4
    score: Score | None = None
    revealed: Sequence[float] | None = None
    remasked: float | None = None
    budget: str = "exact"
    measure: Measure | None = None
    elbo: bool | None = None
    mirrored: bool = True

    def __post_init__(self) -> None:
        if self.budget not in ("exact", "least"):
            raise ValueError(f"budget is 'exact' or 'least', got {self.budget!r}")
        if not (self.kl >= 0 and self.rounding >= 0):
            raise ValueError(f"kl and rounding are not negative, got {self.kl} and {self.rounding}")


def _by_size(size: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """1/C(length, size): the probability of one subset among those of its size."""
    from scipy.special import comb

    return 1.0 / np.asarray(comb(length, size), np.float64)


def _per_hidden(masked: NDArray[np.bool_], chances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(masked * (chances / np.maximum(masked.sum(axis=1), 1))[:, None], np.float64)


def plain_measure(masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    """The plain loss: size n uniform on 1..L, a uniform subset, weight 1/n. Its sum is 1."""
    size = masked.sum(axis=1)
    chances = np.where(size > 0, _by_size(size, layout.length) / layout.length, 0.0)
    return _per_hidden(masked, chances)


def _at_rates(masked: NDArray[np.bool_], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.where(masked, rates, 1 - rates).prod(axis=1), np.float64)


def _bernoulli(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    if law.alpha is None:
        return plain_measure(masked, layout)
    chances = _at_rates(masked, np.full(layout.length, law.alpha))
    return np.asarray(masked * chances[:, None] / (law.alpha * layout.length), np.float64)


def _two_rates(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    rates = np.where(layout.is_latent, float(law.latents), float(law.observations))
    return _per_hidden(masked, _at_rates(masked, rates))


def _pattern(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    latents, observations = (part.sum(axis=1) for part in layout.split(masked))
    hidden = round(law.latents * layout.n_observations / layout.n_latents)
    chances = _by_size(latents, layout.n_latents) * _by_size(observations, layout.n_observations)
    return _per_hidden(masked, np.where((latents == law.latents) & (observations == hidden), chances, 0.0))


def _suffix(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    rank = np.empty(layout.length, np.int64)
    rank[layout.reading(law.reading)] = np.arange(layout.length)
    known = layout.length - masked.sum(axis=1)
    suffix = (masked == (rank >= known[:, None])).all(axis=1)
    return np.asarray((suffix[:, None] & (rank == known[:, None])) / layout.length, np.float64)


def _rates(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    if law.weighted:
        return plain_measure(masked, layout)
    rates, chances = quadrature(law.rates)
    sizes = np.arange(layout.length + 1)[:, None]
    shares = rates**sizes * (1 - rates) ** (layout.length - sizes) @ (chances * factors(law.rates, rates, False))
    return np.asarray(masked * shares[masked.sum(axis=1)][:, None] / layout.length)


def _plackett_luce(law: Any, masked: NDArray[np.bool_], layout: Layout) -> NDArray[np.float64]:
    weights = law.at(layout)
    chances, hidden = order_chances(weights)[~masked @ (1 << np.arange(layout.length))], masked * weights
    return np.asarray(
        hidden / np.maximum(hidden.sum(axis=1), weights.min())[:, None] * chances[:, None] / layout.length
    )


_MEASURES: dict[type, tuple[Callable[[Any, NDArray[np.bool_], Layout], NDArray[np.float64]], bool]] = {
    Uniform: (lambda law, masked, layout: plain_measure(masked, layout), True),
    Bernoulli: (_bernoulli, True),
    TwoRates: (_two_rates, False),
    Pattern: (_pattern, False),
    Suffix: (_suffix, True),
    AtRates: (_rates, True),
    Mirror: (lambda law, masked, layout: plain_measure(masked, layout), True),
    MirrorUniform: (lambda law, masked, layout: plain_measure(masked, layout), True),
    PlackettLuce: (_plackett_luce, True),
}


def measure_of(law: MaskLaw, claims: Claims) -> tuple[Measure, bool, str]:
    """The measure a law is held to, whether its loss is a bound on -ln p(x), and whose claim that is."""
    if claims.measure is not None:
        return claims.measure, bool(claims.elbo), "the loss it claims"
    if type(law) in _MEASURES:
        measure, elbo = _MEASURES[type(law)]
        elbo = elbo and getattr(law, "alpha", None) is None and getattr(law, "weighted", True)
        return lambda masked, layout: measure(law, masked, layout), elbo, f"the loss of {law.name}"
    return plain_measure, claims.elbo is not False, "the plain loss"


def revealed_by(schedule: Schedule, length: int) -> NDArray[np.float64] | None:
    """Expected share of positions revealed after each step, from everything hidden; None for a schedule that is not
    known here.
    """
    if isinstance(schedule, OneAtATime):
        return np.arange(1, length + 1) / length
    if isinstance(schedule, BinomialRule):
        return np.arange(1, schedule.count + 1) / schedule.count
    if not isinstance(schedule, FixedCount):
        return None
    left, shares = length, []
    for step in range(schedule.steps(length)):
        left -= -(-left // max(1, schedule.count - step))
        shares.append(1 - left / length)
    return np.array(shares)
