"""L&O distributions (Definition 3.1): N independent latents, P observations of them, a permutation of the positions.

``LODistribution`` is the one object every room above is bound to: it samples, scores, knows its entropy, and can be
rebuilt from the arrays it shows. The paper's families are in ``families``.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory.problem import _kernels
from lo_theory.problem.layout import Layout, Record, frozen, plain
from lo_theory.problem.observations import (
    OBSERVATIONS,
    Observations,
    SlabObservations,
    TableObservations,
    check_stochastic,
)
from lo_theory.problem.sampler import Sampler, make_sampler
from lo_theory.problem.seams import check_threads, checked
from lo_theory.problem.storage import digest_arrays, read_arrays, write_arrays, write_atomically
from lo_theory.rng import Key

__all__ = ["LODistribution", "entropies"]

_ENUMERABLE_LATENTS = 20  # slab marginals sum over 2**N assignments
_LARGEST_ROW = 2**63  # rows are addressed by 64 bits
_AXES = {  # of the arrays in a problem file, by name: kind of numbers and axes
    "prior": ("f", 2),
    "order": ("iu", 1),
    "scopes": ("iu", 2),
    "tables": ("f", 3),
    "index": ("iu", 1),
    "vectors": ("f", 2),
    "width": ("f", 0),
}


def entropies(laws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats along the last axis, 0 ln 0 = 0."""
    return -(laws * np.log(np.where(laws > 0, laws, 1.0))).sum(axis=-1)


