"""The hardness map: what is left to know at each pair of mask rates, who fails to know it, and where thresholds lie.

A unit of cells holds all mask rates of observations at one rate of latents, so a kill loses at most one column. In the
maps x is the mask rate of the latents, y that of the observations: everything is hidden at the upper right. Thresholds
are on the right edge, where all latents are hidden; filled: all observations count, open: the satisfied ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from lo_theory.diffusion.masks import TwoRates
from lo_theory.diffusion.statistics import student
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import COLOURS, INK, NO_DATA
from lo_theory.lab.experiments.thresholds import Budget
from lo_theory.lab.frame import Frame, Record, kind, of_kind, parts, pool, records
from lo_theory.lab.panel import NATS, Axes, Colours, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import require_distinct, setting
from lo_theory.lab.settings import Model, Objective, Training, check_laws
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, measured, text
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.problem import LODistribution, TableObservations
from lo_theory.thresholds import PlantedEnsemble, compare_starts, find_transition, planted_ensemble

Observed = Literal["all", "satisfied"]
OBSERVED = ("all", "satisfied")
_TENTHS = tuple(round(0.1 * i, 1) for i in range(11))


def check_rates(name: str, rates: tuple[float, ...]) -> None:
    """Raise ValueError unless there are rates, ascending."""
    if not rates:
        raise ValueError(f"{name} is empty: name at least one mask rate")
    if any(after <= before for before, after in itertools.pairwise(rates)):
        raise ValueError(f"{name} must ascend, each rate once, got {list(rates)}")


@dataclass(frozen=True)
class Cells:
    """Which pairs (mask rate of latents a, of observations b) are measured, on ``contexts`` fresh contexts each.

    ``form`` plane: every pair of ``latents`` and ``observations``; lines: the edge a = 1 at every b in
    ``observations``, and the diagonal a = b at every rate in ``latents``. (0, 0) hides nothing and is left out.
    """

    form: Literal["plane", "lines"] = "plane"
    latents: tuple[float, ...] = setting(_TENTHS, least=0, most=1)
    observations: tuple[float, ...] = setting(_TENTHS, least=0, most=1)
    contexts: int = setting(400, least=2)
    limit_states: int = setting(2**24, least=1, most=2**62 - 1)

    def __post_init__(self) -> None:
        check_rates("latents", self.latents)
        check_rates("observations", self.observations)
        if not any(self.columns().values()):
            raise ValueError("the only cell is (0, 0), which hides nothing: name a rate above 0")

    def columns(self) -> dict[float, tuple[float, ...]]:
        """Rates of observations at each rate of latents."""
        if self.form == "plane":
            pairs = list(itertools.product(self.latents, self.observations))
        else:
            pairs = sorted({*((rate, rate) for rate in self.latents), *((1.0, rate) for rate in self.observations)})
        columns: dict[float, tuple[float, ...]] = {}
        for a, b in pairs:
            if a > 0 or b > 0:
                columns[a] = (*columns.get(a, ()), b)
        return columns


@dataclass(frozen=True)
class Population:
    """Population dynamics from the planted and from the uninformed start, at each pair of mask rates.

    ``observed``: which revealed observations count (all, or those of value 1). ``latents`` are mask rates above 0 (with
    every latent revealed nothing is asked), ``observations`` mask rates below 1 (with none revealed there is no
    degree). See ``compare_starts`` for the rest.
    """

    observed: tuple[Observed, ...] = ("all",)
    latents: tuple[float, ...] = setting((0.5, 0.8, 0.9, 0.95, 0.98, 1.0), above=0, most=1)
    observations: tuple[float, ...] = setting((0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9), least=0)
    size: int = setting(1000, least=512)
    sweeps: int = setting(32, least=8)
    discard: int = setting(60, least=0)

    def __post_init__(self) -> None:
        check_rates("latents", self.latents)
        check_rates("observations", self.observations)
        if not self.observations[-1] < 1:
            raise ValueError(
                f"observations are mask rates below 1 here, got {self.observations[-1]}: none is revealed at 1"
            )
        if not self.observed or len(set(self.observed)) < len(self.observed):
            raise ValueError(f"observed must name all, satisfied or both, each once, got {list(self.observed)}")


@dataclass(frozen=True)
class Row:
    """A problem and what is measured of it.

    ``judged``: bp, model, both or none, beside the exact posterior. ``thresholds``: what may be spent on Kesten-Stigum,
    dynamic and condensation for both ways to observe, null for none; ``population``: null for none.
    """

    problem: Problem
    seed: int = 0
    cells: Cells = field(default_factory=Cells)
    judged: tuple[Literal["bp", "model"], ...] = ("bp",)
    thresholds: Budget | None = None
    population: Population | None = None
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    training: Training | None = None

    def __post_init__(self) -> None:
        require_distinct("judged", self.judged)
        if "model" in self.judged and self.training is None:
            raise ValueError(
                "judged asks for a model, but training is null: give training, or leave model out of judged"
            )
        if "model" not in self.judged and self.training is not None:
            raise ValueError("training is given, but judged does not name model: name it, or set training: null")
        if self.training is not None:
            self.objective.check_lasts(self.training.steps)

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law, belief propagation or an ensemble does not fit the problem."""
        check_laws(self.objective.named_laws(), distribution.layout)
        if "bp" in self.judged and not isinstance(distribution.observations, TableObservations):
            raise ValueError("judged names bp, but this problem has no factor graph: leave bp out")
        ensembles(self, distribution)


