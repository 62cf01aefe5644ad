"""Arbitrary names, titles, numbers and ids through every form that is written and read: back to the same value."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from rich.console import Console

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.drawing import new_figure, styled, write_figure
from lo_theory.lab.report import Source, page
from lo_theory.lab.rows import Row, from_csv, to_csv
from lo_theory.lab.schema import dump_yaml, parse_yaml
from lo_theory.lab.sweep.grid import make_grid, parse_axes, with_axes
from lo_theory.lab.table import Column, Table, print_tables, to_markdown
from tests.lab.browser import Reading
from tests.lab.tiny import tiny

_WORDS = r"""
    1e19 0100 1_000 1e689515 0123 1:30 0500 12345678 off no y 2024 2024-01-01 ~ null True true .5 5. inf .inf
    -.INF nan NaN 0x1f 0o17 = << - --- [easy] [/b] [/]x :100: [link=x]y[/link] $\foo$ \$ a|b \| *a* _a_ `a` <b>
    &amp; #c ' " "a" {a} [a] !x &x *x % @ ? a\nb =1+1 é ± 😀 漢字
"""
KNOWN = (*_WORDS.split(), "- a", "a: b", "a  b")
LETTERS = "ab01_-+.eE:~*`<>[]()\\|&#;!,'\"$%@=?{}/ é±😀漢\u00a0"
EXACT = {"experiment": "x", "problem": {"family": "nae_sat", "N": 6, "P": 18}, "decoding": {"denoisers": ["exact"]}}
BAD = ("a\nb", "a\rb", "\x00", "\x1b[31m", "\x07", "a\tb", "\x85", "\u2028", "\u202e", "\ufeffa", "\x7f")


def text(chance: random.Random) -> str:
    """Mostly what has been read as something else before, or letters that mean something somewhere."""
    if chance.random() < 0.2:
        return chance.choice(KNOWN)
    if chance.random() < 0.15:
        return format(chance.randrange(10**8), chance.choice(["x", "d", "08d", "_d", "e", "o"]))
    letters = [
        chance.choice(LETTERS) if chance.random() < 0.9 else chr(chance.randrange(32, 0x3000))
        for _ in range(chance.randrange(1, 12))
    ]
    return "".join(letters).strip() or "x"


def one_line(value: str) -> bool:
    return all(
        letter.isprintable() or unicodedata.category(letter) == "Zs" or letter in "\u200c\u200d" for letter in value
    )


def number(chance: random.Random) -> Any:
    return chance.choice(
        [
            chance.randrange(-(10 ** chance.randrange(1, 25)), 10 ** chance.randrange(1, 25)),
            chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300),
            float(chance.randrange(10**6)),
            chance.random() < 0.5,
        ]
    )


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def through_yaml(values: list[Any], chance: random.Random) -> None:
    document = {
        "value": values,
        "nested": {str(i): value for i, value in enumerate(values)},
        **{f"k{v}": v for v in values},
    }
    assert same(parse_yaml(dump_yaml(document), "here"), document)
    assert same(parse_yaml(dump_yaml(document).encode(), "here"), document)
    for value in values:
        older = yaml.safe_load(dump_yaml({"a": value}))["a"]  # a reader of YAML 1.1 agrees, but on surrogates
        assert same(older, value), (older, value)


def through_csv(values: list[Any], chance: random.Random) -> None:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if not isinstance(value, str)]
    rows = [
        Row(
            str(values[i]),
            "m",
            Sums(1, 0.5, 0.0),
            {"mixed": values[i], "text": texts[i % len(texts)], "alone": values[0]},
        )
        for i in range(len(values))
    ]
    rows = [
        Row(row.unit, row.metric, row.sums, {**row.keys, **({"number": numbers[0]} if numbers else {})}) for row in rows
    ]
    back = from_csv(to_csv(rows))
    assert [row.unit for row in back] == [row.unit for row in rows]
    for row, original in zip(back, rows, strict=True):
        assert same(row.keys, dict(sorted(original.keys.items(), key=lambda pair: list(row.keys).index(pair[0]))))


def test_a_key_that_no_form_gives_back_is_refused() -> None:
    chance = random.Random(3)
    for _ in range(300):
        values = [text(chance), number(chance)]
        for bad in (None, b"x", [values[0]], {"a": values[1]}, (values[1],), np.int64(3)):
            with pytest.raises(ValueError, match=r"the key name is a text, a number, True or False, got .*: leave it"):
                Row("u", "m", Sums(1, 1.0, 0.0), {"first": values[0], "name": bad})
        row = Row("u", "m", Sums(1, 1.0, 0.0), {"first": values[0], "name": values[1]})
        assert same(from_csv(to_csv([row])), [row])
        assert same(Row.from_json(row.to_json()), row)
    with pytest.raises(ValueError, match="got None"):
        Row.from_json('{"unit": "u", "metric": "m", "n": 1, "sum": 1.0, "squared_deviations": 0.0, "name": null}')


def table(texts: list[str]) -> Table:
    columns = [Column("first", str), Column(texts[-1], lambda value: "1")]
    return Table(texts[0], columns, texts, notes=[texts[1]])


def read_markdown(content: str) -> list[tuple[list[str], list[str]]]:
    """The paragraphs and the cells of each table, as another program reads them; a title begins a table."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found: list[tuple[list[str], list[str]]] = []
    for before, token in itertools.pairwise(reader.parse(content)):
        if token.type == "inline":
            shown = "".join(part.content for part in token.children or () if part.type == "text")
            bold = [part.type for part in token.children or () if part.type.endswith(("_open", "_inline"))]
            if bold == ["strong_open"] and before.type == "paragraph_open":
                found.append(([], []))
            else:
                assert bold == [], token.content
            found[-1][before.type in ("td_open", "th_open")].append(shown)
    return found


