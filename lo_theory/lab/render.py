"""Tables on a terminal and as Markdown: screen and files show the same characters.

Writes only below the folder given.
"""

from __future__ import annotations

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

__all__ = ["Table", "print_tables", "to_markdown", "write_tables"]


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
            grid.add_column(column, justify="left" if column in table.left else "right")
        for section in table.sections:
            for row in section:
                grid.add_row(*row)
            grid.add_section()
        console.print(Text(table.title, style="bold"))
        console.print(grid)
        width = min(console.width, 100)
        for note in table.notes:
            console.print(Text(note, style="dim"), width=width)
        console.print()


def to_markdown(content: Iterable[Table]) -> str:
    """The same tables in Markdown."""
    lines: list[str] = []
    for table in content:
        marks = [":--" if column in table.left else "--:" for column in table.columns]
        names = [name.replace("-\n", "-").replace("\n", " ") for name in table.columns]
        lines += [f"**{table.title}**", "", _markdown_row(names), _markdown_row(marks)]
        lines += [_markdown_row(row) for section in table.sections for row in section]
        lines += ["", " ".join(table.notes), ""]
    return "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"


def write_tables(folder: Path, content: Iterable[Table], rows: Sequence[Row]) -> None:
    """Write table.csv, classes.csv (the losses class by class) and table.md."""
    classes = [row for row in rows if row.keys.get("kind") == "class_losses"]
    others = [row for row in rows if row.keys.get("kind") != "class_losses"]
    contents = {"table.csv": to_csv(others), "table.md": to_markdown(content)}
    contents |= {"classes.csv": to_csv(classes)} if classes else {}
    for name, text in contents.items():
        whole = text.encode()
        write_atomically(folder / name, lambda file, whole=whole: file.write(whole))  # type: ignore[misc]
