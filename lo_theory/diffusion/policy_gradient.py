"""Order and schedule learned by policy gradient with an exact reward, the denoiser frozen: a few numbers, no torch.

A path of the decoder on a true sequence x is rewarded by ln q(x | path), what it makes of x: its mean over paths and
data is, up to the entropy, minus the KL divergence that ``decode_cost`` measures. A reward that scores what was
generated, such as ln p_data, is not used: its best policy writes the most likely sequence and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion import _kernels
from lo_theory.diffusion.costs import log_likelihood
from lo_theory.diffusion.decode import DecodeOptions
from lo_theory.diffusion.policies import Policy, View, entropy, reveal_best, top_probability
from lo_theory.diffusion.schedules import Schedule
from lo_theory.posterior import Posterior
from lo_theory.problem.layout import Record
from lo_theory.problem.protocol import Distribution
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

__all__ = [
    "FEATURES",
    "LearnedPlan",
    "LearnedSizes",
    "PlanGradient",
    "PositionHead",
    "advantages",
    "optimise_plan",
    "plan_gradient",
]

Array = NDArray[np.float64]

FEATURES: dict[str, Callable[[View], Array]] = {
    "entropy": lambda view: -entropy().score(view),
    "top_probability": lambda view: top_probability().score(view),
    "latent": lambda view: np.broadcast_to(view.layout.is_latent.astype(np.float64), view.masked.shape),
}
"""What ``PositionHead`` sees of a position, by name: float64[B, L] of a view."""

_SAME = 1e-9  # relative: rewards of a group that differ by less are equal, and rounding makes no advantage


@checked
@dataclass(frozen=True)
class PositionHead:
    """Reveal positions drawn one after another with chances exp(w . features), those drawn left out: Plackett-Luce.

    ``weights`` w, one for each of ``FEATURES``; all zero is random order. ``TopK(name, head.scores)`` takes the best
    in place of drawing. Draws have the address (step, row).
    """

    weights: tuple[float, ...] = (0.0,) * len(FEATURES)
    name: str = "position_head"

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES) or not np.isfinite(self.weights).all():
            raise ValueError(f"weights are finite, one for each of {', '.join(FEATURES)}; got {self.weights}")

    def features(self, view: View) -> Array:
        """float64[B, L, F]."""
        return np.stack([feature(view) for feature in FEATURES.values()], axis=-1)

    def scores(self, view: View) -> Array:
        """w . features, float64[B, L]."""
        return np.asarray(self.features(view) @ np.array(self.weights))

    def perturbed(self, view: View) -> Array:
        """Scores with Gumbel noise: in their descending order positions are drawn without replacement."""
        noise = np.empty(view.masked.shape)
        _kernels.fill_noise(noise, view.start, *view.key.fold("order").words(), False)
        return np.asarray(self.scores(view) + noise)

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Policy."""
        return reveal_best(view, self.perturbed(view), budget, self.name)


@checked
@dataclass(frozen=True)
class LearnedSizes:
    """Random step sizes by two numbers a step: P(s) ~ exp(a (2z - 1) + b (6z**2 - 6z + 1)), z = s/hidden.

    s = 1 .. hidden - later: ``later`` steps follow, each of which keeps a position, and the last, which has no numbers,
    reveals what is left. ``numbers``: (a, b) of every step but the last, a for more or fewer, b for the spread; zeros
    are uniform sizes. (The two polynomials are orthogonal on [0, 1]. On six tokens in two steps, best sizes 4 and 2,
    ascent in z and z**2 still drew 5 first with chance 0.6 after 400 iterations; in these 4 leads after 50.) Draws have
    the address (step, row).
    """

    numbers: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.numbers or not all(len(pair) == 2 and np.isfinite(pair).all() for pair in self.numbers):
            raise ValueError(f"sizes are two finite numbers a step, of one step or more; got {self.numbers}")

    @property
    def name(self) -> str:
        """``learned_sizes(steps)``."""
        return f"learned_sizes({len(self.numbers) + 1})"

    def steps(self, hidden: int) -> int:
        """One more than there are pairs, or fewer where fewer positions are hidden."""
        return min(len(self.numbers) + 1, hidden)

    def laws(self, step: int, hidden: NDArray[np.int64]) -> tuple[Array, Array]:
        """P(s) float64[B, L] for s = 1..L, and the two polynomials float64[B, L, 2], of rows with so many hidden.

        ValueError for the last step, whose size is no choice.
        """
        if not 0 <= step < len(self.numbers):
            raise ValueError(f"sizes are drawn at the steps 0..{len(self.numbers) - 1}, got step {step}")
        sizes = np.arange(1, max(2, int(hidden.max(initial=1)) + 1))
        most = np.maximum(1, hidden - (len(self.numbers) - step))
        z = sizes / np.maximum(hidden, 1)[:, None]
        statistics = np.stack([2 * z - 1, 6 * z**2 - 6 * z + 1], axis=-1)
        logits = np.where(sizes <= most[:, None], statistics @ np.array(self.numbers[step]), -np.inf)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        return chances / chances.sum(axis=1, keepdims=True), statistics

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """A size for each row; at the last step all that is left."""
        hidden = masked.sum(axis=1)
        if step >= len(self.numbers):
            return hidden
        units = np.empty(len(masked))
        _kernels.draw_units(units, start, *key.fold("budget").words())
        below = np.cumsum(self.laws(step, hidden)[0], axis=1)[:, :-1] <= units[:, None]
        return np.minimum(1 + below.sum(axis=1), hidden)


