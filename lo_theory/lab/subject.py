"""The subject of an experiment: one row of its settings at work. It makes units, trains networks, binds posteriors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.training import Learner, train_model
from lo_theory.lab.units import Context, Unit, Watched, available_processors
from lo_theory.posterior import BPPosterior, ExactPosterior, Posterior
from lo_theory.problem import Distribution, LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.neural import Trained, TrainedPosterior
    from lo_theory.neural.causal import CausalLearner


T = TypeVar("T")


class Once:
    """Things that several units ask for, such as a trained network, by key: who asks first makes one, others wait.

    Askers of different keys do not wait for each other. A maker that fails leaves nothing: the next to ask tries again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``, by ``make()`` if there is none yet."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made


class Finding(NamedTuple):
    """Quantities with the same keys: one row of results for each metric."""

    kind: str
    keys: Mapping[str, Any]
    metrics: Mapping[str, Sums]


def as_rows(unit: str, shared: Mapping[str, Any], findings: Iterable[Finding]) -> list[Line]:
    """Findings as rows of a unit; ``shared`` are keys of all."""
    return [
        Line(unit, metric, sums, {"kind": found.kind, **shared, **found.keys})
        for found in findings
        for metric, sums in found.metrics.items()
    ]


@dataclass(frozen=True)
class Subject:
    """Row number ``index`` of an experiment, its problem, and the context in which its units compute.

    An experiment's ``units(subject)`` yields the units. Posteriors and networks are made when first asked for, once.
    ``names`` are keys of all its rows, beside those of the problem; ``title`` is what a screen shows.
    """

    index: int
    row: Any
    context: Context
    problem: Distribution | None = None
    title: str = ""
    names: Mapping[str, Any] = field(default_factory=dict)
    _made: Once = field(default_factory=Once)

    def named(self, title: str, **names: Any) -> Subject:
        """The same subject under a title, its rows with more keys."""
        return replace(self, title=title, names={**self.names, **names})

    @property
    def law(self) -> Distribution:
        """The problem, of any kind; ValueError for a row that has none."""
        if self.problem is None:
            raise ValueError(f"row {self.index} has no setting `problem`, so it has no distribution")
        return self.problem

    @property
    def distribution(self) -> LODistribution:
        """The problem with its latents and observations; ValueError for one of another kind."""
        if not isinstance(self.law, LODistribution):
            raise ValueError(
                f"row {self.index}: a {type(self.law).__name__} has no observations of latents: take `law`"
            )
        return self.law

    @property
    def size(self) -> str:
        """The pair ``(N, P)``."""
        return f"({self.distribution.layout.n_latents}, {self.distribution.layout.n_observations})"

    @property
    def key(self) -> Key:
        """Root of all randomness of the row but the problem's own."""
        return Key(self.row.seed)

    @property
    def threads(self) -> int:
        """Threads for a posterior: the processors that the other units leave."""
        return max(1, available_processors() // self.context.options.workers)

    def unit(
        self,
        name: str,
        label: str,
        measure: Callable[[], Iterable[Finding]],
        needs: Iterable[str] = (),
        *,
        forwards: int = 0,
        cost: int = 0,
        learner: Learner | None = None,
    ) -> Unit:
        """A unit of work that keeps what ``measure()`` finds; ``needs`` are names of other units of this subject.

        The name is an address: keep it, and rows that were computed are found again.
        """
        needed = frozenset(f"row{self.index}/{other}" for other in needs)
        cost = learner.cost if learner is not None else cost
        unit, screen = f"row{self.index}/{name}", f"{self.title} {label}" if self.title else label
        return Unit(unit, screen, lambda: self.rows(name, measure()), needed, cost, forwards=forwards, learner=learner)

    def rows(self, name: str, findings: Iterable[Finding]) -> list[Line]:
        """Findings as the rows of the unit ``name``, keyed by the row, its problem and the finding."""
        shared: dict[str, Any] = {"row": self.index, **self.names}
        if self.problem is not None:
            layout = self.problem.layout
            shared |= {"N": layout.n_latents, "P": layout.n_observations}
            shared |= {"problem": self.problem.fingerprint()[:8], "seed": self.row.seed}
        return as_rows(f"row{self.index}/{name}", shared, findings)

    def learner(self, name: str = "", file: str = "", **changes: Any) -> Learner:
        """A network with the row's settings model, objective and training; ``changes`` replace fields of Learner.

        Its checkpoint is ``model-<index>-<file>.safetensors``. Randomness is at the row's key "training", so learners
        of one row see the same data from the same initialisation.
        """
        parts = {
            part: getattr(self.row, part) for part in ("model", "objective", "training") if hasattr(self.row, part)
        }
        given: dict[str, Any] = {
            "distribution": self.law,
            **parts,
            "key": self.key.fold("training"),
            **changes,
        }
        if given.get("training") is None:
            raise ValueError(f"row {self.index} has no training settings, so it has no model")
        file = f"{self.index}-{file}" if file else str(self.index)
        return Learner(name or self.title, file, **given)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """The value of ``name``, by ``make()`` if there is none yet; units that ask at the same time wait for it."""
        return self._made.get(name, make)

    def trained(self, learner: Learner) -> Trained:
        """The network of a learner: trained, trained further from its checkpoint, or read."""
        return self.once(learner.file, lambda: train_model(learner, self.context))

    def model(
        self, learner: Learner, *, precision: str = "", batch: int = 0, compiled: bool = False
    ) -> TrainedPosterior:
        """A masked learner as a posterior, in the precision of its training or in another one."""
        from lo_theory.neural import TrainedPosterior

        trained, batch = self.trained(learner), batch or self.context.options.rows_at_once
        precision, layout = precision or trained.precision, self.law.layout
        return self.once(
            (learner.file, precision, batch, compiled),
            lambda: TrainedPosterior(trained.model, layout, batch=batch, precision=precision, compiled=compiled),
        )

    def causal(self, learner: Learner) -> CausalLearner:
        """A causal learner, which reads along its own order."""
        from lo_theory.neural.causal import CausalLearner

        trained, batch = self.trained(learner), self.context.options.rows_at_once
        layout = learner.distribution.layout
        return CausalLearner(trained.model, layout, learner.reading, batch=batch, precision=trained.precision)

    def exact(self, limit: int) -> ExactPosterior:
        """The exact posterior; ``limit``: the largest number of states that it may enumerate at once."""
        return self.once(("exact", limit), lambda: ExactPosterior(self.distribution, limit=limit, threads=self.threads))

    def bp(self) -> BPPosterior:
        """Belief propagation."""
        return self.once("bp", lambda: BPPosterior(self.distribution, threads=self.threads))

    def watched(self, posterior: Posterior) -> Watched:
        """A posterior that raises Cancelled once work is to stop."""
        return Watched(posterior, self.context.stop)
