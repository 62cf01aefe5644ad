"""The tables of the hardness map, and the cells, thresholds and gaps that its figure draws too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lo_theory.diffusion.statistics import Estimate, student
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, add_row, group
from lo_theory.lab.texts import shown

__all__ = ["THRESHOLD_NAMES", "Cell", "Mark", "Problem", "cells", "marks", "problems", "tables"]

_THRESHOLDS = ("dynamic", "condensation", "kesten_stigum")
_BLOCKS = 8  # of the sweeps of population dynamics, of which standard errors are taken
THRESHOLD_NAMES = {"dynamic": "dynamic", "condensation": "condensation", "kesten_stigum": "Kesten-Stigum"}


@dataclass(frozen=True)
class Problem:
    """What rows are pooled by: all but the seed of the problem."""

    family: str
    N: int
    P: int

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Problem:
        """Read the keys of a row."""
        return cls(str(keys["family"]), int(keys["N"]), int(keys["P"]))

    @property
    def title(self) -> str:
        """Family and pair."""
        return f"{self.family}, N = {self.N}, P = {self.P}"


@dataclass(frozen=True)
class Cell:
    """One pair of mask rates, all problem seeds as runs, by posterior; ``estimate`` is over seeds or contexts."""

    measured: Mapping[str, Measured]

    def value(self, posterior: str, metric: str) -> float:
        """Mean over the problem seeds; nan where it was not measured or no context answers."""
        return self.measured[posterior].value(metric) if posterior in self.measured else math.nan

    def estimate(self, posterior: str, metric: str) -> Estimate:
        """With its 95 % interval: over problem seeds where there are several, else over contexts."""
        if posterior not in self.measured:
            return Estimate(math.nan, math.nan, math.nan)
        return self.measured[posterior].estimate(metric)

    @property
    def refused(self) -> float:
        """Share of contexts that the exact posterior refuses."""
        return self.value("exact", "refused")


@dataclass(frozen=True)
class Mark:
    """A threshold of an ensemble: which, what is observed, c with its 95 % error, c with all observations revealed."""

    name: str
    observed: str
    c: float
    error: float
    full: float

    def rate(self, ratio: float = 1.0) -> float:
        """Mask rate b of observations at which the mean degree is c, of ``ratio`` times as many observations.

        Outside [0, 1] where even all observations revealed give less.
        """
        return 1 - self.c / (self.full * ratio)

    @property
    def rate_error(self) -> float:
        """Half of the 95 % interval of ``rate()``."""
        return self.error / self.full


def cells(rows: Sequence[Row], form: str) -> dict[Problem, dict[tuple[float, float], Cell]]:
    """All cells of a form, by problem and (a, b)."""
    found: dict[Problem, dict[tuple[float, float], dict[str, Measured]]] = {}
    for item in group(rows, "cell"):
        keys = item.keys
        if keys["form"] == form:
            place = found.setdefault(Problem.of(keys), {}).setdefault((float(keys["a"]), float(keys["b"])), {})
            add_row(place, str(keys["posterior"]), item)
    return {
        problem: {place: Cell(measured) for place, measured in sorted(places.items())}
        for problem, places in found.items()
    }


def problems(rows: Sequence[Row]) -> list[Problem]:
    """Problems with a map, in the order of the rows."""
    return list(cells(rows, "plane"))


def marks(rows: Sequence[Row], problem: Problem) -> list[Mark]:
    """Thresholds of a problem's ensemble, those of one that is continuous (all the same) as Kesten-Stigum only."""
    found = []
    for item in group(rows, "threshold"):
        if Problem.of(item.keys) != problem:
            continue
        names = ("kesten_stigum",) if item.value("continuous") else _THRESHOLDS
        for name in names:
            c, error = item.value(f"{name}_c"), item.value(f"{name}_c_error")
            if math.isfinite(c):
                found.append(Mark(name, str(item.keys["observed"]), c, error, item.value("degree_revealed")))
    return list({(mark.name, mark.observed): mark for mark in found}.values())


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """A summary by problem, the edge and the diagonal cell by cell, thresholds, and gaps of population dynamics."""
    ordered = sorted(rows, key=lambda row: int(row.keys["row"]))
    return [
        *_line_tables(ordered),
        _threshold_table(ordered),
        _population_table(ordered),
        _summary_table(ordered),
    ]


