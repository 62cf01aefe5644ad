from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory.diffusion.masks import Uniform
from lo_theory.neural import Masked, Ranks, TrainConfig, Transformer, train
from lo_theory.neural.objectives import State
from lo_theory.neural.step import Training
from tests.neural.small import KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING
from tests.neural.test_train import Counting

Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Uneven(Masked):
    """Rows differ much in loss, so that parts must be weighed by their rows; remembers how many came at once."""

    seen: tuple[list[int], ...] = ([],)

    def loss(self, model: Transformer, batch: Mapping[str, torch.Tensor], state: State) -> tuple[torch.Tensor, State]:
        self.seen[0].append(len(batch["tokens"]))
        return super().loss(model, batch, state)

    def draw(self, key: Any, step: int, rows: tuple[int, int]) -> Any:
        batch = dict(super().draw(key, step, rows))
        scale = (1 + torch.arange(rows[0], sum(rows)).numpy() ** 2).astype("float32")
        return {**batch, "weight": batch["weight"] * scale[:, None, None]}


def gradients(config: TrainConfig, objective: Masked) -> tuple[Gradients, float]:
    """Gradients, before clipping, and loss of the first step."""
    training = Training(NETWORK, replace(config, clip=1e9), objective, KEY, Ranks())
    batch = {name: torch.from_numpy(values) for name, values in training.draw(0).items()}
    training.advance(batch)
    loss, _ = training.watch.look()
    return {
        name: value.grad.double() for name, value in training.model.named_parameters() if value.grad is not None
    }, loss


def furthest(first: Gradients, second: Gradients) -> float:
    return max(float((first[name] - second[name]).norm() / second[name].norm()) for name in second)


@pytest.mark.parametrize(("microbatch", "parts"), [(1, [1] * 8), (3, [3, 3, 2]), (4, [4, 4]), (7, [7, 1])])
def test_gradients_added_up_are_those_of_the_whole_batch(microbatch: int, parts: list[int]) -> None:
    objective = Uneven(PROBLEM, Uniform(), seen=([],))
    added, loss = gradients(replace(TRAINING, microbatch=microbatch), objective)
    assert objective.seen[0] == parts
    expected, whole = gradients(TRAINING, objective)
    assert furthest(added, expected) < 1e-5
    assert loss == pytest.approx(whole, rel=1e-6)


def test_parts_of_different_size_must_be_weighed_by_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual mistake, a mean of means, is far outside the tolerance."""
    right = Training._parts

    def mean_of_means(self: Training, batch: Any) -> Any:
        parts = list(right(self, batch))
        return [(part, 1 / len(parts)) for part, _ in parts]

    monkeypatch.setattr(Training, "_parts", mean_of_means)
    added, loss = gradients(replace(TRAINING, microbatch=3), Uneven(PROBLEM, Uniform(), seen=([],)))
    monkeypatch.undo()
    expected, whole = gradients(TRAINING, Uneven(PROBLEM, Uniform(), seen=([],)))
    assert furthest(added, expected) > 1e-2
    assert loss != pytest.approx(whole, rel=1e-2)


def test_a_microbatch_that_holds_the_batch_changes_no_bit_of_the_weights() -> None:
    plain = train(NETWORK, TRAINING, OBJECTIVE, KEY).model.state_dict()
    for microbatch, equal in ((8, True), (100, True), (3, False)):
        found = train(NETWORK, replace(TRAINING, microbatch=microbatch), OBJECTIVE, KEY).model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in plain.items()) == equal
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_an_objective_that_remembers_is_not_split(tmp_path: Path) -> None:
    objective = Counting(PROBLEM, Uniform())
    with pytest.raises(
        ValueError, match="keeps rows from step to step, which needs all 8 rows of a step at once, not 3"
    ):
        train(NETWORK, replace(TRAINING, microbatch=3), objective, KEY, checkpoint=tmp_path / "model")
    with pytest.raises(ValueError, match="not 4: train on one rank"):
        Training(NETWORK, TRAINING, objective, KEY, Ranks(1, 2, 1, 2))
    assert not (tmp_path / "model").exists()
    train(NETWORK, replace(TRAINING, microbatch=8), objective, KEY)
