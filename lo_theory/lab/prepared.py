"""A row of an experiment made ready to compute: its problem is made, what there is to compute is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lo_theory.lab.schema import plain

if TYPE_CHECKING:
    from lo_theory.lab.subject import Subject
    from lo_theory.lab.units import Context, Unit
    from lo_theory.problem import LODistribution

__all__ = ["Prepared"]

_COUNTS = ("sequences", "contexts", "evaluation_contexts")
_MOST_TOKENS = 2**30  # of one measurement, which is in memory whole; some ten bytes each


@dataclass(frozen=True)
class Prepared:
    """A row of settings, and what yields its units.

    ``row.problem``, where there is one, is made once. A row that trains a network has ``row.training``, not None.
    ``row.check_fits(distribution)`` (without a problem: no argument) raises ValueError where settings do not fit.
    ``row.revision`` is what else enters the run's id.
    """

    row: Any
    make_units: Callable[[Subject], Iterator[Unit]]

    @cached_property
    def distribution(self) -> LODistribution | None:
        """The problem; None for a row that has none."""
        made: LODistribution | None = self.row.problem.make() if hasattr(self.row, "problem") else None
        return made

    @property
    def trains(self) -> bool:
        """Whether it trains a network, so that the device matters."""
        return getattr(self.row, "training", None) is not None

    def content(self) -> Mapping[str, Any]:
        """All that decides the row's result, as plain values: the run's id is a hash of it.

        The problem enters by its arrays' fingerprint, not by the names that made it.
        """
        content: dict[str, Any] = plain(self.row)
        if self.distribution is not None:
            content["problem"] = self.distribution.fingerprint()
        return {**content, **getattr(self.row, "revision", {})}

    def check(self) -> None:
        """Raise ValueError, with the path below the row, where settings do not fit the problem, or no memory."""
        if self.distribution is not None:
            _check_counts(self.row, self.distribution.layout.length)
        if hasattr(self.row, "check_fits"):
            self.row.check_fits(*([] if self.distribution is None else [self.distribution]))

    def units(self, index: int, context: Context) -> Iterator[Unit]:
        """Yield the units of work of row number ``index``, in the order in which their rows are kept."""
        from lo_theory.lab.subject import Subject

        yield from self.make_units(Subject(index, self.row, context, self.distribution))


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
