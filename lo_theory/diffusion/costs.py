"""What a decode costs, exactly: nats per sequence, split into the error of independent draws and that of the model.

A true sequence x is walked along the path that the decoder takes when x is what it draws: its choices see only what is
revealed. A step that reveals S in context C costs, with the exact posterior p and the denoiser q,
[ln p(x_S | C) - sum_i ln p(x_i | C)] + [sum_i ln p(x_i | C) - sum_i ln q(x_i | C)], i in S: dependence error and model
error. Summed over the steps this is ln p(x) - ln q(x | path). Its mean is KL(data || sampler) where choices are a
function of what is revealed, and otherwise that of the two laws of (sequence, order), which is no less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.asking import Denoiser
from lo_theory.diffusion.decode import DecodeOptions, Loop, Step
from lo_theory.diffusion.policies import Policy
from lo_theory.diffusion.schedules import Schedule
from lo_theory.diffusion.statistics import Sums
from lo_theory.posterior import ExactPosterior, Marginals, Posterior
from lo_theory.posterior.protocol import POSTERIOR, check_layout
from lo_theory.problem.layout import MASK, Layout, Record
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = ["DecodeCost", "StepCost", "decode_cost", "log_likelihood"]


@dataclass(frozen=True)
class StepCost:
    """One step: ``dependence`` and ``model`` in nats, and how many tokens it ``revealed``, over the sequences of finite
    cost; ``infinite``, over all sequences: 1 where the model excludes a true token at this step, else 0.
    """

    revealed: Sums
    dependence: Sums
    model: Sums
    infinite: Sums


@dataclass(frozen=True)
class DecodeCost:
    """Cost in nats per sequence: ``total`` = ``dependence`` + ``model``, and each of these the sum over ``steps``.

    A model that gives a true token the probability 0 makes the cost of that sequence infinite. ``infinite`` is 1 for
    such a sequence and 0 for others: its mean is their share. All nats are sums over the other sequences; ``kl`` counts
    both. ``calls``: contexts that a sequence asks the denoiser about, the forwards of a decode of that sequence alone.
    """

    total: Sums
    dependence: Sums
    model: Sums
    steps: tuple[StepCost, ...]
    infinite: Sums
    calls: Sums

    @property
    def kl(self) -> float:
        """The mean of ``total`` over all sequences: infinite as soon as one of them is."""
        return np.inf if self.infinite.total else self.total.mean


@checked
def decode_cost(
    posterior: Posterior,
    policy: Policy,
    schedule: Schedule,
    distribution: Distribution,
    *,
    key: Key,
    n: int,
    exact: Posterior | None = None,
    options: DecodeOptions | None = None,
) -> DecodeCost:
    """What ``decode`` with the same arguments loses, measured on n sequences of the data.

    E[ln p(x) - ln q(x | path)], step by step as the head of this file says. ``exact`` is the exact posterior; an
    ExactPosterior needs none beside it, and where ``exact`` is ``posterior`` it is not asked twice: the model error is
    0, but for what a temperature does. Without one (out of reach) ``total`` is known all the same, and the sums of
    ``dependence`` and ``model`` are empty. Ties, noise, temperature and chunks are those of a decode with this key: q
    is the law that tokens are drawn from. Row i of the data has the address ``key.fold("data")``, i. Cost: one call of
    each posterior per chunk and step. Errors: ValueError for a policy that hides again, for ``argmax``, for an
    ``exact`` that does not know its evidence or finds the data impossible, and those of ``decode``.
    """
    check_count(n, "a cost is measured on at least one sequence")
    if exact is None and type(posterior) is ExactPosterior:
        exact = posterior
    loop = _loop(posterior, policy, schedule, key, options)
    check_layout(posterior.layout, distribution.layout, type(posterior).__name__)
    truth = distribution.sample(key.fold("data"), n)
    paths, log_prob = _follow(loop, truth, exact), distribution.log_prob(truth)
    totals = log_prob - paths.drawn.sum(axis=1)
    finite, excluded = np.isfinite(totals), np.isneginf(paths.drawn)
    dependence = model = np.empty((0, paths.drawn.shape[1]))
    if exact is not None:
        dependence = np.diff(_evidence_at_every_step(paths, log_prob))[finite] - paths.alone[finite]
        model = paths.alone[finite] - paths.drawn[finite]
        totals[finite] = (dependence + model).sum(axis=1)
    by_step = zip(paths.revealed[finite].T, dependence.T, model.T, excluded.T, strict=True)
    return DecodeCost(
        total=Sums.of(totals[finite]),
        dependence=Sums.of(dependence.sum(axis=1)),
        model=Sums.of(model.sum(axis=1)),
        steps=tuple(StepCost(*map(Sums.of, values)) for values in by_step),
        infinite=Sums.of(~finite),
        calls=Sums.of(paths.forwards.sum(axis=1)),
    )


@checked
def log_likelihood(
    posterior: Posterior,
    policy: Policy,
    schedule: Schedule,
    sequences: ArrayLike,
    *,
    key: Key,
    options: DecodeOptions | None = None,
) -> NDArray[np.float64]:
    """ln of the probability that ``decode`` writes each of ``sequences`` int8[n, L], in nats: float64[n].

    The sum of ln q(x_i | revealed before) along the path that the rule itself takes on x (arXiv 2603.01367). Where
    choices are a function of what is revealed it is the likelihood, and sums to one over all sequences; choices drawn
    at random (ties too) are those of row i of a decode with this key, and the sum is the likelihood given them.
    -inf where the model excludes a token. Cost and errors: those of ``decode_cost``.
    """
    loop = _loop(posterior, policy, schedule, key, options)
    rows = posterior.layout.check_tokens(sequences, complete=True)
    likelihood: NDArray[np.float64] = _follow(loop, rows, None).drawn.sum(axis=1)
    return likelihood


def _loop(posterior: Posterior, policy: Policy, schedule: Schedule, key: Key, options: DecodeOptions | None) -> Loop:
    loop = Loop(posterior, policy, schedule, key, DecodeOptions() if options is None else options)
    if loop.options.argmax:
        raise ValueError(
            "with argmax a decoder writes the most likely tokens and no others, so all other sequences cost infinitely "
            "much: measure with drawn tokens, or at a low temperature"
        )
    if loop.options.rewriter is not None:
        raise ValueError(
            "a rewriter changes tokens after they are drawn, so that no path belongs to one sequence: costs are those "
            "of rules that only reveal"
        )
    return loop


@dataclass(frozen=True, eq=False, repr=False)
class _Paths(Record):
    """n sequences at T steps, arrays [n, T]: tokens ``revealed``; ``forwards``, the contexts asked of the denoiser; in
    nats ``drawn`` = sum of ln q(x_i | C) over what is revealed, ``alone`` = sum of ln p(x_i | C), and ``evidence`` =
    ln p(C), nan at steps at which the sequence stays as it is.
    """

    revealed: NDArray[np.int64]
    forwards: NDArray[np.int64]
    drawn: NDArray[np.float64]
    alone: NDArray[np.float64]
    evidence: NDArray[np.float64]


def _follow(loop: Loop, sequences: NDArray[np.int8], exact: Posterior | None) -> _Paths:
    """Walk ``sequences`` int8[n, L], complete, along the path of ``loop``; ``alone`` and ``evidence`` by ``exact``."""
    if exact is not None:
        POSTERIOR.check(exact, "exact")
        check_layout(exact.layout, loop.posterior.layout, "the exact posterior")
    layout, tokens = loop.posterior.layout, np.full(sequences.shape, MASK, np.int8)
    shape = (len(tokens), int(loop.row_steps(tokens).max(initial=0)))
    counts, forwards = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    paths = _Paths(counts, forwards, np.zeros(shape), np.zeros(shape), np.full(shape, np.nan))

    def walk(rows: slice, steps: Iterator[Step]) -> None:
        """Follow the decode of some rows, and add up what each step costs them."""
        truth = sequences[rows]
        judge = None
        if exact is not None and exact is not loop.posterior:
            judge = Denoiser(exact, len(truth), rows.start, name="the exact posterior")
        for at in steps:
            shown, step = _revealed(at, loop.policy.name), at.view.step
            paths.revealed[rows, step], paths.forwards[rows, step] = shown.sum(axis=1), at.forwards
            paths.drawn[rows, step] = _log_laws(at.marginals, truth, shown, layout, loop.options.temperature)
            if exact is not None:
                answer = at.marginals if judge is None else judge.at(tokens[rows], at.active)
                paths.alone[rows, step] = _log_laws(answer, truth, shown, layout, 1.0)
                paths.evidence[rows, step] = answer.log_evidence
                _check_known(exact, np.where(at.active, paths.alone[rows, step] + answer.log_evidence, 0.0), at)
            np.copyto(tokens[rows], truth, where=shown)

    loop.by_chunk(tokens, walk)
    return paths


def _revealed(at: Step, policy: str) -> NDArray[np.bool_]:
    """bool[B, L]: what a step reveals; ValueError where it hides again."""
    again = at.next_masked & ~at.masked
    if again.any():
        row, position = (int(i) for i in np.argwhere(again)[0])
        raise ValueError(
            f"{policy} hides position {position} of row {at.view.start + row} again at step {at.view.step}: costs are "
            "those of rules that only reveal, since a token that is drawn twice leaves no trace in the true sequence"
        )
    return at.masked & ~at.next_masked


def _log_laws(
    answer: Marginals, truth: NDArray[np.int8], shown: NDArray[np.bool_], layout: Layout, temperature: float
) -> NDArray[np.float64]:
    """float64[B]: sum over ``shown`` of ln of the probability with which the decoder draws the tokens of ``truth``.

    It draws from p ** (1/temperature) over the values of the role.
    """
    rows, positions = np.nonzero(shown)
    allowed = np.arange(layout.n_values) < layout.values[positions, None]
    laws: NDArray[Any] = np.where(allowed, answer.probs[rows, positions].astype(np.float64), 0.0)
    laws = (laws / laws.max(axis=1, keepdims=True)) ** (1.0 / temperature)
    drawn = np.take_along_axis(laws, truth[rows, positions].astype(np.intp)[:, None], axis=1)[:, 0]
    with np.errstate(divide="ignore"):
        logs = np.log(drawn / laws.sum(axis=1))
    return np.bincount(rows, logs, minlength=len(shown)).astype(np.float64, copy=False)


def _check_known(exact: Posterior, logs: NDArray[np.float64], at: Step) -> None:
    """Raise ValueError where the exact posterior does not know the evidence, or excludes the truth."""
    wrong = ~np.isfinite(logs)
    if wrong.any():
        row, name = int(np.argmax(wrong)), type(exact).__name__
        what = (
            "does not know the evidence (nan) of"
            if np.isnan(logs[row])
            else "finds impossible, though it is drawn from the problem,"
        )
        raise ValueError(
            f"{name} as the exact posterior {what} row {at.view.start + row} at step {at.view.step}: costs are split "
            "with ExactPosterior(problem) of the same problem"
        )


def _evidence_at_every_step(paths: _Paths, log_prob: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, T + 1]: ln p(C) before each step and after the last; what changes no context takes the next one's."""
    evidence = np.column_stack([paths.evidence, log_prob])
    for step in reversed(range(evidence.shape[1] - 1)):
        left_out = np.isnan(evidence[:, step])
        evidence[left_out, step] = evidence[left_out, step + 1]
    return evidence
