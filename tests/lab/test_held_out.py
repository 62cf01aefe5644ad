"""Evaluation during training: what is measured, against known answers, and what a kill leaves of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import Sums, Uniform, losses
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.frame import from_rows, kind
from lo_theory.lab.learning import learning_curves, training_sheet
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import read_sums
from lo_theory.lab.runs import journal
from lo_theory.lab.training import HeldOut, learning_curve
from lo_theory.neural import (
    LearnedOrder,
    Masked,
    OrderedTransformer,
    Staged,
    TrainedPosterior,
    Transformer,
    TransformerConfig,
)
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import nae_sat
from lo_theory.rng import Key
from tests.lab.tiny import tiny

PROBLEM = nae_sat(5, 12, seed=0)
KEY = Key(3).fold("held out")
FORM = TransformerConfig(layers=1, heads=2, width=16, n_values=2, length=17)
MODEL = Transformer(FORM, seed=1)


def test_the_excess_is_the_kl_of_the_library_and_the_exact_posterior_answers_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    honest = ExactPosterior.marginals
    monkeypatch.setattr(ExactPosterior, "marginals", lambda self, tokens: calls.append(1) or honest(self, tokens))
    held_out = HeldOut(PROBLEM, KEY, 60)
    first, again = held_out.excess(MODEL), held_out.excess(MODEL)
    assert len(calls) == 1
    posterior = TrainedPosterior(MODEL, PROBLEM.layout)
    expected = losses(posterior, ExactPosterior(PROBLEM), PROBLEM, Uniform(), key=KEY, n=60).kl
    assert first == again == expected
    values = held_out.values(expected)
    assert values["gap_closed"] == pytest.approx(1 - expected.mean / held_out.span)
    assert read_sums(values["excess"]) == expected


def test_without_the_exact_posterior_it_is_the_loss_above_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldOut, "exact", None)
    held_out = HeldOut(PROBLEM, KEY, 60)
    posterior = TrainedPosterior(MODEL, PROBLEM.layout)
    model = losses(posterior, None, PROBLEM, Uniform(), key=KEY, n=60).model
    found = held_out.excess(MODEL)
    assert found.mean == pytest.approx(model.mean - 5 * math.log(2) / 17)
    assert found.standard_error == pytest.approx(model.standard_error)


def test_a_causal_network_is_measured_along_its_order() -> None:
    from lo_theory.diffusion.orders import order_losses
    from lo_theory.neural.causal import CausalLearner

    model = Transformer(TransformerConfig(1, 2, 16, 2, 17, causal=True), seed=1)
    order = tuple(range(17))[::-1]
    tokens = PROBLEM.sample(KEY.fold("data"), 40)
    expected = (
        order_losses(CausalLearner(model, PROBLEM.layout, order), None, tokens).model.mean() - 5 * math.log(2) / 17
    )
    assert HeldOut(PROBLEM, KEY, 40).excess(model, order).mean == pytest.approx(expected)


def line(event: str, session: int, step: int, seconds: float | None = None, excess: float | None = None) -> str:
    entry: dict[str, Any] = {"event": event, "session": session, "seconds": 0.0, "model": "0", "step": step}
    if seconds is not None:
        entry |= {"training_seconds": seconds, "processor_seconds": seconds / 2, "flops": 10.0 * step}
    if excess is not None:
        entry["excess"] = [2, 2 * excess, 2 * excess**2]
    return json.dumps(entry) + "\n"


def test_clocks_go_on_from_the_checkpoint_and_lost_work_does_not_count(tmp_path: Path) -> None:
    lines = [
        line("start", 1, 0),
        line("evaluation", 1, 10, 5.0, 0.5),
        line("training", 1, 20, 10.0),
        line("evaluation", 1, 40, 20.0, 0.4),  # lost: the checkpoint is of step 30
        line("resume", 2, 30),
        line("evaluation", 2, 40, 7.0, 0.3),
        line("evaluation", 2, 50, 14.0, 0.2).replace('"model": "0"', '"model": "another"'),
        line("evaluation", 2, 50, 12.0, 0.1),
        '{"event": "torn',
    ]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    points = learning_curve(tmp_path, "0")
    assert [point.step for point in points] == [10, 40, 50]
    assert [point.excess.mean for point in points] == pytest.approx([0.5, 0.3, 0.1])
    assert [point.single["training_seconds"] for point in points] == [5.0, 15.0 + 7.0, 15.0 + 12.0]
    assert [point.single["processor_seconds"] for point in points] == [2.5, 11.0, 13.5]
    assert points[0].metrics["training_seconds"] == Sums.single(5.0)
    assert learning_curve(tmp_path, "no such model") == []


def test_an_order_that_is_learned_is_noted_and_no_other(tmp_path: Path) -> None:
    model = OrderedTransformer(TransformerConfig(1, 2, 16, 2, 17), seed=1)
    goal = LearnedOrder(PROBLEM)
    judge = HeldOut(PROBLEM, KEY, 40)
    noted = judge.order(model, Staged(Masked(PROBLEM, Uniform()), goal))
    assert noted == judge.order(model, goal) == {"latents_first": 0.5, "latents_first_reverse": 0.5}
    assert judge.order(model, Masked(PROBLEM, Uniform())) == {}
    entry = json.loads(line("evaluation", 1, 10, 5.0, 0.5)) | {"latents_first": 0.6, "latents_first_reverse": 0.7}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry) + "\n")
    (point,) = learning_curve(tmp_path, "0")
    assert point.metrics["latents_first"] == Sums.single(0.6)
    assert point.metrics["latents_first_reverse"] == Sums.single(0.7)


def test_any_task_evaluates_on_the_way_and_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lo_theory.lab.execute.write_outputs", lambda *_: None)
    document = tiny()
    document["decoding"] = {"sequences": 16, "denoisers": ["model"], "policies": ["vanilla"], "steps": ["L"]}
    runs = []
    for name, evaluations in (("without", 0), ("with", 4)):
        document["training"] |= {"steps": 30, "evaluations": evaluations, "evaluation_contexts": 32}
        runs.append(execute(resolve(document), Request(tmp_path / name, threads=1), SilentProgress()))
    without, evaluated = runs
    names = {"held_out"}
    assert [row for row in evaluated.rows if row.keys["kind"] not in names] == without.rows
    models = [(run.folder / "model-0.safetensors").read_bytes() for run in runs]
    assert models[0] == models[1]
    assert kind(from_rows(without.rows), "held_out").empty
    (curve,) = learning_curves(from_rows(evaluated.rows))
    assert [point.step for point in curve] == [8, 16, 24, 30], "as many as asked for, no more"
    assert {point.clock for point in curve} == {"processor_seconds"}
    assert np.all(np.diff([point.flops for point in curve]) > 0)
    assert np.all(np.diff([point.seconds for point in curve]) > 0)
    logged = [entry["gap_closed"] for entry in journal(evaluated.folder) if "gap_closed" in entry]
    assert logged == pytest.approx([point.value("gap") for point in curve])
    (sheet,) = training_sheet(from_rows(evaluated.rows), resolve(document)).values()
    assert [panel.xlabel.split(",")[0] for panel in sheet.panels] == ["training FLOPs", "processor seconds of training"]
