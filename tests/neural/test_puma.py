"""The pool of PUMA: its sizes, its loss by enumeration, and that hidden tokens keep the law of the exact posterior."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion.contexts import at_truth
from lo_theory.neural import Puma, Ranks, Transformer, flop_per_token, load, train
from lo_theory.neural.objectives import State
from lo_theory.neural.step import Training
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK, nae_sat
from lo_theory.rng import Key
from lo_theory.testing import chi_square, z_test
from tests.budget import accept, reject
from tests.neural.enumerated import SIZES, SMALL, L, Table, expected
from tests.neural.small import CAUSAL, KEY, LENGTH, NETWORK, PROBLEM, TRAINING
from tests.neural.test_objectives import on_torch
from tests.neural.test_train import Stopped, stop_at
from tests.processes import Process, wait_until

NOISY = nae_sat(4, 7, seed=2, noise=0.1)
TENSORS = {"tokens", "masked", "stage"}


def sizes_law(length: int) -> np.ndarray:
    """P(n hidden), n = 0..L: uniform, but for the rounding of the ends."""
    law = np.full(length + 1, 1 / length)
    law[[0, 1, length]] = 0, 1.5 / length, 0.5 / length
    return law


def pools(objective: Puma, rows: int, steps: int, scores: Any, key: Key = KEY) -> Any:
    """The pools of ``steps`` steps, advanced by ``scores(pool)`` [B, L]."""
    state = objective.initial_state()
    for step in range(steps):
        batch = on_torch(objective.draw(key, step, (0, rows)))
        pool = objective.fill(batch, state)
        yield pool
        state = objective.advance(pool, scores(pool), batch)


def constant(pool: State) -> torch.Tensor:
    return torch.full(pool["masked"].shape, 0.3)


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_with_constant_scores_sizes_are_uniform_but_for_rounding_and_positions_uniform(stages: int) -> None:
    counts, rows = np.zeros(2**L), np.arange(2000 * stages)
    for step, pool in enumerate(pools(Puma(SMALL, stages), len(rows), stages, constant)):
        once = (rows // stages) % stages == step  # each sequence at one of its stages
        counts += np.bincount(pool["masked"].numpy()[once] @ (1 << np.arange(L)), minlength=2**L)
    accept("pool sizes", chi_square(counts, (sizes_law(L) / np.bincount(SIZES))[SIZES]))
    uniform = np.array([0, *np.full(L, 1 / L)])
    reject("pool sizes", chi_square(counts, (uniform / np.bincount(SIZES))[SIZES]))


def slow_advance(objective: Puma, pool: dict[str, Any], scores: np.ndarray, batch: dict[str, Any]) -> dict[str, Any]:
    """One row, one token after another."""
    masked, stage = pool["masked"].copy(), pool["stage"].copy()
    length = masked.shape[1]
    for row in range(len(masked)):
        stage[row] = (stage[row] + 1) % objective.stages
        target = round((stage[row] + batch["share"][row, 1]) / objective.stages * length)
        while length - masked[row].sum() < min(target, length - 1):
            hidden = np.flatnonzero(masked[row])
            best = scores[row, hidden].max()
            tied = hidden[scores[row, hidden] > best - 1e-13]
            masked[row, max(tied, key=lambda i: batch["order"][row, i])] = False
        if objective.tau is not None:
            masked[row, scores[row] > objective.tau] = False
            known = length - masked[row].sum()
            if stage[row]:
                stage[row] = 0 if known == length else max(stage[row], known * objective.stages // length)
    return {"masked": masked, "stage": stage}


@pytest.mark.parametrize(("stages", "tau"), [(1, None), (3, None), (4, 0.7), (20, 0.6), (20, None)])
def test_the_pool_advances_as_its_slow_twin_does(stages: int, tau: float | None) -> None:
    objective, generator = Puma(NOISY, stages, tau), np.random.default_rng(stages)
    state = objective.initial_state()
    for step in range(8):
        batch = objective.draw(KEY, step, (0, 30))
        pool = {name: values.numpy() for name, values in objective.fill(on_torch(batch), state).items()}
        scores = np.round(generator.uniform(0.3, 0.9, size=pool["masked"].shape), 1)  # many ties
        state = objective.advance(on_torch(pool), torch.from_numpy(scores), on_torch(batch))
        slow = slow_advance(objective, pool, scores, dict(batch))
        live = slow["stage"] > 0
        np.testing.assert_array_equal(state["stage"].numpy(), slow["stage"])
        np.testing.assert_array_equal(state["masked"].numpy()[live], slow["masked"][live])
        assert pool["masked"].any(axis=1).all()


def test_rows_keep_their_sequence_until_they_wrap_and_only_reveal() -> None:
    objective, before = Puma(NOISY, 3), None
    for step, pool in enumerate(pools(objective, 12, 9, constant)):
        fresh = objective.draw(KEY, step, (0, 12))["tokens"]
        assert pool["stage"].tolist() == [(row + step) % 3 for row in range(12)]
        new = (pool["stage"] == 0) | (step == 0)
        np.testing.assert_array_equal(pool["tokens"][new], fresh[new.numpy()])
        if before is not None:
            torch.testing.assert_close(pool["tokens"][~new], before["tokens"][~new])
            assert (pool["masked"] <= before["masked"])[~new].all()
        before = pool


def test_tau_of_one_reveals_nothing_more() -> None:
    generator = torch.Generator().manual_seed(1)
    table = [torch.rand(24, NOISY.layout.length, generator=generator) for _ in range(9)]
    runs = []
    for tau in (None, 1.0, 0.5):
        scores = iter(table)
        runs.append(list(pools(Puma(NOISY, 3, tau), 24, 9, lambda pool, scores=scores: next(scores))))
    for name in TENSORS:
        assert all(torch.equal(one[name], other[name]) for one, other in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(one["masked"], other["masked"]) for one, other in zip(runs[0], runs[2], strict=True))


@pytest.mark.parametrize(("stages", "tau"), [(1, None), (2, None), (5, None), (2, 0.8), (5, 0.8)])
def test_hidden_tokens_have_the_law_of_the_exact_posterior_in_the_pool(stages: int, tau: float | None) -> None:
    """Revealing by the probability of the true token leaves hidden what is unlikely, and fails."""
    exact, rows = ExactPosterior(NOISY), 1200

    def measured(*, cheats: bool) -> tuple[np.ndarray, np.ndarray]:
        surprise, ones = np.zeros(rows), np.zeros(rows)

        def scores(pool: State) -> torch.Tensor:
            nonlocal surprise, ones
            truth, masked = pool["tokens"].numpy(), pool["masked"].numpy()
            probs = exact.marginals(np.where(masked, np.int8(MASK), truth)).probs
            true = at_truth(probs, truth)
            surprise += ((true - np.square(probs).sum(axis=2)) * masked).sum(axis=1)
            ones += (((truth == 1) - probs[..., 1]) * masked).sum(axis=1)
            return torch.from_numpy(true if cheats else probs.max(axis=2))

        for _ in pools(Puma(NOISY, stages, tau), rows, 2 * stages, scores):
            pass
        return surprise, ones

    for statistic in measured(cheats=False):
        accept("pool calibration", z_test(statistic, 0.0))
    if stages > 1:
        reject("pool calibration", z_test(measured(cheats=True)[0], 0.0))


class WeightDropped(Puma):
    """1/L for each hidden token, whatever their number."""

    def loss(self, model: Any, batch: Any, state: State) -> Any:
        pool = self.fill(batch, state)
        _, after = super().loss(model, batch, state)
        logits = model(torch.where(pool["masked"], MASK, pool["tokens"].long()))
        each = torch.nn.functional.cross_entropy(logits.mT, pool["tokens"].long(), reduction="none")
        return (each * pool["masked"]).sum() / pool["tokens"].numel(), after


class ByTheTruth(Puma):
    """Reveals where the true token is likely."""

    def loss(self, model: Any, batch: Any, state: State) -> Any:
        pool = self.fill(batch, state)
        loss, _ = super().loss(model, batch, state)
        probs = torch.softmax(model(torch.where(pool["masked"], MASK, pool["tokens"].long())).detach(), dim=-1)
        return loss, self.advance(pool, probs.gather(2, pool["tokens"].long()[..., None])[..., 0], batch)


@pytest.mark.parametrize("stages", [1, 3])
def test_the_loss_of_a_predictor_of_constant_certainty_is_that_of_enumeration(stages: int) -> None:
    """T0: which value it thinks likely depends on the position and sometimes on the context, how surely on neither."""
    generator = Key(5).fold("signs").generator()
    signs = np.where(generator.random((3**L, L)) < 0.2, -1, 1) * (generator.integers(0, 2, size=L) * 2 - 1)
    logits = 1.5 * np.stack([signs, -signs], axis=2).astype(np.float32)
    law = sizes_law(L) / np.bincount(SIZES) / np.maximum(np.arange(L + 1), 1)
    wanted, table = expected(logits, law[SIZES]), Table(logits)

    def drawn(kind: type[Puma]) -> list[float]:
        objective, means = kind(SMALL, stages), []
        for repeat in range(150):
            state, total = objective.initial_state(), 0.0
            for step in range(stages):
                batch = on_torch(objective.draw(KEY.fold(repeat), step, (0, 20 * stages)))
                loss, state = objective.loss(table, batch, state)  # type: ignore[arg-type]
                total += float(loss.detach())
            means.append(total / stages)
        return means

    accept("pool loss", z_test(drawn(Puma), wanted))
    reject("pool loss", z_test(drawn(WeightDropped), wanted))
    if stages > 1:
        reject("pool loss", z_test(drawn(ByTheTruth), wanted))


@pytest.mark.parametrize("tau", [None, 0.6])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_with_its_pool_to_the_same_bytes(
    tau: float | None, precision: str, tmp_path: Path
) -> None:
    objective, config = Puma(PROBLEM, 4, tau), replace(TRAINING, precision=precision, learning_rate=0.05)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trained = train(NETWORK, config, objective, KEY, checkpoint=whole)
    with pytest.raises(Stopped):
        train(NETWORK, config, objective, KEY, checkpoint=broken, checkpoint_seconds=0, on_log=stop_at(5))
    stored = load(broken)
    assert stored.header["step"] == 4
    assert {name.removeprefix("objective/") for name in stored.tensors if name.startswith("objective/")} == TENSORS
    assert len(stored.tensors["objective/stage"]) == TRAINING.batch
    assert train(NETWORK, config, objective, KEY, checkpoint=broken).resumed_from == 4
    assert whole.read_bytes() == broken.read_bytes()
    assert trained.flops == 12 * TRAINING.batch * LENGTH * flop_per_token(NETWORK)  # one pass a row
    other = train(NETWORK, config, replace(objective, stages=3), KEY).model
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in trained.model.state_dict().items())


def saving(path: Path) -> None:
    """Train with a checkpoint after every step, and print its number."""
    config = replace(TRAINING, steps=200, log_every=1)
    log = {"on_log": lambda step, _: print(step, flush=True)}
    train(NETWORK, config, Puma(PROBLEM, 4, 0.6), KEY, checkpoint=path, checkpoint_seconds=0, **log)


def test_a_killed_process_continues_with_its_pool_to_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config, objective = replace(TRAINING, steps=200, log_every=1), Puma(PROBLEM, 4, 0.6)
    train(NETWORK, config, objective, KEY, checkpoint=whole)
    with Process(saving, killed) as process:
        wait_until(lambda: len(process.said()[0].splitlines()) > 23)
        process.kill()
        assert process.returncode == -signal.SIGKILL
    assert 22 <= load(killed).header["step"] < 200
    train(NETWORK, config, objective, KEY, checkpoint=killed)
    assert whole.read_bytes() == killed.read_bytes()


def test_a_pool_is_not_split_and_wrong_settings_are_named() -> None:
    objective = Puma(PROBLEM, 4)
    words = "keeps .*stage.* from step to step, which needs all 8 rows of a step at once, not"
    with pytest.raises(ValueError, match=f"{words} 3: train on one rank and without microbatch"):
        train(NETWORK, replace(TRAINING, microbatch=3), objective, KEY)
    with pytest.raises(ValueError, match=f"{words} 4"):
        Training(NETWORK, TRAINING, objective, KEY, Ranks(1, 2, 1, 2))
    with pytest.raises(ValueError, match="causal=False"):
        objective.check(Transformer(CAUSAL, seed=0))
    with pytest.raises(ValueError, match="at least one stage, got 0"):
        Puma(PROBLEM, 0)
    with pytest.raises(ValueError, match=r"tau must be .*, got 1\.5"):
        Puma(PROBLEM, 2, 1.5)
    assert [Puma(PROBLEM, 4).label(0), Puma(PROBLEM, 4, 0.9).label(0)] == ["puma(4)", "puma(4,0.9)"]
    assert objective.describe() == {"kind": "puma", "problem": PROBLEM.fingerprint(), "stages": 4, "tau": None}
    assert json.dumps(Puma(PROBLEM, np.int64(4), np.float32(0.5)).describe()) == json.dumps(
        Puma(PROBLEM, 4, 0.5).describe()
    )


def test_rows_of_a_step_have_addresses() -> None:
    objective = Puma(PROBLEM, 4)
    whole, parts = objective.draw(KEY, 3, (0, 9)), [objective.draw(KEY, 3, rows) for rows in ((0, 4), (4, 5))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    np.testing.assert_array_equal(whole["tokens"], PROBLEM.sample(KEY.fold("data").fold(3), 9))
    np.testing.assert_array_equal(np.sort(whole["order"], axis=1), np.tile(np.arange(LENGTH), (9, 1)))
