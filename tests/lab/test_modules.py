"""A user's own experiment in a Python file: run, sweep, table and report, with its bytes in the ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

import lo_theory
from lo_theory.cli import main
from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.drawing import styled
from lo_theory.lab.frame import Record, kind, pool, records
from lo_theory.lab.panel import Panel, Sheet
from tests.figures import placeholders

MODULE = """
from dataclasses import dataclass
from lo_theory import Sums
from lo_theory.lab.frame import kind, pool, records
from lo_theory.lab.kinds import Kind, Metric
from lo_theory.lab.panel import Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.subject import Finding
from lo_theory.lab.table import Table, key, measured

KINDS = {"ones": Kind("observations of the data", ("draw",), {"share": Metric("share", "of ones")})}
EXPERIMENT = {
    "title": "Ones",
    "rows": [{"problem": {"family": "nae_sat", "N": n, "P": 2 * n}} for n in (5, 6)],
    "presets": {"one": {"rows": [{"problem": {"family": "nae_sat", "N": 5, "P": 10}}]}},
}

@dataclass(frozen=True)
class Row:
    problem: Problem
    seed: int = 0
    n: int = 50

def units(s):
    s = s.named(s.size)
    for draw in (0, 1):
        yield s.unit(f"ones/{draw}", f"ones {draw}", lambda draw=draw: ones(s, draw))

def ones(s, draw):
    tokens = s.distribution.sample(s.key.fold("ones").fold(draw), s.row.n)
    return [Finding("ones", {"draw": draw}, {"share": Sums.of(s.distribution.layout.split(tokens)[1].mean(axis=1))})]

def lines(frame):
    return records(pool(kind(frame, "ones"), ["N", "P"], over=["draw", "row"]))

def tables(frame, experiment):
    yield Table("Share of ones", [key("N"), key("P"), measured("share")], lines(frame))

def figures(frame, experiment):
    return {"figure": Sheet(experiment.title, [Panel("ones", lines=lines(frame), x="N", y="share")], 1, (4, 3))}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the experiment, in the current directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_ones.py"
    path.write_text(MODULE)
    return path


def folders(below: Path = Path("runs")) -> list[Path]:
    return sorted(path.parent for path in below.glob("*/*/done.json"))


