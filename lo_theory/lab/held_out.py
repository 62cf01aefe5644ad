"""Evaluation while a network trains: nats above the entropy floor on held-out data, and what training had cost by then.

What is measured goes into the run's journal, whose lines survive a kill, and is read from there. Loads torch only with
the network it is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lo_theory.diffusion import Sums, Uniform, losses
from lo_theory.diffusion.contexts import draw_contexts
from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.orders import order_losses
from lo_theory.lab.rows import STATISTICS, read_sums
from lo_theory.lab.runs import journal
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import Layout, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.neural import Transformer

__all__ = ["CLOCKS", "HeldOut", "Point", "learning_curve"]

CLOCKS = ("training_seconds", "processor_seconds")
"""What an evaluation notes of the time, evaluations left out: of the wall, of the training thread on a processor."""


class _Remembered:
    """The exact posterior, which answers the same tokens only once."""

    def __init__(self, exact: ExactPosterior) -> None:
        self._exact = exact
        self._answers: dict[bytes, Marginals] = {}

    @property
    def layout(self) -> Layout:
        return self._exact.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        rows = np.ascontiguousarray(tokens, np.int8)
        if rows.tobytes() not in self._answers:
            self._answers[rows.tobytes()] = self._exact.marginals(rows)
        return self._answers[rows.tobytes()]


@dataclass(frozen=True)
class HeldOut:
    """Held-out data of a problem, the same at every call: ``n`` contexts of the uniform law, or ``n`` sequences.

    ``excess`` is in nats per token above the floor, context by context: the KL to the exact marginals, or, where the
    exact posterior does not fit in memory, the loss minus the floor; of a causal network the loss along ``reading``
    minus the floor.
    """

    distribution: LODistribution
    key: Key
    n: int
    threads: int = 1
    batch: int = 128
    precision: str = "float32"

    @cached_property
    def exact(self) -> _Remembered | None:
        """The exact posterior, None where it does not fit. Its answers are kept: n x L x V float64."""
        exact = ExactPosterior(self.distribution, threads=self.threads)
        batches = draw_contexts(self.distribution, Uniform(), self.key, self.n)
        fits = all(exact.estimate_cost(batch.tokens).fits.all() for (batch,) in batches)
        return _Remembered(exact) if fits else None

    @property
    def floor(self) -> float:
        """Loss of the Bayes optimum, nats per token."""
        return self.distribution.entropy() / self.distribution.layout.length

    @property
    def span(self) -> float:
        """Nats per token from the floor to the single-token marginals; nan where they coincide (``gap_span``)."""
        return gap_span(self.floor, self.distribution.marginal_entropy() / self.distribution.layout.length)

    def excess(self, model: Transformer, reading: ArrayLike | None = None) -> Sums:
        """Nats per token above the floor. Cost: ``n`` rows through the network, at first the exact ones too."""
        from lo_theory.neural import TrainedPosterior
        from lo_theory.neural.causal import CausalLearner

        layout, form = self.distribution.layout, {"batch": self.batch, "precision": self.precision}
        if model.config.causal:
            tokens = self.distribution.sample(self.key.fold("data"), self.n)
            learner = CausalLearner(model, layout, reading, **form)  # type: ignore[arg-type]
            return Sums.of(order_losses(learner, None, tokens).model.mean(axis=1) - self.floor)
        posterior = TrainedPosterior(model, layout, **form)  # type: ignore[arg-type]
        found = losses(posterior, self.exact, self.distribution, Uniform(), key=self.key, n=self.n)
        if self.exact is not None:
            return found.kl
        return found.model.shifted(-self.floor)

    def values(self, excess: Sums) -> dict[str, Any]:
        """What the journal keeps, and the progress shows."""
        facts: dict[str, Any] = {
            "excess": dict(zip(STATISTICS, (excess.n, excess.total, excess.deviations), strict=True))
        }
        if not math.isnan(self.span):
            low, high = excess.interval()
            facts |= {
                "gap_closed": 1 - excess.mean / self.span,
                "gap_half_interval": (high - low) / 2 / self.span,
            }
        return facts


@dataclass(frozen=True)
class Point:
    """One evaluation: after how many steps and operations, after how many seconds (``CLOCKS``), with what result."""

    step: int
    flops: float
    seconds: Mapping[str, float]
    excess: Sums

    @property
    def metrics(self) -> dict[str, Sums]:
        """As rows keep it."""
        return {"excess": self.excess, **{name: Sums.single(value) for name, value in self.seconds.items()}}


def _seconds_at(known: Mapping[int, Mapping[str, float]], step: int) -> dict[str, float]:
    """The clocks after ``step`` steps, between the lines that are known."""
    steps = sorted(known)
    return {name: float(np.interp(step, [0, *steps], [0.0, *(known[at][name] for at in steps)])) for name in CLOCKS}


def learning_curve(folder: Path, file: str) -> list[Point]:
    """Evaluations of the training of ``file`` from the journal in ``folder``, by step.

    A session that continues from a checkpoint takes the clocks from there (from the lines around it, to within the
    steps between two of them); what an earlier session did after that checkpoint was lost, and does not count.
    """
    clocks: dict[int, dict[str, float]] = {}
    points: dict[int, Point] = {}
    before = dict.fromkeys(CLOCKS, 0.0)
    for entry in journal(folder):
        if entry.get("model") != file:
            continue
        step = int(entry["step"])
        if entry["event"] in ("start", "resume"):
            before = _seconds_at(clocks, step)
            clocks = {at: seconds for at, seconds in clocks.items() if at <= step}
            points = {at: point for at, point in points.items() if at <= step}
        elif CLOCKS[0] in entry:
            clocks[step] = {name: before[name] + float(entry[name]) for name in CLOCKS}
            if "excess" in entry:
                kept = entry["excess"]  # older journals: n, sum, sum of squares
                names = ("n", "sum", "sum_of_squares")
                excess = read_sums(dict(zip(names, kept, strict=True)) if isinstance(kept, list) else kept)
                points[step] = Point(step, float(entry["flops"]), clocks[step], excess)
    return [points[step] for step in sorted(points)]
