"""The table of thresholds: dynamic, condensation and Kesten-Stigum, beside published values, with side information."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import CATEGORICAL, COLOURS, INK, SHADING
from lo_theory.lab.frame import Frame, Record, grouped, of_kind
from lo_theory.lab.panel import Axes, Look, Panel, Sheet
from lo_theory.lab.schema import setting
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, text, with_error
from lo_theory.lab.units import Unit
from lo_theory.thresholds import Effort, RowSpecification, find_fold, find_transition, published


@dataclass(frozen=True)
class Ensemble:
    """A planted ensemble: predicate, q, k, and whether satisfied observations or all are revealed."""

    family: Literal["colouring", "nae", "xor"]
    q: int = setting(2, least=2)
    k: int = setting(3, least=2)
    observed: Literal["satisfied", "all"] = "satisfied"

    def __post_init__(self) -> None:
        _ = self.specification  # which says what does not go together

    @property
    def specification(self) -> RowSpecification:
        """The ensemble as the room of thresholds knows it."""
        return RowSpecification(self.family, self.q, self.k, self.observed)

    @property
    def label(self) -> str:
        """Name in tables: ``4-colouring``, ``NAE q=3 k=3``, ``XOR k=3``."""
        return {
            "colouring": f"{self.q}-colouring",
            "nae": f"NAE q={self.q} k={self.k}",
            "xor": f"XOR k={self.k}",
        }[self.family]


@dataclass(frozen=True)
class Budget:
    """What one search for thresholds may spend: messages in the population, factor messages for each stage."""

    size: int = 10_000
    scan: float = setting(1e8, above=0)
    dynamic: float = setting(3e8, above=0)
    condensation: float = setting(4e8, above=0)

    def __post_init__(self) -> None:
        _ = self.effort  # which says what is out of range

    @property
    def effort(self) -> Effort:
        """The same for one thread."""
        return Effort(self.size, self.scan, self.dynamic, self.condensation)


@dataclass(frozen=True)
class Row:
    """An ensemble, the share of latents revealed beside the observations (0: none), and what may be spent."""

    ensemble: Ensemble
    seed: int = 0
    revealed: float = setting(0.0, least=0)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not self.revealed < 1:
            raise ValueError(f"revealed is a share of the latents below 1, got {self.revealed}")


def units(s: Subject) -> Iterator[Unit]:
    """The only unit of a row: 30 to 60 seconds on one core at the default budget."""
    row, ensemble = s.row, s.row.ensemble
    s = s.named("", label=ensemble.label, **asdict(ensemble), revealed=row.revealed, seed=row.seed)
    key = s.key.fold(ensemble.specification.label)

    def compute() -> list[Finding]:
        s.context.stop.check()
        if row.revealed > 0:
            fold = find_fold(ensemble.specification.ensemble(), row.revealed, key, row.budget.effort)
            return measures.fold(fold, {}) + measures.curve(fold.curve, {})
        found = find_transition(ensemble.specification.ensemble(), key, row.budget.effort)
        return measures.transition(found, {}) + measures.curve(found.curve, {})

    shown = f", {100 * row.revealed:g} % of the latents revealed" if row.revealed else ""
    yield s.unit("thresholds", f"{ensemble.label}, {ensemble.observed} observations{shown}", compute)


_TRANSITION = {"dynamic": "dynamic", "condensation": "condens.", "kesten_stigum": "KS"}
_FOLD = {"dynamic": "dynamic", "crossing": "equal free\nentropy", "spinodal": "end of the\nuninformed"}
_UNITS = {"density": "M/N", "neighbours": "(k-1)c"}
_ENSEMBLE = (key("label", "ensemble", left=True), key("observed", left=True))
_REVEALED = text("latents\nrevealed", lambda line: f"{100 * line.revealed:g} %", left=False)


def _published(line: Record) -> tuple[Mapping[str, float], str]:
    """Published c by threshold, and their source; none for an ensemble that is not of the named families."""
    if "family" not in line.keys:
        return {}, ""
    dynamic, condensation, source = published(RowSpecification(line.family, line.q, line.k, line.observed))
    found = {"dynamic": dynamic, "condensation": condensation}
    return {name: value for name, value in found.items() if value is not None}, source


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """The three thresholds beside published ones and in other units; folds, with some latents revealed."""
    return titled(frame, experiment.heading)


def titled(frame: Frame, title: str) -> Iterator[Table]:
    """The same tables, the first of them under this title."""
    found = grouped(of_kind(frame, "threshold"), "observed")
    sources = "; ".join(source for source in dict.fromkeys(_published(line)[1] for line in found) if source)
    yield Table(
        title,
        (
            *_ENSEMBLE,
            text("dynamic", _dynamic),
            text("condensation", _condensation),
            text("KS", lambda line: _threshold(line, "kesten_stigum"), left=False),
            text("published\ndynamic", lambda line: _off(line, "dynamic"), left=False),
            text("published\ncondensation", lambda line: _off(line, "condensation"), left=False),
        ),
        found,
        section=["observed"],
        notes=(
            "Mean degree c = kM/N with 95 % errors. A continuous transition has dynamic = condensation = Kesten-Stigum "
            "(KS); beside it the deepest dip of a planted state below KS that the errors do not exclude. In brackets: "
            "ours over the published value, less one.",
            f"Published: {sources or 'none for these ensembles'}.",
        ),
    )
    yield Table(
        "As density M/N and as neighbours (k-1)c",
        (*_ENSEMBLE, *_in_units(_TRANSITION, _threshold)),
        found,
        section=["observed"],
    )
    yield Table(
        "Side information: some latents are revealed too",
        (
            *_ENSEMBLE,
            _REVEALED,
            *(text(title, partial(_part, name=name), left=name == "dynamic") for name, title in _FOLD.items()),
        ),
        _folds(frame),
        section=["observed", "label"],
        notes="Mean degree c with 95 % errors, half the spacing of the curve's points included. Between the first and "
        "the last column an informed and an uninformed state coexist; from the middle one on the informed one is "
        "likelier.",
    )


def fold_units(frame: Frame) -> Table:
    """The ends of the folds as density M/N and as neighbours (k-1)c."""
    columns = (*_ENSEMBLE, _REVEALED, *_in_units(_FOLD, _part))
    return Table("Side information, as density M/N and as neighbours (k-1)c", columns, _folds(frame))


def _folds(frame: Frame) -> list[Record]:
    return grouped(of_kind(frame, "fold"), "observed", "label")


def _in_units(names: Mapping[str, str], cell: Callable[..., str]) -> Iterator[Column]:
    for unit, head in _UNITS.items():
        for name, title in names.items():
            yield Column(f"{head}\n{title}", partial(cell, name=name, unit=unit))


def _threshold(line: Record, name: str, unit: str = "c", absent: str = "infinite") -> str:
    """A threshold with its error."""
    scale = {"c": 1.0, "density": 1 / line.k, "neighbours": line.k - 1.0}[unit]
    value, error = (scale * line.value(f"{name}_c{end}") for end in ("", "_error"))
    return absent if math.isnan(value) else with_error(value, error)


def _dynamic(line: Record) -> str:
    if not line.value("continuous"):
        return _threshold(line, "dynamic")
    return "continuous: = KS" if line.value("resolution") <= 0.02 else "not decided"


def _condensation(line: Record) -> str:
    """Condensation; where the transition is continuous, the deepest dip below Kesten-Stigum that is not excluded."""
    return f"no dip{_over(line)}" if line.value("continuous") else _threshold(line, "condensation")


def _over(line: Record) -> str:
    """The size, relative to c, above which the errors exclude it; nothing where they exclude it at any size."""
    excluded = 100 * line.value("resolution")
    return f" over {excluded:.2g} %" if excluded >= 0.005 else ""


def _off(line: Record, name: str) -> str:
    """A published value and how far ours lies from it, in per cent."""
    value = _published(line)[0].get(name)
    if value is None:
        return ""
    ours, exact = line.value(f"{name}_c"), line.value(f"{name}_c_error") == 0
    return f"{value:.6g}" if exact else f"{value:.6g} ({100 * (ours / value - 1):+.3f} %)"


def _part(line: Record, name: str, unit: str = "c") -> str:
    """An end of a fold, or the degree of equal free entropy; where there is no fold, how wide one is excluded."""
    if line.value("survives"):
        return _threshold(line, name, unit, "not met")
    over = _over(line)
    return {"dynamic": "no fold", "crossing": f"none{over} of c" if over else ""}.get(name, "")


_LOW, _HIGH = 0.7, 1.6  # of the axis, in units of condensation
_SYMBOLS = {"dynamic": "o", "condensation": "s", "Kesten-Stigum": ">", "published": "x"}
_AREAS = {"hard": "possible but hard", "clustered": "planted state exists, not detectable"}


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Left: overlap of the fixed points against c, in units of condensation. Right: the thresholds on one axis."""
    found = [line for name in ("threshold", "fold") for line in of_kind(frame, name)]
    ensembles = list(dict.fromkeys((line.label, line.revealed) for line in found))
    # One colour an ensemble and revealed share, whichever of its observations are revealed.
    places = [ensembles.index((line.label, line.revealed)) for line in found]
    items = [line.plus(colour=CATEGORICAL[place % len(CATEGORICAL)]) for line, place in zip(found, places, strict=True)]
    legend: list[Look] = [{"marker": marker, "color": INK, "label": name} for name, marker in _SYMBOLS.items()]
    legend += [{"facecolor": SHADING[name], "edgecolor": SHADING[name], "label": says} for name, says in _AREAS.items()]
    size = 13, 1.5 + max(4.5, 0.34 * len(items))
    panels = [_fixed_points(frame, items), _phases(items)]
    return {"figure": Sheet(experiment.heading, panels, 2, size, legend, entries=6)}


