"""Mask laws: which positions of a sequence are hidden, and what each hidden one weighs in the loss.

A law answers ``sample(key, tokens, layout, start=0)`` with ``masked`` bool[c, n, L] and ``weight`` float32[c, n, L]; c
is the number of masks per sequence (1 here; paired masks have 2). With these weights the sum of weight x cross-entropy
over a row is in nats per token. Row i of the answer depends on the key and on ``start + i`` only. A new law is one
small class (examples/mask_law.py); one line in LAWS of catalogue.py gives it a name in experiment files.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import _kernels
from lo_theory.problem.layout import Layout, plain
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key

__all__ = [
    "Bernoulli",
    "LatentsOnly",
    "MaskLaw",
    "Masks",
    "ObservationsFirst",
    "Pattern",
    "Rotation",
    "Suffix",
    "TwoRates",
    "Uniform",
    "check_length",
    "describe",
    "draw_masks",
    "hide_subset",
    "keep_plain",
    "number_text",
    "per_hidden",
    "row_integers",
]

Masks = tuple[NDArray[np.bool_], NDArray[np.float32]]


class MaskLaw(Protocol):
    """A law of masks; ``name`` is its key in every table."""

    @property
    def name(self) -> str:
        """Name with its parameters, such as ``pattern(11)``."""
        ...

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """Hide positions of rows ``start .. start + n``: masked bool[c, n, L], weight float32[c, n, L]."""
        ...


MASK_LAW = Seam("a mask law", ("name", "sample"), "Uniform()")

_ROWS_FOR_A_MEAN = 64  # fewer do not show what weights sum to on average
_DEVIATIONS = 6.0


def draw_masks(law: MaskLaw, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
    """Return ``law.sample(...)``, once its form and weights are known good: masked bool[c, n, L], weight float32.

    Weights are finite, not negative and zero where nothing is hidden, and a row of them sums to one on average:
    E[sum] <= 1 <= E[sum | something is hidden], refused where the mean over the rows misses that by six standard errors
    and a thousandth: from 64 rows on, and in fewer where all sums are the same though the numbers hidden are not. Every
    function that is given a mask law goes through here. A law whose rare rows weigh much says by
    ``weight_spread(length)`` what the standard deviation of a row's sum is, at least; infinite: the mean is not judged.
    Errors: ValueError that names the row and the position.
    """
    MASK_LAW.check(law, "law")
    answer = law.sample(key, tokens, layout, start=start)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"{law.name} must answer a pair (masked, weight), got {type(answer).__name__}")
    masked, weight = (plain(part, f"what {law.name} answers") for part in answer)
    form = "masked bool[c, n, L] and weight float32[c, n, L]"
    if masked.ndim != 3 or len(masked) < 1 or masked.shape[1:] != tokens.shape or weight.shape != masked.shape:
        raise ValueError(
            f"{law.name} must answer {form} for n = {len(tokens)} sequences of length L = {layout.length}, got "
            f"{masked.shape} and {weight.shape}"
        )
    if masked.dtype != np.bool_ or weight.dtype.kind != "f":
        raise ValueError(f"{law.name} must answer {form}, got {masked.dtype} and {weight.dtype}")
    wrong = ~((weight >= 0) & (weight < np.inf)) | ((weight > 0) & ~masked)
    if wrong.any():
        copy, row, position = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{law.name} gives row {start + row} at position {position} the weight {weight[copy, row, position]}: "
            "weights are finite, not negative, and zero where a token is not hidden"
        )
    _check_mean(law.name, masked, weight, _weight_spread(law, layout.length))
    return masked, weight.astype(np.float32, copy=False)


def _weight_spread(law: MaskLaw, length: int) -> float:
    known = getattr(law, "weight_spread", None)
    return 0.0 if known is None else float(known(length))


def _check_mean(name: str, masked: NDArray[np.bool_], weight: NDArray[np.floating[Any]], spread: float) -> None:
    sums, hidden = weight.sum(axis=2, dtype=np.float64), masked.sum(axis=2)
    for copy, hides in enumerate(np.asarray(hidden > 0)):
        for rows, sign, what in ((slice(None), 1, "over all rows"), (hides, -1, "over rows that hide any")):
            values, sizes = sums[copy, rows], hidden[copy, rows]
            if len(values) < _ROWS_FOR_A_MEAN and not (np.unique(sizes).size > 1 and np.ptp(values) < 1e-3):
                continue
            mean, error = values.mean(), max(values.std(ddof=1), spread) / np.sqrt(len(values))
            if sign * (mean - 1) > _DEVIATIONS * error + 1e-3:
                raise ValueError(
                    f"the weights of {name} sum to {mean:.4g} a row {what}, and must sum to 1: then the sum of "
                    "weight x cross-entropy is in nats per token (per_hidden makes such weights)"
                )


@checked
def describe(masked: NDArray[np.bool_], layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(latents hidden, observations hidden), each int64[n], of masks bool[n, L]: the class of a context."""
    check_length(masked, layout)
    latents, observations = layout.split(masked)
    return latents.sum(axis=-1), observations.sum(axis=-1)


