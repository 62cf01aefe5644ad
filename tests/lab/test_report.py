"""The page of a run: nothing outside of it, everything in it; and in a real browser, where there is one."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from lo_theory.cli import main
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.report import Failed, find, page, write_report
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.table import Table, text, to_markdown
from lo_theory.lab.task import tables
from tests.cli.complaint import complaint
from tests.figures import rendered
from tests.lab.browser import CHROMIUM, DRIVER, Reading, open_browser
from tests.lab.grids import write_grid
from tests.lab.tiny import tiny


def outside(text: str) -> list[str]:
    """What a page takes from elsewhere: addresses that are neither in it nor data, and what style or script load."""
    reading = Reading(text)
    names = ("src", "href", "srcset", "action", "poster", "data", "xlink:href")
    found = [str(value) for _, attributes in reading.tags for name, value in attributes.items() if name in names]
    parts = re.findall(r"<(?:style|script)[^>]*>(.*?)</(?:style|script)>", text, re.DOTALL)
    loads = [word for part in parts for word in re.findall(r"url\(|@import|fetch\(|XMLHttp|import\(|https?:", part)]
    return [value for value in found if not value.startswith(("#", "data:"))] + loads


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    out = tmp_path_factory.mktemp("runs")
    experiment = resolve(tiny(), preset="exact", sets=["decoding.sequences=16", "evaluation.sequences=16"])
    with rendered():
        return execute(experiment, Request(out, threads=1, command="lo-theory run <tiny>"), SilentProgress())


def test_everything_of_a_run_is_in_the_page_and_nothing_outside_of_it(
    finished: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "tiny", "--out", str(finished.folder.parent.parent)]) == 0
    path = finished.folder / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text()
    assert outside(text) == []
    reading = Reading(text)
    (script,) = reading.texts["script"]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in text
    assert f"script-src 'sha256-{allowed}'" in text
    shown = tables(resolve(finished.config), finished.rows)
    expected = [[cell.strip() for cell in row] for table in shown for section in table.sections for row in section]
    assert [row for row in reading.cells if row in expected] == expected
    assert len(reading.all("table")) == len(reading.all("caption")) == len(shown) > 0
    boxes = [box for made in find(str(finished.folder), Path("runs")).draw().values() for box in made.boxes]
    assert len(reading.all("rect")) == len(boxes) > 50
    assert set(reading.texts["title"]) == {shown_title(finished)} | {box.words for box in boxes}
    images = reading.all("img")
    assert len(images) == len(list(finished.folder.glob("*.png"))) == 3  # the whole, the summary, the readings
    assert any(str(image["alt"]).startswith("A tiny table. Panels: a Self-consistency; b") for image in images)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    ids = [attributes["id"] for _, attributes in reading.tags if "id" in attributes]
    assert {str(link["href"]) for link in reading.all("a")} >= {f"#{name}" for name in ("tables", "figures", "data")}
    assert {str(link["href"]) for link in reading.all("a") if "download" not in link} <= {f"#{name}" for name in ids}
    assert len(set(ids)) == len(ids)
    assert len(reading.all("h1")) == 1
    assert reading.texts["h2"] == ["Figures", "Tables", "How to repeat it", "Settings", "Data"]
    for word in ("lo-theory run &lt;tiny&gt;", "numpy", "numba", "sequences: 16", "cpu", 'download="table.csv"'):
        assert word in text
    assert path.read_text() == page(find(str(finished.folder), Path("runs")))  # equal bytes for equal runs


def shown_title(run: FinishedRun) -> str:
    return resolve(run.config).heading


def test_what_is_outside_is_seen() -> None:
    assert outside('<img src="http://x/y.png">') == ["http://x/y.png"]
    assert outside('<link href="style.css">') == ["style.css"]
    assert outside("<style>a { background: url(x.png) }</style>") == ["url("]
    assert outside("<script>fetch('https://x')</script>") == ["fetch(", "https:"]


def test_texts_of_a_run_cannot_become_markup(finished: FinishedRun) -> None:
    evil = '<script>alert("1")</script>&'
    source = dataclasses.replace(
        find(str(finished.folder), Path("runs")),
        title=evil,
        config=evil,
        facts={"command": evil, "versions": {evil: evil}, "device": evil},
        tables=[Table(evil, [text(evil, itemgetter(0)), text("b", itemgetter(1))], [(evil, "2")], notes=[evil])],
        failed=[Failed(evil, evil, evil)],
        finished=(1, 2),
    )
    reading = Reading(page(source))
    assert len(reading.all("script")) == 1
    assert [evil, "2"] in reading.cells


def test_a_sweep_shows_its_grid_and_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "runs")]
    axes: Any = [{"problem.P": [10, 15]}, {"evaluation.limit_states": [1, 2**26]}]
    config = write_grid(tmp_path / "grid.yaml", axes=axes)
    assert main(["sweep", str(config), "--serial", "--quiet", *out]) == 2
    capsys.readouterr()
    sweep = tmp_path / "runs" / "grid" / "sweep-table1"
    assert main(["report", "grid", *out]) == 0
    text = Path(capsys.readouterr().out.strip()).read_text()
    reading = Reading(text)
    assert outside(text) == []
    assert "2 of 4 cells of the sweep are finished" in text
    assert "2 failed at the last attempt" in text
    assert text.count("limit_states=1<") == 2
    assert "Traceback" in text
    assert ["10", "1", "0/1"] in reading.cells
    assert len(reading.all("img")) == 1
    assert main(["sweep", str(write_grid(config, axes=[{"problem.P": [10]}])), "--serial", "--quiet", *out]) == 0
    capsys.readouterr()
    assert main(["report", "grid", *out]) == 0  # a finished grid goes before one that is not
    text = Path(capsys.readouterr().out.strip()).read_text()
    assert "1 of 1 cells of the sweep are finished" in text
    assert "Not everything is here" not in text  # what failed is of the other grid
    assert ["10", "1/1"] in Reading(text).cells
    assert main(["report", str(sweep), *out]) == 0
    assert "2 of 4 cells" in Path(capsys.readouterr().out.strip()).read_text()


def test_a_pooled_sweep_that_keeps_only_csv_shows_the_tables_that_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pool = ["--out", str(tmp_path / "runs")], ["problem.seed", "seed"]
    assert main(["sweep", str(write_grid(tmp_path / "grid.yaml", pool=pool)), "--serial", "--quiet", *out]) == 0
    (folder,) = (path.parent for path in (tmp_path / "runs" / "grid").glob("*/done.json"))
    written = (folder / "table.md").read_text()
    for name in ("table.md", "rows.jsonl", "figure.png"):
        (folder / name).unlink()
    source = find(str(folder), tmp_path)
    assert to_markdown(source.tables) == written
    assert ["10", "3/3"] in Reading(page(source)).cells
    assert [path.name for path in source.figures] == ["figure.png"]  # drawn again
    path = next(folder.glob("table.csv"))
    last = path.read_text().splitlines()[-1].partition("/")[0]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(last)))
    capsys.readouterr()
    assert "has in CSV the rows of 5 of its 6 cells" in complaint(["report", str(folder)], capsys)


def test_bad_names_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert "no finished run of 'nonsense'" in complaint(["report", "nonsense", *out], capsys)
    assert "no folder of a run" in complaint(["report", str(tmp_path), *out], capsys)
    (tmp_path / "config.yaml").write_text("experiment: x\n")
    assert "holds no finished run" in complaint(["report", str(tmp_path), *out], capsys)
    assert "is an experiment file" in complaint(["report", "experiments/table1.yaml", *out], capsys)
    assert "there is no folder some/where" in complaint(["report", "some/where", *out], capsys)


def test_damage_is_one_clear_line(finished: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    command = ["report", str(folder)]
    assert "is a folder" in complaint([*command, "--to", str(tmp_path)], capsys)
    shutil.copy(folder / "figure.pdf", folder / "own.pdf")
    for content in (b"", b"no picture", (folder / "figure.png").read_bytes()[:20]):
        (folder / "own.png").write_bytes(content)  # a figure that is not the experiment's is shown as it is
        assert "own.png is damaged" in complaint(command, capsys)
    (folder / "own.png").unlink()
    (folder / "rows.jsonl").unlink()
    table = (folder / "table.csv").read_text()
    (folder / "table.csv").write_text(table[: len(table) // 2].rsplit(",", 4)[0])
    assert "table.csv is damaged (line " in complaint(command, capsys)
    (folder / "table.csv").unlink()
    (folder / "classes.csv").unlink(missing_ok=True)
    (folder / "table.csv.gz").write_bytes(gzip.compress(table.encode())[:-20])
    assert "table.csv.gz is damaged" in complaint(command, capsys)
    (folder / "table.csv.gz").unlink()
    for name in ("report", "table", "figure"):
        assert "holds no rows" in complaint([name, str(folder)], capsys)


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver")
def test_a_real_browser_asks_for_nothing_and_complains_of_nothing(finished: FinishedRun, tmp_path: Path) -> None:
    source = find(str(finished.folder), Path("runs"))
    whole = write_report(source, tmp_path / "page.html")
    broken = tmp_path / "broken.html"
    more = '<img alt="" src="missing.png"><script src="http://127.0.0.1:9/x.js"></script></body>'
    broken.write_text(re.sub(r"<meta http-equiv.*\n", "", whole.read_text()).replace("</body>", more))
    with open_browser(tmp_path / "profile") as browser:
        browser.run("location = 'about:blank'")
        browser.network()  # what the browser itself loads at its start
        browser.open(whole)
        assert [address for address in browser.network()[0] if not address.startswith("data:")] == [whole.as_uri()]
        column = "return [...document.querySelector('table').tBodies[0].rows].map(row => row.cells[4].textContent)"
        before = [float(text.split()[0]) for text in browser.run(column)]
        click = "document.querySelector('table').tHead.rows[0].cells[4].querySelector('button').click();"
        for backwards in (False, True):
            after = [float(text.split()[0]) for text in browser.run(click + column)]
            assert after == sorted(before, reverse=backwards)
        assert browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
        move = "const it = document.querySelector('.picture rect'); it.dispatchEvent(new PointerEvent('pointermove', "
        move += "{clientX: 40, clientY: 50})); return document.getElementById('number').textContent"
        assert browser.run(move) == source.draw()["summary"].boxes[0].words
        assert browser.run("return !document.getElementById('number').hidden")
        assert browser.console() == []
        assert browser.network()[1] == []
        browser.open(broken)  # what must be seen; on a busy machine the driver hears of it late
        failed: list[str] = []
        said: list[str] = []
        for _ in range(100):
            failed += browser.network()[1]
            said += browser.console()
            if len(failed) >= 2 and len(said) >= 2:
                break
            time.sleep(0.1)
        assert len(failed) == 2
        assert len(said) >= 2


def test_a_report_is_the_same_in_every_locale(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "experiments" / "results" / "table1-seeds-cpu"
    assert "±" in (folder / "table.md").read_text(encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = ["-X", "warn_default_encoding", "-m", "lo_theory.cli", "report", str(folder)]
    command = [sys.executable, *command, "--to", str(tmp_path / "page.html")]
    said = subprocess.run(command, env={**os.environ, **locale}, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "lo_theory/lab/report" not in said.stderr  # no file of the run is read as the locale has it
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "±" in content
    assert "Â±" not in content
    assert '<meta charset="utf-8">' in content
