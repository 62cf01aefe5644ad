"""Rows of decodes whose accuracies are given, to test what tables and figures make of them, and rows as records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.rows import Row


def share(percent: float, n: int = 1000) -> Sums:
    """Shares of ``n`` sequences, half of them 5 points above the mean and half below."""
    return Sums.of([(percent + 5 * (-1) ** i) / 100 for i in range(n)])


def cell(pair: tuple[int, int], policy: str, self_consistency: float, unpaired: float, **keys: Any) -> list[Row]:
    place = {"kind": "decode", "row": 0, "N": pair[0], "P": pair[1], "problem": "a", "seed": 0, "denoiser": "model"}
    place |= {"policy": policy, "steps": sum(pair), "argmax": False, "schedule": "fixed_count", "temperature": 1.0}
    metrics = {"self_consistency": self_consistency, "unpaired": unpaired, "consistent": self_consistency / 2}
    return [Row("unit", name, share(value), place | keys) for name, value in metrics.items()]


def pairs_of(values: dict[tuple[int, int], tuple[float, float]], **keys: Any) -> Iterable[Row]:
    for pair, (vanilla, margin) in values.items():
        yield from cell(pair, "vanilla", vanilla, 62.5, **keys)
        yield from cell(pair, "margin", margin, 62.5, **keys)


def measured(rows: Iterable[Row], name: str, **where: Any) -> list[Record]:
    """What the rows of one kind have measured, place by place."""
    return records(pool(kind(from_rows(rows), name, **where)))
