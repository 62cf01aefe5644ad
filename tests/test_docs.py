"""The pages: findings and figures first, plain words, links that lead somewhere; code runs, metrics are explained."""

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
from lo_theory.lab.runs import read_config
from lo_theory.lab.task import load_task
from tests.lab.tiny import tiny

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
DOCS = sorted((ROOT / "docs").glob("*.md"))
DETAILS = sorted(RESULTS.glob("*/README.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, RESULTS / "README.md", *DETAILS]
FINDINGS = [ROOT / "docs" / f"{n}.md" for n in ("experiments", "results", "hardness", "ratio", "thresholds", "recipes")]
COLUMNS = (ROOT / "docs" / "columns.md").read_text()


PRIVATE = r"told|owed|stands?|goes on|go on|went on|by hand|wish(?:es)?|crew|readings?(?! order)"
"""Words of earlier versions of these pages that a reader from the field would not understand, or not as meant."""


def name(page: Path) -> str:
    """A page, as a test is called."""
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`|(?m:^    .*$)", "", text, flags=re.DOTALL)


def summary(text: str) -> str:
    """The first paragraph below the title of a page."""
    return text.split("\n\n")[1]


def begins_well(text: str) -> bool:
    """Whether a page begins with two to four sentences, in place of a table, a list, a heading or one sentence alone."""
    return text.startswith("# ") and re.match(r"[|#*!>]", summary(text)) is None and 2 <= sentences(summary(text)) <= 4


def sentences(text: str) -> int:
    """How many sentences a paragraph has; points within numbers and names do not count."""
    return len(re.findall(r"[.?:](?:\s|$)", text))


def figures(text: str) -> list[str]:
    """Pictures on the first screen of a page: its first 20 lines."""
    return re.findall(r"!\[[^]]+\]\(([^)]+)\)", "\n".join(text.splitlines()[:20]))


def broken(page: Path, text: str) -> list[str]:
    """Links of a page to files, or to headings, that are not there."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        path, _, heading = link.partition("#")
        goal = page.parent / path if path else page
        if "://" not in link and not (goal.exists() and (not heading or heading in anchors(goal.read_text()))):
            found.append(link)
    return found


def anchors(text: str) -> set[str]:
    """The headings of a page as addresses."""
    heads = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_words_are_plain_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert re.findall(rf"(?i)\b(?:{PRIVATE})\b", prose(text)) == []
    assert broken(page, text) == []


@pytest.mark.parametrize("page", [*FINDINGS, *DETAILS], ids=name)
def test_a_page_of_results_begins_with_what_was_found_and_a_figure(page: Path) -> None:
    text = page.read_text()
    assert begins_well(text), summary(text)
    assert figures(text)


@pytest.mark.parametrize("page", [page for page in DOCS if page.name != "README.md"], ids=name)
def test_a_page_begins_with_what_the_reader_gets(page: Path) -> None:
    assert begins_well(page.read_text()), summary(page.read_text())


def test_the_page_on_experiments_is_read_in_ten_minutes() -> None:
    assert len((ROOT / "docs" / "experiments.md").read_text().split()) <= 1800


def test_what_is_wrong_with_a_page_is_seen() -> None:
    assert not begins_well("# A\n\nOne sentence with 0.5 in it.\n")
    assert not begins_well("# A\n\n| a. | b. |\n|---|---|\n")
    assert not begins_well("# A\n\n## B\n\nOne. Two.\n")
    assert begins_well("# A\n\nOne. Two with 0.5.\n")
    assert figures("# A\n" + 30 * "\n" + "![a](b.png)") == []
    assert re.findall(rf"(?i)\b(?:{PRIVATE})\b", prose("A run goes on; `owed.sh` is owed. The reading order.")) == [
        "goes on",
        "owed",
    ]
    assert broken(ROOT / "README.md", "[a](docs/none.md) [b](docs/README.md#none) [c](docs/README.md)") == [
        "docs/none.md",
        "docs/README.md#none",
    ]


def explained(metric: str) -> bool:
    return f"| `{metric}` |" in COLUMNS


def test_the_page_on_columns_is_what_the_kinds_say() -> None:
    assert columns_page() == COLUMNS
    assert {key for kind in KINDS.values() for key in kind.keys} | set(COMMON) <= KEYS.keys()


def published() -> set[str]:
    """Metrics in the CSV files of all published results, without what an experiment's own module explains."""
    found: set[str] = set()
    for path in sorted((ROOT / "experiments" / "results").glob("*/*.csv*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = csv.DictReader(io.StringIO(content.decode()))
        if path.name.split(".")[0] in ("table", "classes"):
            has_settings = path.with_name("config.yaml").exists()
            task = str(read_config(path.parent).get("task", "")) if has_settings else ""
            own = load_task(task).module.KINDS.values() if task.endswith(".py") else ()
            found |= {line["metric"] for line in lines} - {metric for kind in own for metric in kind.metrics}
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