def _in_its_units(item: Record) -> list[Estimate]:
    """Three thresholds, or three degrees of a fold, in units of the middle one; nan where they are not there."""
    names = _FOLD if item.kind == "fold" else _TRANSITION
    values = [(item.value(f"{name}_c"), item.value(f"{name}_c_error")) for name in names]
    unit = values[1][0]
    return [Estimate(value / unit, (value - error) / unit, (value + error) / unit) for value, error in values]


def _fixed_points(frame: Frame, items: Sequence[Record]) -> Panel:
    """The curves c(overlap), dashed where all observations are revealed; without condensation in units of the least."""
    curve = sorted(of_kind(frame, "curve"), key=lambda point: float(point.overlap))
    lines = []
    for item in items:
        own = [point for point in curve if point.row == item.row]
        unit = item.value("crossing_c" if item.kind == "fold" else "condensation_c")
        unit = min((point.value("c") for point in own), default=1.0) if math.isnan(unit) else unit
        lines += [point.plus(unit=unit, colour=item.colour) for point in own]

    def look(point: Record) -> Look:
        # The name keeps curves apart that look alike.
        style = "-" if point.observed == "satisfied" else "--"
        return {"color": point.colour, "linestyle": style, "gid": f"row{point.row}"}

    def dress(axes: Axes) -> None:
        axes.axvline(1, color=COLOURS["line"], linewidth=0.8)
        axes.set(xlim=(_LOW, _HIGH), ylim=(0, 1))

    return Panel(
        "Fixed points",
        "curves",
        lines,
        x=lambda point: point.value("c") / point.unit,
        y=lambda point: float(point.overlap),
        look=look,
        xlabel="c / c of condensation (dashed: all observations revealed; names at the right)",
        ylabel="overlap of the fixed point of population dynamics",
        dress=dress,
    )


