"""Sudoku as an exact cover, by Knuth's Algorithm X on dictionaries: a slow, obvious solver that shares no code."""

from __future__ import annotations

from collections.abc import Iterator

BOXES = {16: (4, 2, 2), 36: (6, 2, 3), 81: (9, 3, 3)}


def solve_line(line: str) -> Iterator[str]:
    """All solutions of a line of 16, 36 or 81 characters, lazily."""
    size, height, width = BOXES[len(line)]
    rows: dict[tuple[int, int, int], list[tuple[str, int, int]]] = {}
    for r in range(size):
        for c in range(size):
            for d in range(1, size + 1):
                box = r // height * (size // width) + c // width
                rows[r, c, d] = [("cell", r, c), ("row", r, d), ("column", c, d), ("box", box, d)]
    columns: dict[tuple[str, int, int], set[tuple[int, int, int]]] = {}
    for row, needs in rows.items():
        for need in needs:
            columns.setdefault(need, set()).add(row)
    chosen = []
    for place, character in enumerate(line):
        if character in "123456789":
            row = (place // size, place % size, int(character))
            if any(need not in columns for need in rows[row]):
                return
            select(columns, rows, row)
            chosen.append(row)
    yield from search(columns, rows, chosen, size)


def search(columns, rows, chosen, size) -> Iterator[str]:
    if not columns:
        digits = {(r, c): d for r, c, d in chosen}
        yield "".join(str(digits[r, c]) for r in range(size) for c in range(size))
        return
    least = min(columns, key=lambda need: len(columns[need]))
    for row in list(columns[least]):
        removed = select(columns, rows, row)
        yield from search(columns, rows, [*chosen, row], size)
        deselect(columns, rows, row, removed)


def select(columns, rows, row) -> list[set[tuple[int, int, int]]]:
    removed = []
    for need in rows[row]:
        for other in columns[need]:
            for further in rows[other]:
                if further != need:
                    columns[further].remove(other)
        removed.append(columns.pop(need))
    return removed


def deselect(columns, rows, row, removed) -> None:
    for need in reversed(rows[row]):
        columns[need] = removed.pop()
        for other in columns[need]:
            for further in rows[other]:
                if further != need:
                    columns[further].add(other)
