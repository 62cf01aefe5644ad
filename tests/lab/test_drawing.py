"""The style of figures, what is written of them, and rows as tidy CSV and back."""

from __future__ import annotations

import ast
import gzip
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

import lo_theory
from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.drawing import COLOURS, RC, describe, letter_panels, new_figure, styled, write_figure
from lo_theory.lab.rows import Row, from_csv, to_csv
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.task import write_figures

LAB = Path(lo_theory.__file__).parent / "lab"
FIGURES = sorted(path for path in LAB.rglob("*.py") if path.name != "drawing.py")


def named_colours(source: str) -> list[str]:
    """Colours that a source names itself: hex codes, grey levels, cycle colours and "black"."""
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    words = [text for text in texts if isinstance(text, str)]
    hexes = [word for word in words if word.startswith("#") and len(word) in (4, 7, 9) and word[1:].isalnum()]
    return hexes + [word for word in words if word in ("black", "red", "blue", "green", "grey", "gray", "orange")]


def test_colours_have_one_home() -> None:
    assert {str(path.relative_to(LAB)): found for path in FIGURES if (found := named_colours(path.read_text()))} == {}
    assert named_colours("x = plot(color='#1b7837')\ny = plot(color='black')") == ["#1b7837", "black"]


@pytest.mark.renders
def test_a_user_s_settings_do_not_change_a_figure(tmp_path: Path) -> None:
    def draw(folder: Path) -> bytes:
        folder.mkdir()
        with styled():
            figure = new_figure(3, 2, "A title")
            figure.subplots().plot([0, 1], [0, 1], color=COLOURS["exact"])
            write_figure(folder, "figure", figure)
        return (folder / "figure.png").read_bytes()

    plain = draw(tmp_path / "plain")
    with matplotlib.rc_context({"axes.grid": False, "font.size": 20, "savefig.dpi": 40}):
        assert draw(tmp_path / "mine") == plain
        assert matplotlib.rcParams["font.size"] == 20
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC, "xtick.labelsize": 20}):
        figure = new_figure(3, 2, "A title")
        figure.subplots().plot([0, 1], [0, 1], color=COLOURS["exact"])
        write_figure(tmp_path, "figure", figure)
    assert (tmp_path / "figure.png").read_bytes() != plain


@pytest.mark.renders
def test_a_figure_says_what_it_shows(tmp_path: Path) -> None:
    with styled():
        figure = new_figure(4, 2, "Two panels")
        for axes, title in zip(figure.subplots(1, 2), ("Left\nside", "Right"), strict=True):
            axes.set_title(title)
        letter_panels(figure.axes)
        write_figure(tmp_path, "figure", figure)
    words = "Two panels. Panels: a Left side; b Right"
    assert describe(figure) == words
    with Image.open(tmp_path / "figure.png") as image:
        assert image.info["Description"] == words
    assert b"/Subject" in (tmp_path / "figure.pdf").read_bytes()


def test_rows_come_back_from_csv() -> None:
    rows = [
        Row(
            "row0/a",
            "loss",
            Sums(3, 0.1 + 0.2, 1 / 3),
            {"kind": "x", "N": 6, "rate": 0.5, "argmax": True, "law": "u,v"},
        ),
        Row("row0/b", "loss", Sums(1, math.inf, math.nan), {"kind": "y", "N": 7, "rate": 1, "note": "12 a"}),
    ]
    first, second = from_csv(to_csv(rows))
    assert first == Row("row0/a", "loss", rows[0].sums, {**rows[0].keys, "note": ""})
    assert second.sums.total == math.inf
    assert math.isnan(second.sums.deviations)
    assert second.keys == {"kind": "y", "N": 7, "rate": 1, "argmax": "", "law": "", "note": "12 a"}
    assert from_csv("") == []
    with pytest.raises(ValueError, match="column 'n'"):
        from_csv("unit,metric,sum,sum_of_squares\na,b,1,2\n")
    head = "unit,metric,n,sum,sum_of_squares\na,b,1,2,4\n"
    for line, said in (
        ("a,b,1\n", "line 3 has not as many"),
        ("a,b,1,2,4,5\n", "line 3 has"),
        ("a,b,x,2,4\n", "line 3: "),
    ):
        with pytest.raises(ValueError, match=said):
            from_csv(head + line)


@pytest.mark.renders
def test_equal_rows_give_figures_of_equal_bytes_also_from_the_published_csv(
    tiny_runs: Callable[[str], FinishedRun], tmp_path: Path
) -> None:
    finished = tiny_runs("ratio")
    published = tmp_path / "published"
    published.mkdir()
    for name in ("config.yaml", "done.json"):
        shutil.copy(finished.folder / name, published)
    for path in (finished.folder / "table.csv", finished.folder / "classes.csv"):
        if path.exists():
            (published / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    fewer = [row for row in finished.rows if row.keys.get("denoiser") != "model"]
    drawn = {}
    for name, rows in (("own", finished.rows), ("csv", FinishedRun(published).rows), ("fewer", fewer)):
        (tmp_path / name).mkdir()
        paths = write_figures(tmp_path / name, resolve(finished.config), rows)
        drawn[name] = {path.name: path.read_bytes() for path in paths}
    assert drawn["own"] == drawn["csv"]
    assert {name: content[:4] for name, content in drawn["own"].items()} == {
        "figure.png": b"\x89PNG",
        "figure.pdf": b"%PDF",
    }
    assert all(drawn["fewer"][name] != content for name, content in drawn["own"].items())
