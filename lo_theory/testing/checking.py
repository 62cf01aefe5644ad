"""One call that checks a sampler, posterior, decoder, policy, mask law or judge against a problem with known truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lo_theory.diffusion import OneAtATime
from lo_theory.posterior import Posterior
from lo_theory.posterior.conditioned import exact_posterior
from lo_theory.problem import MASK, Distribution
from lo_theory.problem.seams import DISTRIBUTION, checked
from lo_theory.rng import Key
from lo_theory.testing.claims import Claims
from lo_theory.testing.of_decoders import decoder_checks
from lo_theory.testing.of_judges import Judge, judge_checks
from lo_theory.testing.of_laws import law_checks
from lo_theory.testing.of_posteriors import posterior_checks
from lo_theory.testing.of_samplers import sampler_checks
from lo_theory.testing.report import Check, Report

__all__ = ["check"]

_LEAST = 200  # draws, below which no mean is close to normal

_N = {"sampler": 20_000, "decoder": 6_000, "posterior": 4_000, "mask law": 100_000, "judge": 4_000}


@checked
def check(
    subject: Any,
    problem: Distribution,
    *,
    exact: Posterior | None = None,
    seed: int = 0,
    level: float = 1e-3,
    n: int | None = None,
    claims: Claims | None = None,
) -> Report:
    """Put every question that applies to ``subject``; answer one table: ``print(check(...))``, ``.ok``, ``.failed``.

    ``problem`` is an L&O problem or any other law of sequences, ``exact`` its exact posterior, that of
    ``exact_posterior`` when left out. ``subject`` is one of: a sampler, a function of (key, n) or of n that answers
    tokens int8[n, L], or a law; a Posterior; a decoder (posterior, policy, schedule); a policy, which then decodes the
    exact posterior one token a step; a MaskLaw; a ``Judge``. ``claims`` says what cannot be guessed of it (``Claims``).
    ``level`` is family-wise: a right subject fails any of its statistical checks with probability ``level`` at most
    (Holm); exact checks do not err. ``n`` sequences or contexts are drawn: 20,000 of a sampler, 6,000 of a decoder,
    100,000 masks, else 4,000 when left out. The table is the same for the same seed. Cost: n draws or answers, two or
    three times over, and n answers of the exact posterior.
    Errors: ValueError for what is none of these, and for a law whose exact posterior is not known; faults of the
    subject itself are rows of the table.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability in (0, 1), got {level}")
    kind = _kind(subject)
    number = _N[kind] if n is None else n
    if number < _LEAST:
        raise ValueError(f"check needs n >= {_LEAST} draws for its tests, got {number}")
    key, stated = Key(seed).fold("check"), Claims() if claims is None else claims

    def truth() -> Posterior:
        return _exact(problem) if exact is None else exact

    if kind in ("posterior", "decoder", "judge"):
        _check_answers(truth(), problem)
    if hasattr(subject, "plan"):
        subject = (truth(), subject, OneAtATime())
    checks: dict[str, Callable[[], list[Check]]] = {
        "sampler": lambda: sampler_checks(subject, problem, key, number, level),
        "posterior": lambda: posterior_checks(subject, problem, truth(), key, number, level, stated),
        "decoder": lambda: decoder_checks(subject, problem, key, number, level, stated),
        "mask law": lambda: law_checks(subject, problem, truth(), key, number, stated),
        "judge": lambda: judge_checks(subject, problem, truth(), key, number),
    }
    return Report.of(f"{kind} {_name(subject)}", f"{_size(problem)}, n = {number:,}", level, checks[kind]())


def _exact(problem: Distribution) -> Posterior:
    try:
        return exact_posterior(problem)
    except ValueError as error:
        raise ValueError(f"check: {error}, or give exact=, its exact posterior") from error


def _check_answers(exact: Posterior, problem: Distribution) -> None:
    """Raise ValueError where the contexts of ``check``, which hide any tokens, are more than the posterior answers.

    One that says beforehand what it refuses (``estimate_cost``) is asked later, and its checks are n/a.
    """
    if hasattr(exact, "estimate_cost"):
        return
    try:
        exact.marginals(np.full((1, problem.layout.length), MASK, np.int8))
    except ValueError as error:
        raise ValueError(
            f"check hides any tokens, up to all, and the exact posterior of this law refuses that: {error}"
        ) from error


def _size(problem: Distribution) -> str:
    layout = problem.layout
    if layout.n_observations:
        return f"(N, P) = ({layout.n_latents}, {layout.n_observations})"
    return f"{layout.length} tokens of {layout.n_values} values"


def _kind(subject: Any) -> str:
    if isinstance(subject, tuple):
        members = ("marginals", "plan", "budget")
        if len(subject) == 3 and all(hasattr(*pair) for pair in zip(subject, members, strict=True)):
            return "decoder"
        raise ValueError("a decoder is a tuple (posterior, policy, schedule)")
    if DISTRIBUTION.fits(subject):
        return "sampler"
    if isinstance(subject, Judge):
        return "judge"
    for member, kind in (("marginals", "posterior"), ("plan", "decoder"), ("sample", "mask law")):
        if hasattr(subject, member) and not isinstance(subject, type):
            return kind
    if hasattr(subject, "forward") and not isinstance(subject, type):
        raise ValueError(
            f"{type(subject).__name__} is a network: check the posterior that from_logits(network, problem) makes of it"
        )
    if callable(subject) and not isinstance(subject, type):
        return "sampler"
    raise ValueError(
        "check takes a sampler (a function of (key, n)), a posterior, (posterior, policy, schedule), a policy, a mask "
        f"law or a Judge; got {subject!r}"
    )


def _name(subject: Any) -> str:
    if isinstance(subject, tuple):
        return ", ".join(map(_name, subject))
    if isinstance(subject, Judge):
        return _name(subject.function)
    return str(getattr(subject, "name", None) or getattr(subject, "__name__", type(subject).__name__))
