"""The one question exact posterior, belief propagation and trained network answer, and the form of the answer.

``ask`` puts the question: every function that is given a posterior goes through it, so that no answer of another form
reaches compiled code. Imports the problem room and one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lo_theory.posterior import _answer_kernels
from lo_theory.problem import MASK, Layout
from lo_theory.problem.layout import Record, plain
from lo_theory.problem.seams import Seam

__all__ = ["POSTERIOR", "Marginals", "Posterior", "ask", "check_laws", "check_layout", "complain", "reveal"]

POSTERIOR = Seam("a posterior", ("layout", "marginals"), "ExactPosterior(problem)")


@dataclass(frozen=True, eq=False, repr=False)
class Marginals(Record):
    """Single-token posteriors of a batch of B partly masked sequences.

    ``probs`` float64 or float32 [B, L, V] by position: P(token = v | revealed tokens) where masked, one-hot where
    revealed; zero at values the role does not take. ``log_evidence`` float64[B]: ln P(revealed tokens) in nats; -inf
    for an impossible context, whose masked positions are uniform over the values of their role; nan where the posterior
    does not know it. ``converged`` bool[B].
    """

    probs: NDArray[Any]
    log_evidence: NDArray[np.float64]
    converged: NDArray[np.bool_]


class Posterior(Protocol):
    """Bound to one problem, answers batches of partly masked sequences."""

    @property
    def layout(self) -> Layout:
        """Positions and roles of the sequences it takes."""
        ...

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        """Posterior marginals for ``tokens`` int8[B, L], MASK = -1 where hidden; an impossible row is flagged, no
        exception.
        """
        ...


def ask(
    posterior: Posterior,
    tokens: NDArray[np.int8],
    layout: Layout,
    *,
    name: str | None = None,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> Marginals:
    """Return ``posterior.marginals(tokens)`` for checked tokens int8[B, L], once its form and values are known good.

    Every probability >= 0 and their sum over the V values within 1e-4 of one, at every position; some of it on values
    that the role takes (the rest is dropped where tokens are drawn); log_evidence float[B], finite, -inf or nan;
    converged bool[B]. The answer has contiguous probabilities in float32 or float64. The posterior is given a copy of
    the tokens, its own to change. Cost: one pass over the B L V numbers, under 2 % of a decode of 2,000 sequences with
    the exact posterior at (8, 24) (tests/bench/test_answer_bench.py). Errors: ValueError that names the row (its
    number in ``rows``, 0, 1, ... when left out), the position and the numbers.
    """
    POSTERIOR.check(posterior, "a posterior" if name is None else name)
    name = type(posterior).__name__ if name is None else name
    check_layout(posterior.layout, layout, name)
    answer = posterior.marginals(tokens.copy())
    parts: list[Any] = [getattr(answer, part, None) for part in ("probs", "log_evidence", "converged")]
    if any(part is None for part in parts):
        raise ValueError(f"{name} must answer Marginals(probs, log_evidence, converged), got {type(answer).__name__}")
    shape = (len(tokens), layout.length, layout.n_values)
    probs = check_laws(parts[0], shape, layout.values, name, rows=rows)
    evidence, converged = plain(parts[1], "log_evidence"), plain(parts[2], "converged")
    for part, array, kinds in (("log_evidence", evidence, "f"), ("converged", converged, "b")):
        if array.shape != shape[:1] or array.dtype.kind not in kinds:
            raise ValueError(
                f"{name} must answer {part} of shape {shape[:1]} and kind {kinds!r}, one for each sequence; got "
                f"{array.dtype} of shape {array.shape}"
            )
    if (evidence == np.inf).any():
        row = _number(rows, int(np.argmax(evidence == np.inf)))
        raise ValueError(
            f"{name} gives row {row} the log_evidence inf: it is finite, -inf (impossible) or nan (unknown)"
        )
    return Marginals(probs, evidence.astype(np.float64, copy=False), converged)


def check_layout(own: Layout, layout: Layout, name: str) -> None:
    """Raise ValueError, naming the posterior, unless its ``own`` layout and ``layout`` are those of one problem."""
    if own is layout:
        return
    sizes = [(each.n_latents, each.n_observations, each.q, each.r) for each in (own, layout)]
    if sizes[0] != sizes[1] or not np.array_equal(own.order, layout.order):
        raise ValueError(
            f"{name} is bound to another problem: its layout has (N, P, q, r) = {sizes[0]}, this one {sizes[1]}"
            + (", in another order" if sizes[0] == sizes[1] else "")
        )


def _number(rows: Sequence[int] | NDArray[np.int64] | None, row: int) -> int:
    return row if rows is None else int(rows[row])


def check_laws(
    probs: Any,
    shape: tuple[int, ...],
    values: NDArray[Any],
    name: str,
    *,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Return ``probs`` as contiguous float32 or float64 [B, L, V] of the given shape; ValueError unless all are laws.

    ``values`` int[L]: how many values the token at each position takes.
    """
    given = plain(probs, f"what {name} answers")
    if given.shape != shape:
        raise ValueError(
            f"{name} answers with shape {given.shape} for {shape[0]} contexts of length {shape[1]}: probabilities have "
            f"the shape [B, L, V] = {shape}; a posterior of another problem has another"
        )
    if given.dtype.kind != "f":
        raise ValueError(f"{name} must answer probabilities as floating-point numbers, got dtype {given.dtype}")
    kept = np.float32 if given.dtype == np.float32 else np.float64
    laws: NDArray[Any] = np.require(given, kept, ("C", "W"))
    row, position, what = _answer_kernels.find_fault(laws, values)
    if what:
        who = f"{name} gives row {_number(rows, row)}"
        raise complain(laws[row, position], what, int(values[position]), who, position)
    return laws


def complain(law: NDArray[Any], what: int, size: int, who: str, position: int) -> ValueError:
    """Say what is wrong with one law: the error of ``check_laws``, for those who met the fault themselves."""
    shown = np.array2string(law, precision=6, threshold=8)
    where = f"{who} at position {position} no probabilities: "
    if what == _answer_kernels.NO_NUMBER:
        value = int(np.flatnonzero(~((law >= 0) & (law < np.inf)))[0])
        return ValueError(
            f"{where}{law[value]} for value {value} in {shown}; they are finite and not negative (a softmax makes "
            "them of logits)"
        )
    if what == _answer_kernels.NOT_ONE:
        return ValueError(
            f"{where}{shown} sums to {law.sum(dtype=np.float64):.6g}; they sum to one, to within "
            f"{_answer_kernels.TOLERANCE:g}: divide them by their sum"
        )
    return ValueError(f"{where}all of {shown} lies on values that the token does not take, 0..{size - 1} is allowed")


def reveal(probs: NDArray[Any], rows: NDArray[np.int8]) -> None:
    """Make the law of every revealed token one-hot, in place: ``probs`` [B, L, V] of contexts ``rows`` int8[B, L]."""
    known = (rows != MASK)[..., None]
    np.copyto(probs, np.arange(probs.shape[-1], dtype=np.int8) == rows[..., None], where=known)
