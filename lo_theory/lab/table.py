"""Tables as data: a column is a title and a function from a line to text; for screen, Markdown and the files of a run.

Reports have a template of their own, report.html.j2. What a table holds is text, never markup: it is escaped where
it is shown. Writes only below the folder given.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.frame import Record
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import csv_files
from lo_theory.problem.storage import write_atomically


def number(value: float, form: str = ".3f") -> str:
    """A number in a form, ``-`` for nan."""
    return "-" if math.isnan(value) else format(value, form)


def plus_minus(estimate: Estimate, form: str = ".2f", scale: float = 1.0) -> str:
    """``16.40 ±1.20``: a value and half of its 95 % interval (``Estimate.half``); the value alone where there is none.

    A sign in the form, as in ``+.1f``, is the value's only.
    """
    half, shown = estimate.half, number(scale * estimate.value, form)
    return shown if math.isnan(half) or shown == "-" else f"{shown} ±{format(scale * half, form.lstrip('+z'))}"


def with_error(value: float, error: float) -> str:
    """``8.4602 ±0.0050``: as many digits as two of the error's; six significant ones where it is zero or unknown."""
    if math.isnan(value):
        return "-"
    if math.isnan(error) or error == 0:
        return f"{value:.6g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ±{error:.{digits}f}"


@dataclass(frozen=True)
class Column:
    """A column: its title (``\\n`` where a screen may break it), the text of a line, whether it is aligned left, and
    the key or metric of the lines that it shows, where it is one.
    """

    title: str
    text: Callable[[Any], str]
    left: bool = False
    of: str = ""


def text(title: str, of: Callable[[Any], str], *, left: bool = True) -> Column:
    """A column of whatever text a function makes of a line."""
    return Column(title, of, left)


def key(name: str, title: str | None = None, form: str = "", *, left: bool = False) -> Column:
    """A key of the lines; empty where a line lacks it."""

    def of(line: Record) -> str:
        value = line.get(name)
        return "" if value is None else format(value, form)

    return Column(name if title is None else title, of, left, name)


def mean(metric: str, title: str | None = None, form: str = ".3f", scale: float = 1.0) -> Column:
    """Means of a metric without intervals."""
    title = metric if title is None else title
    return Column(title, lambda line: number(scale * line.value(metric), form), of=metric)


def measured(metric: str, title: str | None = None, form: str = ".3f", scale: float = 1.0) -> Column:
    """Means of a metric, each with half of its 95 % interval."""
    title = metric if title is None else title
    return Column(title, lambda line: plus_minus(line.estimate(metric), form, scale), of=metric)


def percent(metric: str, title: str | None = None) -> Column:
    """``93.4 ±0.5``: ``measured`` in per cent."""
    return measured(metric, title, ".1f", 100)


def with_expected(metric: str, title: str, form: str, scale: float = 1.0) -> Column:
    """``99.1 (98.9)``: a metric, and beside it ``<metric>_expected``."""

    def of(line: Record) -> str:
        found, expected = (scale * line.value(f"{metric}{end}") for end in ("", "_expected"))
        return "-" if math.isnan(found) else f"{found:{form}} ({expected:{form}})"

    return Column(title, of)


def pair_text(line: Record) -> str:
    """``25, 275``, and the name and the seeds of the row where it has them."""
    return " ".join(filter(None, (f"{line.N}, {line.P}", line.get("name"), line.get("seeds"))))


PAIR = text("N, P", pair_text)
"""Latents and observations of the problem, with what tells rows of one size apart."""


def largest_z(count: int, share: float = 0.999) -> float:
    """The value under which the largest |z| of ``count`` standard normals stays with probability ``share``."""
    from scipy.stats import norm

    return float(norm.ppf((1 + share ** (1 / max(count, 1))) / 2))


