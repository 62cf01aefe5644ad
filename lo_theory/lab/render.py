"""Tables on a terminal and as Markdown, and back from there: screen and files show the same characters.

What a table holds is text, never markup: it is escaped here, and nowhere else. Writes only below the folder given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from lo_theory.lab.rows import Row
from lo_theory.lab.tidy import to_csv
from lo_theory.problem.storage import write_atomically

__all__ = ["Table", "print_tables", "read_tables", "to_markdown", "write_tables"]


@dataclass(frozen=True)
class Table:
    """Title, columns and rows of text, in sections, and notes below. Columns named in ``left`` are aligned left."""

    title: str
    columns: tuple[str, ...]
    sections: tuple[tuple[tuple[str, ...], ...], ...]
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ("N, P", "denoiser", "policy", "law", "latents hidden")


def print_tables(console: Console, content: Iterable[Table]) -> None:
    """Print tables, a rule between sections."""
    for table in content:
        grid = Grid(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for column in table.columns:
            grid.add_column(Text(_visible(column, "\n")), justify="left" if column in table.left else "right")
        for section in table.sections:
            for row in section:
                grid.add_row(*(Text(_visible(cell)) for cell in row))
            grid.add_section()
        console.print(Text(_visible(table.title), style="bold"))
        console.print(grid)
        width = min(console.width, 100)
        for note in table.notes:
            console.print(Text(_visible(note), style="dim"), width=width)
        console.print()


def _visible(text: str, kept: str = "") -> str:
    """The text with escapes (``\\x1b``) for what would command the terminal in place of being shown."""
    commands = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")} - set(kept)
    return "".join(ascii(letter)[1:-1] if letter in commands else letter for letter in text)


def to_markdown(content: Iterable[Table]) -> str:
    """The same tables in Markdown; ``read_tables`` reads them back, but for spaces and line breaks around words."""
    lines: list[str] = []
    for table in content:
        marks = [":--" if column in table.left else "--:" for column in table.columns]
        names = [name.replace("-\n", "-").replace("\n", " ") for name in table.columns]
        lines += [f"**{_escaped(table.title)}**", "", _markdown_row(names), "| " + " | ".join(marks) + " |"]
        lines += [_markdown_row(row) for section in table.sections for row in section]
        lines += ["", _escaped(" ".join(table.notes), bars=False), ""]
    return "\n".join(lines)


_MARKUP = re.compile(r"[\\*`~]|<(?=[A-Za-z/!?])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_BAR = re.compile(r"\|")


def _escaped(text: str, *, bars: bool = True) -> str:
    """Text in one line of Markdown, with a backslash before whatever would be markup."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(text.splitlines()).strip())
    return _BAR.sub(r"\|", line) if bars or line.startswith("|") else line


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


_ESCAPE = re.compile(r"\\([\\*`~<\]_&|])")


def read_tables(text: str) -> list[Table]:
    """The tables of a table.md that ``to_markdown`` wrote; each in one section, its notes in one."""
    found = []
    for part in re.split(r"^(?=\*\*)", text, flags=re.MULTILINE):
        title, *others = part.strip().split("\n")
        rows = [_cells(line) for line in others if line.startswith("|")]
        if len(rows) < 2:
            continue
        left = tuple(name for name, mark in zip(rows[0], rows[1], strict=False) if mark.startswith(":"))
        notes = tuple(_ESCAPE.sub(r"\1", line) for line in others if line and not line.startswith("|"))
        title = _ESCAPE.sub(r"\1", title.removeprefix("**").removesuffix("**"))
        found.append(Table(title, tuple(rows[0]), (tuple(tuple(row) for row in rows[2:]),), notes, left))
    return found


def _cells(line: str) -> list[str]:
    """The cells of a line; a bar with a backslash before it, which no other backslash escapes, is not between two."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    parts = re.findall(r"(?:^|(?<=\|))((?:\\.|[^\\|])*)(?:\||$)", inner)
    return [_ESCAPE.sub(r"\1", part.strip()) for part in parts]


def write_tables(folder: Path, content: Iterable[Table], rows: Sequence[Row]) -> None:
    """Write table.csv, classes.csv (the losses class by class) and table.md."""
    classes = [row for row in rows if row.keys.get("kind") == "class_losses"]
    others = [row for row in rows if row.keys.get("kind") != "class_losses"]
    contents = {"table.csv": to_csv(others), "table.md": to_markdown(content)}
    contents |= {"classes.csv": to_csv(classes)} if classes else {}
    for name, text in contents.items():
        whole = text.encode()
        write_atomically(folder / name, lambda file, whole=whole: file.write(whole))  # type: ignore[misc]