def through_markdown(texts: list[str], chance: random.Random) -> None:
    content = [table(texts), table(texts[::-1])]
    for made, (words, cells) in zip(content, read_markdown(to_markdown(content)), strict=True):
        assert words == [made.title, *made.notes]
        assert cells == [
            *(title for title, _ in made.heads),
            *(cell for section in made.sections for line in section for cell in line),
        ]


def through_terminal(texts: list[str], chance: random.Random) -> None:
    stream = io.StringIO()
    print_tables(Console(file=stream, width=400, color_system=None), [table(texts)])
    shown = stream.getvalue()
    for value in texts:
        assert value in shown, value


def through_html(texts: list[str], chance: random.Random) -> None:
    source = Source(Path("runs/x"), texts[0], dump_yaml({"a": texts}), {"seconds": 1.0}, [table(texts)], [])
    found = Reading(page(source).encode().decode()).texts
    assert found["title"] == found["h1"] == [texts[0]] == found["caption"]
    assert found["td"][::2] == texts
    assert found["th"][1] == texts[-1]
    assert parse_yaml(found["code"][-1], "page") == {"a": texts}


def through_sets(texts: list[str], chance: random.Random) -> None:
    """A title by a file, by --set, by a preset of any name, and an axis: the value that was written."""
    value, name = texts[0], texts[1]
    if not one_line(value) or not one_line(name):
        return
    document = EXACT | {"rows": [{"name": name}], "presets": {name: {"title": value}}}
    read = parse_yaml(dump_yaml(document), "here")
    experiment = resolve(read, preset=name)
    assert (experiment.title, experiment.preset, experiment.rows[0].name) == (value, name, name)
    assert resolve(parse_yaml(dump_yaml(experiment.to_mapping()), "again")) == experiment
    assert resolve(read, sets=[f"title={json.dumps(value)}"]).title == value
    assert parse_axes(parse_yaml(dump_yaml([{"name": [value, value + "x"]}]), "axes"))[0].points[0] == (value,)
    assert with_axes([], [f"name={json.dumps([value])}"])[0].points == ((value,),)


