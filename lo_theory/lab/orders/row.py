"""The settings of one row of the experiment on orders: one problem, its order-aware learners, the masked ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from lo_theory.lab.laws import policy
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Objective, Stage, Training, check_laws

if TYPE_CHECKING:
    from lo_theory.problem import LODistribution

__all__ = ["Evaluation", "Generation", "MaskedLearner", "Order", "Reference", "Row"]

_DRAWN = ("random", "closer", "much_closer")
_SWAPPED = ("closer", "much_closer")


@dataclass(frozen=True)
class Order:
    """A reading order; ``draws`` of the random ones, each with a learner of its own.

    ``swaps`` of "closer" (left out: L/10) and "much_closer" (left out: sqrt(L)).
    """

    name: Literal["latents_first", "reversed", "random", "closer", "much_closer"]
    draws: int = setting(1, least=1)
    swaps: int | None = setting(None, least=1)

    def __post_init__(self) -> None:
        if self.draws > 1 and self.name not in _DRAWN:
            raise ValueError(f"there is one order {self.name}: draws must be 1, got {self.draws}")
        if self.swaps is not None and self.name not in _SWAPPED:
            raise ValueError(f"the order {self.name} takes no swaps ({' and '.join(_SWAPPED)} do), got {self.swaps}")


@dataclass(frozen=True)
class MaskedLearner:
    """A masked diffusion model to compare with: its name in the tables, its mask laws, the stages of a curriculum."""

    name: str = "mdm"
    laws: tuple[str, ...] = ("uniform",)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"a masked learner has a name of letters, digits, - and _, got {self.name!r}")
        Objective(self.laws, self.stages)

    def objective(self, share: float) -> Objective:
        """The objective of a training that is ``share`` as long, its stages with it."""
        stages = tuple(
            stage if stage.steps is None else replace(stage, steps=round(stage.steps * share)) for stage in self.stages
        )
        return Objective(self.laws, stages)


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a trained learner.

    ``sequences``: fresh sequences read along every order. ``contexts``: of the uniform mask law, for the masked
    learners. ``exact``: also the exact conditionals (KL); they must fit, see ``limit_states``. ``reached``: a learner
    counts as having reached the floor when the 95 % interval of what it lies above it is below this share of the way
    from the floor to the marginals-only line.
    """

    sequences: int = setting(512, least=2)
    contexts: int = setting(4096, least=2)
    exact: bool = True
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)
    reached: float = setting(0.01, above=0, most=1)


@dataclass(frozen=True)
class Generation:
    """``sequences`` drawn from every learner, ``chunk`` at once; the masked ones one token a step by each policy.

    ``policies``: as in ``Decoding``; the policy fixed_order is latents first.
    """

    sequences: int = setting(2000, least=2)
    policies: tuple[str, ...] = ("vanilla", "margin", "fixed_order")
    temperature: float = setting(1.0, above=0)
    chunk: int = setting(512, least=1)

    def __post_init__(self) -> None:
        for name in self.policies:
            policy(name)


@dataclass(frozen=True)
class Row:
    """One problem and everything that learns it, all of one shape.

    Every learner is trained once for each of ``shares`` of ``training.steps``, warm-up, stages and cosine with it:
    budgets of compute at which a finished training is compared with a finished training.
    """

    problem: Problem
    training: Training
    seed: int = 0
    model: Model = field(default_factory=Model)
    shares: tuple[float, ...] = setting((0.125, 0.25, 0.5, 1.0), above=0, most=1)
    orders: tuple[Order, ...] = (Order("latents_first"), Order("reversed"), Order("random"))
    masked: tuple[MaskedLearner, ...] = (MaskedLearner(),)
    evaluation: Evaluation = field(default_factory=Evaluation)
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        if not self.orders and not self.masked:
            raise ValueError("orders and masked are both empty: there is nothing to learn")
        _once("orders", (order.name for order in self.orders))
        names = [learner.name for learner in self.masked]
        _once("masked", names)
        taken = [name for name in names if any(name.split("-")[0] == order.name for order in self.orders)]
        if taken:
            raise ValueError(f"masked: {taken[0]} is the name of an order's learner, take another")
        if not self.shares or max(self.shares) != 1.0:
            raise ValueError(f"shares must hold 1, the whole training, got {list(self.shares)}")
        _once("shares", self.budgets())
        for learner in self.masked:
            learner.objective(1.0).check_lasts(self.training.steps)

    def budgets(self) -> tuple[int, ...]:
        """Steps of every training, ascending."""
        return tuple(max(1, round(share * self.training.steps)) for share in sorted(self.shares))

    def training_of(self, steps: int) -> Training:
        """The training of a budget: the warm-up is shortened in proportion."""
        return replace(self.training, steps=steps, warmup=round(self.training.warmup * steps / self.training.steps))

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or the exact posterior does not fit in memory."""
        from lo_theory.lab.orders.learners import check_exact

        named = [
            (f"masked[{i}]", (*learner.laws, *(law for stage in learner.stages for law in stage.laws)))
            for i, learner in enumerate(self.masked)
        ]
        check_laws(named, distribution.layout)
        check_exact(self, distribution)


def _once(what: str, names: Iterable[str | int]) -> None:
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise ValueError(f"{what} gives {again[0]} twice: leave one out")


@dataclass(frozen=True)
class Reference:
    """What is published, in words: the paper's curves are of text, which has no known floor."""

    source: str