@dataclass(frozen=True, eq=False, repr=False)
class PlanGradient(Record):
    """``rewards`` float64[n, G] in nats, ln q(x | path) of G paths a sequence; the gradient of their mean, sequence by
    sequence: ``order`` float64[n, F] in the weights of a ``PositionHead``, zero for other policies, and ``sizes``
    float64[n, T - 1, 2] in the numbers of ``LearnedSizes``, empty for other schedules.
    """

    rewards: Array
    order: Array
    sizes: Array


@dataclass
class _Recorder:
    """Adds up grad ln P of the choices of every row, as the decoder makes them."""

    policy: Policy
    schedule: Schedule
    order: Array
    sizes: Array

    def __call__(self, view: View, next_masked: NDArray[np.bool_]) -> None:
        rows = slice(view.start, view.start + len(next_masked))
        revealed = view.masked & ~next_masked
        if isinstance(self.schedule, LearnedSizes) and view.step < len(self.schedule.numbers):
            chances, statistics = self.schedule.laws(view.step, view.masked.sum(axis=1))
            size = np.maximum(revealed.sum(axis=1), 1)  # 1 where nothing is left, which has no other size to draw
            drawn = np.take_along_axis(statistics, size[:, None, None] - 1, axis=1)[:, 0]
            self.sizes[rows, view.step] = drawn - np.einsum("bs,bsk->bk", chances, statistics)
        if isinstance(self.policy, PositionHead):
            self.order[rows] += _order_scores(self.policy, view, revealed)


def _order_scores(head: PositionHead, view: View, revealed: NDArray[np.bool_]) -> Array:
    """float64[B, F]: grad ln of the chance to draw the positions ``revealed`` in the order in which they were drawn."""
    features, scores = head.features(view), head.scores(view)
    drawn = np.argsort(np.where(revealed, -head.perturbed(view), np.inf), axis=1, kind="stable")
    left, count, result = view.masked.copy(), revealed.sum(axis=1), np.zeros((len(revealed), features.shape[2]))
    for draw in range(int(count.max(initial=0))):
        rows = np.flatnonzero(draw < count)
        logits = np.where(left[rows], scores[rows], -np.inf)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chosen = drawn[rows, draw]
        result[rows] += features[rows, chosen] - np.einsum("bl,blf->bf", chances, features[rows])
        left[rows, chosen] = False
    return result


def advantages(rewards: Array, *, scaled: bool) -> Array:
    """What weighs the paths of a group, float64[n, G]: reward less the mean of the *other* paths of the group.

    That is unbiased. ``scaled``: reward less the group's mean, over the group's standard deviation, as the papers have
    it (GRPO), another direction than that of the mean reward. A group of equal rewards, to 1e-9, weighs nothing.
    """
    size = rewards.shape[1]
    apart = rewards - rewards.mean(axis=1, keepdims=True)
    spread = rewards.std(axis=1, keepdims=True)
    differ = spread > _SAME * np.maximum(1.0, np.abs(rewards).max(axis=1, keepdims=True))
    weights = apart / np.where(differ, spread, 1.0) if scaled else apart * (size / (size - 1))
    return np.where(differ, weights, 0.0)