@dataclass(frozen=True, eq=False, repr=False)
class LODistribution(Record):
    """A Latents-and-Observations distribution over sequences of L = N + P tokens.

    p(x) = prod_i prior[i, x_i] prod_j P(o_j | x), with role i at position ``order[i]``. ``prior`` float64[N, q], rows
    summing to one; ``observations`` a law of P observations; ``order`` int32[L], the identity when left out.
    """

    prior: NDArray[np.float64]
    observations: Observations
    order: NDArray[np.int32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        OBSERVATIONS.check(self.observations, "observations")
        prior, law = plain(self.prior, "prior", np.float64), self.observations
        if prior.ndim != 2 or prior.shape[0] < 1:
            raise ValueError(f"prior must have shape [N, q] with N >= 1, got {prior.shape}")
        check_stochastic(prior, "prior")
        if prior.shape[1] != law.q:
            raise ValueError(f"prior gives a latent {prior.shape[1]} values, the observations read {law.q}")
        if prior.shape[0] < law.least_latents or (
            isinstance(law, SlabObservations) and prior.shape[0] != law.least_latents
        ):
            raise ValueError(f"the observations need {law.least_latents} latents, the prior has N = {prior.shape[0]}")
        object.__setattr__(self, "prior", frozen(prior, np.float64))
        object.__setattr__(self, "order", self.layout.order)

    @cached_property
    def layout(self) -> Layout:
        """Positions and roles."""
        law = self.observations
        return Layout(len(self.prior), law.n_observations, law.q, law.r, self.order)

    @cached_property
    def _sampler(self) -> Sampler:
        return make_sampler(self.layout, self.prior, self.observations)

    @checked
    def sample(
        self, key: Key, n: int, *, start: int = 0, out: NDArray[np.int8] | None = None, threads: int = 1
    ) -> NDArray[np.int8]:
        """Draw rows ``start .. start + n`` of the stream named by ``key``: int8[n, L].

        The same rows whatever the split over calls, ``start`` and ``threads``. ``out`` (C-contiguous int8[n, L]) avoids
        the allocation, which costs more than the sampling. Cost per row: about the time to copy it for binary tokens
        without noise, some half a nanosecond more for each noisy one; otherwise one random word per latent and per
        noisy observation.
        """
        check_threads(threads)
        if n < 0 or start < 0 or start + n > _LARGEST_ROW:
            raise ValueError(f"sample takes n >= 0 and start >= 0 with start + n <= 2**63, got n={n}, start={start}")
        shape = (n, self.layout.length)
        if out is None:
            try:
                out = np.empty(shape, np.int8)
            except MemoryError as error:
                raise MemoryError(
                    f"{n:,} rows of {shape[1]} tokens do not fit the memory ({error}): draw fewer, with other "
                    "keys (seeds) or start= for more"
                ) from error
        elif out.shape != shape or out.dtype != np.int8 or not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError(
                f"out must be a writeable C-contiguous int8 array of shape {shape}, got {out.dtype} {out.shape}"
            )
        edges = [n * part // threads for part in range(threads + 1)]
        parts = [(out[a:b], start + a, key) for a, b in itertools.pairwise(edges) if b > a]
        if len(parts) == 1:
            self._sampler.fill(*parts[0])
        elif parts:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(lambda part: self._sampler.fill(*part), parts))
        return out

    def log_prob(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """ln p(x) in nats of complete sequences int8[n, L]: float64[n], -inf where impossible."""
        rows = self.layout.check_tokens(tokens, complete=True)
        law = self.observations
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.prior)
            if isinstance(law, TableObservations):
                result = np.empty(len(rows))
                _kernels.log_prob_tables(result, rows, log_prior, law.scopes, np.log(law.tables), law.index, self.order)
                return result
            latents, observed = (part.astype(np.intp) for part in self.layout.split(rows))
            seen = np.take_along_axis(law.probabilities(latents), observed[:, :, None], axis=2)[:, :, 0]
            return log_prior[np.arange(len(log_prior)), latents].sum(axis=1) + np.log(seen).sum(axis=1)

    @cached_property
    def scope_weights(self) -> NDArray[np.float64]:
        """float64[P, q**k].

        Prior probability of each scope state (zero where a repeated latent would disagree with itself).
        """
        law = self.observations
        if not isinstance(law, TableObservations):
            raise ValueError(f"{type(law).__name__} has no scopes")
        states = np.stack(np.unravel_index(np.arange(law.q**law.k), (law.q,) * law.k))
        weights = np.ones((law.n_observations, law.q**law.k))
        for a in range(law.k):
            fresh = np.ones(law.n_observations, bool)
            for b in range(a):
                same = law.scopes[:, a] == law.scopes[:, b]
                weights[same] *= states[a] == states[b]
                fresh &= ~same
            weights[fresh] *= self.prior[law.scopes[fresh, a]][:, states[a]]
        return weights

    def entropy(self) -> float:
        """Entropy in nats per sequence: H(latents) + sum_j E H(o_j | latents), exact for tables and slabs."""
        law, latents = self.observations, float(entropies(self.prior).sum())
        if isinstance(law, TableObservations):
            return latents + float((self.scope_weights * entropies(law.tables)[law.index]).sum())
        return latents  # a slab is a function of the latents

    @cached_property
    def token_marginals(self) -> NDArray[np.float64]:
        """float64[L, V] by position: the law of each single token (values a role does not take have probability 0).

        For slabs a sum over 2**N assignments: ValueError beyond N = 20.
        """
        layout, law = self.layout, self.observations
        if isinstance(law, TableObservations):
            observed = np.einsum("ps,psr->pr", self.scope_weights, law.tables[law.index])
        else:
            observed = self._enumerated_marginals()
        result = np.zeros((layout.length, layout.n_values))
        result[layout.latent_positions, : layout.q] = self.prior
        result[layout.observation_positions, : layout.r] = observed
        result.setflags(write=False)
        return result

    def _enumerated_marginals(self) -> NDArray[np.float64]:
        n = self.layout.n_latents
        if n > _ENUMERABLE_LATENTS:
            raise ValueError(
                f"single-token marginals of slabs sum over 2**N assignments: N = {n} is over the limit of "
                f"{_ENUMERABLE_LATENTS}; "
                "estimate them from samples"
            )
        total = np.zeros((self.layout.n_observations, self.layout.r))
        for chunk in np.array_split(np.arange(2**n), max(1, 2**n // 4096)):
            latents = (chunk[:, None] >> np.arange(n)) & 1
            weights = self.prior[np.arange(n), latents].prod(axis=1)
            total += np.tensordot(weights, self.observations.probabilities(latents), axes=1)
        return total

    def marginal_entropy(self) -> float:
        """Sum over tokens of the entropy of the single token, nats per sequence.

        What can be reached knowing no constraint.
        """
        return float(entropies(self.token_marginals).sum())

    def _arrays(self) -> dict[str, NDArray[Any]]:
        law = self.observations
        if isinstance(law, TableObservations):
            own: dict[str, NDArray[Any]] = {"scopes": law.scopes, "tables": law.tables, "index": law.index}
        elif isinstance(law, SlabObservations):
            own = {"vectors": law.vectors, "width": np.array(law.width)}
        else:
            raise ValueError(f"cannot store observations of type {type(law).__name__}")
        return {"prior": self.prior, "order": self.order, **own}

    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the problem: a digest of its arrays, the same on every machine."""
        return digest_arrays(self._arrays())

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the problem's arrays to an .npz file, whole or not at all."""
        return write_atomically(path, lambda file: write_arrays(file, self._arrays()))

    @classmethod
    @checked
    def load(cls, path: str | Path) -> LODistribution:
        """Rebuild a problem that ``save`` wrote; ValueError if the file is damaged or foreign. Executes nothing.

        Names, kinds, axes and sizes are compared before an array is read, so memory is bounded by the file's size.
        """
        try:
            return cls._from_arrays(read_arrays(path, _AXES))
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # damaged bytes make zipfile and numpy raise a dozen kinds
            raise ValueError(f"{path} is no problem file written by save, or is damaged: {error}") from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> LODistribution:
        names = set(arrays)
        if names == {"prior", "order", "scopes", "tables", "index"}:
            law: Observations = TableObservations(arrays["scopes"], arrays["tables"], arrays["index"])
        elif names == {"prior", "order", "vectors", "width"}:
            law = SlabObservations(arrays["vectors"], float(arrays["width"]))
        else:
            raise ValueError(f"the arrays {sorted(names)} make no problem")
        return cls(arrays["prior"], law, arrays["order"])
