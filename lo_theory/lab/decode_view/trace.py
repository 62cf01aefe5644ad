"""One sequence decoded, and what the exact posterior and another one said of it at every step. Touches nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import DecodeOptions, Policy, Schedule, View, decode
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import ask
from lo_theory.problem import LODistribution
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key

__all__ = ["Trace", "Views", "record", "to_csv"]

_LEAST = 1e-12  # probabilities below it count as it, so that a KL is finite
_CERTAIN = 1e-9  # a marginal this near to one value is determined


@dataclass(frozen=True, eq=False)
class Views:
    """Who looks at a decode: the exact posterior and another one, by the name that colours and tables know."""

    distribution: LODistribution
    exact: Posterior
    name: str
    other: Posterior

    def of(self, denoiser: str) -> Posterior:
        """``exact`` or the other one by its name; ValueError otherwise."""
        known = {"exact": self.exact, self.name: self.other}
        if denoiser not in known:
            raise ValueError(f"unknown denoiser {denoiser!r}: one of {', '.join(known)}")
        return known[denoiser]


@dataclass(frozen=True, eq=False)
class Trace:
    """A decode of T steps.

    ``tokens`` int8[T + 1, L], before each step and at the end; ``revealed`` int32[L], the step that revealed each
    position (-1: given); ``beliefs``: by name float64[T, L, V], the marginals before each step; ``impossible`` bool[T]:
    by then what is revealed has probability zero; ``wrong`` bool[L]: observations other than the most likely value
    given the latents of the end.
    """

    distribution: LODistribution
    denoiser: str
    policy: str
    tokens: NDArray[np.int8]
    revealed: NDArray[np.int32]
    beliefs: Mapping[str, NDArray[np.float64]]
    impossible: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.tokens) - 1

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """bool[T, L], before each step."""
        return np.asarray(self.tokens[:-1] == MASK)

    @cached_property
    def kl(self) -> NDArray[np.float64]:
        """float64[T, L], KL(exact, other) in nats where hidden; nan where revealed, or impossible."""
        exact, other = self.beliefs.values()
        terms = exact * (np.log(np.maximum(exact, _LEAST)) - np.log(np.maximum(other, _LEAST)))
        return np.where(self.hidden & ~self.impossible[:, None], np.maximum(terms.sum(axis=2), 0.0), np.nan)

    @cached_property
    def undetermined(self) -> NDArray[np.int64]:
        """int64[T], hidden positions of which the exact posterior leaves more than one value."""
        open_ = self.beliefs["exact"].max(axis=2) < 1 - _CERTAIN
        return np.asarray((self.hidden & open_).sum(axis=1))

    def met(self) -> float:
        """KL of the other posterior at the positions as they were revealed, summed, in nats; of the possible steps."""
        places = np.flatnonzero(self.revealed >= 0)
        return float(np.nansum(self.kl[self.revealed[places], places]))


@dataclass
class _Recorder:
    """An observer that keeps the tokens before every step of its one row."""

    tokens: list[NDArray[np.int8]] = field(default_factory=list)

    def __call__(self, view: View, next_masked: NDArray[np.bool_]) -> None:
        self.tokens.append(view.tokens[0].copy())


def record(
    views: Views, denoiser: str, policy: Policy, schedule: Schedule, *, key: Key, given: NDArray[np.int8]
) -> Trace:
    """Decode one sequence from ``given`` int8[L] (MASK = -1 where hidden) with a denoiser, watched by both posteriors.

    Cost: 3 T queries of one row, T of them together. Errors: ValueError where nothing is hidden, and for an answer
    that is none (``ask``).
    """
    if not (given == MASK).any():
        raise ValueError("nothing is hidden: choose a mask law that hides something, or another seed")
    recorder, layout = _Recorder(), views.distribution.layout
    options = DecodeOptions(observer=recorder)
    made = decode(views.of(denoiser), policy, schedule, key=key, n=1, given=given[None], options=options)
    contexts = np.array(recorder.tokens)
    exact = ask(views.exact, contexts, layout, name="exact")
    other = ask(views.other, contexts, layout, name=views.name)
    beliefs = {"exact": np.asarray(exact.probs, np.float64), views.name: np.asarray(other.probs, np.float64)}
    wrong = np.zeros(len(given), np.bool_)
    latents, observed = layout.split(made.tokens)
    law = views.distribution.observations.probabilities(latents)[0]
    seen = np.take_along_axis(law, observed[0].astype(np.intp)[:, None], axis=1)[:, 0]
    wrong[layout.observation_positions] = seen < law.max(axis=1)
    return Trace(
        views.distribution,
        denoiser,
        policy.name,
        np.concatenate([contexts, made.tokens]),
        made.step_revealed[0],
        beliefs,
        np.isneginf(exact.log_evidence),
        wrong,
    )


def to_csv(traces: Iterable[Trace]) -> str:
    """What the figure draws: a line for each decode, step and position that is hidden before it, or given."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, trace in enumerate(traces):
        names = [f"{name}_p{v}" for name, probs in trace.beliefs.items() for v in range(probs.shape[2])]
        head = ("denoiser", "policy", "step", "position", "role", "revealed_at", "token", "wrong", "kl", *names)
        if number == 0:
            writer.writerow(head)
        roles = trace.distribution.layout.role
        for step, place in np.argwhere(trace.hidden | (trace.revealed < 0)):
            if trace.revealed[place] < 0 and step:
                continue
            writer.writerow([trace.denoiser, trace.policy, step, place, roles[place], *_numbers(trace, step, place)])
    return stream.getvalue()


def _numbers(trace: Trace, step: int, place: int) -> list[Any]:
    probs = [f"{value:.6g}" for part in trace.beliefs.values() for value in part[step, place]]
    kl = trace.kl[step, place]
    text = "" if np.isnan(kl) else f"{kl:.6g}"
    return [trace.revealed[place], trace.tokens[-1, place], int(trace.wrong[place]), text, *probs]
