"""Decoding: the loop that fills in hidden positions with any posterior, policy and schedule.

The posterior answers, the policy and the schedule choose, and this file owns the rest: the loop, temperature, drawn or
most likely tokens, oracle noise, row chunks in threads. Every choice is addressed by (step, row), so neither chunks nor
threads change it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.policies import Noise, Policy, Schedule, View
from lo_theory.posterior import Posterior
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key

__all__ = ["DecodeOptions", "Decoded", "Observer", "decode"]

Observer = Callable[[View, NDArray[np.bool_]], None]
"""Told, at every step of every chunk, what the policy saw and which positions stay hidden after it, bool[B, L].

It is called before the step's tokens are drawn, and from several threads where the decode has several; the arrays are
the decoder's own and change after the call: copy what is to be kept, and change nothing.
"""


@dataclass(frozen=True)
class DecodeOptions:
    """How tokens are drawn and rows are split.

    ``temperature`` T draws from p**(1/T); ``argmax`` takes the most likely value instead (ties uniform); ``noise`` is
    oracle noise on the policy's scores. ``chunk`` rows go through the posterior at once, ``threads`` chunks at a time
    (a posterior may use threads of its own). ``observer`` watches every step; none costs nothing.
    """

    temperature: float = 1.0
    argmax: bool = False
    noise: Noise | None = None
    chunk: int = 1024
    threads: int = 1
    observer: Observer | None = None

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and np.isfinite(self.temperature)):
            raise ValueError(
                f"temperature must be positive, got {self.temperature}: for the most likely token set argmax"
            )
        if self.chunk < 1 or self.threads < 1:
            raise ValueError(f"chunk and threads must be at least 1, got chunk={self.chunk}, threads={self.threads}")


@dataclass(frozen=True)
class Decoded:
    """Generated sequences and how they came about.

    ``tokens`` int8[n, L]; ``step_revealed`` int16[n, L], the step that revealed each position (-1: given);
    ``dead_from`` int16[n], the first step whose context had evidence zero, as a posterior that knows its evidence
    notices (-1: none); ``forwards`` rows sent through the posterior; ``seconds`` wall time.
    """

    tokens: NDArray[np.int8]
    step_revealed: NDArray[np.int16]
    dead_from: NDArray[np.int16]
    forwards: int
    seconds: float

    @property
    def impossible(self) -> NDArray[np.bool_]:
        """bool[n]: rows that met a context of evidence zero on the way."""
        return self.dead_from >= 0

    @property
    def alive_steps(self) -> NDArray[np.float64]:
        """float64[n]: share of a row's steps that were made while its context was possible."""
        steps = np.maximum(self.step_revealed.max(axis=1) + 1, 1)
        return np.where(self.impossible, np.minimum(self.dead_from / steps, 1.0), 1.0)

    @property
    def after_dead_end(self) -> NDArray[np.bool_]:
        """bool[n, L]: tokens written where the context was already impossible, so that nothing said what they are."""
        return self.impossible[:, None] & (self.step_revealed >= self.dead_from[:, None])


def decode(
    posterior: Posterior,
    policy: Policy,
    schedule: Schedule,
    *,
    key: Key,
    n: int,
    given: ArrayLike | None = None,
    options: DecodeOptions | None = None,
) -> Decoded:
    """Fill in n sequences, from all positions hidden or from ``given`` int8[n, L] (MASK = -1 where hidden).

    At each step the schedule names how many positions to reveal, the posterior gives the marginals p(x_i | what is
    revealed), the policy names the positions, and their tokens are drawn independently from the marginals. One position
    a step samples the posterior's own joint law; several at once does not. Cost: one call of the posterior per chunk
    and step. Tokens are drawn over the values of the role.
    """
    options = DecodeOptions() if options is None else options
    layout = posterior.layout
    if n < 1:
        raise ValueError(f"decode fills in at least one sequence, got n = {n}")
    tokens = np.full((n, layout.length), MASK, np.int8) if given is None else layout.check_tokens(given).copy()
    if len(tokens) != n:
        raise ValueError(f"given holds {len(tokens)} sequences, n is {n}")
    began = time.perf_counter()
    steps = np.full(tokens.shape, -1, np.int16)
    dead_from = np.full(n, -1, np.int16)

    def fill(first: int) -> int:
        rows = slice(first, min(n, first + options.chunk))
        loop = _Loop(posterior, policy, schedule, key, options, first)
        return loop.run(tokens[rows], steps[rows], dead_from[rows])

    starts = range(0, n, options.chunk)
    if options.threads == 1 or len(starts) == 1:
        forwards = sum(fill(first) for first in starts)
    else:
        with ThreadPoolExecutor(options.threads) as pool:
            forwards = sum(pool.map(fill, starts))
    return Decoded(tokens, steps, dead_from, forwards, time.perf_counter() - began)


@dataclass(frozen=True)
class _Loop:
    """The steps of one chunk, whose first row is row ``start`` of the decode."""

    posterior: Posterior
    policy: Policy
    schedule: Schedule
    key: Key
    options: DecodeOptions
    start: int

    def run(self, tokens: NDArray[np.int8], revealed: NDArray[np.int16], dead_from: NDArray[np.int16]) -> int:
        """Fill in ``tokens`` in place; return the rows sent through the posterior."""
        layout, options, forwards = self.posterior.layout, self.options, 0
        masked = tokens == MASK
        steps = self.schedule.steps(int(masked.sum(axis=1).max(initial=0)))
        for step in range(steps):
            key = self.key.fold(step)
            budget = self.schedule.budget(step, masked, key, self.start)
            if not budget.any():
                continue
            marginals = self.posterior.marginals(tokens)
            forwards += len(tokens)
            dead_from[np.isneginf(marginals.log_evidence) & (dead_from < 0)] = step
            view = View(tokens, masked, marginals, layout, step, steps, key, self.start, options.noise)
            next_masked = self.policy.plan(view, budget)
            if options.observer is not None:
                options.observer(view, next_masked)
            shape = (layout.values, step, options.temperature, options.argmax, self.start)
            _kernels.reveal(tokens, revealed, masked, next_masked, marginals.probs, *shape, *key.fold("tokens").words())
            masked = next_masked
        if masked.any():
            left = int(masked.sum())
            raise ValueError(
                f"{self.schedule.name} with {self.policy.name} left {left} positions hidden after {steps} steps"
            )
        return forwards
