"""Rows of an experiment made ready to compute: the two forms that every task's rows take.

A task's package holds ``work.RowWork``, which is loaded when units are first asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.lab.schema import plain

if TYPE_CHECKING:
    from lo_theory.lab.units import Context, Unit
    from lo_theory.problem import LODistribution

__all__ = ["PlainRow", "ProblemRow"]

_COUNTS = ("sequences", "contexts", "evaluation_contexts")
_MOST_TOKENS = 2**30  # of one measurement, which is in memory whole; some ten bytes each


def _check_counts(settings: Any, length: int, path: str = "") -> None:
    """Raise ValueError for a number of sequences that no memory holds, before a network is trained for them."""
    for part in dataclasses.fields(settings):
        value, where = getattr(settings, part.name), f"{path}{part.name}"
        if dataclasses.is_dataclass(value):
            _check_counts(value, length, f"{where}.")
        elif part.name in _COUNTS and value * length > _MOST_TOKENS:
            raise ValueError(
                f"{where} = {value:,} of length {length} would be {value * length:,} tokens, over the limit of "
                f"{_MOST_TOKENS:,}: take fewer, and pool the seeds of a sweep for more"
            )


@dataclass(frozen=True)
class PlainRow:
    """A row with nothing to make first and no network; see ``lo_theory.lab.task.Prepared``.

    Its settings have ``check_fits()``; the package's ``RowWork`` is made of (index, row, context).
    """

    package: str
    row: Any

    @property
    def trains(self) -> bool:
        """Whether it trains a network."""
        return False

    def content(self) -> Mapping[str, Any]:
        """All that decides the row's result."""
        content: Mapping[str, Any] = plain(self.row)
        return content

    def check(self) -> None:
        """Raise ValueError where settings do not fit each other."""
        self.row.check_fits()

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        """Yield the units of work."""
        units: Iterator[Unit] = self._work()(index, self.row, context).units()
        return units

    def _work(self) -> Any:
        return importlib.import_module(f"{self.package}.work").RowWork


@dataclass(frozen=True)
class ProblemRow(PlainRow):
    """A row with a ``problem`` that is made once, and perhaps a ``training``.

    Its settings have ``check_fits(distribution)``; the package's ``RowWork`` is made of (index, row, distribution,
    context). The problem enters the content by its arrays' fingerprint, not by the names that made it.
    """

    @cached_property
    def distribution(self) -> LODistribution:
        """The problem."""
        distribution: LODistribution = self.row.problem.make()
        return distribution

    @property
    def trains(self) -> bool:
        """Whether it trains a network."""
        return self.row.training is not None

    def content(self) -> Mapping[str, Any]:
        """All that decides the row's result."""
        return {**super().content(), "problem": self.distribution.fingerprint()}

    def check(self) -> None:
        """Raise ValueError where settings do not fit the problem, or no memory."""
        _check_counts(self.row, self.distribution.layout.length)
        self.row.check_fits(self.distribution)

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        """Yield the units of work."""
        units: Iterator[Unit] = self._work()(index, self.row, self.distribution, context).units()
        return units
