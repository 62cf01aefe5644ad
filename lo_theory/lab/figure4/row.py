"""The settings of one row of Figure 4, and the paper's stated values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lo_theory.lab.ensembles import Budget, Ensemble
from lo_theory.lab.schema import setting

__all__ = ["Iteration", "Reference", "Row", "Start", "Stated"]

Start = Literal["planted", "random", "noise"]


@dataclass(frozen=True)
class Iteration:
    """How belief propagation iterates; see ``lo_theory.posterior.BPOptions``.

    Flooding on satisfied observations needs damping, else the value imbalance oscillates: sequential does not.
    """

    schedule: Literal["sequential", "flooding"] = "sequential"
    damping: float = setting(0.0, least=0)
    iterations: int = setting(1000, least=3)
    tolerance: float = setting(1e-6, above=0)
    noise: float = setting(0.02, above=0)

    def __post_init__(self) -> None:
        for name in ("damping", "noise"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Row:
    """Belief propagation on planted instances of ``N`` latents at each of ``degrees`` (c = kM/N), from each start.

    ``instances`` a degree; ``size``: a Poisson number of constraints (Definition B.9), or a fixed one. ``thresholds``:
    what may be spent on the three computed thresholds, null for none.
    """

    ensemble: Ensemble
    N: int = setting(10_000, least=2)
    degrees: tuple[float, ...] = setting((), above=0)
    instances: int = setting(4, least=1)
    size: Literal["poisson", "fixed"] = "poisson"
    starts: tuple[Start, ...] = ("planted", "random", "noise")
    iteration: Iteration = field(default_factory=Iteration)
    thresholds: Budget | None = field(default_factory=Budget)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("degrees", "starts"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must hold at least one value, each once, got {list(values)}")

    def check_fits(self) -> None:
        """Raise ValueError for a degree that N latents cannot hold; draws nothing."""
        from lo_theory.problem.planted import check_request

        predicate = self.ensemble.specification.predicate
        for i, degree in enumerate(self.degrees):
            try:
                check_request(predicate, self.N, degree, self.ensemble.observed, self.size)
            except ValueError as error:
                raise ValueError(f"degrees[{i}]: {error}") from error


@dataclass(frozen=True)
class Stated:
    """A value that the paper states for its Figure 4: its name there, and the neighbours (k-1)c it names."""

    name: str
    neighbours: float


@dataclass(frozen=True)
class Reference:
    """Stated values to print beside ours."""

    source: str
    rows: tuple[Stated, ...]
