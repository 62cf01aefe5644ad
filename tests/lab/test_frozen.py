"""Frozen problems: pinned integers, exact answers against enumeration, and files that need no package to be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from scipy.stats import norm

from lo_theory.cli import main
from lo_theory.lab.frozen import FROZEN, Frozen, freeze, write_frozen
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK
from lo_theory.testing import joint_law
from tests.budget import accept, reject

VERSIONS = {
    "below": "491aab8e9edfe586",
    "easy": "3238d1042f4f8d07",
    "noisy": "5aaabc48a1b011c2",
    "hard": "92d28817ee22e2f2",
    "condensed": "b48393ed5b3b467f",
}


@pytest.fixture(scope="module", params=list(FROZEN))
def frozen(request: pytest.FixtureRequest) -> Frozen:
    return freeze(request.param)


def test_problem_sequences_and_masks_are_the_published_ones(frozen: Frozen) -> None:
    assert frozen.version == VERSIONS[frozen.name]
    other = Frozen(frozen.name, {**frozen.arrays, "masked": ~frozen.arrays["masked"]}, frozen.facts)
    assert other.version != frozen.version


def test_its_numbers_agree_with_each_other(frozen: Frozen) -> None:
    arrays = frozen.arrays
    truth, masked, marginals = arrays["sequences"], arrays["masked"], arrays["marginals"]
    assert set(masked.sum(axis=1)) <= set(range(1, truth.shape[1] + 1))
    assert marginals.sum(axis=2) == pytest.approx(np.ones(truth.shape))
    shown = np.eye(marginals.shape[2])[truth]
    assert (marginals[~masked] == shown[~masked]).all()
    whole = masked.all(axis=1)
    assert arrays["log_evidence"][whole] == pytest.approx(np.zeros(whole.sum()), abs=1e-12)
    assert (arrays["log_prob"] <= arrays["log_evidence"] + 1e-9).all()
    error, apart = frozen.facts["its standard error"], arrays["information_curve"].sum() - arrays["entropy"]
    accept("frozen entropies", 2 * norm.sf(abs(apart) / error))
    reject("frozen entropies", 2 * norm.sf(abs(apart + arrays["information_curve"].max()) / error))  # a token too much
    assert arrays["entropy"] < arrays["marginal_entropy"]


def test_the_marginals_are_those_of_enumeration() -> None:
    arrays = freeze("easy", 60).arrays
    rows, weights = joint_law(FROZEN["easy"].problem.make())
    for truth, masked, marginals, evidence in zip(
        *(arrays[name] for name in ("sequences", "masked", "marginals", "log_evidence")), strict=True
    ):
        p = weights * (rows[:, ~masked] == truth[~masked]).all(axis=1)
        assert evidence == pytest.approx(np.log(p.sum()))
        expected = np.stack([(p[:, None] * (rows == value)).sum(axis=0) for value in range(2)], axis=1) / p.sum()
        assert marginals == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_the_file_is_read_without_the_package_as_its_card_shows(form: str, tmp_path: Path) -> None:
    frozen = freeze("hard", 50)
    path, card = write_frozen(frozen, tmp_path, form)
    (block,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 10
    words = block + "\nimport sys; assert 'lo_theory' not in sys.modules"
    done = subprocess.run([sys.executable, "-I", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=True)
    masked, marginals, truth = (frozen.arrays[name] for name in ("masked", "marginals", "sequences"))
    at_truth = np.take_along_axis(marginals, truth[:, :, None].astype(int), axis=2)[:, :, 0]
    assert float(done.stdout.removeprefix("nats a hidden token ")) == pytest.approx(-np.log(at_truth)[masked].mean())
    assert frozen.version in card.read_text()
    assert path.name in block


def test_parquet_holds_the_problem_in_its_metadata(tmp_path: Path) -> None:
    frozen = freeze("condensed", 32)  # as many as the information curve has numbers
    path, _ = write_frozen(frozen, tmp_path, "parquet")
    table = parquet.read_table(path)
    content = json.loads(table.schema.metadata[b"lo_theory"])
    assert content["version"] == frozen.version
    assert np.array_equal(content["scopes"], frozen.arrays["scopes"])
    assert np.array_equal(content["table"], frozen.arrays["table"])
    assert np.array_equal(content["information_curve"], frozen.arrays["information_curve"])
    marginals = np.stack(table["marginals"].to_numpy()).reshape(frozen.arrays["marginals"].shape)
    assert np.array_equal(marginals, frozen.arrays["marginals"])


def test_the_command_writes_what_is_named_and_refuses_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "easy", "--to", str(tmp_path)]) == 0
    with np.load(tmp_path / "easy.npz") as file:
        assert str(file["version"]) == VERSIONS["easy"]
        tokens = np.where(file["masked"], MASK, file["sequences"]).astype(np.int8)
        answer = ExactPosterior(FROZEN["easy"].problem.make()).marginals(tokens[:100])
        assert np.array_equal(answer.probs, file["marginals"][:100])
    assert VERSIONS["easy"] in capsys.readouterr().out
    assert main(["export", "esay", "--to", str(tmp_path)]) == 2
    assert "no frozen problem 'esay': known are below, easy, noisy, hard, condensed" in capsys.readouterr().err
    assert main(["export", "easy", "--to", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