def ensembles(row: Row, distribution: LODistribution) -> dict[str, PlantedEnsemble]:
    """The planted ensembles that a row needs, by what is observed; ValueError where they make no sense."""
    wanted = set(OBSERVED if row.thresholds is not None else ())
    wanted |= set(row.population.observed if row.population is not None else ())
    law = distribution.observations
    if wanted and not isinstance(law, TableObservations):
        raise ValueError(
            "thresholds of random slabs are no transitions of a planted CSP: set thresholds and population to null"
        )
    try:
        return {name: planted_ensemble(law, observed=name) for name in OBSERVED if name in wanted}  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{error}; set thresholds and population to null to draw the map without them") from error


def degree(distribution: LODistribution, ensemble: PlantedEnsemble, masked: float) -> float:
    """Mean degree c = (k P/N) (1 - b) P(an observation is of a kind that counts) at mask rate b of observations."""
    layout = distribution.layout
    return ensemble.k * layout.n_observations / layout.n_latents * (1 - masked) * ensemble.revealed


def units(s: Subject) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept."""
    row = s.row
    s, learner, needs = s.named(s.size, family=_family(s)), None, list[str]()
    if row.training is not None:
        learner, needs = s.learner(f"{s.size} model"), ["training"]
        yield s.unit("training", "training", partial(measures.training, s, learner, {}), learner=learner)
    for a, rates in row.cells.columns().items():
        label = f"cells with {100 * a:g} % of the latents hidden"
        yield s.unit(f"cells/{a:g}", label, partial(_column, s, learner, a, rates), needs)
    for name in OBSERVED if row.thresholds is not None else ():
        yield s.unit(f"thresholds/{name}", f"thresholds, {name} observations", partial(_thresholds, s, name))
    if row.population is not None:
        for name, a in itertools.product(row.population.observed, row.population.latents):
            label = f"population dynamics, {name} observations, {100 * a:g} % of the latents hidden"
            yield s.unit(f"population/{name}/{a:g}", label, partial(_population, s, name, a))


def _family(s: Subject) -> str:
    """The problem's family with what tells its ensemble apart."""
    law, noise = s.distribution.observations, getattr(s.row.problem, "noise", 0.0)
    form = f" q={law.q} k={law.k}" if isinstance(law, TableObservations) else ""
    return f"{s.row.problem.family}{form}{f' noise={noise:g}' if noise else ''}"