def check_length(rows: NDArray[Any], layout: Layout) -> None:
    """Raise ValueError unless ``rows`` [n, L], tokens or masks, have the length of ``layout``."""
    if rows.ndim != 2 or rows.shape[1] != layout.length:
        raise ValueError(f"tokens and masks have shape [n, {layout.length}] (N + P) here, got {rows.shape}")


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {rate}")


def number_text(*numbers: float) -> str:
    """The shortest text that gives each number back, with commas between them: ``0,1,0.25``."""
    return ",".join(repr(float(number) + 0.0).removesuffix(".0") for number in numbers)  # 0.0: of -0 too


def keep_plain(law: Any) -> None:
    """Make numpy's numbers among the fields of a frozen dataclass Python's own, as which its repr shows them."""
    for part in dataclasses.fields(law):
        value = getattr(law, part.name)
        object.__setattr__(law, part.name, tuple(map(_item, value)) if isinstance(value, tuple) else _item(value))


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@checked
def row_integers(key: Key, n: int, bound: int, *, start: int = 0) -> NDArray[np.int64]:
    """Draw one uniform integer in [0, bound) for each of rows ``start .. start + n``: int64[n], by address."""
    drawn = np.empty(n, np.int64)
    _kernels.draw_below(drawn, start, *key.words(), bound)
    return drawn


def per_hidden(masked: NDArray[np.bool_]) -> Masks:
    """Answer masks bool[n, L] with weight 1/size on every hidden position; a row with nothing hidden weighs 0."""
    size = masked.sum(axis=-1, keepdims=True)
    weight = np.divide(masked, size, out=np.zeros(masked.shape, np.float32), where=size > 0, casting="unsafe")
    return masked[None], weight[None]


def hide_subset(
    masked: NDArray[np.bool_], key: Key, start: int, positions: NDArray[np.int32], counts: NDArray[np.int64]
) -> None:
    """Hide ``counts[i]`` uniformly chosen ``positions`` in row i of ``masked`` bool[n, L], in place, by address.

    With one key a larger count hides a superset: the counts 0, 1, ... hide along a uniform order.
    """
    _kernels.hide_subsets(masked, start, *key.words(), np.array(positions), counts)


@dataclass(frozen=True)
class Uniform:
    """Mask size n uniform on 1..L, then a uniform subset of that size; weight 1/n.

    The MDM loss of Proposition 2.1 over L.
    """

    @property
    def name(self) -> str:
        """``uniform``."""
        return "uniform"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        masked = np.zeros(tokens.shape, np.bool_)
        sizes = 1 + row_integers(key.fold("size"), len(tokens), layout.length, start=start)
        hide_subset(masked, key.fold("subset"), start, np.arange(layout.length, dtype=np.int32), sizes)
        return per_hidden(masked)


