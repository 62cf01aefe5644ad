from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lo_theory.diffusion.masks import Rotation, TwoRates, Uniform
from lo_theory.neural import Causal, Masked, Stage, Transformer
from lo_theory.problem import MASK
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, OBJECTIVE, PROBLEM


@dataclass(frozen=True)
class Twice:
    """A law with two masks a sequence: what the first hides the second shows."""

    name: str = "twice"

    def sample(self, key, tokens, layout, *, start=0):  # type: ignore[no-untyped-def]
        masked, weight = Uniform().sample(key, tokens, layout, start=start)
        other = ~masked
        size = np.maximum(other.sum(-1, keepdims=True), 1)
        return np.concatenate([masked, other]), np.concatenate([weight, (other / size).astype(np.float32)])


def on_torch(batch):  # type: ignore[no-untyped-def]
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.items()}


def slow_masked_loss(model: Transformer, batch: dict[str, np.ndarray]) -> float:
    """One row, one mask, one position after another, in float64."""
    total, rows = 0.0, 0
    for tokens, masks, weights in zip(batch["tokens"], batch["masked"], batch["weight"], strict=True):
        for masked, weight in zip(masks, weights, strict=True):
            given = [MASK if hidden else int(token) for token, hidden in zip(tokens, masked, strict=True)]
            logits = model(torch.tensor([given]))[0].double().detach().numpy()
            for i in range(len(tokens)):
                if masked[i]:
                    total += weight[i] * (np.log(np.exp(logits[i]).sum()) - logits[i, tokens[i]])
            rows += 1
    return total / rows


@pytest.mark.parametrize("law", [Uniform(), TwoRates(0.2, 0.7), Twice()], ids=lambda law: law.name)
def test_the_masked_loss_equals_its_slow_twin(law) -> None:  # type: ignore[no-untyped-def]
    objective = Masked(PROBLEM, law)
    model = Transformer(NETWORK, seed=4)
    with torch.no_grad():
        model.head.weight *= 60  # far from uniform, or a wrong weight would hardly show
    batch = objective.draw(KEY, 0, (0, 9))
    loss, state = objective.loss(model, on_torch(batch), {})
    assert float(loss.detach()) == pytest.approx(slow_masked_loss(model, batch), rel=1e-5)
    assert state == {}


@pytest.mark.parametrize("reading", [None, tuple(reversed(range(LENGTH)))])
def test_the_causal_loss_equals_its_slow_twin(reading: tuple[int, ...] | None) -> None:
    objective, model = Causal(PROBLEM, reading), Transformer(CAUSAL, seed=4)
    with torch.no_grad():
        model.head.weight *= 60
    loss, _ = objective.loss(model, on_torch(objective.draw(KEY, 0, (0, 7))), {})
    rows = PROBLEM.sample(KEY.fold("data").fold(0), 7)
    order = PROBLEM.layout.order if reading is None else reading
    total = 0.0
    for row in rows:
        known: list[int] = [MASK]  # the mask id starts the sequence
        for t, position in enumerate(order):
            given = known + [0] * (LENGTH - len(known))  # a causal network cannot see what fills the rest
            logits = model(torch.tensor([given]))[0, t].double().detach().numpy()
            total += np.log(np.exp(logits).sum()) - logits[row[position]]
            known.append(int(row[position]))
    assert float(loss.detach()) == pytest.approx(total / (7 * LENGTH), rel=1e-5)