def _phases(items: Sequence[Record]) -> Panel:
    """One line a row: hard phase as a bar from condensation to Kesten-Stigum, dynamic threshold left of it."""
    marks = [(item, *mark) for item in items for mark in zip(_in_its_units(item), "os>", strict=True)]
    lines = [item.plus(ratio=ratio, marker=marker) for item, ratio, marker in marks]

    def dress(axes: Axes) -> None:
        for place, item in enumerate(items):
            _draw_phase(axes, place, item)
        axes.set_yticks(range(len(items)), [_name(item) for item in items])
        for item, label in zip(items, axes.get_yticklabels(), strict=True):
            label.set_color(item.colour)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(_LOW, _HIGH)

    return Panel(
        "Thresholds, each in units of its condensation",
        "spans",
        lines,
        x=lambda line: line.ratio,
        y="row",
        look=lambda line: {"color": line.colour, "marker": line.marker, "clip_on": False},
        xlabel="c / c of condensation",
        dress=dress,
    )


def _draw_phase(axes: Axes, place: int, item: Record) -> None:
    """Areas, what is infinite as a symbol at the edge of the axis, and published values."""
    dynamic, unit, end = (ratio.value for ratio in _in_its_units(item))
    if math.isnan(unit):
        return
    if math.isnan(end):
        end = _HIGH
        axes.plot(end, place, ">", color=item.colour, clip_on=False)
    axes.barh(place, end - unit, left=unit, height=0.5, color=SHADING["hard"])
    axes.barh(place, unit - dynamic, left=dynamic, height=0.5, color=SHADING["clustered"])
    for value in _published(item)[0].values() if not item.revealed else ():
        axes.plot(value / item.value("condensation_c"), place, "x", color=INK, zorder=5)


def _name(item: Record) -> str:
    revealed = f", {100 * item.revealed:g} % revealed" if item.revealed else ""
    return f"{item.label}, {item.observed}{revealed}"
