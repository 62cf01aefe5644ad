"""Figure 4 of the paper: the overlap that belief propagation reaches on planted problems, against the degree.

A unit is one instance at one degree. Instances of a degree leave rows with equal keys, so they pool, and more instances
later refine the same point. In the figure they are points of their own: near a threshold some find the planted state
and some do not, which a mean with an interval would hide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lo_theory.lab import measures
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import BP_SHADES, COLOURS, INK
from lo_theory.lab.experiments.thresholds import Budget, Ensemble
from lo_theory.lab.frame import Frame, Record, grouped, of_kind, parts
from lo_theory.lab.panel import Axes, Look, Panel, Sheet
from lo_theory.lab.schema import setting
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, mean, measured, text, with_error
from lo_theory.lab.units import Unit
from lo_theory.posterior import BPOptions, BPResult, condition
from lo_theory.posterior.bp import run
from lo_theory.posterior.overlap import overlap
from lo_theory.problem.planted import PlantedInstance, planted
from lo_theory.thresholds import find_transition

Start = Literal["planted", "random", "noise"]


@dataclass(frozen=True)
class Iteration:
    """How belief propagation iterates; see ``lo_theory.posterior.BPOptions``.

    Flooding on satisfied observations needs damping, else the value imbalance oscillates: sequential does not.
    """

    schedule: Literal["sequential", "flooding"] = "sequential"
    damping: float = setting(0.0, least=0)
    iterations: int = setting(1000, least=3)
    tolerance: float = setting(1e-6, above=0)
    noise: float = setting(0.02, above=0)

    def __post_init__(self) -> None:
        for name in ("damping", "noise"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Row:
    """Belief propagation on planted instances of ``N`` latents at each of ``degrees`` (c = kM/N), from each start.

    ``instances`` a degree; ``size``: a Poisson number of constraints (Definition B.9), or a fixed one. ``thresholds``:
    what may be spent on the three computed thresholds, null for none.
    """

    ensemble: Ensemble
    N: int = setting(10_000, least=2)
    degrees: tuple[float, ...] = setting((), above=0)
    instances: int = setting(4, least=1)
    size: Literal["poisson", "fixed"] = "poisson"
    starts: tuple[Start, ...] = ("planted", "random", "noise")
    iteration: Iteration = field(default_factory=Iteration)
    thresholds: Budget | None = field(default_factory=Budget)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("degrees", "starts"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must hold at least one value, each once, got {list(values)}")

    def check_fits(self) -> None:
        """Raise ValueError for a degree that N latents cannot hold; draws nothing."""
        from lo_theory.problem.planted import check_request

        predicate = self.ensemble.specification.predicate
        for i, degree in enumerate(self.degrees):
            try:
                check_request(predicate, self.N, degree, self.ensemble.observed, self.size)
            except ValueError as error:
                raise ValueError(f"degrees[{i}]: {error}") from error


@dataclass(frozen=True)
class Stated:
    """A value that the paper states for its Figure 4: its name there, and the neighbours (k-1)c it names."""

    name: str
    neighbours: float


@dataclass(frozen=True)
class Reference:
    """Stated values to print beside ours."""

    source: str
    rows: tuple[Stated, ...]


def units(s: Subject) -> Iterator[Unit]:
    """The thresholds and every instance."""
    row, ensemble = s.row, s.row.ensemble
    s = s.named(f"{ensemble.label},", label=ensemble.label, **asdict(ensemble), N=row.N, seed=row.seed)
    if row.thresholds is not None:
        # The longest unit begins first, so that it does not run alone at the end.
        yield s.unit("thresholds", "thresholds", partial(_thresholds, s), cost=1)
    for degree in row.degrees:
        for instance in range(row.instances):
            label = f"c = {degree:g}, instance {instance}"
            yield s.unit(f"c={degree:.12g}/{instance}", label, partial(_propagate, s, degree, instance))


def _thresholds(s: Subject) -> list[Finding]:
    specification = s.row.ensemble.specification
    key = s.key.fold("thresholds").fold(specification.label)
    found = find_transition(specification.ensemble(), key, s.row.thresholds.effort)
    return measures.transition(found, {}) + measures.curve(found.curve, {})


def _propagate(s: Subject, degree: float, instance: int) -> list[Finding]:
    row, key = s.row, s.key.fold("instances").fold(f"{degree:.12g}").fold(instance)
    predicate, problem = row.ensemble.specification.predicate, key.fold("problem")
    drawn = planted(predicate, row.N, degree, key=problem, observed=row.ensemble.observed, size=row.size)
    graph = condition(drawn.distribution, drawn.tokens)
    found = []
    for start in row.starts:
        s.context.stop.check()
        options = BPOptions(start=start, **asdict(row.iteration))
        result = run(graph, key=key.fold(start), options=options, planted=drawn.assignment)
        values = measures.singles(_reached(drawn, result, row.ensemble.q))
        found.append(Finding("propagation", {"c": degree, "start": start}, values))
    return found


def _reached(drawn: PlantedInstance, result: BPResult, q: int) -> dict[str, float]:
    """What a run reached.

    ``overlap`` of the most likely values and ``belief`` (q E[belief in the planted value] - 1)/(q - 1), both under
    the best permutation of the values; ``excess``: Bethe free entropy a latent less that of uniform messages on the
    same instance, only where the run ended without contradiction.
    """
    assignment = drawn.assignment
    if assignment is None:
        raise ValueError("an overlap needs a planted assignment")
    reached = overlap(result.marginals, assignment)
    values = {
        "degree": drawn.degree,
        "overlap": reached.value,
        "belief": _belief(result.marginals, reached.permutation[assignment], q),
        "confidence": reached.confidence,
        "iterations": result.iterations,
        "converged": result.converged,
        "contradictory": result.contradictory,
    }
    if not result.contradictory:
        values["excess"] = result.free_entropy_per_variable - _uniform_free_entropy(drawn)
    return values


def _belief(marginals: NDArray[np.float64], guesses: NDArray[np.int64], q: int) -> float:
    believed = np.take_along_axis(marginals, guesses[:, None], axis=1).mean()
    return float((q * believed - 1) / (q - 1))


def _uniform_free_entropy(drawn: PlantedInstance) -> float:
    """Bethe free entropy a latent of uniform messages, in nats: sum over observations of ln P(value) / N.

    Belief propagation on a distribution weighs assignments by their prior, so ln q is in neither of the two.
    """
    layout = drawn.distribution.layout
    values = drawn.tokens[layout.observation_positions].astype(np.intp)
    shares = drawn.distribution.token_marginals[layout.observation_positions]
    known = np.log(np.take_along_axis(shares, values[:, None], axis=1))
    return float(known.sum() / layout.n_latents)


_PLACE = ("row", "label", "k", "observed", "N", "start", "c")
_NAMES = {"dynamic": "dynamic", "condensation": "condensation", "kesten_stigum": "Kesten-Stigum"}


def degree_points(frame: Frame) -> list[Record]:
    """What each start reached at each degree, its instances as runs: by row and start, in ascending degree."""
    found = of_kind(frame, "propagation", _PLACE, over="unit")
    return grouped(sorted(found, key=lambda line: float(line.c)), "row", "start")


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """The three thresholds in three units; what every start reached at every degree."""

    def paper(line: Record) -> str:
        stated = experiment.reference.rows if experiment.reference is not None else ()
        return ", ".join(f"{value.neighbours:g}" for value in stated if value.name == line.threshold)

    yield Table(
        "Thresholds",
        (
            *(key("label", "ensemble", left=True), text("threshold", lambda line: _NAMES[line.threshold])),
            *(_threshold("c", "c = kM/N"), _threshold("density", "M/N"), _threshold("neighbours", "neighbours (k-1)c")),
            text("paper states", paper, left=False),
        ),
        [line.plus(threshold=name) for line in of_kind(frame, "threshold") for name in _NAMES],
        section=["row"],
        notes=(
            "Computed by population dynamics and in closed form (Kesten-Stigum), with 95 % errors.",
            *experiment.paper,
        ),
    )
    yield Table(
        experiment.heading,
        (
            *(key("start", left=True), key("c", form="g")),
            text("(k-1)c", lambda line: f"{_neighbours(line):g}", left=False),
            *(measured("overlap", form="z.3f"), measured("belief", form="z.3f")),
            *(mean("excess", "excess,\n1e-3 nats", "z.3f", 1000), mean("iterations", "itera-\ntions", ".0f")),
            *(_count("converged", "con-\nverged"), _count("contradictory", "contra-\ndictory")),
        ),
        degree_points(frame),
        section=["row", "start"],
        notes="Mean over instances, with 95 % intervals over them. Overlap: most likely values against the planted "
        "ones, 0 a guess, 1 all right, under the best permutation of the values. Belief: the same of the probability "
        "given to the planted value. Excess: Bethe free entropy a latent less that of uniform messages. Converged, "
        "contradictory: runs.",
    )


def _threshold(unit: str, title: str) -> Column:
    def of(line: Record) -> str:
        return with_error(*(line.value(f"{line.threshold}_{unit}{end}") for end in ("", "_error")))

    return Column(title, of)


def _count(metric: str, title: str) -> Column:
    """Of how many instances a metric is 1."""

    def of(line: Record) -> str:
        found = line.runs(metric)
        return f"{sum(round(one.value) for one in found.values())}/{len(found)}"

    return Column(title, of)


def _neighbours(line: Record) -> float:
    """The paper's axis, (k-1)c, of a degree or of a point of the curve c(overlap)."""
    return float((line.k - 1) * (line.value("c") if line.kind == "curve" else line.c))


