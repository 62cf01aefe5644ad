"""The wheel: everything of the package and the experiment files, the same bytes each time, and found by name from there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import lo_theory
from lo_theory.lab import config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def build(folder: Path) -> Path:
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_two_builds_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.name == wheel.name == f"lo_theory-{lo_theory.__version__}-py3-none-any.whl"
    assert again.read_bytes() == wheel.read_bytes()


def test_it_holds_the_package_and_the_experiments_and_nothing_else(wheel: Path) -> None:
    package = {path for path in (ROOT / "lo_theory").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT).as_posix() for path in package}
    expected |= {f"lo_theory/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert {"lo_theory/lab/report.html.j2", "lo_theory/experiments/table1.yaml"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def test_experiments_are_found_by_name_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    words = "import lo_theory.lab.config as c; print(c.__file__, *c.shipped()); print(c.load('table1', preset='quick').preset)"
    command = [sys.executable, "-c", words]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.split()[0].startswith(str(tmp_path))
    assert first.split()[1:] == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    assert second == "quick"


def test_a_name_means_what_is_shipped_unless_a_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load("figure4") == config.load(ROOT / "experiments" / "figure4.yaml")
    with pytest.raises(
        ValueError, match=r"no file tabel1, and no experiment of that name: known are families, .*table1"
    ):
        config.load("tabel1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figure4").write_text("experiment: own\n")
    assert config.read_document("figure4") == {"experiment": "own"}
