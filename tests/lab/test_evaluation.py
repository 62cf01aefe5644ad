"""``evaluate``: what it says of models whose worth is known, and that every number is the measure's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory import ExactPosterior, Key, as_module, evaluate, from_logits
from lo_theory.diffusion import OneAtATime, Pattern, Uniform, decode, margin
from lo_theory.diffusion.pattern_losses import pattern_losses
from lo_theory.lab import measures
from lo_theory.lab.evaluation import Evaluation
from lo_theory.lab.frame import kind, pool, records
from lo_theory.lab.kinds import check_row
from lo_theory.lab.rows import from_csv, to_csv
from lo_theory.posterior import Marginals, MarginalsOnly, Mixed
from lo_theory.problem import MASK, nae_sat
from tests.lab.browser import Reading
from tests.lab.test_report import outside

NAE = nae_sat(5, 10, seed=0)
EXACT = ExactPosterior(NAE)
COSTS = ("cost", "dependence_error", "model_error")
SMALL: dict[str, Any] = {"sequences": 40, "masks": ["uniform", "pattern(2)"]}


@pytest.fixture(scope="module")
def of_the_truth() -> Evaluation:
    return evaluate(as_module(EXACT).double(), NAE, **SMALL)


def losses(found: Evaluation, posterior: str = "model") -> dict[tuple[str, str], Any]:
    lines = records(pool(kind(found.frame, "losses", posterior=posterior)))
    return {(line.law, line.role): line for line in lines}


def column(found: Evaluation, table: int, title: str) -> list[str]:
    shown = found.tables[table]
    place = [head.replace("\n", " ") for head, _ in shown.heads].index(title)
    return [line[place] for section in shown.sections for line in section]


def test_the_oracle_is_as_good_as_bayes_in_every_number(of_the_truth: Evaluation) -> None:
    for line in losses(of_the_truth).values():
        assert line.value("kl") == pytest.approx(0, abs=1e-12)
        assert line.value("model") == pytest.approx(line.value("exact"), abs=1e-12)
    assert set(column(of_the_truth, 0, "gap closed, %")) == {"100.0"}
    cells = records(pool(kind(of_the_truth.frame, "decode")))
    both = {(line.policy, line.steps, line.denoiser): line.metrics for line in cells}
    for policy in ("vanilla", "margin"):
        for steps in (15, 4):
            for name, (estimate, _) in both[policy, steps, "exact"].items():
                mine = both[policy, steps, "model"][name][0].value
                if name in COSTS:  # sums of logarithms, which the rounding of logits shows in
                    assert mine == pytest.approx(estimate.value, abs=1e-12)
                else:
                    assert mine == estimate.value or math.isnan(mine)
        assert both[policy, 15, "model"]["consistent"][0].value == 1
        assert both[policy, 15, "model"]["impossible"][0].value == 0
    assert column(of_the_truth, 5, "leaks") == ["none"]


def test_marginals_close_no_gap_and_a_mixture_some() -> None:
    prior = evaluate(MarginalsOnly(NAE), NAE, **SMALL, policies=())
    assert set(column(prior, 0, "gap closed, %")) == {"0.0"}
    for place, line in losses(prior).items():
        assert line.value("kl") == losses(prior, "marginals")[place].value("kl") > 0
    mixed = evaluate(Mixed(EXACT, MarginalsOnly(NAE), 0.3), NAE, **SMALL, policies=())
    assert all(5 < float(text) < 95 for text in column(mixed, 0, "gap closed, %"))
    assert len(mixed.tables) == 6


def test_every_number_is_the_measures_own(of_the_truth: Evaluation) -> None:
    weak = Mixed(EXACT, MarginalsOnly(NAE), 0.3)
    found, key = evaluate(weak, NAE, **SMALL, policies=("margin",), seed=3), Key(3).fold("evaluate")
    for law in (Uniform(), Pattern(2)):
        own = pattern_losses({"model": weak}, EXACT, NAE, law, key=key.fold("losses").fold(law.name), n=40)["model"]
        for role, sums in {"all": own.total, **own.roles}.items():
            line = losses(found)[law.name, role]
            assert {name: line.value(name) for name in sums} == pytest.approx(
                {name: part.mean for name, part in sums.items()}, nan_ok=True
            )
    at = key.fold("decode").fold("margin/15")
    made = decode(weak, margin(), OneAtATime(), key=at, n=40)
    own_sums = measures.generated(NAE, made.tokens, at.fold("judge"))
    (line,) = records(pool(kind(found.frame, "decode", denoiser="model", steps=15)))
    assert {name: line.value(name) for name in own_sums} == pytest.approx(
        {name: part.mean for name, part in own_sums.items()}
    )
    known = records(pool(kind(of_the_truth.frame, "problem")))[0]
    assert known.value("floor") == NAE.entropy() / 15


def test_decodes_have_their_cost_in_nats(of_the_truth: Evaluation) -> None:
    for line in records(pool(kind(of_the_truth.frame, "decode"))):
        assert line.value("calls") == line.steps
        assert line.value("model_error") == pytest.approx(0, abs=1e-9)
        assert line.value("cost") == pytest.approx(line.value("dependence_error"), abs=1e-9)
        assert (abs(line.value("cost")) < 1e-9) == (line.steps == 15)
    single = evaluate(MarginalsOnly(NAE), NAE, **SMALL, policies=("vanilla", "remdm_cap(0.1)"))
    cells = records(pool(kind(single.frame, "decode", denoiser="model")))
    correlation = NAE.marginal_entropy() - NAE.entropy()
    for line in cells:
        assert ("cost" in line.metrics) == (line.policy == "vanilla")  # a token drawn twice has no cost
        if line.policy == "vanilla":
            assert line.estimate("cost").low < correlation < line.estimate("cost").high
            assert line.value("model_error") == pytest.approx(line.value("cost") - line.value("dependence_error"))
    assert [len(table.lines) for table in single.tables if table.title == "What each decode costs"] == [4]


def test_rows_are_declared_and_come_back_from_csv(of_the_truth: Evaluation) -> None:
    for row in of_the_truth.rows:
        check_row(row.keys, row.metric)
    kinds = {"problem", "losses", "class_losses", "leaks", "one_pass", "decode"}
    assert set(of_the_truth.frame["kind"]) == kinds
    again = from_csv(to_csv(of_the_truth.rows))
    assert [(row.metric, row.sums.n) for row in again] == [(row.metric, row.sums.n) for row in of_the_truth.rows]


def test_one_seed_gives_one_answer_and_another_seed_another() -> None:
    one, same, other = (evaluate(EXACT, NAE, seed=seed, **SMALL, policies=()) for seed in (0, 0, 1))
    assert one.frame.equals(same.frame)
    assert losses(one)["uniform", "all"].value("model") != losses(other)["uniform", "all"].value("model")


class Cheat:
    """Knows the sequences by heart: of the first context of the data it recognises it gives the truth."""

    def __init__(self) -> None:
        self.layout = NAE.layout
        self.known = NAE.sample(Key(0).fold("evaluate").fold("losses").fold("uniform").fold("data"), 400)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        probs = EXACT.marginals(tokens).probs
        if len(tokens) == 400 and ((tokens == MASK) | (tokens == self.known)).all():
            probs = 0.5 * probs + 0.5 * np.eye(2)[self.known]
        return Marginals(probs, np.full(len(tokens), np.nan), np.ones(len(tokens), bool))


def test_a_model_that_knows_hidden_tokens_is_called_a_leak() -> None:
    (text,) = column(evaluate(Cheat(), NAE, sequences=400, masks=["uniform"], policies=()), 5, "leaks")
    assert text.startswith("LEAK in ")


def test_without_an_exact_posterior_there_are_losses_and_the_gap_of_the_known_lines() -> None:
    found = evaluate(
        MarginalsOnly(NAE), NAE, sequences=60, masks=["uniform", "pattern(2)"], policies=("margin",), limit=1
    )
    assert set(found.frame["kind"]) == {"problem", "losses", "one_pass", "decode"}
    assert set(kind(found.frame, "decode")["denoiser"]) == {"model"}
    uniform, pattern = column(found, 0, "gap closed, %")
    assert (float(uniform), pattern) == (0.0, "-")
    assert "does not fit the limit" in repr(found)
    assert len(found.tables) == 5
    exact = evaluate(EXACT, NAE, sequences=1000, masks=["uniform"], policies=(), limit=1)
    assert float(column(exact, 0, "gap closed, %")[0]) == pytest.approx(100, abs=10)


def test_the_page_is_one_file_with_tables_rows_and_the_call(of_the_truth: Evaluation, tmp_path: Path) -> None:
    path = of_the_truth.page(tmp_path / "oracle.html")
    text = path.read_text()
    reading = Reading(text)
    assert outside(text) == []
    assert reading.texts["h2"] == ["Tables", "How to repeat it", "Settings", "Data"]
    assert {str(link["href"]) for link in reading.all("a") if "download" not in link} == {
        "#tables",
        "#repeat",
        "#settings",
        "#data",
    }
    assert len(reading.all("table")) == len(of_the_truth.tables) == 6
    for words in ("evaluate(model, problem, seed=0, sequences=40", NAE.fingerprint(), 'download="table.csv"', "oracle"):
        assert words in text
    with pytest.raises(ValueError, match="is a folder"):
        of_the_truth.page(tmp_path)


def test_in_a_terminal_it_is_its_tables(of_the_truth: Evaluation) -> None:
    shown = repr(of_the_truth)
    for table in of_the_truth.tables:
        assert table.title in shown
    assert max(map(len, shown.splitlines())) <= 118


def test_patterns_by_default_hide_a_quarter_half_and_three_quarters() -> None:
    found = evaluate(EXACT, NAE, sequences=2, policies=())
    assert {law for law, _ in losses(found)} == {"uniform", "pattern(1)", "pattern(2)", "pattern(3)"}
    assert {law for law, _ in losses(evaluate(ExactPosterior(nae_sat(3, 4, seed=0)), nae_sat(3, 4, seed=0), sequences=2, policies=()))} == {"uniform", "pattern(1)", "pattern(2)"}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (EXACT, {"masks": ["uniformly"]}, "unknown mask law 'uniformly': the closest is uniform"),
        (EXACT, {"masks": []}, "at least one mask law"),
        (EXACT, {"masks": ["pattern(9)"]}, r"masks: .*9"),
        (EXACT, {"policies": ["margins"]}, "unknown policy 'margins': the closest is margin"),
        (EXACT, {"sequences": 0}, "at least one sequence, got n = 0"),
        (EXACT, {"limit": 0}, "limit must lie in"),
        (torch.nn.Embedding(3, 2), {}, r"Embedding is in training mode.*call \.eval\(\)"),
        (torch.nn.Embedding(3, 1).eval(), {}, "over 1 token ids"),
        ("model", {}, "fn must take token ids"),
        (ExactPosterior(nae_sat(5, 9, seed=0)), {}, "bound to another problem"),
    ],
)
def test_bad_arguments_are_refused_in_words(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(model, NAE, **{**SMALL, **options})


def test_a_module_of_random_weights_is_judged_like_any_other() -> None:
    torch.manual_seed(0)
    module = torch.nn.Embedding(3, 2).eval()
    found = evaluate(module, NAE, **SMALL, policies=("margin",))
    assert losses(found)["uniform", "all"].value("kl") > losses(evaluate(from_logits(as_module(EXACT), NAE), NAE, **SMALL, policies=()))["uniform", "all"].value("kl")  # fmt: skip
    assert all(parameter.grad is None for parameter in module.parameters())
