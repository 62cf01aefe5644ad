from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lo_theory.cli import main
from lo_theory.problem import LODistribution, nae_sat, sparse_parity
from lo_theory.rng import Key
from tests.cli.complaint import complaint


def test_sample_writes_the_rows_of_the_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, problem = tmp_path / "data.npz", tmp_path / "problem.npz"
    arguments = ["sample", "nae-sat", "--N", "25", "--P", "275", "-n", "1000", "--seed", "3", "-o", str(path)]
    assert main([*arguments, "--save-problem", str(problem)]) == 0
    assert "1000 sequences" in capsys.readouterr().out
    with np.load(path, allow_pickle=False) as file:
        tokens, fingerprint = file["tokens"], str(file["problem"])
    distribution = nae_sat(25, 275, seed=0)
    assert np.array_equal(tokens, distribution.sample(Key(3).fold("sample"), 1000))
    assert fingerprint == distribution.fingerprint() == LODistribution.load(problem).fingerprint()


def test_sample_knows_all_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    families = {
        "all-k-subsets": ["--N", "4", "--predicate", "xor"],
        "sparse-parity": ["--N", "9", "--P", "20", "--k", "4", "--noise", "0.1", "--problem-seed", "7"],
        "random-slab": ["--N", "5", "--P", "25", "--width", "0.5"],
        "nae-sat": ["--N", "5", "--P", "15", "--q", "3", "--repeats"],
    }
    for family, options in families.items():
        path = tmp_path / f"{family}.npz"
        assert main(["sample", family, *options, "-n", "5", "-o", str(path)]) == 0
        with np.load(path, allow_pickle=False) as file:
            assert len(file["tokens"]) == 5
            fingerprint = str(file["problem"])
        if family == "sparse-parity":
            assert fingerprint == sparse_parity(9, 20, 4, 0.1, seed=7).fingerprint()
    line = complaint(["sample", "nae-sat", "--N", "0", "--P", "1", "-n", "1", "-o", str(tmp_path / "x.npz")], capsys)
    assert "N must be at least 1, got 0" in line
    line = complaint(["sample", "nae-sat", "--N", "5", "--P", "1", "-n", "-1", "-o", str(tmp_path / "x.npz")], capsys)
    assert "n must be at least 1, got -1" in line
    line = complaint(
        ["sample", "nae-sat", "--N", "5", "--P", "1", "-n", "1", "-o", str(tmp_path / "absent" / "x.npz")], capsys
    )
    assert f"there is no folder {tmp_path / 'absent'}" in line


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["-o", "data.csv"], "-o writes a .npz file, got data.csv: name it data.npz"),
        (["-o", "absent/data.npz"], "-o absent/data.npz: there is no folder absent"),
        (["-o", "a.npz", "--save-problem", "b"], "--save-problem writes a .npz file, got b: name it b.npz"),
        (["-o", "a.npz", "--threads", "1000000000"], "--threads must be a whole number from 1 to 1024, got 1000000000"),
        (["-o", "a.npz", "--seed", str(10**400)], "--seed must be an integer of 64 bits, got one of 401 digits"),
    ],
)
def test_what_cannot_be_written_or_started_is_refused_before_a_row_is_drawn(
    extra: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LODistribution, "sample", None)
    assert (
        complaint(["sample", "nae-sat", "--N", "5", "--P", "5", "-n", "3", *extra], capsys) == f"lo-theory: {expected}"
    )
    assert list(tmp_path.iterdir()) == []
