"""The table that ``check`` answers: a row for each check, its p-value or exact distance, verdict and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lo_theory.testing.p_values import holm

__all__ = ["Check", "Report", "exact", "not_applicable", "statistical"]

_WIDTH = 132


@dataclass(frozen=True)
class Check:
    """One question put to a subject.

    ``p_value`` of a statistical check, ``distance`` of an exact one (0: as it should be), both None where the check
    does not apply; ``holds`` and ``fails`` say what either outcome means, ``why`` why it does not apply; ``finds`` the
    smallest deviation that a statistical check is sure to find. ``ok`` is None until the family is judged, and where
    nothing applies.
    """

    name: str
    holds: str = ""
    fails: str = ""
    p_value: float | None = None
    distance: float | None = None
    why: str = ""
    finds: str = ""
    ok: bool | None = None

    @property
    def verdict(self) -> str:
        """``pass``, ``FAIL`` or ``n/a``."""
        return {True: "pass", False: "FAIL", None: "n/a"}[self.ok]

    @property
    def result(self) -> str:
        """The number: ``p = 0.31`` or ``0.0025 (exact)``."""
        if self.p_value is not None:
            return f"p = {self.p_value:.2g}"
        return "" if self.distance is None else f"{self.distance:.3g} (exact)"

    @property
    def meaning(self) -> str:
        """What the outcome means, in a sentence."""
        if self.ok is None:
            return self.why
        return self.fails if not self.ok else f"{self.holds}; {self.finds}" if self.finds else self.holds


def statistical(name: str, p_value: float, holds: str, fails: str, finds: str = "") -> Check:
    """A check by a test: its verdict is left to the family."""
    return Check(name, holds, fails, p_value=float(p_value), finds=finds)


def exact(name: str, distance: float, ok: bool, holds: str, fails: str) -> Check:
    """A check without chance."""
    return Check(name, holds, fails, distance=float(distance), ok=bool(ok))


def not_applicable(name: str, why: str) -> Check:
    """A check that does not apply."""
    return Check(name, why=why)


@dataclass(frozen=True)
class Report:
    """All checks of one subject. ``report["calibration"]`` is one of them, ``print(report)`` the table.

    ``level``: the probability that any statistical check of a right subject fails, all of them together (Holm's rule).
    """

    subject: str
    problem: str
    level: float
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, subject: str, problem: str, level: float, checks: Sequence[Check]) -> Report:
        """Judge the statistical checks as one family."""
        tested = [check for check in checks if check.p_value is not None]
        rejected = dict(
            zip(map(id, tested), holm([float(check.p_value or 0.0) for check in tested], level), strict=True)
        )
        judged = (replace(check, ok=not rejected[id(check)]) if id(check) in rejected else check for check in checks)
        return cls(subject, problem, level, tuple(judged))

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.ok is False)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check is called {name!r}; there are {', '.join(check.name for check in self.checks)}")

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __rich__(self) -> object:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self._title), title_justify="left", caption=self._caption, caption_justify="left")
        for column, fixed in (("check", True), ("result", True), ("verdict", True), ("what it means", False)):
            table.add_column(column, no_wrap=fixed)
        for check in self.checks:
            style = {"FAIL": "bold red", "pass": "green", "n/a": "dim"}[check.verdict]
            table.add_row(
                escape(check.name), check.result, f"[{style}]{check.verdict}[/{style}]", escape(check.meaning)
            )
        return table

    @property
    def _title(self) -> str:
        outcome = "all pass" if self.ok else f"{len(self.failed)} FAIL"
        return f"{self.subject} on {self.problem}: {outcome}"

    @property
    def _caption(self) -> str:
        count = sum(check.p_value is not None for check in self.checks)
        if not count:
            return "No check here depends on chance: a right one passes all of them."
        tests = f"a test with a p-value (here {count})"
        return f"A right one fails {tests} with probability {self.level:g} at most, all together."

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=_WIDTH, no_color=True)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