@checked
def plan_gradient(
    posterior: Posterior,
    policy: Policy,
    schedule: Schedule,
    sequences: ArrayLike,
    *,
    key: Key,
    group: int = 8,
    scaled: bool = False,
) -> PlanGradient:
    """Estimate the gradient of E ln q(x | path) in order and sizes, from ``group`` paths on each of ``sequences``.

    mean over the group of advantage x grad ln P(path), P the chance of the positions and sizes drawn (UPO, arXiv
    2510.05725; MDPO, 2508.13148; Co-GRPO, 2512.22288, which learns the schedule too). The exact posterior, one position
    a step, makes ln p(x) of every path: the gradient is zero. Cost: group decodes a sequence. Errors: ValueError for
    groups of fewer than two, and for a denoiser that excludes a true token, whose reward is -inf.
    """
    if group < 2:
        raise ValueError(f"paths are compared in groups of at least 2, got {group}")
    rows = np.repeat(posterior.layout.check_tokens(sequences, complete=True), group, axis=0)
    steps = len(schedule.numbers) if isinstance(schedule, LearnedSizes) else 0
    recorder = _Recorder(policy, schedule, np.zeros((len(rows), len(FEATURES))), np.zeros((len(rows), steps, 2)))
    options = DecodeOptions(observer=recorder)
    rewards = log_likelihood(posterior, policy, schedule, rows, key=key, options=options).reshape(-1, group)
    if not np.isfinite(rewards).all():
        raise ValueError(
            f"{type(posterior).__name__} excludes a true token of sequence "
            f"{int(np.argmin(np.isfinite(rewards).all(axis=1)))}, which makes the reward -inf: mix it with the prior"
        )
    weights = advantages(rewards, scaled=scaled)

    def weighed(scores: Any) -> Array:
        grouped = scores.reshape(*rewards.shape, *scores.shape[1:])
        return np.asarray(np.einsum("ng,ng...->n...", weights, grouped) / group)

    return PlanGradient(rewards, weighed(recorder.order), weighed(recorder.sizes))


@dataclass(frozen=True, eq=False, repr=False)
class LearnedPlan(Record):
    """A policy and a schedule for ``decode``; ``costs`` float64[iterations] in nats: ln p(x) - ln q(x | path), the mean
    over the paths of an iteration, before its step.
    """

    policy: Policy
    schedule: Schedule
    costs: Array


@checked
def optimise_plan(
    posterior: Posterior,
    distribution: Distribution,
    policy: Policy,
    schedule: Schedule,
    *,
    key: Key,
    iterations: int = 150,
    rate: float = 2.0,
) -> LearnedPlan:
    """Climb ``plan_gradient`` with scaled advantages: 16 fresh sequences and 8 paths of each an iteration.

    numbers += rate x gradient: the weights of a ``PositionHead`` as ``policy``, the numbers of ``LearnedSizes`` as
    ``schedule``; any other policy or schedule stays as it is. Iteration i draws at ``key.fold(i)``. Cost: 128 decodes
    an iteration. Errors: those of ``plan_gradient``, ValueError below one iteration, and where there is nothing to
    learn.
    """
    check_count(iterations, "a plan is learned in at least one iteration")
    if not isinstance(policy, PositionHead) and not isinstance(schedule, LearnedSizes):
        raise ValueError(f"{policy.name} and {schedule.name} have no numbers to learn: PositionHead() or LearnedSizes")
    costs = np.empty(iterations)
    for i in range(iterations):
        place = key.fold(i)
        truth = distribution.sample(place.fold("data"), 16)
        found = plan_gradient(posterior, policy, schedule, truth, key=place.fold("paths"), group=8, scaled=True)
        costs[i] = (distribution.log_prob(truth)[:, None] - found.rewards).mean()
        if isinstance(policy, PositionHead):
            weights = np.array(policy.weights) + rate * found.order.mean(axis=0)
            policy = replace(policy, weights=tuple(weights.tolist()))
        if isinstance(schedule, LearnedSizes):
            numbers = np.array(schedule.numbers) + rate * found.sizes.mean(axis=0)
            schedule = LearnedSizes(tuple((float(a), float(b)) for a, b in numbers))
    return LearnedPlan(policy, schedule, costs)