def _column(s: Subject, learner: Learner | None, a: float, rates: Sequence[float]) -> list[Finding]:
    """What is left to know at one mask rate of the latents, and who knows it."""
    found, cells = [], s.row.cells
    for b in rates:
        s.context.stop.check()
        judged = {
            name: s.watched(s.bp() if name == "bp" or learner is None else s.model(learner, precision="float32"))
            for name in s.row.judged
        }
        law, exact, key = TwoRates(a, b), s.exact(cells.limit_states), s.key.fold("cells")
        measured = uncertainty(judged, exact, s.distribution, law, key=key.fold(law.name), n=cells.contexts)
        found += measures.left_open(measured, "cell", {"form": cells.form, "a": a, "b": b, "posterior": "exact"})
    return found


def _thresholds(s: Subject, name: str) -> list[Finding]:
    s.context.stop.check()
    ensemble = ensembles(s.row, s.distribution)[name]
    found = find_transition(ensemble, s.key.fold("thresholds").fold(name), s.row.thresholds.effort)
    revealed = measures.singles({"degree_revealed": degree(s.distribution, ensemble, 0.0)})
    return [*measures.transition(found, {"observed": name}), Finding("threshold", {"observed": name}, revealed)]


def _population(s: Subject, name: str, a: float) -> list[Finding]:
    """Both starts at every rate of hidden observations."""
    setting, ensemble = s.row.population, ensembles(s.row, s.distribution)[name]
    found = []
    for b in setting.observations:
        s.context.stop.check()
        c, key = degree(s.distribution, ensemble, b), s.key.fold("population").fold(f"{name}/{a:g}/{b:g}")
        budget = {"size": setting.size, "sweeps": setting.sweeps, "discard": setting.discard}
        both = compare_starts(ensemble, c, key, rate=1 - a, **budget)
        found += measures.starts(both, {"observed": name, "a": a, "b": b, "c": c})
    return found


_BLOCKS = 8  # of the sweeps of population dynamics, of which standard errors are taken
_PROBLEM = ("family", "N", "P")  # what rows are pooled by: all but the seed of the problem
_NAMES = {"dynamic": "dynamic", "condensation": "condensation", "kesten_stigum": "Kesten-Stigum"}
_TITLE = text("problem", lambda line: f"{line.family}, N = {line.N}, P = {line.P}")
Name = tuple[str, int, int]


def problems(frame: Frame, form: str) -> dict[Name, list[Record]]:
    """The cells of each problem, pooled over its seeds: ascending by (a, b), metrics as ``bp kl_latent``."""
    pooled = pool(kind(frame, "cell", form=form), [*_PROBLEM, "a", "b", "posterior"], over="row")
    found = parts(records(pooled, spread="posterior"), *_PROBLEM)
    return {_name(cells[0]): sorted(cells, key=lambda cell: (cell.a, cell.b)) for cells in found}


def _name(record: Record) -> Name:
    return record.family, record.N, record.P


def marks(frame: Frame) -> dict[Name, list[Record]]:
    """Thresholds of each problem's ensemble: ``c`` with ``error``, and ``full``, c with all observations revealed.

    Those of one that is continuous (all the same) as Kesten-Stigum only.
    """
    found: dict[Any, Record] = {}  # of rows that share an ensemble the last
    for line in of_kind(frame, "threshold"):
        for name in ("kesten_stigum",) if line.value("continuous") else _NAMES:
            c, error = line.value(f"{name}_c"), line.value(f"{name}_c_error")
            if math.isfinite(c):
                mark = line.plus(threshold=name, c=c, error=error, full=line.value("degree_revealed"))
                found[_name(line), name, line.observed] = mark
    return {_name(own[0]): own for own in parts(found.values(), *_PROBLEM)}


def rate(mark: Record, ratio: float = 1.0) -> float:
    """Mask rate b = 1 - c/(full * ratio) of observations at which the mean degree is c, of ``ratio`` times as many.

    Outside [0, 1] where even all observations revealed give less.
    """
    return float(1 - mark.c / (mark.full * ratio))


_EXACT = {
    "latent_entropy": "entropy/latent",
    "joint_entropy": "joint entropy",
    "token_entropy": "entropy/token",
    "deterministic": "deterministic",
    "refused": "refused",
}

