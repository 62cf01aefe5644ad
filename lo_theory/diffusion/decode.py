"""Decoding: the loop that fills in hidden positions with any posterior, policy and schedule.

The posterior answers, the policy and the schedule choose, and this file has the rest: the loop, temperature, drawn or
most likely tokens, oracle noise, row chunks in threads. Every choice is addressed by (step, row), so neither chunks nor
threads change it. ``Loop`` is the choices alone; what a decode costs is measured along them too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.asking import Denoiser
from lo_theory.diffusion.policies import POLICY, Noise, Policy, View, check_plan, hides_again
from lo_theory.diffusion.schedules import SCHEDULE, Schedule, check_budget
from lo_theory.posterior import Marginals, Posterior
from lo_theory.posterior.protocol import POSTERIOR, check_laws, reveal
from lo_theory.problem.layout import MASK, Record
from lo_theory.problem.seams import check_count, check_threads, checked
from lo_theory.rng import Key

__all__ = ["DecodeOptions", "Decoded", "Loop", "Observer", "Rewriter", "Rewritten", "Step", "decode"]

R = TypeVar("R")

Observer = Callable[[View, NDArray[np.bool_]], None]
"""Called at every step of every chunk with what the policy saw and which positions stay hidden after it, bool[B, L].

It is called before the step's tokens are drawn, and from several threads where the decode has several; the arrays are
the decoder's own and change after the call: copy what is to be kept, and change nothing.
"""


@dataclass(frozen=True, repr=False)
class Rewritten(Record):
    """What a ``Rewriter`` makes of a step: ``tokens`` int8[B, L], complete; ``probs`` [B, L, V], the laws of hidden
    tokens given them; ``forwards`` int64[B], the contexts that each row has asked for it.
    """

    tokens: NDArray[np.int8]
    probs: NDArray[Any]
    forwards: NDArray[np.int64]


Rewriter = Callable[[View], Rewritten | None]
"""Rewrites what a decode has revealed, before a step is planned; None leaves the step as it is.

Its tokens replace those of revealed positions that were not given, its laws are what the policy sees and what hidden
tokens are drawn from. Rows that are not ``view.asked`` stay as they are.
"""

_LARGEST_STEP = 2**31 - 1  # steps are int32


@checked
@dataclass(frozen=True)
class DecodeOptions:
    """How tokens are drawn and rows are split.

    ``temperature`` T draws from p**(1/T); ``argmax`` takes the most likely value instead (ties uniform); ``noise`` is
    oracle noise on the policy's scores. ``chunk`` rows go through the posterior at once, ``threads`` chunks at a time
    (a posterior may use threads of its own). ``observer`` watches every step; none costs nothing. ``rewriter`` changes
    tokens that are revealed already, such as a network that corrects itself.
    """

    temperature: float = 1.0
    argmax: bool = False
    noise: Noise | None = None
    chunk: int = 1024
    threads: int = 1
    observer: Observer | None = None
    rewriter: Rewriter | None = None

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and np.isfinite(self.temperature)):
            raise ValueError(
                f"temperature must be positive, got {self.temperature}: for the most likely token set argmax"
            )
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        check_threads(self.threads)


@dataclass(frozen=True, repr=False)
class Decoded(Record):
    """Generated sequences and how they came about.

    ``tokens`` int8[n, L]; ``step_revealed`` int32[n, L], the step that revealed each position (-1: given);
    ``dead_from`` int32[n], the first step whose context had evidence zero, as a posterior that knows its evidence
    notices (-1: none); ``forwards`` contexts that the rows ask the posterior about, each by itself; ``distinct`` how
    many it was given, as equal ones of a chunk and step are asked once; ``seconds`` wall time.
    """

    tokens: NDArray[np.int8]
    step_revealed: NDArray[np.int32]
    dead_from: NDArray[np.int32]
    forwards: int
    distinct: int
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


@checked
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
    and step, for the distinct contexts of rows that have something to reveal. Tokens are drawn over the values of the
    role. Every answer of the posterior (see ``ask``), the policy and the schedule is checked. Errors: ValueError that
    names what was answered, and by whom.
    """
    loop = Loop(posterior, policy, schedule, key, DecodeOptions() if options is None else options)
    layout = posterior.layout
    check_count(n, "decode fills in at least one sequence")
    tokens = np.full((n, layout.length), MASK, np.int8) if given is None else layout.check_tokens(given).copy()
    if len(tokens) != n:
        raise ValueError(f"given holds {len(tokens)} sequences, n is {n}")
    began = time.perf_counter()
    revealed = np.full(tokens.shape, -1, np.int32)
    dead_from = np.full(n, -1, np.int32)

    def draw(rows: slice, steps: Iterator[Step]) -> tuple[int, int]:
        forwards = distinct = 0
        for at in steps:
            written, dead, step, view = tokens[rows], dead_from[rows], at.view.step, at.view
            forwards, distinct = forwards + int(at.forwards.sum()), at.distinct
            dead[np.isneginf(at.marginals.log_evidence) & (dead < 0)] = step
            shape = (layout.values, step, loop.options.temperature, loop.options.argmax, view.start)
            masks, words = (at.masked, at.next_masked), view.key.fold("tokens").words()
            _kernels.reveal(written, revealed[rows], *masks, at.marginals.probs, *shape, *words)
        return forwards, distinct

    forwards, distinct = (sum(counts) for counts in zip(*loop.by_chunk(tokens, draw), strict=True))
    return Decoded(tokens, revealed, dead_from, forwards, distinct, time.perf_counter() - began)