def test_a_users_file_runs_is_found_finished_and_shows_its_tables(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with placeholders():
        assert main(["run", str(module), "--quiet"]) == 0
        shown = capsys.readouterr().out
        assert "Share of ones" in shown
        (folder,) = folders()
        rows = (folder / "rows.jsonl").read_bytes()
        assert main(["run", str(module), "--quiet"]) == 0, "finished: nothing is computed"
        assert [folder] == folders()
        assert rows == (folder / "rows.jsonl").read_bytes()
        assert (folder / "experiment.py").read_bytes() == module.read_bytes()
        assert main(["table", str(folder)]) == main(["figure", str(folder)]) == main(["report", str(folder)]) == 0
    assert "Share of ones" in capsys.readouterr().out
    frame = lo_theory.read(folder)
    assert len(kind(frame, "ones")) == 4
    assert set(frame["kind"]) == {"ones"}


def test_other_bytes_are_another_run(module: Path) -> None:
    with placeholders():
        assert main(["run", str(module), "--quiet", "--preset", "one"]) == 0
        module.write_text(MODULE + "# a remark\n")
        assert main(["run", str(module), "--quiet", "--preset", "one"]) == 0
    assert len(folders()) == 2


def test_a_yaml_file_names_a_module_beside_it_and_a_sweep_computes_it_in_processes(module: Path) -> None:
    text = "experiment: mine\ntask: my_ones.py\nrows: [{problem: {family: nae_sat, N: 5, P: 10}}]\naxes: [{seed: [0, 1, 2]}]\n"
    (module.parent / "mine.yaml").write_text(text)
    with placeholders():
        assert main(["sweep", "mine.yaml", "--out", "pool", "--workers", "2", "--quiet"]) == 0
        assert main(["sweep", "mine.yaml", "--out", "serial", "--serial", "--quiet"]) == 0
    found = [sorted(Path(out).glob("mine/sweep-*/1-of-1/rows.jsonl")) for out in ("pool", "serial")]
    frames = [lo_theory.read(path.parent.parent) for (path,) in found]
    assert len(frames[0]) == 6
    assert frames[0].equals(frames[1])
    assert [path.read_bytes() for path in Path("pool").glob("mine/*/experiment.py")] == [module.read_bytes()]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1", "has no Row"),
        ("import", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (MODULE.replace("EXPERIMENT =", "OTHER ="), "has no EXPERIMENT"),
        (MODULE.replace('"ones": Kind', '"decode": Kind'), "is a kind of rows of lo_theory"),
        (MODULE.replace('{"draw": draw}', '{"drawn": draw}'), "have no key 'drawn'"),
        (MODULE.replace('"N": n', '"M": n'), "rows[0].problem"),
        (MODULE.replace("    n: int = 50", "    n: int = 50\n    odd: dict = None"), "rows[0].odd"),
        (MODULE.replace("(frozen=True)", ""), "is to be a dataclass that is frozen"),
        (MODULE.replace("seed: int = 0", "other: int = 0"), "Row has no field seed"),
        (
            MODULE.replace("n: int = 50", "n: dict = None").replace('"title"', '"n": {}, "title"'),
            "n is declared as dict",
        ),
        (MODULE.replace('f"ones/{draw}", f', '"ones", f'), "two units of work are named 'row0/ones'"),
        (MODULE.replace("    return [Find", "    raise ValueError('no')\n    return [Find"), "no (in (5, 10) ones 0)"),
        (MODULE.replace('Panel("ones", ', 'Panel("ones", "curve", '), "the form of a panel is one of points"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused_by_name(
    module: Path, source: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text(source)
    assert main(["run", str(module), "--quiet", "--workers", "1"]) != 0
    assert complaint in capsys.readouterr().err


def test_a_label_has_one_colour_in_all_panels_and_in_the_legend() -> None:
    def panel(title: str, names: str) -> Panel:
        lines = [Record({"x": x, "name": name}, {"y": (Estimate(1, 0, 2), {})}) for name in names for x in (0, 1)]
        return Panel(title, "curves", lines, x="x", y="y", look=lambda line: {"label": line.name})

    with styled():
        figure = Sheet("colours", [panel("first", "ab"), panel("second", "bca")], 2, (6, 3)).draw()
        legend = {handle.get_label(): handle.get_color() for handle in figure.legends[0].legend_handles}
        drawn = [[to_hex(line.get_color()) for line in axes.lines] for axes in figure.axes]
    colours = {name: to_hex(colour) for name, colour in legend.items()}
    assert len(set(colours.values())) == 3
    assert drawn == [[colours[name] for name in names] for names in ("ab", "bca")]


def test_a_folder_that_has_moved_shows_its_tables_by_its_copy(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with placeholders():
        assert main(["run", str(module), "--quiet", "--preset", "one"]) == 0
        shown = capsys.readouterr().out
        (folder,) = folders()
        module.unlink()
        moved = folder.rename("elsewhere")
        assert main(["table", str(moved)]) == main(["figure", str(moved)]) == main(["report", str(moved)]) == 0
    assert shown.splitlines()[:5] == capsys.readouterr().out.splitlines()[:5]
    (moved / "experiment.py").unlink()
    assert main(["table", str(moved)]) != 0
    assert "my_ones.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            'measured("share")',
            'measured("shaer")',
            "a column of 'Share of ones' names 'shaer', which no line has: did you mean 'share'",
        ),
        (
            'key("N"), key("P")',
            'key("N"), "P"',
            "the columns of 'Share of ones' are made by key, measured, text ...; got 'P'",
        ),
        ('y="share")', 'y="sahre")', "the panel 'ones' names 'sahre', which no line has: did you mean 'share'"),
        (
            '{"figure": Sheet(experiment.title, [Panel("ones", lines=lines(frame), x="N", y="share")], 1, (4, 3))}',
            "None",
            "figures is to return sheets by file name",
        ),
        (
            "    yield Table(",
            "    yield (",
            "tables is to yield tables, Table(title, columns, lines); got one of tuple",
        ),
    ],
)
def test_what_is_no_table_or_names_nothing_is_refused(
    module: Path, old: str, new: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in MODULE
    module.write_text(MODULE.replace(old, new))
    with placeholders():
        assert main(["run", str(module), "--quiet", "--preset", "one"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_frame_read_elsewhere_has_the_intervals_of_the_table(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with placeholders():
        assert main(["run", str(module), "--quiet", "--preset", "one"]) == 0
    (folder,) = folders()
    module.unlink()
    words = "import lo_theory; from lo_theory.lab.frame import kind, pool, records; "
    words += f"frame = kind(lo_theory.read({str(folder)!r}), 'ones'); "
    words += "print(records(pool(frame, ['N'], over=['draw']))[0].estimate('share'))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    runs = records(pool(kind(lo_theory.read(folder), "ones"), ["N"], over=["draw"]))[0]
    assert done.stdout.strip() == str(runs.estimate("share"))
    assert json.loads((folder / "done.json").read_text())["shares"] == {"ones": ["share"]}
