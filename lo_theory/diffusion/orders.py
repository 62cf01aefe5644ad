"""Reading orders, and what reading along one costs: the loss of every position against the exact conditional loss.

An order-aware learner (the paper's pi-learner: Section 3, Figure 2, left) reads the positions in an order pi and
answers at time t for position pi(t), given pi(0) .. pi(t-1): a context that the mask law ``Suffix`` hides. Whatever the
order, the conditional losses add up to -ln p(x), so every order has the entropy as its floor; the orders differ in how
hard their conditionals are. ``AlongOrder`` makes any posterior, a masked model too, such a learner. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.diffusion.losses import cross_entropy, kl_divergence
from lo_theory.posterior import Posterior
from lo_theory.posterior.protocol import POSTERIOR, ask, check_laws
from lo_theory.problem import Layout, LODistribution, TableObservations
from lo_theory.problem.distribution import entropies
from lo_theory.problem.layout import MASK, Record, frozen, plain
from lo_theory.problem.seams import Seam, checked
from lo_theory.rng import Key, fill_words, shuffle

__all__ = [
    "ORDERS",
    "AlongOrder",
    "Conditional",
    "OrderLosses",
    "closed_form",
    "order_losses",
    "reading_order",
    "usual_swaps",
]

_CONTEXTS = 4096  # sent through a posterior at once
_SWAPS: Mapping[str, Callable[[int], float]] = {"closer": lambda length: length / 10, "much_closer": math.sqrt}


def usual_swaps(name: str, length: int) -> int:
    """Swaps of "closer" (L/10) and "much_closer" (sqrt(L)) as the paper draws them, rounded, at least one.

    The names fit from L = 100 on, where both are 10: below, sqrt(L) is the larger number.
    """
    if name not in _SWAPS:
        raise ValueError(f"only {' and '.join(_SWAPS)} are made by swaps, not {name!r}")
    return max(1, round(_SWAPS[name](length)))


def _permuted(items: NDArray[np.int64], key: Key) -> NDArray[np.int64]:
    words = np.empty(len(items), np.uint64)
    fill_words(words, 0, *key.words())
    shuffle(items, len(items), words)
    return items


def _swapped(items: NDArray[np.int64], key: Key, swaps: int) -> NDArray[np.int64]:
    """Swap the entries at two different, uniformly drawn places, ``swaps`` times over; swap s has row s of the key."""
    words = np.empty(2, np.uint64)
    for swap in range(swaps):
        fill_words(words, swap, *key.words())
        places = np.arange(len(items))
        shuffle(places, 2, words)
        items[places[:2]] = items[places[1::-1]]
    return items


ORDERS: Mapping[str, Callable[[NDArray[np.int64], Key, int], NDArray[np.int64]]] = {
    "latents_first": lambda items, key, swaps: items,
    "reversed": lambda items, key, swaps: items[::-1].copy(),
    "random": lambda items, key, swaps: _permuted(items, key),
    "closer": _swapped,
    "much_closer": _swapped,
}
"""Every order by name: (positions of the roles in order, key, swaps) -> positions first to last."""


@checked
def reading_order(name: str, layout: Layout, key: Key, *, swaps: int | None = None) -> tuple[int, ...]:
    """Make the order ``name``: the positions, first to last (the paper's pi, Section 3 and Figure 2, left).

    "latents_first": roles in order, latents then observations; "reversed": the same backwards, observations first;
    "random": uniform; "closer" and "much_closer": latents first with ``swaps`` random swaps, ``usual_swaps`` when left
    out. The address ``key`` decides the random ones; a draw of its own needs a key of its own. Errors: ValueError for
    an unknown name, for swaps of an order that has none, or fewer than one.
    """
    if name not in ORDERS:
        raise ValueError(f"unknown order {name!r}: the orders are {', '.join(ORDERS)}")
    if swaps is not None and name not in _SWAPS:
        raise ValueError(f"the order {name!r} takes no swaps, got {swaps}: {' and '.join(_SWAPS)} do")
    if swaps is not None and swaps < 1:
        raise ValueError(f"{name} takes at least one swap, got {swaps}")
    count = 0 if name not in _SWAPS else usual_swaps(name, layout.length) if swaps is None else swaps
    return tuple(int(place) for place in ORDERS[name](layout.reading().copy(), key, count))


class Conditional(Protocol):
    """A learner that answers along one order."""

    @property
    def reading(self) -> tuple[int, ...]:
        """The positions, first to last."""
        ...

    def conditionals(self, tokens: ArrayLike) -> NDArray[Any]:
        """Return float[n, L, V] by *time*: p(token at reading[t] | tokens at reading[:t]), of complete int8[n, L]."""
        ...


CONDITIONAL = Seam("a learner along an order", ("reading", "conditionals"), "AlongOrder(posterior, reading)")


@dataclass(frozen=True)
class AlongOrder:
    """Any posterior as a learner along an order: at time t all that comes later is hidden.

    Cost: L contexts a sequence, where a causal network needs one pass.
    """

    posterior: Posterior
    reading: tuple[int, ...]

    def __post_init__(self) -> None:
        POSTERIOR.check(self.posterior, "posterior")
        reading = self.posterior.layout.reading(self.reading)
        object.__setattr__(self, "reading", tuple(reading.tolist()))

    @cached_property
    def _hidden(self) -> NDArray[np.bool_]:
        """bool[L, L]: at time t, which positions are hidden."""
        rank = np.argsort(np.array(self.reading))
        hidden: NDArray[np.bool_] = rank >= np.arange(len(rank))[:, None]
        return hidden

    def conditionals(self, tokens: ArrayLike) -> NDArray[Any]:
        """See Conditional."""
        rows = self.posterior.layout.check_tokens(tokens, complete=True)
        length, places = rows.shape[1], np.array(self.reading)
        at_once = max(1, _CONTEXTS // length)
        parts = []
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once, None, :]
            contexts = np.where(self._hidden, np.int8(MASK), part)
            numbers = range(first * length, (first + len(contexts)) * length)
            probs = ask(self.posterior, contexts.reshape(-1, length), self.posterior.layout, rows=numbers).probs
            parts.append(probs.reshape(*contexts.shape, -1)[:, np.arange(length), places])
        return np.concatenate(parts) if parts else np.empty((0, length, self.posterior.layout.n_values))


@dataclass(frozen=True, eq=False, repr=False)
class OrderLosses(Record):
    """Losses of n sequences along an order in nats, float64[n, L] by time.

    ``model`` and ``exact``: -ln of the learner's and of the exact probability of the true token; ``kl``: of the exact
    conditional law from the learner's, which has the mean of model - exact and less noise. Without the exact laws
    ``exact`` and ``kl`` are None.
    """

    model: NDArray[np.float64]
    exact: NDArray[np.float64] | None
    kl: NDArray[np.float64] | None


def _by_time(laws: Any, tokens: NDArray[Any], name: str) -> NDArray[np.float64]:
    """float64[n, L, V] of laws by time, V as they have it; ValueError where they are none or leave out a token."""
    size, least = np.shape(laws)[-1] if np.ndim(laws) == 3 else 0, int(tokens.max(initial=0)) + 1
    kept = check_laws(laws, (*tokens.shape, max(size, least)), frozen(np.full(tokens.shape[1], size), np.int32), name)
    return np.asarray(kept, np.float64)


def order_losses(learner: Conditional, exact: NDArray[np.float64] | None, tokens: NDArray[np.int8]) -> OrderLosses:
    """Measure a learner along its order on complete sequences int8[n, L] of the data.

    ``exact`` float64[n, L, V] holds the exact conditionals of the same sequences along the same order
    (``AlongOrder(ExactPosterior(...), reading).conditionals(tokens)``), made once for all learners of that order. Cost:
    one call of ``learner``. Errors: ValueError for laws that are none, and for tokens that are no complete sequences.
    """
    CONDITIONAL.check(learner, "learner")
    rows = plain(tokens, "tokens")
    if rows.ndim != 2 or rows.shape[1] != len(learner.reading) or rows.dtype.kind not in "iu" or (rows < 0).any():
        raise ValueError(
            f"tokens are complete sequences, integers [n, {len(learner.reading)}] without MASK, got {rows.dtype} of "
            f"shape {rows.shape}" + (" with negative values" if (rows < 0).any() else "")
        )
    q = _by_time(learner.conditionals(rows), rows, type(learner).__name__)
    truth = rows[:, np.array(learner.reading)]
    if exact is None:
        return OrderLosses(cross_entropy(q, truth), None, None)
    if np.shape(exact) != q.shape:
        raise ValueError(f"exact conditionals have the learner's shape {q.shape} (n, L, V), got {np.shape(exact)}")
    p = _by_time(exact, rows, "exact")
    return OrderLosses(cross_entropy(q, truth), cross_entropy(p, truth), kl_divergence(p, q))


def closed_form(distribution: LODistribution, reading: ArrayLike | None = None) -> NDArray[np.float64]:
    """Exact conditional loss of every position where it is a formula: float64[L] by time, nats, nan elsewhere.

    A latent that no observation read before depends on: the entropy of its prior, ln q if that is uniform. An
    observation each of whose latents has been read, or is such a latent: H(observation | its latents read). Along
    latents first that is every position, and the sum is the entropy. ``reading``: positions first to last, latents
    first when left out.
    """
    layout = distribution.layout
    result = np.full(layout.length, np.nan)
    read, touched = np.zeros(layout.n_latents, bool), np.zeros(layout.n_latents, bool)
    own = entropies(distribution.prior)
    for t, role in enumerate(layout.role[layout.reading(reading)]):
        if role < layout.n_latents:
            if not touched[role]:
                result[t] = own[role]
            read[role] = True
            continue
        scope = _scope(distribution, int(role) - layout.n_latents)
        if (read | ~touched)[scope].all():
            result[t] = _given_read(distribution, int(role) - layout.n_latents, read[scope])
        touched[scope] = True
    return result


def _scope(distribution: LODistribution, j: int) -> NDArray[np.intp]:
    """The latents that observation j reads."""
    law = distribution.observations
    if isinstance(law, TableObservations):
        return np.asarray(law.scopes[j], np.intp)
    return np.arange(distribution.layout.n_latents)


def _given_read(distribution: LODistribution, j: int, read: NDArray[np.bool_]) -> float:
    """H(observation j | those of its latents that are ``read``), the others at their prior; nan for part of a slab."""
    law = distribution.observations
    if not isinstance(law, TableObservations):
        return 0.0 if read.all() else math.nan
    weights = distribution.scope_weights[j]
    joint = (weights[:, None] * law.tables[law.index[j]]).reshape(*[law.q] * law.k, law.r)
    unread = tuple(int(axis) for axis in np.flatnonzero(~read))
    joint = joint.sum(axis=unread)  # P(latents read, observation)
    given = joint.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(joint > 0, joint * (np.log(given) - np.log(joint)), 0.0).sum())
