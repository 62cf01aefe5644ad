"""The settings of one row of the experiment on families: one problem, a masked and an order-aware learner of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lo_theory.lab.orders.row import Evaluation as OrdersEvaluation
from lo_theory.lab.orders.row import MaskedLearner, Order
from lo_theory.lab.orders.row import Row as OrdersRow
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Training, check_laws, mask_law

if TYPE_CHECKING:
    from lo_theory.diffusion.masks import MaskLaw
    from lo_theory.problem import LODistribution

__all__ = ["Evaluation", "Reference", "Row", "check_exact", "evaluation_law"]

_SATISFIED = re.compile(r"^satisfied(?:\(([0-9.]+)\))?$")


def evaluation_law(text: str) -> MaskLaw:
    """Make the law that ``text`` names: one of ``mask_law``, or ``satisfied`` or ``satisfied(0.75)``."""
    from lo_theory.diffusion.satisfied import Satisfied

    match = _SATISFIED.match(text.replace(" ", ""))
    if match is None:
        return mask_law(text)
    try:
        return Satisfied(float(match.group(1) or 1))
    except ValueError as error:
        raise ValueError(f"mask law {text!r}: {error}") from error


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a trained learner, always against the exact posterior.

    ``sequences``: fresh sequences read along its own order by the order-aware learner. ``contexts``: fresh contexts of
    each of the mask laws ``laws``. ``bp``: judge belief propagation on the same contexts, where the problem has a
    factor graph. ``learned``: a posterior counts as Bayes-optimal when the 95 % interval of its KL lies below this
    share of the KL of the single-token marginals.
    """

    laws: tuple[str, ...] = ("uniform", "two_rates(1,0)", "two_rates(0.75,0)")
    sequences: int = setting(512, least=2)
    contexts: int = setting(1024, least=2)
    bp: bool = True
    learned: float = setting(0.05, above=0, most=1)
    limit_states: int = setting(2**26, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        if not self.laws:
            raise ValueError("laws is empty: name at least one mask law, such as uniform")
        names = [evaluation_law(text).name for text in self.laws]
        again = [name for i, name in enumerate(names) if name in names[:i]]
        if again:
            raise ValueError(f"laws names {again[0]} twice: each is measured once, leave one out")


@dataclass(frozen=True)
class Row:
    """One problem, called ``name`` in tables, and its two learners: masked, and order-aware reading latents first.

    Both have one shape and equal training FLOPs, and are trained once for each of ``shares`` of ``training.steps``,
    warm-up, stages and cosine with it.
    """

    name: str
    problem: Problem
    training: Training
    seed: int = 0
    model: Model = field(default_factory=Model)
    shares: tuple[float, ...] = setting((0.5, 1.0), above=0, most=1)
    masked: MaskedLearner = field(default_factory=MaskedLearner)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        self.as_orders()

    def as_orders(self) -> OrdersRow:
        """The same row as the experiment on orders has it, whose networks are trained here."""
        setting = self.evaluation
        return OrdersRow(
            self.problem,
            self.training,
            seed=self.seed,
            model=self.model,
            shares=self.shares,
            orders=(Order("latents_first"),),
            masked=(self.masked,),
            evaluation=OrdersEvaluation(setting.sequences, setting.contexts, True, setting.limit_states),
        )

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or the exact posterior does not fit in memory."""
        self.as_orders().check_fits(distribution)
        check_laws([("evaluation.laws", self.evaluation.laws)], distribution.layout, evaluation_law)
        check_exact(self, distribution)


def check_exact(row: Row, distribution: LODistribution) -> None:
    """Raise ValueError if the exact posterior does not fit on one sequence under a mask law."""
    import numpy as np

    from lo_theory.diffusion.masks import draw_masks
    from lo_theory.posterior import ExactPosterior
    from lo_theory.problem import MASK
    from lo_theory.rng import Key

    setting, key = row.evaluation, Key(row.seed).fold("check")
    exact, tokens = ExactPosterior(distribution, limit=setting.limit_states), distribution.sample(key, 1)
    for text in setting.laws:
        masks, _ = draw_masks(evaluation_law(text), key, tokens, distribution.layout)
        cost = exact.estimate_cost(np.where(masks[0], np.int8(MASK), tokens))
        if not cost.fits.all():
            raise ValueError(
                f"evaluation.laws: under {text} the exact posterior needs {cost.states.max():.4g} states, over the "
                f"limit of {setting.limit_states}: take a smaller problem, or raise evaluation.limit_states"
            )


@dataclass(frozen=True)
class Reference:
    """What is published of these families, in words."""

    source: str
