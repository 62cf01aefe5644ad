"""A critical degree with its error, in the three units in which degrees are quoted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lo_theory.problem.seams import checked

__all__ = ["Threshold"]


@checked
@dataclass(frozen=True)
class Threshold:
    """A critical mean degree c = kM/N, also as density M/N and as neighbours (k-1)c; M counts revealed observations.

    ``error`` is the half-width of a 95 % interval in units of c; zero where a closed form gives the value. An infinite
    value says that there is no transition at any finite degree.
    """

    value: float
    k: int
    error: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"a threshold needs observations of at least 2 latents, got k = {self.k}")
        if not self.value > 0:
            raise ValueError(f"a critical degree is positive, got {self.value}")
        if not self.error >= 0:
            raise ValueError(f"an error is not negative, got {self.error}")

    @property
    def density(self) -> float:
        """M/N = c/k, revealed observations per latent counted once."""
        return self.value / self.k

    @property
    def neighbours(self) -> float:
        """(k-1)c, latents that share a revealed observation with a latent; the axis of the paper's Figure 4."""
        return (self.k - 1) * self.value

    @property
    def units(self) -> dict[str, tuple[float, float]]:
        """The value and its error in each unit, by name."""
        scales = {"c": 1.0, "density": 1 / self.k, "neighbours": self.k - 1.0}
        return {name: (scale * self.value, scale * self.error) for name, scale in scales.items()}

    def __str__(self) -> str:
        if math.isinf(self.value):
            return "infinite: no transition at any finite degree"
        if self.error == 0:
            return ", ".join(f"{name} = {value:.6g}" for name, (value, _) in self.units.items())
        digits = max(0, 1 - math.floor(math.log10(self.error)))
        return ", ".join(
            f"{name} = {value:.{digits}f} +- {error:.{digits}f}" for name, (value, error) in self.units.items()
        )