_JUDGED = {"kl_latent": "KL", "evidence_error": "evidence error", "converged": "converged"}


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """The edge and the diagonal cell by cell, thresholds, population dynamics, and a summary by problem."""
    planes, found = problems(frame, "plane"), marks(frame)
    for cells in planes.values():
        yield _edge_and_diagonal(cells)
    yield Table(
        "Thresholds on the edge a = 1",
        (
            _TITLE,
            key("observed", left=True),
            text("threshold", lambda mark: _NAMES[mark.threshold]),
            text("c", lambda mark: f"{mark.c:.4f} ±{mark.error:.4f}", left=False),
            key("full", "c at b = 0", "g"),
            text("b", _rate_text, left=False),
        ),
        [mark for name in planes for mark in found.get(name, ())],
        notes="Where all latents are hidden. b: mask rate of the observations at which the mean degree of those that "
        "count is c; all of them, or the satisfied ones alone. Kesten-Stigum alone: no dip below it is resolved, the "
        "transition counts as continuous and the three agree.",
    )
    yield Table(
        "Population dynamics",
        (
            *(_TITLE, key("observed", left=True), key("a", form="g"), key("b", form="g"), key("c", form=".2f")),
            *(_overlap("planted"), _overlap("uninformed")),
            text("differ", lambda line: "yes" if line.value("coexist") else "no", left=False),
        ),
        of_kind(frame, "population"),
        notes="Overlap of the hidden latents in the limit of many latents, from the two starts, with 95 % intervals "
        f"over {_BLOCKS} blocks of sweeps (Student's t); they differ by more than 0.02 and five standard errors.",
    )
    yield Table(
        "All cells",
        (
            *(_TITLE, key("form", left=True)),
            text("cells", lambda line: str(len(line.cells)), left=False),
            text("with refusals", lambda line: str(sum(_refused(cell) > 0 for cell in line.cells)), left=False),
            _largest("largest KL bp", "bp kl_latent"),
            _largest("largest |evidence error| bp", "bp evidence_error"),
            _largest("largest KL model", "model kl_latent"),
        ),
        [
            cells[0].plus(form=form, cells=cells)
            for form, found in (("plane", planes), ("lines", problems(frame, "lines")))
            for cells in found.values()
        ],
        notes=("Nats per hidden latent, and the mask rates (a, b) of that cell.",),
    )


def _edge_and_diagonal(cells: Sequence[Record]) -> Table:
    judged = sorted({metric.split()[0] for cell in cells for metric in cell.metrics} - {"exact"})
    columns = [key("a", form="g"), key("b", form="g")]
    columns += [measured(f"exact {metric}", title) for metric, title in _EXACT.items()]
    columns += [measured(f"{name} {metric}", f"{title} {name}") for name in judged for metric, title in _JUDGED.items()]
    return Table(
        f"Edge and diagonal: {_TITLE.text(cells[0])}",
        columns,
        [
            *(cell.plus(part="edge") for cell in cells if cell.a == 1),
            *(cell.plus(part="diagonal") for cell in cells if cell.a == cell.b),
        ],
        section=["part"],
        notes="First all latents hidden (a = 1), then equal rates. Nats per hidden latent, per hidden token where it "
        "says so; 95 % intervals over contexts, or over problem seeds where there are several (Student's t). Evidence "
        "error: (the posterior's ln P(context) less the exact one) per hidden latent. Refused: over the exact "
        "posterior's limit, left out of all other columns.",
    )


def _rate_text(mark: Record) -> str:
    b = rate(mark)
    return f"{b:.4f} ±{mark.error / mark.full:.4f}" if 0 <= b <= 1 else f"{b:.3f}: outside [0, 1]"


def _overlap(start: str) -> Column:
    half = student(_BLOCKS - 1)
    return Column(start, lambda line: f"{line.value(start):.4f} ±{half * line.value(f'{start}_error'):.4f}")


def _largest(title: str, metric: str) -> Column:
    """The largest absolute value of a metric and where."""

    def of(line: Record) -> str:
        known = [(abs(cell.value(metric)), cell.a, cell.b) for cell in line.cells]
        known = [one for one in known if not math.isnan(one[0])]
        return "{:.3f} at ({:g}, {:g})".format(*max(known)) if known else "-"

    return Column(title, of)


def _refused(cell: Record) -> float:
    return cell.value("exact refused")


