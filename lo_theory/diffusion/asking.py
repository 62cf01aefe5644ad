"""A posterior as one chunk of a decode asks it: equal contexts once, forwards counted row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import _kernels
from lo_theory.posterior import Marginals, Posterior
from lo_theory.posterior.protocol import ask, reveal
from lo_theory.problem.layout import plain

__all__ = ["Denoiser"]


class Denoiser:
    """``posterior`` for the B rows ``start``, ``start`` + 1, ... of a decode.

    ``forwards`` int64[B]: contexts that each row has asked since ``at`` was called last, as many as it takes when it is
    decoded alone. ``distinct``: contexts that the posterior has been given in all; equal ones of one call are one.
    """

    def __init__(self, posterior: Posterior, rows: int, start: int = 0, *, name: str | None = None) -> None:
        self.posterior, self.start, self.name = posterior, start, name
        self.forwards, self.distinct = np.zeros(rows, np.int64), 0

    def __call__(self, tokens: NDArray[np.int8], rows: NDArray[np.intp]) -> Marginals:
        """What the posterior says of contexts int8[n, L], context i asked for row ``rows[i]``, 0..B-1.

        Errors: ValueError unless ``rows`` names one of the B rows for each context.
        """
        rows = self._check_rows(rows, len(tokens))
        self.forwards += np.bincount(rows, minlength=len(self.forwards))
        first = np.empty(len(tokens), np.int64)
        _kernels.first_equal(first, tokens)
        own = first == np.arange(len(tokens))
        self.distinct += int(own.sum())
        layout = self.posterior.layout
        answer = ask(self.posterior, tokens[own], layout, name=self.name, rows=self.start + rows[own])
        if own.all():
            return answer
        place = (np.cumsum(own) - 1)[first]
        return Marginals(answer.probs[place], answer.log_evidence[place], answer.converged[place])

    def _check_rows(self, rows: Any, contexts: int) -> NDArray[np.intp]:
        given = plain(rows, "rows")
        if given.shape != (contexts,) or given.dtype.kind not in "iu":
            raise ValueError(
                f"rows must say for which row each of {contexts} contexts is asked, int64[{contexts}]; got "
                f"{given.dtype}{list(given.shape)}"
            )
        wrong = (given < 0) | (given >= len(self.forwards))
        if wrong.any():
            raise ValueError(
                f"a context is asked for one of the {len(self.forwards)} rows of the view, 0 to "
                f"{len(self.forwards) - 1}; got row {given[wrong.argmax()]}"
            )
        return given.astype(np.intp, copy=False)

    def at(self, tokens: NDArray[np.int8], active: NDArray[np.bool_]) -> Marginals:
        """Marginals of one step for all rows int8[B, L], asked for those that are ``active`` bool[B], at least one.

        The others have one-hot laws where they are revealed and uniform ones elsewhere, and the log_evidence nan.
        """
        self.forwards[:] = 0
        answer = self(tokens[active], np.flatnonzero(active))
        if active.all():
            return answer
        layout = self.posterior.layout
        values = layout.values[:, None]
        uniform = (np.arange(layout.n_values) < values) / values
        probs = np.repeat(uniform[None].astype(answer.probs.dtype), len(tokens), axis=0)
        reveal(probs, tokens)
        evidence, converged = np.full(len(tokens), np.nan), np.ones(len(tokens), np.bool_)
        probs[active], evidence[active], converged[active] = answer.probs, answer.log_evidence, answer.converged
        return Marginals(probs, evidence, converged)
