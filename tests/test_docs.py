"""The pages on training and on columns: the code runs, and every metric is explained."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.kinds import COMMON, KEYS, KINDS, columns_page
from lo_theory.lab.progress import SilentProgress
from tests.lab.tiny import tiny

ROOT = Path(__file__).parents[1]
COLUMNS = (ROOT / "docs" / "columns.md").read_text()


def explained(metric: str) -> bool:
    return f"| `{metric}` |" in COLUMNS


def test_the_page_on_columns_is_what_the_kinds_say() -> None:
    assert columns_page() == COLUMNS
    assert {key for kind in KINDS.values() for key in kind.keys} | set(COMMON) <= KEYS.keys()


def published() -> set[str]:
    """Metrics in the CSV files of all published results."""
    found: set[str] = set()
    for path in sorted((ROOT / "experiments" / "results").glob("*/*.csv*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = csv.DictReader(io.StringIO(content.decode()))
        if path.name.split(".")[0] in ("table", "classes"):
            found |= {line["metric"] for line in lines}
    return found


def test_every_metric_of_the_published_results_is_explained() -> None:
    metrics = published()
    assert len(metrics) > 60
    assert {metric for metric in metrics if not explained(metric)} == set()
    assert not explained("nothing_of_the_sort")


def test_every_metric_and_key_of_a_tiny_run_is_explained(tmp_path: Path) -> None:
    experiment = resolve({**tiny(), "training": {"steps": 2, "batch": 4}, "presets": {}})
    rows = execute(experiment, Request(tmp_path), SilentProgress()).rows
    assert {row.metric for row in rows if not explained(row.metric)} == set()
    assert {key for row in rows for key in row.keys if f"`{key}`" not in COLUMNS} == set()


def test_the_page_on_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "first.safetensors").exists()