def campaign(count: int, seed: int) -> dict[str, int]:
    """``count`` values through every form."""
    chance, counts = random.Random(seed), {"texts": 0, "numbers": 0}
    while sum(counts.values()) < count:
        texts = [text(chance) for _ in range(6)]
        values = [*texts, *(number(chance) for _ in range(4))]
        chance.shuffle(values)
        through_yaml(values, chance)
        through_csv(values, chance)
        through_csv(texts, chance)
        for way in (through_markdown, through_terminal, through_html, through_sets):
            way([value for value in texts if one_line(value)] + ["x", "y"], chance)
        counts["texts"] += 6
        counts["numbers"] += 4
    return counts


def test_values_come_back_from_every_form() -> None:
    campaign(300, 1)


@pytest.mark.soak
def test_five_thousand_values_come_back_from_every_form() -> None:
    print(campaign(5000, 2))


@pytest.mark.parametrize("value", KNOWN)
def test_what_was_read_as_something_else_comes_back(value: str) -> None:
    chance = random.Random(0)
    through_yaml([value], chance)
    through_csv([value], chance)
    through_csv([value, 1, "z"], chance)
    for way in (through_markdown, through_terminal, through_html, through_sets):
        way([value, value], chance)


@pytest.mark.parametrize("value", BAD)
def test_text_that_is_no_line_to_be_shown_is_refused_before_work(value: str) -> None:
    assert parse_yaml(dump_yaml({"a": value}), "here") == {"a": value}
    with pytest.raises(ValueError, match="title must be one line of text that can be shown"):
        resolve(tiny() | {"title": value})
    with pytest.raises(ValueError, match=r"rows\[0\]\.name must be one line of text"):
        resolve(tiny() | {"rows": [{"name": value}]})
    assert from_csv(to_csv([Row("u", "m", Sums(1, 1.0, 0.0), {"name": value})]))[0].keys == {"name": value}
    stream = io.StringIO()
    print_tables(Console(file=stream, width=100, color_system=None), [table([value, "x"])])
    assert not set(stream.getvalue()) & set("\r\x00\x1b\x07\t\x85\u2028\x7f")
    ((_, cells),) = read_markdown(to_markdown([table(["x", value])]))
    assert len(cells) == 6


def test_numbers_are_those_of_yaml_1_2() -> None:
    words = "[0123, 0o17, 0x1F, 1:30, 1_000, 1e3, .5, 5., -.inf, yes, off, ~, , 2024-01-01, 0b1, +1, 1e]"
    expected = [123, 15, 31, "1:30", "1_000", 1e3, 0.5, 5.0, -math.inf, "yes", "off", None]
    assert parse_yaml(words.replace(" , ", " "), "here") == [*expected, "2024-01-01", "0b1", 1, "1e"]
    assert parse_yaml("a:\n", "here") == {"a": None}
    base = tiny() | {"seed": parse_yaml("0123", "here")}
    assert resolve(base).rows[0].seed == 123
    assert resolve(tiny(), sets=["training.steps=0500"]).rows[0].training.steps == 500
    with pytest.raises(ValueError, match=r"seed must be an integer, got '1:30' \(text\)"):
        resolve(tiny(), sets=["seed=1:30"])
    with pytest.raises(ValueError, match=r"problem.N must be an integer, got '2020-01-01'"):
        resolve(tiny(), sets=["problem.N=2020-01-01"])
    with pytest.raises(
        ValueError, match=r"training.learning_rate must be an integer of 64 bits, got one of 401 digits"
    ):
        resolve(tiny(), sets=[f"training.learning_rate={10**400}"])