_MARKERS = dict(zip(BP_SHADES, "os^", strict=True))

_LINES: Mapping[str, Look] = {
    name: {"color": COLOURS["alarm"], "linestyle": style, "label": _NAMES[name]}
    for name, style in {"dynamic": ":", "condensation": "--", "kesten_stigum": "-"}.items()
}

_BRANCHES: Mapping[str, Look] = {
    "stable": {"linewidth": 1.6, "label": "belief for N to infinity"},
    "unstable": {"linewidth": 1, "linestyle": (0, (2, 2)), "label": "its unstable branch"},
}

_PAPER: Look = {"color": COLOURS["paper"], "marker": "v", "linestyle": ""}


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Four panels for every row of the experiment."""
    stated = experiment.reference.rows if experiment.reference is not None else ()
    rows = parts(degree_points(frame), "row")
    legend: list[Look] = [
        *({"color": BP_SHADES[start], "marker": _MARKERS[start], "label": f"{start} start"} for start in BP_SHADES),
        {"color": INK, "marker": "o", "markerfacecolor": "white", "label": "not converged"},
        *_LINES.values(),
        *([{**_PAPER, "label": "stated in the paper"}] if stated else ()),
    ]
    panels = [panel for means in rows for panel in _panels(frame, means, stated)]
    size = (12, 8.4 * max(1, len(rows)))
    return {"figure": Sheet(experiment.heading, panels, 2, size, legend, entries=5)}


def _panels(frame: Frame, means: Sequence[Record], stated: Sequence[Stated]) -> Iterator[Panel]:
    """Overlap, belief, free entropy and iterations of one row."""
    row, points = means[0].row, [*(one for line in means for one in line.by_run()), *means]
    thresholds = next(iter(of_kind(frame, "threshold", row=row)), Record({}))

    def dress(axes: Axes, metric: str) -> None:
        _draw_marks(axes, means, thresholds, stated)
        if metric == "excess":  # the crossing is what matters; degrees far above it would flatten it
            known = [value for line in points if not math.isnan(value := line.value(metric))] or [0.0]
            axes.set_yscale("symlog", linthresh=max(1e-4, 0.01 * (max(known) - min(known))))
            axes.axhline(0, color=COLOURS["line"], linewidth=0.8)
        elif metric == "iterations":
            axes.set_yscale("log")
        else:
            axes.set_ylim(-0.02, 1.04)

    titles = {
        "overlap": ("Overlap; {label}, {observed} observations, N = {N}".format(**means[0].keys), "overlap"),
        "belief": ("Belief, and its limit of many latents", "belief in the planted values"),
        "excess": (
            "Free entropy: where it crosses zero is condensation",
            "free entropy above uniform messages,\nnats a latent",
        ),
        "iterations": ("Iterations", "iterations until converged"),
    }
    for metric, (title, ylabel) in titles.items():
        lines = [*_limit(frame, row), *points] if metric == "belief" else points
        more: dict[str, Any] = {"xlabel": "neighbours (k-1)c", "ylabel": ylabel, "dress": partial(dress, metric=metric)}
        yield Panel(title, "curves", lines, x=_neighbours, y=_of(metric), look=_look, **more)


def _limit(frame: Frame, row: int) -> list[Record]:
    """The fixed points of population dynamics: its curve from the least degree up to overlap 1, then down to 0."""
    curve = sorted(of_kind(frame, "curve", row=row), key=lambda point: float(point.overlap))
    least = min(range(len(curve)), key=lambda i: curve[i].value("c"), default=0)
    branches = {"stable": curve[least:], "unstable": curve[: least + 1]}
    return [point.plus(branch=branch) for branch, part in branches.items() for point in part]


def _of(metric: str) -> Callable[[Record], float]:
    """A metric without its interval; of a point of the limit its overlap."""
    return lambda line: float(line.overlap) if line.kind == "curve" else line.value(metric)


def _look(line: Record) -> Look:
    """Instances as points, hollow where the run did not converge; their means, and the limit, as curves."""
    if line.kind == "curve":
        return {"color": COLOURS["exact"], "zorder": 0, **_BRANCHES[line.branch]}
    colour = BP_SHADES[line.start]
    if "run" not in line.keys:
        return {"color": colour, "linewidth": 0.9, "alpha": 0.7}
    face = colour if line.value("converged") == 1 else "white"
    point = {"marker": _MARKERS[line.start], "linestyle": "", "markersize": 3.5, "alpha": 0.75}
    return {"color": colour, "markerfacecolor": face, **point}


def _draw_marks(axes: Axes, means: Sequence[Record], thresholds: Record, stated: Sequence[Stated]) -> None:
    """Computed thresholds as lines, each with its error as a band, and the paper's values as symbols on top."""
    places = [*map(_neighbours, means), *(value.neighbours for value in stated)]
    for name, look in _LINES.items():
        value, error = (thresholds.value(f"{name}_neighbours{end}") for end in ("", "_error"))
        if math.isfinite(value):
            axes.axvline(value, linewidth=1, zorder=0, color=look["color"], linestyle=look["linestyle"])
            axes.axvspan(value - error, value + error, color=look["color"], alpha=0.12, linewidth=0, zorder=0)
            places += [value - error, value + error]
    for one in stated:
        axes.plot(one.neighbours, 1.0, transform=axes.get_xaxis_transform(), clip_on=False, **_PAPER)
    low, high = min(places), max(places)
    margin = 0.05 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
