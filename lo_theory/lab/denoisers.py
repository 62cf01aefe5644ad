"""Denoisers by name, as experiment files write them: ``exact``, ``bp``, ``model``, and weak ones with their numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lo_theory.diffusion.masks import hide_subset
from lo_theory.lab.settings import made_by_name
from lo_theory.lab.subject import Subject
from lo_theory.posterior import Forgetful, MarginalsOnly, Mixed, Posterior, PropagationOnly, Sharpened, few_rounds
from lo_theory.problem.seams import checked

Maker = Callable[[Subject], Posterior]
"""Makes a denoiser of a row at work, whose settings have ``limit_states``."""


def denoiser(text: str) -> Maker:
    """Make the maker of the denoiser named by ``exact``, or by ``mixed(0.3)`` for one that takes a number."""
    maker: Maker = made_by_name(text, DENOISERS, "denoiser", "denoisers")
    return maker


def _exact() -> Maker:
    return lambda s: s.exact(s.row.limit_states)


def _bp() -> Maker:
    return lambda s: s.bp()


def _model() -> Maker:
    return lambda s: s.model(s.learner())


def _marginals() -> Maker:
    return lambda s: MarginalsOnly(s.distribution)


def _propagation() -> Maker:
    return lambda s: PropagationOnly(s.distribution)


@checked
def _few_rounds(rounds: int) -> Maker:
    _require(rounds >= 1, f"rounds must be at least 1, got {rounds}")
    return lambda s: few_rounds(s.distribution, rounds)


def _forgetful(share: float) -> Maker:
    """Without a share of the observations, the same ones whatever is asked of the row."""
    _require(0 <= share <= 1, f"share lies in [0, 1], got {share}")

    def make(s: Subject) -> Posterior:
        count = s.distribution.layout.n_observations
        forgotten = np.zeros((1, count), np.bool_)
        numbers = np.arange(count, dtype=np.int32)
        hide_subset(forgotten, s.key.fold("forgotten"), 0, numbers, np.array([round(share * count)]))
        return Forgetful(s.exact(s.row.limit_states), np.flatnonzero(forgotten[0]))

    return make


def _mixed(share: float) -> Maker:
    """A share of the single-token marginals."""
    _require(0 <= share <= 1, f"share lies in [0, 1], got {share}")
    return lambda s: Mixed(s.exact(s.row.limit_states), MarginalsOnly(s.distribution), share)


def _sharpened(excess: float) -> Maker:
    _require(excess > -1, f"excess must be above -1, got {excess}")
    return lambda s: Sharpened(s.exact(s.row.limit_states), excess)


def _require(fits: bool, words: str) -> None:
    if not fits:
        raise ValueError(words)


DENOISERS: dict[str, Callable[..., Maker]] = {
    "exact": _exact,
    "bp": _bp,
    "model": _model,
    "marginals": _marginals,
    "propagation": _propagation,
    "few_rounds": _few_rounds,
    "forgetful": _forgetful,
    "mixed": _mixed,
    "sharpened": _sharpened,
}
"""By name: a function of the numbers that it takes."""

NEED_TABLES = ("bp", "propagation", "few_rounds")
"""Those that read observations as tables, which random slabs are not."""
