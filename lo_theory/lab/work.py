"""What the work of a row with a problem shares, whatever its task: names, keys of its rows, known lines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion import Sums
from lo_theory.lab.once import Once
from lo_theory.lab.rows import Row as Line
from lo_theory.lab.units import Context
from lo_theory.problem import LODistribution
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.neural import Trained, TrainedPosterior, Transformer

__all__ = ["ModelWork", "ProblemWork", "network_facts"]


def network_facts(network: Transformer) -> dict[str, Sums]:
    """Parameters in all, and outside embeddings and head (the paper's count)."""
    parameters = sum(part.numel() for part in network.parameters())
    return {"parameters": Sums.single(parameters), "core_parameters": Sums.single(network.core_parameters())}


@dataclass(frozen=True)
class ProblemWork:
    """The units of one row are made by a subclass, ``RowWork`` of its task."""

    index: int
    row: Any
    distribution: LODistribution
    context: Context

    @property
    def title(self) -> str:
        """The pair (N, P) as a screen shows it."""
        layout = self.distribution.layout
        return f"({layout.n_latents}, {layout.n_observations})"

    @property
    def names(self) -> Mapping[str, Any]:
        """What else tells this row apart, in the keys of its rows: mostly nothing."""
        return {}

    @cached_property
    def key(self) -> Key:
        """Root of all randomness of the row but the problem's own."""
        return Key(self.row.seed)

    @cached_property
    def lines(self) -> dict[str, float]:
        """Losses of the Bayes optimum and of the single-token marginals under the uniform law, nats per token."""
        length = self.distribution.layout.length
        return {
            "floor": self.distribution.entropy() / length,
            "marginals_only": self.distribution.marginal_entropy() / length,
        }

    def rows(self, name: str, kind: str, keys: Mapping[str, Any], metrics: Mapping[str, Sums]) -> list[Line]:
        """Rows of the unit ``name``, one a metric, keyed by the row, its problem and ``keys``."""
        layout = self.distribution.layout
        shared = {
            "kind": kind,
            "row": self.index,
            **self.names,
            "N": layout.n_latents,
            "P": layout.n_observations,
            "problem": self.distribution.fingerprint()[:8],
            "seed": self.row.seed,
        }
        return [Line(f"row{self.index}/{name}", metric, sums, {**shared, **keys}) for metric, sums in metrics.items()]

    def held_out(self, file: str, keys: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Sums]]]:
        """Keys and metrics of the evaluations during the training of ``file``; none where there were none.

        ``clock`` names the seconds that are fair: of the processor on shared cores, of the wall where a device works.
        """
        from lo_theory.lab.held_out import learning_curve

        clock = "processor_seconds" if self.context.options.device == "cpu" else "training_seconds"
        return [
            ({**keys, "step": point.step, "flops": point.flops, "clock": clock}, point.metrics)
            for point in learning_curve(self.context.run.folder, file)
        ]

    def held_out_rows(self, name: str, file: str, keys: Mapping[str, Any]) -> list[Line]:
        """The same as rows of the unit ``name``."""
        found = self.held_out(file, keys)
        return [line for place, metrics in found for line in self.rows(name, "held_out", place, metrics)]


@dataclass(frozen=True)
class ModelWork(ProblemWork):
    """The work of a row with one masked model, trained by the settings model, objective and training of the row."""

    _models: Once[TrainedPosterior] = field(default_factory=Once)

    @property
    def model(self) -> TrainedPosterior:
        """The trained model: trained, trained further from its checkpoint, or read; by one unit at a time."""
        # No cached_property: before Python 3.12 it holds one lock for all rows, and rows train side by side.
        return self._models.get("model", self._train)

    @abstractmethod
    def _train(self) -> TrainedPosterior:
        """Train, and say how the model is asked."""

    def train(self, name: str) -> Trained:
        """Train the network, which screens call ``name``, with the randomness of the row's key "training"."""
        from lo_theory.lab.training import Learner, make_masked, make_network, train_model

        row = self.row
        if row.training is None:
            raise ValueError(f"row {self.index} has no training settings, so it has no model")
        network = make_network(row.model, self.distribution.layout)
        objective = make_masked(row.objective, self.distribution, row.training.steps)
        key = self.key.fold("training")
        learner = Learner(name, str(self.index), network, row.training, objective, key, self.lines)
        return train_model(learner, self.context)
