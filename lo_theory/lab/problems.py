"""Problems as settings: one frozen dataclass per family, which the configuration files and ``lo-theory sample`` share.

Importing this file loads nothing heavy; ``make`` does. A new family is one class here and one name in ``Problem``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lo_theory.lab.schema import setting

if TYPE_CHECKING:
    from lo_theory.problem import Distribution, LODistribution


@dataclass(frozen=True)
class NaeSat:
    """L&O-NAE-SAT (Section 3.3)."""

    family: Literal["nae_sat"]
    N: int = setting(least=1)
    P: int = setting(least=1)
    seed: int = 0
    q: int = setting(2, least=2)
    k: int = setting(3, least=1)
    noise: float = setting(0.0, least=0, most=1)
    repeats: bool = False

    def make(self) -> LODistribution:
        """Build the distribution."""
        from lo_theory.problem import nae_sat

        return nae_sat(self.N, self.P, seed=self.seed, q=self.q, k=self.k, noise=self.noise, repeats=self.repeats)


@dataclass(frozen=True)
class AllKSubsets:
    """One observation for every ordered k-subset of the latents (Example 3.2), of the predicate named."""

    family: Literal["all_k_subsets"]
    N: int = setting(least=1)
    predicate: Literal["nae", "xor", "sat", "colouring"] = "nae"
    q: int = setting(2, least=2)
    k: int = setting(3, least=1)
    noise: float = setting(0.0, least=0, most=1)

    def __post_init__(self) -> None:
        if self.predicate in ("xor", "sat") and self.q != 2:
            raise ValueError(f"{self.predicate} is a predicate of bits: q must be 2, got {self.q}")
        if self.predicate == "colouring" and self.k != 2:
            raise ValueError(f"colouring is a predicate of the two ends of an edge: k must be 2, got {self.k}")

    def make(self) -> LODistribution:
        """Build the distribution."""
        from lo_theory import problem

        predicates = {
            "nae": lambda: problem.nae(self.q, self.k),
            "xor": lambda: problem.xor(self.k),
            "sat": lambda: problem.sat(self.k),
            "colouring": lambda: problem.colouring(self.q),
        }
        return problem.all_k_subsets(predicates[self.predicate](), self.N, noise=self.noise)


@dataclass(frozen=True)
class SparseParity:
    """Noisy sparse parity (Example B.1)."""

    family: Literal["sparse_parity"]
    N: int = setting(least=1)
    P: int = setting(least=1)
    k: int = setting(3, least=1)
    noise: float = setting(0.0, least=0, most=1)
    seed: int = 0

    def make(self) -> LODistribution:
        """Build the distribution."""
        from lo_theory.problem import sparse_parity

        return sparse_parity(self.N, self.P, self.k, self.noise, seed=self.seed)


@dataclass(frozen=True)
class RandomSlab:
    """Random slab (Example B.4); ``width`` is the paper's beta."""

    family: Literal["random_slab"]
    N: int = setting(least=1)
    P: int = setting(least=1)
    width: float = setting(0.67, above=0)
    seed: int = 0

    def make(self) -> LODistribution:
        """Build the distribution."""
        from lo_theory.problem import random_slab

        return random_slab(self.N, self.P, self.width, seed=self.seed)


@dataclass(frozen=True)
class Stored:
    """Any problem at all, from the .npz file at ``path`` that ``LODistribution.save`` wrote."""

    family: Literal["file"]
    path: str

    def make(self) -> LODistribution:
        """Read the distribution."""
        from lo_theory.problem import LODistribution

        return LODistribution.load(self.path)


@dataclass(frozen=True)
class Sudoku:
    """Full grids: latents alone, of which a puzzle is a context. Of 4 x 4 uniform, of 6 x 6 and 9 x 9 as drawn."""

    family: Literal["sudoku"]
    size: Literal[4, 6, 9] = 4

    @property
    def label(self) -> str:
        """What a screen shows."""
        return f"{self.size} x {self.size}"

    def make(self) -> Distribution:
        """Build the law: a list at 4 x 4, else ``DrawnGrids``."""
        from lo_theory.problem.sudoku import DrawnGrids, sudoku_4x4

        return sudoku_4x4() if self.size == 4 else DrawnGrids(self.size)


@dataclass(frozen=True)
class Zebra:
    """Clues, which are observations, and the houses of all values, which are latents: a puzzle shows all clues.

    ``clues``: how many a sequence has; ``kinds`` null: every kind of ``zebra.KINDS``.
    """

    family: Literal["zebra"]
    houses: int = setting(3, least=2, most=9)
    attributes: int = setting(3, least=1, most=9)
    clues: int = setting(7, least=1)
    kinds: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """What a screen shows."""
        return f"zebra {self.houses} x {self.attributes}"

    def make(self) -> Distribution:
        """Build the law."""
        from lo_theory.problem.zebra import KINDS
        from lo_theory.problem.zebra_law import CluesAndCells

        return CluesAndCells(self.houses, self.attributes, self.clues, self.kinds or tuple(KINDS))


Problem = NaeSat | AllKSubsets | SparseParity | RandomSlab | Stored

FAMILIES: dict[str, type[NaeSat | AllKSubsets | SparseParity | RandomSlab]] = {
    "nae-sat": NaeSat,
    "all-k-subsets": AllKSubsets,
    "sparse-parity": SparseParity,
    "random-slab": RandomSlab,
}
"""The families that are drawn rather than read, by their names on the command line."""