def _line_tables(rows: Sequence[Row]) -> list[Table]:
    """The edge a = 1 and the diagonal a = b of every map."""
    made = []
    for problem, places in cells(rows, "plane").items():
        judged = sorted({name for cell in places.values() for name in cell.measured} - {"exact"})
        columns = ["a", "b", "entropy/latent", "joint entropy", "entropy/token", "deterministic", "refused"]
        columns += [part for name in judged for part in (f"KL {name}", f"evidence error {name}", f"converged {name}")]
        lines = {
            "edge": [(place, cell) for place, cell in places.items() if place[0] == 1],
            "diagonal": [(place, cell) for place, cell in places.items() if place[0] == place[1]],
        }
        sections = tuple(tuple(_line(place, cell, judged) for place, cell in part) for part in lines.values())
        notes = (
            "First all latents hidden (a = 1), then equal rates. Nats per hidden latent, per hidden token where it "
            "says so; 95 % intervals over contexts, or over problem seeds where there are several (Student's t). "
            "Evidence error: (the posterior's ln P(context) less the exact one) per hidden latent. Refused: over the "
            "exact posterior's limit, left out of all other columns.",
        )
        made.append(Table(f"Edge and diagonal: {problem.title}", tuple(columns), sections, notes))
    return made


def _line(place: tuple[float, float], cell: Cell, judged: Sequence[str]) -> tuple[str, ...]:
    exact = ("latent_entropy", "joint_entropy", "token_entropy", "deterministic", "refused")
    asked = [("exact", metric) for metric in exact]
    asked += [(name, metric) for name in judged for metric in ("kl_latent", "evidence_error", "converged")]
    cells = (shown(cell.estimate(name, metric), form=".3f") for name, metric in asked)
    return (f"{place[0]:g}", f"{place[1]:g}", *cells)


def _threshold_table(rows: Sequence[Row]) -> Table:
    lines = []
    for problem in problems(rows):
        for mark in marks(rows, problem):
            rate = mark.rate()
            where = f"{rate:.4f} ±{mark.rate_error:.4f}" if 0 <= rate <= 1 else f"{rate:.3f}: outside [0, 1]"
            lines.append(
                (
                    problem.title,
                    mark.observed,
                    THRESHOLD_NAMES[mark.name],
                    f"{mark.c:.4f} ±{mark.error:.4f}",
                    f"{mark.full:g}",
                    where,
                )
            )
    notes = (
        "Where all latents are hidden. b: mask rate of the observations at which the mean degree of those that count "
        "is c; all of them, or the satisfied ones alone. Kesten-Stigum alone: no dip below it is resolved, the "
        "transition counts as continuous and the three agree.",
    )
    columns = ("problem", "observed", "threshold", "c", "c at b = 0", "b")
    return Table(
        "Thresholds on the edge a = 1", columns, (tuple(lines),), notes, left=("problem", "observed", "threshold")
    )


def _population_table(rows: Sequence[Row]) -> Table:
    half = student(_BLOCKS - 1)
    lines = [
        (
            Problem.of(item.keys).title,
            str(item.keys["observed"]),
            f"{item.keys['a']:g}",
            f"{item.keys['b']:g}",
            f"{item.keys['c']:.2f}",
            *(
                f"{item.value(name):.4f} ±{half * item.value(f'{name}_error'):.4f}"
                for name in ("planted", "uninformed")
            ),
            "yes" if item.value("coexist") else "no",
        )
        for item in group(rows, "population")
    ]
    columns = ("problem", "observed", "a", "b", "c", "planted", "uninformed", "differ")
    notes = (
        "Overlap of the hidden latents in the limit of many latents, from the two starts, with 95 % intervals over "
        f"{_BLOCKS} blocks of sweeps (Student's t); they differ by more than 0.02 and five standard errors.",
    )
    return Table("Population dynamics", columns, (tuple(lines),), notes, left=("problem", "observed"))


def _extreme(places: Mapping[tuple[float, float], Cell], posterior: str, metric: str) -> str:
    """The largest value of a metric and where."""
    known = [(abs(cell.value(posterior, metric)), place) for place, cell in places.items()]
    known = [(value, place) for value, place in known if not math.isnan(value)]
    if not known:
        return "-"
    value, (a, b) = max(known)
    return f"{value:.3f} at ({a:g}, {b:g})"


def _summary_table(rows: Sequence[Row]) -> Table:
    lines = []
    for form in ("plane", "lines"):
        for problem, places in cells(rows, form).items():
            refused = sum(cell.refused > 0 for cell in places.values())
            lines.append(
                (
                    problem.title,
                    form,
                    str(len(places)),
                    f"{refused}",
                    _extreme(places, "bp", "kl_latent"),
                    _extreme(places, "bp", "evidence_error"),
                    _extreme(places, "model", "kl_latent"),
                )
            )
    columns = (
        "problem",
        "form",
        "cells",
        "with refusals",
        "largest KL bp",
        "largest |evidence error| bp",
        "largest KL model",
    )
    notes = ("Nats per hidden latent, and the mask rates (a, b) of that cell.",)
    return Table("All cells", columns, (tuple(lines),), notes, left=("problem", "form"))