_COLUMNS = 4
_GAP = 0.02  # of the overlaps, below which two starts count as one
_SYMBOLS = {"dynamic": "o", "condensation": "s", "kesten_stigum": "D"}
_DASHES = {"all": "-", "satisfied": "--"}
_LN2 = {**{tick / 10: f"{tick / 10:g}" for tick in (0, 2, 4, 6)}, math.log(2): "ln 2"}
_BITS = Colours(0, math.log(2), _LN2, pad=0.09)
_SHARE = Colours(0, 1, pad=0.09)
_AXES: Mapping[str, Any] = {"xlabel": "mask rate of latents, a", "ylabel": "mask rate of observations, b"}
_OF_LATENTS = ("latent_entropy", "joint_entropy", "kl_latent", "evidence_error")  # not asked where none is hidden


@dataclass(frozen=True)
class _Quantity:
    """A quantity to draw: posterior and metric, its title, its colours."""

    metric: str
    title: str
    colours: Colours

    def of(self, cell: Record) -> float | None:
        """Its value; nan where half of the contexts or more are refused, None where nothing is asked."""
        if cell.a == 0 and self.metric.split()[1] in _OF_LATENTS:
            return None
        return math.nan if _refused(cell) >= 0.5 else cell.value(self.metric)


_JOINT = _Quantity("exact joint_entropy", "Exact: joint entropy left,\nnats per hidden latent", _BITS)
_KL = _Quantity("bp kl_latent", "Belief propagation: KL from exact,\nnats per hidden latent", NATS)

_EVIDENCE = _Quantity(
    "bp evidence_error", "Belief propagation: |error of ln P(context)|,\nnats per hidden latent", NATS
)

_QUANTITIES = (
    _Quantity("exact latent_entropy", "Exact: entropy of single marginals,\nnats per hidden latent", _BITS),
    _JOINT,
    _Quantity("exact token_entropy", "Exact: entropy of single marginals,\nnats per hidden token", _BITS),
    _Quantity("exact deterministic", "Share of contexts whose\nlatents are determined", _SHARE),
    _KL,
    _EVIDENCE,
    _Quantity("bp converged", "Belief propagation:\nshare of contexts converged", _SHARE),
    _Quantity("model kl_latent", "Trained model: KL from exact,\nnats per hidden latent", NATS),
    _Quantity("model kl_token", "Trained model: KL from exact,\nnats per hidden token", NATS),
)


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """One sheet for each problem with a map: ``figure``, ``figure-1`` and so on; lines alone make one for each N."""
    planes, lines = problems(frame, "plane"), problems(frame, "lines")
    mapped = {name[:2] for name in planes}
    alone = {name[:2]: name for name in lines if name[:2] not in mapped}
    made = [_sheet(frame, experiment, name, planes, lines) for name in (*planes, *alone.values())]
    return {f"figure-{i}" if i else "figure": sheet for i, sheet in enumerate(made)}


