"""Tables of text, as experiments make them that are not yet written with ``lab.table``; the tables of a run's folder.

Writes only below the folder given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lo_theory.lab.rows import Row
from lo_theory.lab.table import Shown, print_tables, to_markdown
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

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """Title of each column, and whether it is aligned left."""
        return [(column, column in self.left) for column in self.columns]


def write_tables(folder: Path, content: Iterable[Shown], rows: Sequence[Row]) -> None:
    """Write table.csv, classes.csv (the losses class by class) and table.md."""
    classes = [row for row in rows if row.keys.get("kind") == "class_losses"]
    others = [row for row in rows if row.keys.get("kind") != "class_losses"]
    contents = {"table.csv": to_csv(others), "table.md": to_markdown(content)}
    contents |= {"classes.csv": to_csv(classes)} if classes else {}
    for name, text in contents.items():
        whole = text.encode()
        write_atomically(folder / name, lambda file, whole=whole: file.write(whole))  # type: ignore[misc]