@checked
@dataclass(frozen=True)
class Bernoulli:
    """Every position hidden with probability alpha; weight 1/(alpha L).

    ``alpha`` None: uniform on (0, 1] for each row, which has the same mean as ``Uniform``, with heavier tails.
    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        keep_plain(self)
        if self.alpha is not None:
            _check_rate("alpha", self.alpha)
            if self.alpha == 0:
                raise ValueError("alpha = 0 hides nothing and its weight 1/(alpha L) is infinite: take alpha > 0")

    @property
    def name(self) -> str:
        """``bernoulli`` or ``bernoulli(alpha)``."""
        return "bernoulli" if self.alpha is None else f"bernoulli({number_text(self.alpha)})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        alpha = np.full(len(tokens), 1.0 if self.alpha is None else self.alpha)
        if self.alpha is None:
            _kernels.draw_units(alpha, start, *key.fold("alpha").words())
            alpha = 1.0 - alpha  # (0, 1]
        masked = np.zeros(tokens.shape, np.bool_)
        _kernels.hide_at_rates(masked, start, *key.fold("positions").words(), alpha, np.ones(layout.length))
        weight = masked / (alpha[:, None] * layout.length)
        return masked[None], weight.astype(np.float32)[None]


@checked
@dataclass(frozen=True)
class Pattern:
    """l uniformly chosen latents and round(l P/N) uniformly chosen observations (Figure 2); weight 1/size."""

    latents: int

    def __post_init__(self) -> None:
        keep_plain(self)
        if self.latents < 1:
            raise ValueError(f"pattern(l) hides l >= 1 latents, got {self.latents}")

    @property
    def name(self) -> str:
        """``pattern(l)``."""
        return f"pattern({self.latents})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw; ValueError if l is not in 1..N."""
        check_length(tokens, layout)
        if not 1 <= self.latents <= layout.n_latents:
            raise ValueError(f"pattern(l) hides l = 1..N latents, got l = {self.latents} at N = {layout.n_latents}")
        masked = np.zeros(tokens.shape, np.bool_)
        observed = round(self.latents * layout.n_observations / layout.n_latents)
        for role, positions, count in (
            ("latents", layout.latent_positions, self.latents),
            ("observations", layout.observation_positions, observed),
        ):
            hide_subset(masked, key.fold(role), start, positions, np.full(len(tokens), count))
        return per_hidden(masked)


@checked
@dataclass(frozen=True)
class TwoRates:
    """Latents hidden with probability ``latents``, observations with probability ``observations``; weight 1/size."""

    latents: float
    observations: float

    def __post_init__(self) -> None:
        keep_plain(self)
        _check_rate("the rate of latents", self.latents)
        _check_rate("the rate of observations", self.observations)

    @property
    def name(self) -> str:
        """``two_rates(a,b)``."""
        return f"two_rates({number_text(self.latents, self.observations)})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        masked = np.zeros(tokens.shape, np.bool_)
        rates = np.where(layout.is_latent, float(self.latents), float(self.observations))
        _kernels.hide_at_rates(masked, start, *key.words(), np.ones(len(tokens)), rates)
        return per_hidden(masked)