@dataclass(frozen=True)
class Step:
    """One step of a chunk of B rows, its tokens not yet written.

    ``view`` is what the policy saw, ``marginals`` the answer of the posterior; ``active`` bool[B] says which rows it
    was asked about, the others stay as they are. ``masked`` and ``next_masked`` bool[B, L] say what is hidden before
    and after it; ``forwards`` int64[B] the contexts asked at this step by each row, those of the policy included;
    ``distinct`` the contexts that the posterior was given in all steps up to this one.
    """

    view: View
    marginals: Marginals
    active: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    next_masked: NDArray[np.bool_]
    forwards: NDArray[np.int64]
    distinct: int


@dataclass(frozen=True)
class Loop:
    """The choices of a decoder, for all that walk along its path: who writes which tokens is theirs to say."""

    posterior: Posterior
    policy: Policy
    schedule: Schedule
    key: Key
    options: DecodeOptions

    def __post_init__(self) -> None:
        POSTERIOR.check(self.posterior, "posterior")
        POLICY.check(self.policy, "policy")
        SCHEDULE.check(self.schedule, "schedule")

    def by_chunk(self, tokens: NDArray[np.int8], walk: Callable[[slice, Iterator[Step]], R]) -> list[R]:
        """Call ``walk(rows, steps)`` for each chunk of the rows of ``tokens`` int8[n, L], in threads as options say.

        ``walk`` takes one step after the other and writes ``tokens[rows]`` in place after each: a token where
        ``next_masked`` no longer hides, MASK where it does. Errors: those of ``decode``.
        """
        n, size, row_steps = len(tokens), self.options.chunk, self.row_steps(tokens)

        def one(first: int) -> R:
            rows = slice(first, min(n, first + size))
            return walk(rows, self._steps(tokens[rows], first, row_steps))

        starts = range(0, n, size)
        if self.options.threads == 1 or len(starts) == 1:
            return [one(first) for first in starts]
        with ThreadPoolExecutor(self.options.threads) as pool:
            return list(pool.map(one, starts))

    def row_steps(self, tokens: NDArray[np.int8]) -> NDArray[np.int64]:
        """int64[n]: the steps that each row takes, whatever the other rows and chunks are."""
        sizes, which = np.unique((tokens == MASK).sum(axis=1), return_inverse=True)
        steps = [self.schedule.steps(int(hidden)) for hidden in sizes]
        for hidden, count in zip(sizes, steps, strict=True):
            whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
            if not whole or not 0 <= count <= _LARGEST_STEP:
                raise ValueError(
                    f"{self.schedule.name} must take a whole number of steps, 0 to 2**31 - 1, from {hidden} hidden "
                    f"positions; got {count!r}"
                )
        return np.array(steps, np.int64)[which.ravel()]

    def _steps(self, tokens: NDArray[np.int8], start: int, row_steps: NDArray[np.int64]) -> Iterator[Step]:
        """The steps of one chunk, whose first row is row ``start``; those at which no row is active are left out.

        A row is active while it has something to reveal; with a policy that remasks, at all its steps.

        ``tokens`` [B, L] of a step are written before the next one is asked for.
        """
        layout, options, masked = self.posterior.layout, self.options, tokens == MASK
        free = masked
        steps, own = int(row_steps.max()), row_steps[start : start + len(tokens)]
        denoiser, memory = Denoiser(self.posterior, len(tokens), start), dict[str, Any]()
        remasks = hides_again(self.policy)
        for step in range(steps):
            key = self.key.fold(step)
            budget = self.schedule.budget(step, _shown(masked), key, start)
            budget = check_budget(budget, len(tokens), self.schedule.name, start=start)
            active = step < own if remasks else (budget > 0) & masked.any(axis=1)
            if not active.any():
                continue
            marginals = denoiser.at(tokens, active)
            shown = replace(marginals, probs=_shown(marginals.probs))
            seen = (_shown(tokens), _shown(masked), shown, layout, step, steps, key, start, options.noise, own)
            view = View(*seen, _shown(active), denoiser, memory)
            if options.rewriter is not None:
                marginals = self._rewrite(view, options.rewriter, tokens, free, denoiser)
                view = replace(view, marginals=replace(marginals, probs=_shown(marginals.probs)))
            next_masked = check_plan(self.policy.plan(view, budget), masked.shape, self.policy.name)
            next_masked[~active] = masked[~active]
            if not remasks:
                self._check_only_reveals(view, next_masked)
            if options.observer is not None:
                options.observer(view, next_masked)
            yield Step(view, marginals, active, masked, next_masked, denoiser.forwards, denoiser.distinct)
            masked = next_masked
        if masked.any():
            left = int(masked.sum())
            raise ValueError(
                f"{self.schedule.name} with {self.policy.name} left {left} positions hidden after {steps} steps"
            )

    def _rewrite(
        self, view: View, rewriter: Rewriter, tokens: NDArray[np.int8], free: NDArray[np.bool_], denoiser: Denoiser
    ) -> Marginals:
        """Write the rewriter's tokens where ``tokens`` are revealed and ``free``; return its laws of hidden ones."""
        answer, before, asked = rewriter(view), view.marginals, view.asked
        if answer is None:
            return before
        name = getattr(rewriter, "__name__", type(rewriter).__name__)
        written = view.layout.check_tokens(answer.tokens, complete=True)
        laws = check_laws(answer.probs, before.probs.shape, view.layout.values, name)
        np.copyto(tokens, written, where=free & ~view.masked & asked[:, None])
        probs = np.where(asked[:, None, None], laws, before.probs)
        reveal(probs, tokens)
        denoiser.forwards += answer.forwards
        denoiser.distinct += int(answer.forwards.sum())
        return Marginals(probs, np.where(asked, np.nan, before.log_evidence), before.converged)

    def _check_only_reveals(self, view: View, next_masked: NDArray[np.bool_]) -> None:
        again = next_masked & ~view.masked
        if again.any():
            row, position = (int(i) for i in np.argwhere(again)[0])
            raise ValueError(
                f"{self.policy.name} hides position {position} of row {view.start + row} again at step {view.step}: a "
                "policy that may do so has the attribute remasks = True"
            )


def _shown(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written: what is planned comes back by the answer alone."""
    shown = array.view()
    shown.setflags(write=False)
    return shown
