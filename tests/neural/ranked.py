"""A program that several ranks run together, for the tests of data-parallel training.

    RANK=... WORLD_SIZE=... python -m tests.neural.ranked <job> <folder> <settings as JSON>

Leaves rank-<r>.json and rank-<r>.npz in the folder: what the rank saw, and how it ended.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import LearnedOrder, Masked, Observer, ProSeCo, Ranks, TrainConfig, Trained, join_ranks, train
from tests.neural.small import KEY, NETWORK, PROBLEM, TRAINING

TOGETHER = replace(TRAINING, batch=9, log_every=1)
PROPOSALS = {"proseco": ProSeCo(PROBLEM), "learned_order": LearnedOrder(PROBLEM)}


@dataclass(frozen=True)
class Recorded(Masked):
    """Keeps every array that was drawn; can be slow, or poison the rows of one rank at one step."""

    kept: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    poison: tuple[int, int] = (-1, -1)

    def draw(self, key: Any, step: int, rows: tuple[int, int]) -> Any:
        time.sleep(self.seconds)
        batch = dict(super().draw(key, step, rows))
        self.kept.update({f"{step}/{name}": values.copy() for name, values in batch.items()})
        if self.poison == (step, rows[0]):
            batch["weight"] = batch["weight"] * np.float32(np.nan)
        return batch


def plain(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Train to the end."""
    objective = Recorded(PROBLEM, Uniform())
    observer = Observer(
        on_log=lambda step, values: told.append([step, dict(values)]),
        evaluate=lambda step, model: {"evaluated_by": ranks.rank},
        evaluate_every=6,
    )
    trained = train(NETWORK, config, objective, KEY, checkpoint=folder / "model", on_log=observer)
    learned = {f"weights/{name}": value for name, value in weights(trained).items()}
    np.savez(folder / f"rank-{ranks.rank}.npz", **learned, **objective.kept)
    return {"resumed_from": trained.resumed_from, "flops": trained.flops}


def weights(trained: Trained) -> dict[str, np.ndarray]:
    """The weights of a network, under their names."""
    return {name: value.cpu().numpy() for name, value in trained.model.state_dict().items()}


def proposals(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Train each of ``PROPOSALS`` to the end."""
    for name, objective in PROPOSALS.items():
        np.savez(folder / f"{name}-{ranks.rank}.npz", **weights(train(NETWORK, config, objective, KEY)))


def slow(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Train for ever, saving at every step; the first rank says how far it is."""

    def tell(step: int, values: Mapping[str, Any]) -> None:
        print(step, flush=True)

    objective = Recorded(PROBLEM, Uniform(), seconds=0.02)
    train(NETWORK, config, objective, KEY, checkpoint=folder / "model", checkpoint_seconds=0, on_log=tell)


def poisoned(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Train on rows of which those of the second rank are not numbers at step 7."""
    second = Ranks(1, ranks.count).rows(config.batch)[0]
    objective = Recorded(PROBLEM, Uniform(), poison=(7, second))
    train(NETWORK, config, objective, KEY, checkpoint=folder / "model", checkpoint_seconds=0)


def apart(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Each rank looks into a folder of its own, as on computers without a common disk."""
    own = folder / f"disk-{ranks.rank}"
    own.mkdir(exist_ok=True)
    train(NETWORK, config, Recorded(PROBLEM, Uniform()), KEY, checkpoint=own / "model")


def different(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Each rank was given another learning rate."""
    config = replace(config, learning_rate=1e-3 * (1 + ranks.rank))
    train(NETWORK, config, Recorded(PROBLEM, Uniform()), KEY)


def endings(config: TrainConfig, folder: Path, ranks: Ranks, told: list[Any]) -> Any:
    """Every way to end in which all ranks see the same error, one after another; the words they ended with."""
    said = {}
    for name in ("poisoned", "apart", "different"):
        try:
            JOBS[name](config, folder, ranks, told)
        except (ValueError, FloatingPointError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


Job = Callable[[TrainConfig, Path, Ranks, list[Any]], Any]
JOBS: dict[str, Job] = {
    "plain": plain,
    "proposals": proposals,
    "slow": slow,
    "poisoned": poisoned,
    "apart": apart,
    "different": different,
    "endings": endings,
}


def main(job: str, folder: str, settings: str) -> None:
    """Do a job and write down how it ended."""
    values, told = json.loads(settings), []
    timeout = values.pop("timeout_seconds", 60.0)
    with join_ranks(values.get("device", "cpu"), timeout_seconds=timeout) as ranks:
        result = JOBS[job](replace(TOGETHER, **values), Path(folder), ranks, told)
        facts = {"ranks": [ranks.rank, ranks.count], "told": told, "result": result, "process": os.getpid()}
        (Path(folder) / f"rank-{ranks.rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