@pytest.mark.parametrize(
    "objective", [OBJECTIVE, Causal(PROBLEM), Masked(PROBLEM, Twice())], ids=["staged", "causal", "twice"]
)
@pytest.mark.parametrize("step", [0, 3, 4, 9])
def test_slices_of_a_step_put_together_are_the_step(objective, step: int) -> None:  # type: ignore[no-untyped-def]
    whole = objective.draw(KEY, step, (0, 10))
    parts = [objective.draw(KEY, step, rows) for rows in ((0, 3), (3, 4), (7, 3))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    other = objective.draw(KEY, step + 1, (0, 10))
    assert any(not np.array_equal(other[name], values) for name, values in whole.items())


def test_data_and_masks_have_branches_of_their_own() -> None:
    first = Masked(PROBLEM, Uniform()).draw(KEY, 2, (0, 20))
    second = Masked(PROBLEM, TwoRates(0.5, 0.5)).draw(KEY, 2, (0, 20))
    np.testing.assert_array_equal(first["tokens"], second["tokens"])
    assert not np.array_equal(first["masked"], second["masked"])
    np.testing.assert_array_equal(first["tokens"], PROBLEM.sample(KEY.fold("data").fold(2), 20))


def test_stages_follow_one_another_and_then_comes_the_law() -> None:
    objective = Masked(
        PROBLEM, Uniform(), (Stage(2, TwoRates(0, 1)), Stage(0, TwoRates(1, 1)), Stage(3, TwoRates(1, 0)))
    )
    labels = [objective.label(step) for step in range(7)]
    assert labels == ["two_rates(0,1)"] * 2 + ["two_rates(1,0)"] * 3 + ["uniform"] * 2
    is_latent = PROBLEM.layout.is_latent
    assert (objective.draw(KEY, 1, (0, 5))["masked"][:, 0] == ~is_latent).all()
    assert (objective.draw(KEY, 2, (0, 5))["masked"][:, 0] == is_latent).all()


def test_a_rotation_gives_row_i_the_law_i_mod_their_number() -> None:
    laws = (TwoRates(0, 1), TwoRates(1, 0), TwoRates(1, 1))
    tokens, layout = PROBLEM.sample(KEY, 9), PROBLEM.layout
    for start in (0, 1, 5):
        masked, weight = Rotation(laws).sample(KEY, tokens, layout, start=start)
        for i in range(9):
            turn = (start + i) % 3
            expected = np.where(layout.is_latent, turn in (1, 2), turn in (0, 2))
            np.testing.assert_array_equal(masked[0, i], expected)
        np.testing.assert_allclose(weight.sum(-1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="equally many"):
        Rotation((Uniform(), Twice())).sample(KEY, tokens, layout)
    with pytest.raises(ValueError, match="at least one"):
        Rotation(())


def test_wrong_networks_and_orders_are_named() -> None:
    with pytest.raises(ValueError, match="causal=False"):
        OBJECTIVE.check(Transformer(CAUSAL, seed=0))
    with pytest.raises(ValueError, match="causal=True"):
        Causal(PROBLEM).check(Transformer(NETWORK, seed=0))
    from dataclasses import replace

    with pytest.raises(ValueError, match="length 13"):
        OBJECTIVE.check(Transformer(replace(NETWORK, length=13), seed=0))
    with pytest.raises(ValueError, match="permutation"):
        Causal(PROBLEM, (0,) * LENGTH)
    with pytest.raises(ValueError, match="0 steps"):
        Stage(-1, Uniform())


def test_a_stage_with_a_prior_draws_other_latents_and_the_same_observations_given_them() -> None:
    staged = Masked(PROBLEM, Uniform(), (Stage(2, TwoRates(0, 1), (0.2, 0.8)), Stage(2, TwoRates(0, 1))))
    layout, n = PROBLEM.layout, 4000
    tokens = [np.asarray(staged.draw(KEY, step, (0, n))["tokens"]) for step in (0, 2, 4)]
    means = [rows[:, layout.latent_positions].mean() for rows in tokens]
    deviation = 0.5 / np.sqrt(n * layout.n_latents)
    assert abs(means[0] - 0.8) < 5 * deviation
    assert all(abs(mean - 0.5) < 5 * deviation for mean in means[1:])
    assert abs(means[0] - 0.5) > 5 * deviation  # what the prior of the problem would give
    for rows in tokens:  # no noise: an observation is what its latents say, or the sequence is impossible
        assert np.isfinite(PROBLEM.log_prob(rows)).all()
    assert [staged.label(step) for step in (0, 2, 4)] == ["two_rates(0,1), prior 0.2/0.8", "two_rates(0,1)", "uniform"]


def test_a_prior_is_part_of_what_an_objective_is() -> None:
    plain = Masked(PROBLEM, Uniform(), (Stage(2, Uniform()),))
    own = Masked(PROBLEM, Uniform(), (Stage(2, Uniform(), (0.5, 0.5)),))
    other = Masked(PROBLEM, Uniform(), (Stage(2, Uniform(), (0.3, 0.7)),))
    assert plain.describe()["stages"] == [[2, "Uniform()"]]
    assert own.describe() != other.describe()
    np.testing.assert_array_equal(plain.draw(KEY, 0, (3, 5))["tokens"], own.draw(KEY, 0, (3, 5))["tokens"])


@pytest.mark.parametrize(
    ("prior", "message"),
    [((0.2, 0.2), "sum to one"), ((0.2, 0.3, 0.5), "the 2 values of a latent"), ((1.2, -0.2), "probabilities")],
)
def test_a_prior_that_is_no_law_of_a_latent_is_refused(prior: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masked(PROBLEM, Uniform(), (Stage(2, Uniform(), prior),))