def test_presets_have_any_name_that_is_text() -> None:
    document = EXACT | parse_yaml("presets:\n  off: {title: a}\n  2024: {title: b}\n", "here")
    for name, title in (("off", "a"), ("2024", "b")):
        assert resolve(document, preset=name).title == title
        assert make_grid(document, preset=name).settings["title"] == title
    for wrong in (["a"], 2024, True, {"a": 1}):
        for function in (resolve, make_grid):
            with pytest.raises(ValueError, match=r"default_preset names one of the presets, got"):
                function(document | {"default_preset": wrong})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a: {<<: {b: 1}}", r"here, line 1: merge keys \(<<\) are not read: write out"),
        ("a: &x [*x]", "leads into itself"),
        ("a: !!map [a]", "is given to what is no mapping"),
        ("a: &a {b: *a}", "leads into itself"),
        ("[{[1]: 2}]", "a key must be text"),
        ("!!set {a, b}", "the tag .*set is not read"),
        ("!!timestamp 2020-13-45", "the tag .*timestamp is not read"),
        ("!!int abc", "here: invalid literal"),
        ("9" * 5000, "here: Exceeds the limit"),
        ("[" * 5000, "here: lists or mappings are nested too deep"),
        ('"\\uD800"', "half of a surrogate pair"),
        ("a: b\n---\nc: d", "another document"),
    ],
)
def test_what_yaml_of_ours_does_not_read_is_refused_in_words(words: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(words, "here")


def bomb(levels: int) -> str:
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{names[i + 1]}: &{names[i + 1]} [{', '.join([f'*{names[i]}'] * 9)}]" for i in range(levels)]
    return "\n".join(lines)


def test_aliases_are_bounded_and_small_ones_are_read() -> None:
    with pytest.raises(
        ValueError, match=r"here, line 1: its aliases \(\*\) expand to 4.4e\+09 values, the most is 1,000,000"
    ):
        parse_yaml(bomb(9), "here")
    with pytest.raises(ValueError, match=r"--axis .*its aliases"):
        with_axes([], [f"seed={'[&a [1, 2, 3, 4, 5, 6, 7, 8, 9]'}, {', '.join(bombs())}]"])
    assert len(parse_yaml(bomb(2), "here")["c"]) == 9
    assert parse_yaml("a: &x {b: 1}\nc: *x", "here") == {"a": {"b": 1}, "c": {"b": 1}}


def bombs() -> list[str]:
    names = "abcdefgh"
    return [f"&{names[i + 1]} [{', '.join([f'*{names[i]}'] * 9)}]" for i in range(7)]


@pytest.mark.renders
def test_a_dollar_begins_no_formula(tmp_path: Path) -> None:
    for i, words in enumerate(("$\\foo$", "a $x$ b", "\\$", "$", "\\frac{")):
        with styled():
            figure = new_figure(3, 2, words)
            axes = figure.subplots()
            axes.loglog([1, 100], [1, 100], label=words)
            axes.legend()
            axes.set_xlabel(words)
            axes.set_title(f"$\\bf{{a}}$  {words}", loc="left")
            write_figure(tmp_path, f"figure{i}", figure)
        assert figure.get_suptitle() == words
        assert axes.get_yticklabels()[0].get_parse_math()  # powers of ten are still set as such


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_some_letters_shows_a_table(encoding: str, tmp_path: Path) -> None:
    code = (
        "import sys; from lo_theory.cli import main; import lo_theory.cli.experiments as e\n"
        "from lo_theory.cli.shared import show_tables; from lo_theory.lab.table import Table, text, text\n"
        "columns = [text('a', str), text('\\xb1', lambda line: '1 \\xb12')]\n"
        "made = Table('\\xe9 \\xb1 \\u6f22', columns, ['[b]'], notes=['\\u2192'])\n"
        "e._table = lambda options: show_tables([made])\n"
        "sys.exit(main(['table', 'x']))"
    )
    variables = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    shown = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "[b]" in shown.stdout.decode(encoding)
    if encoding != "ascii":
        assert "1 ±2" in shown.stdout.decode(encoding)
