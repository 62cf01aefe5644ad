"""Models that know nothing of lo_theory: the example runs at small size, and the page on them does what it says."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lo_theory.lab.frame import kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interop.md").read_text()
EXAMPLE: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "outside_models.py"))


def test_a_gru_and_a_transformer_of_ones_own_are_trained_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    torch.set_num_threads(1)
    EXAMPLE["main"](["--steps", "2", "--sequences", "4"])
    shown = capsys.readouterr().out
    assert shown.count("Losses by mask law") == shown.count("Does it beat Bayes?") == 2
    assert "transformers is not installed (pip install '.[interop]')" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"recurrent.html", "attentive.html"}


@pytest.mark.parametrize("name", ["Recurrent", "Attentive"])
def test_their_losses_fall_when_they_are_trained(name: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, losses = EXAMPLE[name](), []
    for steps in (1, 40):
        found = EXAMPLE["evaluate"](
            EXAMPLE["train"](model.train(), steps), EXAMPLE["PROBLEM"], sequences=60, masks=["uniform"], policies=()
        )
        rows = kind(found.frame, "losses", posterior="model", role="all", metric="kl")
        losses.append(float(rows["sum"].iloc[0] / rows["n"].iloc[0]))
    assert 0 < losses[1] < losses[0]


def test_evaluating_takes_at_most_ten_lines_of_the_example() -> None:
    source = (ROOT / "examples" / "outside_models.py").read_text()
    lines = [line for line in source.splitlines() if re.search(r"evaluate\(|from_logits\(|\.page\(", line)]
    assert 3 <= len(lines) <= 10


def test_the_blocks_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    space: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/interop.md", "exec"), space)
    assert (tmp_path / "model.html").exists()
    assert len(space["kl"]) > 0
    assert tuple(space["logits"].shape) == (2, 32, 30)
    assert space["posterior"].marginals(space["problem"].sample(EXAMPLE["Key"](0), 2)).probs.shape == (2, 32, 2)