def _sheet(
    frame: Frame,
    experiment: Experiment,
    name: Name,
    planes: Mapping[Name, list[Record]],
    lines: Mapping[Name, list[Record]],
) -> Sheet:
    family, n, p = name
    plane, found = planes.get(name, []), marks(frame).get(name, [])
    starts = of_kind(frame, "population", family=family, N=n, P=p)
    ratios = [cell for other, cells in lines.items() if other[:2] == name[:2] for cell in cells]
    ratios.sort(key=lambda cell: cell.P)
    above = [_plane(plane, quantity, found, starts) for quantity in _QUANTITIES if _is_judged(plane, quantity)]
    above += [
        _starts([start for start in starts if start.observed == observed], observed, found)
        for observed in dict.fromkeys(start.observed for start in starts)
    ]
    panels: list[Panel | None] = [*above, *[None] * (-len(above) % _COLUMNS)] if plane else []
    several = len({cell.P for cell in ratios}) > 1
    if several:
        panels += [_ratio(ratios, _JOINT, "edge", found), _ratio(ratios, _EVIDENCE, "edge", found)]
        panels += [_ratio(ratios, _JOINT, "diagonal", found), _ratio(ratios, _KL, "diagonal", found)]
    title = f"{experiment.heading}: N = {n}{f', P = {p}' if plane else ''}"
    height = 1.4 + 4.0 * (len(panels) // _COLUMNS)
    legend = [*(_PATHS.values() if plane else ()), *(_mark_look(mark) for mark in found if plane)]
    if plane and any(_apart(start) > _GAP for start in starts):
        dark = {"facecolor": INK, "edgecolor": "white", "hatch": "////"}
        legend.append({**dark, "label": "planted and uninformed population dynamics differ"})
    legend += [_curve_look(mark) for mark in found if several]
    if any(_refused(cell) > 0 for cell in (*plane, *ratios)):
        legend.append({"facecolor": NO_DATA, "edgecolor": NO_DATA, "label": "exact posterior refuses half or more"})
        legend.append({"marker": ".", "color": INK, "label": "it refuses some contexts"})
    return Sheet(title, panels, _COLUMNS, (17, height), legend)


def _is_judged(plane: Sequence[Record], quantity: _Quantity) -> bool:
    posterior = f"{quantity.metric.split()[0]} "
    return any(metric.startswith(posterior) for cell in plane for metric in cell.metrics)


def _plane(plane: Sequence[Record], quantity: _Quantity, found: Sequence[Record], starts: Sequence[Record]) -> Panel:
    """One quantity over the plane of mask rates; dots: some contexts were refused; white: nothing is asked."""

    def dress(axes: Axes) -> None:
        axes.set_aspect("auto")
        _draw_paths(axes)
        _draw_marks(axes, found)
        _draw_gap(axes, starts)

    return Panel(
        quantity.title,
        "map",
        plane,
        x="a",
        y="b",
        z=quantity.of,
        look=lambda cell: {"marker": ".", "color": INK, "markersize": 3} if _refused(cell) > 0 else {},
        scale=quantity.colours,
        dress=dress,
        **_AXES,
    )


def _starts(starts: Sequence[Record], observed: str, found: Sequence[Record]) -> Panel:
    """Overlap from the planted start less that from the uninformed one, on a grid of its own."""

    def dress(axes: Axes) -> None:
        if not any(_apart(start) > _GAP for start in starts):
            centre: dict[str, Any] = {"ha": "center", "va": "center", "color": "white", "transform": axes.transAxes}
            axes.text(0.5, 0.5, "no difference\nat any point", **centre)
        _draw_marks(axes, [mark for mark in found if mark.observed == observed])

    title = f"Population dynamics ({observed} observations):\nplanted less uninformed overlap"
    return Panel(title, "map", starts, x="a", y="b", z=_apart, scale=_SHARE, dress=dress, **_AXES)


def _apart(start: Record) -> float:
    return start.value("planted") - start.value("uninformed") if start.value("coexist") else 0.0


def _ratio(cells: Sequence[Record], quantity: _Quantity, form: str, found: Sequence[Record]) -> Panel:
    """One quantity against P/N (logarithmic), along the edge a = 1 with thresholds, or the diagonal."""
    ratios = {math.log(cell.P / cell.N): f"{cell.P / cell.N:g}" for cell in cells}

    def dress(axes: Axes) -> None:
        axes.set_xticks(list(ratios), list(ratios.values()), rotation=60)
        low, high = axes.get_xlim()
        places = np.linspace(low, high, 400)
        for mark in found if form == "edge" else ():
            rates = np.array([rate(mark, math.exp(place) * mark.N / mark.P) for place in places])
            shown = np.where((rates >= 0) & (rates <= 1), rates, np.nan)
            style = {name: value for name, value in _curve_look(mark).items() if name != "label"}
            axes.plot(places, shown, path_effects=_outlined(1.8), **style)
        axes.set_xlim(low, high)

    return Panel(
        quantity.title,
        "map",
        [cell for cell in cells if (cell.a == 1 if form == "edge" else cell.a == cell.b)],
        x=lambda cell: math.log(cell.P / cell.N),
        y="b",
        z=quantity.of,
        scale=quantity.colours,
        xlabel="P/N",
        ylabel={"edge": "mask rate of observations, b (a = 1)", "diagonal": "mask rate of both, a = b"}[form],
        dress=dress,
    )


_PATHS: Mapping[str, Look] = {
    "equal rates": {
        "color": COLOURS["model"],
        "linewidth": 2,
        "label": "path of masked diffusion (equal rates)",
    },
    "latents first": {
        "color": COLOURS["order_aware"],
        "linewidth": 2,
        "label": "path of order-aware learner (latents first)",
    },
}

_CORNERS = {"equal rates": ([1, 0], [1, 0]), "latents first": ([1, 0, 0], [1, 1, 0])}


def _outlined(width: float) -> Any:
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width + 2.2, foreground="white"), Normal()]


