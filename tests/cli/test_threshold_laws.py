"""Tables in files as observation laws."""

from __future__ import annotations

import io
import random
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lo_theory.cli.threshold_laws import make_ensemble, read_table
from lo_theory.problem import Predicate, TableObservations, nae, xor
from lo_theory.thresholds import PlantedEnsemble, kesten_stigum, planted_ensemble
from tests.cli.complaint import complaint

PARITY = np.indices((2, 2, 2)).sum(axis=0) % 2


def ensemble_of(path: Path, **options: Any) -> PlantedEnsemble:
    given: dict[str, Any] = {"law": "table", "file": path, "k": None, "noise": 0.0, "observed": "satisfied"} | options
    return make_ensemble(Namespace(**given))[0]


def saved(path: Path, table: NDArray[Any]) -> Path:
    np.save(path, table)
    return path


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float32, np.dtype(">f8")])
def test_zeros_and_ones_are_a_predicate(dtype: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "nae.npy", np.asfortranarray(nae(3, 3).table.astype(dtype)))
    law = read_table(path)
    assert isinstance(law, Predicate)
    assert np.array_equal(law.table, nae(3, 3).table)
    noisy = ensemble_of(path, noise=0.1)
    assert noisy.name == "nae.npy, noise 0.1"
    assert kesten_stigum(ensemble_of(path)).value == kesten_stigum(planted_ensemble(nae(3, 3))).value
    assert kesten_stigum(noisy).value > kesten_stigum(ensemble_of(path)).value


def test_other_numbers_are_the_probability_of_a_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "likelihood.npy", np.where(PARITY == 1, 0.9, 0.1))
    expected = planted_ensemble(xor(3), observed="all", channel=[[0.9, 0.1], [0.1, 0.9]])
    for observed, values in (("all", [0, 1]), ("satisfied", [1]), ("0", [0])):
        ensemble = ensemble_of(path, observed=observed)
        assert np.allclose(ensemble.likelihoods, expected.likelihoods[values], rtol=1e-15)
        assert ensemble.revealed == pytest.approx(len(values) / 2)


def test_emission_tables_need_their_k(tmp_path: Path) -> None:
    one = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])[PARITY.ravel()]
    shifted = np.roll(one, 1, axis=1)
    law = read_table(saved(tmp_path / "one.npy", one), 3)
    assert isinstance(law, TableObservations)
    assert np.array_equal(law.tables, one[None])
    ensemble = ensemble_of(saved(tmp_path / "two.npy", np.stack([one, shifted])), k=3, observed="all")
    assert ensemble.n_kinds == 6
    assert np.array_equal(ensemble.likelihoods[0], one[:, 0].reshape(2, 2, 2))
    assert np.array_equal(ensemble.likelihoods[3], shifted[:, 0].reshape(2, 2, 2))
    assert np.allclose(ensemble.shares, np.array([0.45, 0.1, 0.45, 0.45, 0.45, 0.1]) / 2)


class _Mischief:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("mischief"), "done")


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": shape})
    return file.getvalue()


TABLES: dict[str, tuple[Any, str]] = {
    "text": (np.array([["a", "b"], ["c", "d"]]), r"holds <U1, not numbers"),
    "complex": (np.eye(2) * 1j, r"holds complex128, not numbers"),
    "oblong": (np.ones((2, 3)), r"shape \(2, 3\): a truth table .* for emission tables \[q\*\*k, r\] give --k"),
    "line": (np.ones(3), r"shape \(3,\)"),
    "point": (np.ones(()), r"shape \(\)"),
    "nothing": (np.ones((0, 0)), r"shape \(0, 0\): a table has 1 to 1048576 entries"),
    "single": (np.ones((1, 1)), r"at least 2 values, got q = 1"),
    "wide": (np.eye(41), r"q = 41 is over the limit of 40"),
    "nan": (np.full((2, 2), np.nan), r"holds nan: a likelihood holds probabilities"),
    "above": (np.full((2, 2), 1.5), r"holds 1\.5: a likelihood holds probabilities"),
    "negative": (np.full((2, 2), -1), r"holds -1"),
    "never": (np.zeros((2, 2)), r"no observation is ever revealed"),
    "always": (np.ones((2, 2)), r"nothing can be known"),
    "tilted": (np.array([[1, 1], [1, 0]]), r"tilted\.npy breaks Assumption B\.11"),
}
BYTES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is no whole \.npy file of numbers .*: write it with numpy\.save"),
    "prose": (b"these are not the numbers " * 9, r"magic string"),
    "vast": (_header((10**12, 10**12)), r"a table has 1 to 1048576 entries, take a smaller q or k"),
    "minus": (_header((-1, 4)), r"shape \(-1, 4\): a table has 1 to"),
    "short": (_header((3, 3)) + b"\1\0\1", r"is no whole \.npy file"),
    "cut": (_header((3, 3))[:40], r"is no whole \.npy file"),
    "version": (b"\x93NUMPY\x03\x00" + _header((2, 2))[8:], r"holds no plain numbers"),
}


@pytest.mark.parametrize("name", [*TABLES, *BYTES])
def test_what_is_no_law_is_one_clear_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{name}.npy"
    if name in BYTES:
        path.write_bytes(BYTES[name][0])
    else:
        np.save(path, TABLES[name][0])
    line = complaint(["thresholds", "table", str(path), "--closed-form"], capsys)
    assert re.search((TABLES | BYTES)[name][1], line), line


def test_other_files_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert complaint(["thresholds", "table", "absent.npy"], capsys).endswith("absent.npy: No such file or directory")
    assert complaint(["thresholds", "table", str(tmp_path)], capsys).endswith("Is a directory")
    np.save("objects.npy", np.array([[_Mischief(), 1], [1, 1]], dtype=object), allow_pickle=True)
    assert "holds object, not numbers" in complaint(["thresholds", "table", "objects.npy"], capsys)
    assert not Path("mischief").exists()
    np.load("objects.npy", allow_pickle=True)
    assert Path("mischief").exists()  # the file is one that executes something
    np.save("emission.npy", np.full((8, 2), 0.5))
    for k, expected in (
        ("2", r"8 states in a table, which is no q\*\*k for k = 2"),
        ("0", "got k = 0"),
        ("-1", "got k"),
    ):
        assert re.search(expected, complaint(["thresholds", "table", "emission.npy", "--k", k], capsys))
    np.save("emission.npy", np.full((8, 2), 0.6))
    assert "must sum to one" in complaint(["thresholds", "table", "emission.npy", "--k", "3"], capsys)
    np.save("likelihood.npy", np.where(PARITY == 1, 0.9, 0.1))
    line = complaint(["thresholds", "table", "likelihood.npy", "--noise", "0.1"], capsys)
    assert "--noise is for truth tables" in line


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Random changes to good files: a law, or ValueError, and nothing else."""
    draw, path = random.Random(0), tmp_path / "damaged.npy"
    good = []
    for table in (nae(3, 3).table, np.full((4, 4), 0.5), np.full((8, 3), 1 / 3)):
        np.save(path, table)
        good.append(path.read_bytes())
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1000):
        content = bytearray(draw.choice(good))
        for _ in range(draw.randint(0, 2)):
            content[draw.randrange(min(len(content), 118))] = draw.choice(b"0123456789(),{}'<>|fibOV \x00\xff")
        path.write_bytes(content[: draw.choice([None, None, draw.randrange(len(content))])])
        try:
            read_table(path, draw.choice([None, 2, 3]))
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
