from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory import ExactPosterior
from lo_theory.cli import main
from lo_theory.diffusion import Uniform, can_enumerate, exact_variances, loss_variances
from lo_theory.neural import Masked, TrainConfig, TransformerConfig, train
from lo_theory.neural.threads import torch_threads
from lo_theory.posterior import MarginalsOnly
from lo_theory.problem import nae_sat
from lo_theory.rng import Key
from tests.cli.complaint import complaint

SMALL = ["variance", "nae-sat", "--N", "3", "--P", "2"]


def lines(printed: str) -> dict[tuple[str, str], list[str]]:
    """The rest of the line of each predictor and law."""
    found = {}
    for table in printed.split("Variance of the loss of one sequence")[1:]:
        predictor = table.split(": ", 1)[1].split("\n", 1)[0].strip()
        for law, rest in re.findall(r"^([a-z_]+(?:\([^)]*\))?) +([12] .*)$", table, re.MULTILINE):
            found[predictor, law] = rest.split()
    return found


def test_the_table_has_the_exact_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figure = tmp_path / "noise.png"
    assert main([*SMALL, "--laws", "uniform", "mirror_uniform", "bernoulli", "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    found = lines(printed)
    assert len(found) == 10
    problem = nae_sat(3, 2, seed=0)
    (expected,) = exact_variances(ExactPosterior(problem), problem, [Uniform()])
    parts = (expected.masks, expected.rates, expected.data, expected.total)
    assert found["exact", "uniform"][:5] == ["1", *(f"{part.mean:z.4f}" for part in parts)]
    assert found["exact", "mirror_uniform"][0] == "2"
    assert found["marginals only", "bernoulli"][1] == "inf"
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert figure.with_suffix(".pdf").exists()
    assert str(figure) in printed


def test_beyond_eight_tokens_it_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["variance", "nae-sat", "--N", "4", "--P", "8", "-n", "4", "--laws", "uniform"]) == 0
    printed = capsys.readouterr().out
    assert "±" in " ".join(lines(printed)["exact", "uniform"])
    assert "Measured on 4 sequences: L = 12 is more than 8." in printed


def test_many_short_sequences_are_measured_and_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """At 12 values a latent 20,736 sequences of six tokens have 64 masks each: more than 2**20 losses."""
    problem = nae_sat(4, 2, q=12, seed=0)
    with pytest.raises(ValueError, match="measure them with loss_variances"):
        exact_variances(ExactPosterior(problem), problem, [Uniform()])
    many = [
        "variance",
        "nae-sat",
        "--N",
        "4",
        "--P",
        "2",
        "--q",
        "12",
        "-n",
        "40",
        "--laws",
        "uniform",
        "mirror_uniform",
    ]
    assert main(many) == 0
    printed = capsys.readouterr().out
    assert "Measured on 40 sequences: possible sequences times masks are more than 2**20." in printed
    key = Key(0).fold("variance").fold("losses")
    (found,) = loss_variances(MarginalsOnly(problem), problem, [Uniform()], key=key, n=40)
    low, high = found.total.interval()
    shown = " ".join(lines(printed)["marginals only", "uniform"])
    assert f"{found.total.mean:z.4f} ±{(high - low) / 2:.4f}" in shown
    assert can_enumerate(nae_sat(4, 2, q=4, seed=0))
    assert main([*SMALL, "--laws", "uniform"]) == 0
    assert "Exact: all sequences and masks." in capsys.readouterr().out


def test_of_a_network_the_gradient_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    problem, path = nae_sat(3, 2, seed=0), tmp_path / "model.safetensors"
    network = TransformerConfig(layers=1, heads=1, width=4, inner=4, n_values=2, length=5)
    train(network, TrainConfig(steps=2, batch=2, threads=1), Masked(problem, Uniform()), Key(0), checkpoint=path)
    extra = ["--laws", "uniform", "--model", str(path), "--passes", "4", "--pairs", "2"]
    assert main([*SMALL, *extra]) == 0
    printed = capsys.readouterr().out
    assert "gradient" in printed
    assert len(lines(printed)["model", "uniform"]) > len(lines(printed)["exact", "uniform"])
    assert main([*SMALL, *extra[:-3], "3", "--pairs", "2", "--predictors", "model"]) == 2
    begun, said = capsys.readouterr().err.splitlines()
    assert begun == "measuring model, and its gradient"
    assert "that 2 divides, at least 2, got 3" in said
    other = ["variance", "nae-sat", "--N", "3", "--P", "3", "--laws", "uniform", "--model", str(path)]
    assert "checkpoint of something else: its problem" in complaint(other, capsys)


@pytest.mark.parametrize(("given", "threads"), [([], 1), (["--threads", "2"], 2)])
def test_a_network_is_measured_with_as_many_threads_as_are_asked_for_and_no_longer(
    given: list[str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, path, seen = nae_sat(3, 2, seed=0), tmp_path / "model.safetensors", []
    network = TransformerConfig(layers=1, heads=1, width=4, inner=4, n_values=2, length=5)
    train(network, TrainConfig(steps=1, batch=2, threads=1), Masked(problem, Uniform()), Key(0), checkpoint=path)
    monkeypatch.setattr("lo_theory.cli.variance._gradients", lambda *_: seen.append(torch.get_num_threads()) or {})
    extra = ["--laws", "uniform", "--model", str(path), "--predictors", "model"]
    with torch_threads(3):
        assert main([*SMALL, *extra, *given]) == 0
        assert torch.get_num_threads() == 3
    assert seen == [threads]


def test_predictors_are_those_named_and_each_table_comes_as_soon_as_it_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*SMALL, "--laws", "uniform", "--predictors", "marginals", "marginals"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "measuring marginals only\n"
    assert {predictor for predictor, _ in lines(shown.out)} == {"marginals only"}
    told = []

    def fitted(posterior: Any, *_: Any) -> list[Any]:
        told.append((type(posterior), capsys.readouterr()))
        return []

    monkeypatch.setattr("lo_theory.cli.variance._fitted", fitted)
    assert main([*SMALL, "--laws", "uniform"]) == 0
    assert [kind for kind, _ in told] == [ExactPosterior, MarginalsOnly]
    (before, between), last = (text for _, text in told), capsys.readouterr()
    assert (before.out, before.err) == ("", "measuring exact\n")
    assert list(lines(between.out)) == [("exact", "uniform")]
    assert between.err == "measuring marginals only\n"
    assert list(lines(last.out)) == [("marginals only", "uniform")]


def test_the_figure_says_which_laws_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("lo_theory.lab.drawing.write_figure", lambda folder, name, figure: drawn.append(figure) or [])
    endless = ["bernoulli", "mirror", "bell(0.2)", "bell_unweighted(0.2)", "bell(0.3)", "bell_unweighted(1)"]
    for count in (0, 2, 6):
        extra = ["--predictors", "marginals", "--figure", str(tmp_path / "a.png")]
        assert main([*SMALL, "--laws", "uniform", *endless[:count], *extra]) == 0
    none, two, six = (figure.axes[0].get_xlabel().split("\n")[1:] for figure in drawn)
    assert none == []
    assert two == ["infinite, not drawn: bernoulli, mirror"]
    assert " ".join(six) == f"infinite, not drawn: {', '.join(endless)}"
    assert max(map(len, six)) <= 60
    bars = {text.get_text() for text in drawn[2].axes[0].get_yticklabels()}
    assert bars == {"uniform", "p_pots(measured)", "mirror_p_pots(measured)"}


def test_settings_of_a_family_are_called_as_they_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("variance", "schedule", "sample"):
        with pytest.raises(SystemExit):
            main([command, "nae-sat", "--help"])
        shown = capsys.readouterr().out
        assert "SETTING" not in shown
        assert re.search(r"--N N +--P P", shown)
        assert "--problem-seed SEED" in shown


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--laws", "nothing"], "--laws: unknown mask law 'nothing'"),
        (["--figure", "a.pdf"], "--figure writes a .png file, got a.pdf: name it a.png"),
        (["--predictors", "exact", "model"], "--predictors names model and there is no file of it: give --model FILE"),
        (["--threads", "0"], "--threads must be a whole number from 1"),
        (["--predictors", "exact", "--model", "a"], "--predictors does not name model: name it too, or leave out --m"),
    ],
)
def test_what_cannot_be_computed_is_said(extra: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in complaint([*SMALL, *extra], capsys)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--laws", "pattern(1)"], r"pattern(1) has no variance by size"),
        (["-n", "0"], "at least one sequence, got n = 0"),
    ],
)
def test_what_cannot_be_measured_is_said_last(extra: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *extra]) == 2
    begun, said = capsys.readouterr().err.splitlines()
    assert begun == "measuring exact"
    assert words in said
