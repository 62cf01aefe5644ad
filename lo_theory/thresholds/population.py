"""Population dynamics of planted ensembles: the laws of messages on infinite random trees, by resampling.

A sweep replaces every message by the product of d factor messages, each made from random messages of the old population
for planted values drawn from the observation's likelihood. What a run of sweeps looks like is said in ``runs.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem.seams import check_threads, checked
from lo_theory.rng import Key
from lo_theory.thresholds._kernels import BLOCK, Law, sweep_blocks
from lo_theory.thresholds.ensemble import PlantedEnsemble

__all__ = ["Dynamics", "Sweep", "check_population"]

_LARGEST_TABLE = 2**20
_LARGEST_SIZE = 2**24


@dataclass(frozen=True)
class Sweep:
    """Averages of one sweep, of the old messages at the degree of the new ones.

    ``excess`` is the Bethe free entropy minus that of the uniform messages, E ln Z_i - (c/k)(k-1) E ln Z_a, nats per
    latent; ``slope`` its derivative in c at fixed messages, E ln Z_a / k; ``overlap`` (q E[message at the planted
    value] - 1)/(q - 1) of the new messages.
    """

    excess: float
    slope: float
    overlap: float


def check_population(size: int) -> None:
    """Raise ValueError for a population that is less than one block of the kernel, or too large."""
    if not BLOCK <= size <= _LARGEST_SIZE:
        raise ValueError(f"a population has {BLOCK} to {_LARGEST_SIZE} messages, got {size}")


def _alias_table(probabilities: NDArray[np.float64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Walker's alias table (Vose's construction): acceptance out of 2**64, and the alternative of each entry."""
    size = len(probabilities)
    share = probabilities / probabilities.sum() * size
    accept, other = np.ones(size), np.arange(size)
    small, large = [i for i in range(size) if share[i] < 1], [i for i in range(size) if share[i] >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        accept[low], other[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    for i in small:  # only by rounding
        accept[i] = 1 if probabilities[i] > 0 else 0
    return np.array([min(int(a * 2.0**64), 2**64 - 1) for a in accept], np.uint64), other


def _equality_form(tables: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """float64[views, 2]: (a, b) with table = a + b 1[all equal] for every view, or no rows."""
    q = tables.shape[1]
    state = np.indices((q,) * k)
    mask = (state == state[0]).all(axis=0).reshape(q, -1)
    form = np.array([(table[~mask][0], table[mask][0] - table[~mask][0]) for table in tables])
    fits = np.allclose(form[:, 0, None, None] + form[:, 1, None, None] * mask, tables, rtol=1e-13, atol=1e-15)
    return form if fits else np.empty((0, 2))


@checked
@dataclass(frozen=True, eq=False)
class Dynamics:
    """An ensemble made ready for population dynamics.

    ``size`` messages for each planted value; one population where the ensemble is value-symmetric (messages permuted at
    random on every draw) unless ``symmetrised`` is False, else one for each planted value, which after every sweep is
    brought back to the known balance of the values (without that, the global value-imbalance mode grows by c (k-1)
    |lambda| a sweep). ``rate`` is the share of latents revealed beside the observations. ``threads`` changes no number.
    """

    ensemble: PlantedEnsemble
    size: int
    rate: float = 0.0
    symmetrised: bool | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        check_population(self.size)
        if not 0 <= self.rate < 1:
            raise ValueError(f"the rate of revealed latents lies in [0, 1), got {self.rate}")
        check_threads(self.threads)
        if self.ensemble.likelihoods[0].size > _LARGEST_TABLE:
            states = self.ensemble.likelihoods[0].size
            raise ValueError(f"a table of {states} states is over the limit of {_LARGEST_TABLE}: take a smaller q or k")
        symmetry = self.ensemble.value_symmetry() if self.symmetrised is not False else None
        if self.symmetrised and symmetry is None:
            raise ValueError(f"{self.ensemble.name} has no value symmetry: leave symmetrised out")
        object.__setattr__(self, "_law", self._make_law(symmetry))

    def _make_law(self, symmetry: NDArray[np.int64] | None) -> Law:
        q, k = self.ensemble.q, self.ensemble.k
        tables, shares = self.ensemble.views()
        n_views, states = len(tables), q ** (k - 1)
        aliases = [_alias_table((shares[:, None] * tables[:, x]).ravel()) for x in range(q)]
        values = np.stack(np.unravel_index(np.arange(n_views * states) % states, (q,) * (k - 1)), axis=1)
        identity = np.broadcast_to(np.arange(q), (q, 1, q))
        return Law(
            accept=np.stack([accept for accept, _ in aliases]),
            other=np.stack([other for _, other in aliases]),
            view_of=np.arange(n_views * states) // states,
            values=np.ascontiguousarray(values),
            tables=np.ascontiguousarray(tables),
            equality=_equality_form(tables, k),
            source=np.arange(q) if symmetry is None else np.zeros(q, np.int64),
            images=np.ascontiguousarray(identity if symmetry is None else symmetry),
            back=np.empty((0, q), np.int64) if symmetry is None else np.argsort(symmetry[:, 0], axis=1),
        )

    @property
    def law(self) -> Law:
        """Arrays for the kernel."""
        return self._law  # type: ignore[attr-defined]

    @property
    def n_populations(self) -> int:
        """V: 1 where one population serves all planted values, else q."""
        return int(self.law.source.max()) + 1

    def uniform(self) -> NDArray[np.float64]:
        """Messages that know nothing (the paramagnet), float64[V, n, q]."""
        return np.full((self.n_populations, self.size, self.ensemble.q), 1 / self.ensemble.q)

    def planted(self, share: float = 1.0) -> NDArray[np.float64]:
        """Messages of which a ``share`` is sure of the planted value and the rest know nothing, float64[V, n, q]."""
        if not 0 <= share <= 1:
            raise ValueError(f"a share lies in [0, 1], got {share}")
        messages = self.uniform()
        for value in range(self.n_populations):
            messages[value, : round(share * self.size)] = np.eye(self.ensemble.q)[value]
        return messages

    def overlaps(self, messages: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[n]: (q sum_x m(x)**2 - 1)/(q - 1) of each message, averaged over planted values; 0 to 1."""
        q = self.ensemble.q
        return (q * np.einsum("vnx,vnx->n", messages, messages) / self.n_populations - 1) / (q - 1)

    def sweep(
        self, messages: NDArray[np.float64], degrees: NDArray[np.int64], key: Key
    ) -> tuple[NDArray[np.float64], Sweep]:
        """Make new messages of the given ``degrees`` int64[n] from the old ones; arguments and key fix the numbers."""
        out, blocks = np.empty_like(messages), (self.size + BLOCK - 1) // BLOCK
        sums = np.zeros((self.n_populations, blocks, 4))
        words, reveal = np.array(key.words(), np.uint64), np.uint64(int(self.rate * 2.0**64))
        bounds = [blocks * t // self.threads for t in range(self.threads + 1)]
        if self.threads == 1:
            sweep_blocks(out, sums, messages, degrees, self.law, reveal, words, 0, blocks)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                jobs = [
                    pool.submit(sweep_blocks, out, sums, messages, degrees, self.law, reveal, words, first, last)
                    for first, last in pairwise(bounds)
                ]
                for job in jobs:
                    job.result()
        q, k = self.ensemble.q, self.ensemble.k
        free, revealed, factors, squares = sums.sum(axis=(0, 1)) / (self.size * self.n_populations)
        variables = (1 - self.rate) * free + self.rate * revealed
        slope = float(factors) / max(1e-300, float(degrees.mean())) / k
        if self.n_populations > 1:
            _balance(out)
            out = _redraw_planted(out, degrees, key.fold("redraw"))
        return out, Sweep(float(variables - (k - 1) / k * factors), slope, float((q * squares - 1) / (q - 1)))


def _balance(messages: NDArray[np.float64]) -> None:
    """Bring the mean message over all planted values back to uniform, in place, by one weight for each value."""
    q = messages.shape[2]
    for _ in range(3):
        messages /= q * messages.mean(axis=(0, 1))
        messages /= messages.sum(axis=2, keepdims=True)


def _redraw_planted(messages: NDArray[np.float64], degrees: NDArray[np.int64], key: Key) -> NDArray[np.float64]:
    """Give every planted value a population drawn from all messages of equal degree with weight m(value)."""
    n_values, _, q = messages.shape
    redrawn = np.empty_like(messages)
    bounds = [0, *(np.flatnonzero(np.diff(degrees)) + 1), len(degrees)]
    for value in range(n_values):
        offset = float(key.fold(value).words()[0]) / 2.0**64
        for start, end in pairwise(bounds):
            pool = messages[:, start:end].transpose(1, 0, 2).reshape(-1, q)
            cumulative = np.cumsum(pool[:, value])
            points = (np.arange(end - start) + offset) / (end - start) * cumulative[-1]
            chosen = np.minimum(np.searchsorted(cumulative, points, side="right"), len(pool) - 1)
            redrawn[value, start:end] = pool[chosen]
    return redrawn