def _draw_paths(axes: Axes) -> None:
    """The paths that generation walks from everything hidden to nothing hidden."""
    for name, (x, y) in _CORNERS.items():
        colour = _PATHS[name]["color"]
        axes.plot(x, y, linewidth=2.8, path_effects=_outlined(2.8), clip_on=False, zorder=3, color=colour)
        for i in range(len(x) - 1):
            middle = ((x[i] + x[i + 1]) / 2, (y[i] + y[i + 1]) / 2)
            ahead = (middle[0] + 0.02 * (x[i + 1] - x[i]), middle[1] + 0.02 * (y[i + 1] - y[i]))
            head = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8}  # seen on any ground
            arrow = {"arrowstyle": "-|>", "mutation_scale": 22, **head}
            axes.annotate("", xy=ahead, xytext=middle, arrowprops=arrow, annotation_clip=False, zorder=4)


def _mark_look(mark: Record) -> Look:
    """Symbol of a threshold: filled where all observations count; those outside of [0, 1] are in the legend only."""
    b, red = rate(mark), COLOURS["alarm"]
    where = f"b = {b:.3f}" if 0 <= b <= 1 else f"b = {b:.2f}, outside"
    look = {"marker": _SYMBOLS[mark.threshold], "color": red, "markersize": 7.5}
    look["markerfacecolor"] = red if mark.observed == "all" else "white"
    return {**look, "label": f"{_NAMES[mark.threshold]}, {mark.observed} observations: c = {mark.c:.3g}, {where}"}


def _curve_look(mark: Record) -> Look:
    """Line of a threshold against P/N: dashed where the satisfied observations count, thinner below Kesten-Stigum."""
    style = {"linestyle": _DASHES[mark.observed], "linewidth": 1.8 if mark.threshold == "kesten_stigum" else 1.0}
    label = f"{_NAMES[mark.threshold]} against P/N, {mark.observed}"
    return {"color": COLOURS["alarm"], **style, "label": label}


def _draw_marks(axes: Axes, found: Sequence[Record]) -> None:
    """Thresholds on the right edge, with their errors."""
    right = max(axes.get_xlim()[1], 1.0)
    for mark in found:
        if 0 <= rate(mark) <= 1:
            look = {name: value for name, value in _mark_look(mark).items() if name != "label"}
            style: dict[str, Any] = {"linestyle": "", "elinewidth": 1.4, "clip_on": False, "zorder": 6, **look}
            axes.errorbar(right, rate(mark), yerr=mark.error / mark.full, **style)
    axes.set_xlim(right=right)


def _draw_gap(axes: Axes, starts: Sequence[Record]) -> None:
    """Hatching where the two starts of population dynamics end apart, outlined; by what is observed."""
    for observed, dash in _DASHES.items():
        gap = {(start.a, start.b): _apart(start) for start in starts if start.observed == observed}
        x, y = (sorted({place[i] for place in gap}) for i in (0, 1))
        values = np.array([[gap.get((a, b), math.nan) for a in x] for b in y])
        if min(len(x), len(y)) < 2 or not (values > _GAP).any():
            continue
        white: dict[str, Any] = {"colors": "white", "linewidths": 1.4, "linestyles": dash, "zorder": 2}
        axes.contour(x, y, values, levels=[_GAP], **white)
        filled = axes.contourf(x, y, values, levels=[_GAP, 1.0], colors="none", hatches=["///"], zorder=2)
        filled.set_edgecolor("white")
        filled.set_linewidth(0)