def largest(name: str, title: str) -> Column:
    """``10.9 !``: the largest |z| of several, ``<name>_z``, marked where 999 of 1,000 exact samplers stay below."""

    def of(line: Record) -> str:
        value, count = line.value(f"{name}_z"), line.value(f"{name}_count")
        return "-" if math.isnan(value) else f"{value:.1f}" + (" !" if value > largest_z(int(count)) else "  ")

    return Column(title, of)


def only(where: Callable[[Record], bool], column: Column) -> Column:
    """The column, empty on the lines of which ``where`` is not true."""
    return Column(column.title, lambda line: column.text(line) if where(line) else "", column.left)


@dataclass(frozen=True)
class Table:
    """A table: lines that follow each other with equal values of the keys ``section``, or with equal ``section(line)``,
    are one section; notes are below.
    """

    title: str
    columns: Sequence[Column]
    lines: Sequence[Any]
    section: Sequence[str] | Callable[[Any], Hashable] = ()
    notes: str | Sequence[str] = ()

    @property
    def remarks(self) -> Sequence[str]:
        """The notes, one paragraph each."""
        return [self.notes] if isinstance(self.notes, str) else self.notes

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """Title of each column, and whether it is aligned left."""
        return [(column.title, column.left) for column in self.columns]

    @cached_property
    def sections(self) -> list[list[list[str]]]:
        """The text of every line, in sections."""
        keys = self.section
        section = keys if callable(keys) else lambda line: [line.get(name) for name in keys]
        return [
            [[column.text(line) for column in self.columns] for line in part]
            for _, part in itertools.groupby(self.lines, key=section)
        ]


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Print tables, a rule between sections."""
    for table in tables:
        grid = Grid(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for title, left in table.heads:
            grid.add_column(Text(_visible(title, "\n")), justify="left" if left else "right")
        for section in table.sections:
            for line in section:
                grid.add_row(*(Text(_visible(cell)) for cell in line))
            grid.add_section()
        console.print(Text(_visible(table.title), style="bold"))
        console.print(grid)
        width = min(console.width, 100)
        for note in table.remarks:
            console.print(Text(_visible(note), style="dim"), width=width)
        console.print()


def _visible(text: str, kept: str = "") -> str:
    """The text with escapes (``\\x1b``) for what would command the terminal in place of being shown."""
    commands = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")} - set(kept)
    return "".join(ascii(letter)[1:-1] if letter in commands else letter for letter in text)


def to_markdown(tables: Iterable[Table]) -> str:
    """The same tables in Markdown."""
    lines: list[str] = []
    for table in tables:
        marks = [":--" if left else "--:" for _, left in table.heads]
        lines += [f"**{_escaped(table.title)}**", "", _row(_one_line(title) for title, _ in table.heads)]
        lines += ["| " + " | ".join(marks) + " |", *(_row(line) for section in table.sections for line in section)]
        lines += ["", _escaped(" ".join(table.remarks), bars=False), ""]
    return "\n".join(lines)


def _one_line(title: str) -> str:
    return title.replace("-\n", "-").replace("\n", " ")


_MARKUP = re.compile(r"[\\*`~]|<(?=[A-Za-z/!?])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_START = re.compile(r"^(?=[-+#>|])|^(\d+)(?=[.)])")  # of a paragraph: it would be a heading, a list or a quotation


def _escaped(text: str, *, bars: bool = True) -> str:
    """Text in one line of Markdown, with a backslash before whatever would be markup."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(text.splitlines()).strip())
    return line.replace("|", r"\|") if bars else _START.sub(r"\1\\", line)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def write_tables(folder: Path, tables: Iterable[Table], rows: Iterable[Row]) -> None:
    """Write table.md, and the rows as table.csv and classes.csv, each whole or not at all."""
    for name, content in {**csv_files(rows), "table.md": to_markdown(tables)}.items():
        whole = content.encode()
        write_atomically(folder / name, lambda file, whole=whole: file.write(whole))  # type: ignore[misc]
