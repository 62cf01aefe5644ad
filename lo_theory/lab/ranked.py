"""A run on several ranks, as torchrun starts them: all train together, the first alone measures and writes.

Every rank goes through the same trainings in the same order; the others keep none of the rows, and leave when nothing
is left to be trained. Loads torch only under torchrun. Reads the run folder, writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_theory.lab.rows import Row, examine
from lo_theory.lab.runs import read_facts

if TYPE_CHECKING:
    from lo_theory.neural import Ranks

__all__ = ["Followed", "agree_on", "expected_ranks", "own_rank", "team"]


def _number(name: str, default: int) -> int:
    """A number that torchrun sets; the default without torchrun."""
    return int(os.environ.get(name, default)) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else default


def own_rank() -> int:
    """The number of this process among those that torchrun started; 0 without torchrun."""
    return _number("RANK", 0)


def expected_ranks() -> Ranks:
    """The ranks that torchrun started, before they have joined."""
    from lo_theory.neural import Ranks

    rank, count = own_rank(), _number("WORLD_SIZE", 1)
    return Ranks(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))


@contextmanager
def team(device: str, *, needed: bool) -> Iterator[Ranks | None]:
    """Join the other ranks for as long as there is something to train; None where there are no others."""
    if not needed or _number("WORLD_SIZE", 1) == 1:
        yield None
        return
    from lo_theory.neural import join_ranks

    with join_ranks(device) as ranks:
        yield ranks


def agree_on(ranks: Ranks | None, device: str, folder: Path, units: Sequence[str] | None = None) -> None:
    """Wait for the other ranks, once the run's folder is open and again once the missing units are known.

    ValueError if they have another run, or miss other units; RuntimeError if one is gone.
    """
    if ranks is not None:
        value = str(folder) if units is None else list(units)
        what = "the run" if units is None else "the units of work that are missing (can all read the run's folder?)"
        ranks.agree(what, value, ranks.device(device))


class Followed:
    """A run as one sees it who does not hold it: facts and rows as they were, nothing is written.

    ``facts`` are those of a run that has not been begun.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = read_facts(folder, facts) or dict(facts)
        self.rows = examine(folder / "rows.jsonl").rows  # of whole units; who opens the run says what is damaged
        self.units = {row.unit for row in self.rows}

    def append(self, rows: list[Row]) -> None:
        """Rows are the first rank's affair."""

    def log(self, event: str, **facts: Any) -> None:
        """So is the journal."""

    def sync_journal(self) -> None:
        """See log."""
