"""The table of thresholds as an experiment: rows, resuming, tables, figure."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import load, resolve
from lo_theory.lab.engine import Cancelled
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.summary import group
from lo_theory.lab.tables import tables
from lo_theory.lab.thresholds.tables import with_error
from lo_theory.thresholds import RowSpecification
from tests.figures import rendered

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY: dict[str, Any] = {
    "experiment": "tinythresholds",
    "task": "thresholds",
    "budget": {"size": 600, "scan": 1e6, "dynamic": 1e6, "condensation": 1e6},
    "rows": [
        {"ensemble": {"family": "nae", "q": 2, "k": 3}},
        {"ensemble": {"family": "xor", "k": 3}},
        {"ensemble": {"family": "colouring", "q": 4, "k": 2}, "revealed": 0.1},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    with rendered():
        return execute(resolve(copy.deepcopy(TINY)), Request(tmp_path_factory.mktemp("runs")), SilentProgress())


def test_values_land_in_rows_with_their_errors(finished: FinishedRun) -> None:
    continuous, parity = group(finished.rows, "threshold")
    assert continuous.value("continuous") == 1
    assert continuous.value("condensation_c") == pytest.approx(4.5)
    assert continuous.value("condensation_c_error") == 0
    assert "kesten_stigum_c" not in parity.metrics  # infinite
    assert parity.value("condensation_density") == pytest.approx(0.9179, abs=0.02)
    assert 0 < parity.value("condensation_c_error") < 0.2
    (fold,) = group(finished.rows, "fold")
    assert fold.value("survives") == 0  # a tenth of the latents is far more than four colours bear
    assert len(group(finished.rows, "curve")) > 20


def test_tables_say_continuous_and_infinite_in_words(finished: FinishedRun) -> None:
    degrees, units, folds = tables(resolve(finished.config), finished.rows)
    assert [len(section) for section in degrees.sections] == [2]
    nae, xor = degrees.sections[0]
    continuous = group(finished.rows, "threshold")[0]
    assert nae[2] == ("continuous: = KS" if continuous.value("resolution") <= 0.02 else "not decided")
    assert nae[3].startswith("no dip")
    assert xor[4] == "infinite"
    assert xor[5].startswith("2.45541 (")  # the closed equations beside ours
    assert [len(section) for section in units.sections] == [2]
    assert folds.sections[0][0][2:4] == ("10 %", "no fold")
    for table in (degrees, units, folds):
        assert all(len(line) == len(table.columns) for section in table.sections for line in section)
    assert {path.name for path in finished.folder.iterdir()} >= {"figure.png", "figure.pdf", "table.md"}


def test_an_interrupted_run_goes_on_and_ends_the_same(finished: FinishedRun, tmp_path: Path) -> None:
    class Interrupting(SilentProgress):
        def finish(self, label: str, seconds: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Cancelled)):
        execute(resolve(copy.deepcopy(TINY)), Request(tmp_path, workers=1), Interrupting())
    (rows,) = tmp_path.rglob("rows.jsonl")
    assert rows.read_text().count("\n\n") == 1  # one unit is on disk
    again = execute(resolve(copy.deepcopy(TINY)), Request(tmp_path, workers=2), SilentProgress())
    assert [row.to_json() for row in again.rows] == [row.to_json() for row in finished.rows]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"ensemble": {"family": "sat", "k": 3}}, r"family must be one of colouring, nae, xor"),
        ({"ensemble": {"family": "colouring", "q": 3, "k": 3}}, r"colourings have k = 2"),
        ({"ensemble": {"family": "nae"}, "revealed": 1.0}, r"below 1, got 1"),
        ({"ensemble": {"family": "nae"}, "revealed": -0.1}, r"revealed must be at least 0"),
        ({"ensemble": {"family": "nae"}, "budget": {"size": 5}}, r"a population has 512"),
        ({"ensemble": {"family": "nae"}, "reference": {}}, r"unknown key"),
    ],
)
def test_wrong_settings_are_named(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve({**copy.deepcopy(TINY), "rows": [row]})


def test_the_published_table_has_the_required_rows() -> None:
    """Colourings and NAE for both modes; both values of a parity say the same, so for it one mode is enough."""
    pairs = [("colouring", q, 2) for q in (3, 4, 5, 6)] + [("nae", q, k) for q, k in ((2, 3), (2, 4), (2, 5), (3, 3))]
    required = {RowSpecification(*pair, observed) for pair in pairs for observed in ("satisfied", "all")}
    required |= {RowSpecification("xor", 2, k) for k in (3, 4, 5)}
    rows = load(EXPERIMENTS / "thresholds.yaml").rows
    assert {row.ensemble.specification for row in rows} == required
    assert len(rows) == 19
    assert all(row.revealed > 0 for row in load(EXPERIMENTS / "side_information.yaml").rows)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (8.46021, 0.00498, "8.4602 ±0.0050"),
        (51.5, 0.03, "51.500 ±0.030"),
        (206.1, 39.0, "206 ±39"),
        (4.5, 0.0, "4.5"),
        (16.333333333, 0.0, "16.3333"),
        (float("nan"), 1.0, "-"),
    ],
)
def test_as_many_digits_as_the_error_allows(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text