@dataclass(frozen=True)
class Suffix:
    """The order-aware context.

    A suffix of the reading order is hidden, its length uniform on 1..L, weight 1 on the next position.

    ``reading`` lists positions first to last; roles in order (latents first) when left out. For evaluating any model
    along an order.
    """

    reading: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        keep_plain(self)

    @property
    def name(self) -> str:
        """``suffix`` along the roles, else ``suffix(own order ...)`` with eight digits that tell orders apart."""
        if self.reading is None:
            return "suffix"
        digest = hashlib.blake2b(repr(self.reading).encode(), digest_size=4).hexdigest()
        return f"suffix(own order {digest})"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw; ValueError if ``reading`` is no permutation of the positions."""
        check_length(tokens, layout)
        reading = layout.reading(self.reading)
        known = row_integers(key, len(tokens), layout.length, start=start)
        rank = np.empty(layout.length, np.int64)
        rank[reading] = np.arange(layout.length)
        masked, weight = rank >= known[:, None], rank == known[:, None]
        return masked[None], weight.astype(np.float32)[None]


@dataclass(frozen=True)
class ObservationsFirst:
    """Contexts of decodes that reveal the observations in random order, then the latents in random order.

    The size n is uniform on 1..L. Up to N, n random latents are hidden and weigh 1/n. Above, all latents are hidden
    and n - N random observations, which alone have weight, 1/(n - N). L times the loss is that of such a decode, one
    token a step, as it is for ``Uniform`` and random orders.
    """

    @property
    def name(self) -> str:
        """``observations_first``."""
        return "observations_first"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        latents, sizes = layout.n_latents, 1 + row_integers(key.fold("size"), len(tokens), layout.length, start=start)
        scored = np.zeros((2, *tokens.shape), np.bool_)
        counts = np.minimum(sizes, latents), np.maximum(sizes - latents, 0)
        positions = layout.latent_positions, layout.observation_positions
        for part, own, count in zip(scored, positions, counts, strict=True):
            hide_subset(part, key.fold("subset"), start, np.asarray(own, np.int32), count)
        late = sizes > latents
        weight = np.where(late[:, None], scored[1], scored[0]) / np.where(late, counts[1], counts[0])[:, None]
        return (scored[0] | scored[1])[None], weight.astype(np.float32)[None]


@dataclass(frozen=True)
class LatentsOnly:
    """The size n uniform on 1..N, then a uniform subset of n latents; weight 1/n. All observations are shown.

    N times the loss is that of a decode of the latents in random order, one a step, after all observations. Touches no
    observation, so it is the law of puzzles whose clues are given.
    """

    @property
    def name(self) -> str:
        """``latents_only``."""
        return "latents_only"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        masked = np.zeros(tokens.shape, np.bool_)
        sizes = 1 + row_integers(key.fold("size"), len(tokens), layout.n_latents, start=start)
        hide_subset(masked, key.fold("subset"), start, layout.latent_positions, sizes)
        return per_hidden(masked)


@dataclass(frozen=True)
class Rotation:
    """Several mask laws in turn.

    Row i of a batch follows law i mod their number (name a law twice to double its share).

    All laws must give the same number of masks a sequence. Cost: every law samples the whole batch.
    """

    laws: tuple[MaskLaw, ...]

    def __post_init__(self) -> None:
        if not self.laws:
            raise ValueError("a rotation needs at least one law")
        for law in self.laws:
            MASK_LAW.check(law, "each law of a rotation")

    @property
    def name(self) -> str:
        """``rotation(...)`` of the laws' names."""
        return f"rotation({','.join(law.name for law in self.laws)})"

    def weight_spread(self, length: int) -> float:
        """The largest of its laws'; see ``draw_masks``."""
        return max(_weight_spread(law, length) for law in self.laws)

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        check_length(tokens, layout)
        turn = (start + np.arange(len(tokens))) % len(self.laws)
        answers = [draw_masks(law, key.fold(i), tokens, layout, start=start) for i, law in enumerate(self.laws)]
        masked, weight = answers[0][0].copy(), answers[0][1].copy()
        for i, (other_masked, other_weight) in enumerate(answers):
            if other_masked.shape != masked.shape:
                raise ValueError(
                    f"laws in a rotation must give equally many masks: {self.laws[0].name} {len(masked)}, "
                    f"{self.laws[i].name} {len(other_masked)}"
                )
            masked[:, turn == i], weight[:, turn == i] = other_masked[:, turn == i], other_weight[:, turn == i]
        return masked, weight
