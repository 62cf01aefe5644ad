"""Training recipes side by side: gap closed against operations and against seconds, until which the floor is near.

A row of panels for each problem; the names in the last panel, in colour, are the legend of all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.statistics import Estimate, pooled, welch
from lo_theory.lab import measures
from lo_theory.lab.config import Experiment, seed_texts
from lo_theory.lab.frame import Frame, Record, of_kind, parts, with_texts
from lo_theory.lab.learning import Cost, cost_of, gap_panel, learning_curves, place_look
from lo_theory.lab.panel import Axes, Look, Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.schema import setting
from lo_theory.lab.settings import Model, Objective, Source, Training, check_laws
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, measured, number, text
from lo_theory.lab.training import Learner
from lo_theory.lab.units import Unit
from lo_theory.problem import LODistribution


@dataclass(frozen=True)
class Row:
    """A recipe, called ``name`` in tables, on a problem.

    ``draws``: trainings, each with its own initialisation, data and held-out contexts; those of equal number share them
    between recipes (the data where the batch is the same). ``targets``: shares of the gap
    whose cost is shown. The first row of a problem is what its other rows are compared with.
    """

    name: str
    problem: Problem
    training: Training
    seed: int = 0
    draws: int = setting(1, least=1)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    targets: tuple[float, ...] = setting((0.1, 0.5, 0.9), above=0, most=1)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: tables and figures need one")
        if self.training.evaluations < 1:
            raise ValueError("training.evaluations is 0, so there would be nothing to show: give it, such as 20")
        self.objective.check_lasts(self.training.steps)
        if not self.targets:
            raise ValueError("targets is empty: name at least one share of the gap, such as 0.5")

    def check_fits(self, distribution: LODistribution) -> None:
        """Raise ValueError where a mask law does not fit the problem, or there is no gap to close."""
        check_laws(self.objective.named_laws(), distribution.layout)
        if math.isnan(gap_span(distribution.entropy(), distribution.marginal_entropy())):
            raise ValueError("problem: its tokens are independent, so there is no gap to close: take another")


Reference = Source


def units(s: Subject) -> Iterator[Unit]:
    """The facts of the problem, and each training."""
    s = s.named(f"{s.size} {s.row.name}", recipe=s.row.name)
    facts = measures.singles(measures.loss_lines(s.distribution))
    yield s.unit("problem", "problem", lambda: [Finding("problem", {}, facts)])
    for draw in range(s.row.draws):
        label = f"#{draw} " if s.row.draws > 1 else ""
        learner = s.learner(f"{s.title} {label}".strip(), str(draw), key=s.key.fold("training").fold(draw))
        yield s.unit(f"training/{draw}", f"{label}training", partial(_train, s, learner, draw), learner=learner)


def _train(s: Subject, learner: Learner, draw: int) -> list[Finding]:
    """Train; a recipe under which the loss is no longer finite has diverged, which is a result."""
    keys, diverged = {"draw": draw}, measures.singles({"diverged": 1})
    try:
        trained, *way = measures.training(s, learner, keys)
    except FloatingPointError:  # the journal has it
        return [Finding("training", keys, diverged), *measures.held_out(s, learner, keys)]
    return [trained, Finding("training", keys, measures.singles({"diverged": 0})), *way]


def recipes(frame: Frame, experiment: Experiment) -> list[Record]:
    """One record for each row of the experiment that has results, those of one problem together.

    ``name`` and ``setting``; ``curves`` of its trainings that ended, ``finals``: their gaps closed at the end, and how
    many ``diverged``. The metric ``gap`` is the mean of the finals: its interval is over trainings (Student's t) or, of
    one, over contexts.
    """
    frame = with_texts(frame, "recipe", seed_texts(experiment))
    lost = {(line.row, line.draw) for line in of_kind(frame, "training") if line.value("diverged") > 0}
    curves, found = learning_curves(frame), []
    for line in of_kind(frame, "problem"):
        ended = [own for own in curves if own[0].row == line.row and (line.row, own[0].draw) not in lost]
        ends = [end for own in ended for end in own[-1].runs("gap").values()]
        keys = {"row": line.row, "N": line.N, "P": line.P, "name": line.recipe, "setting": experiment.rows[line.row]}
        keys |= {"curves": ended, "finals": [end.value for end in ends]}
        keys |= {"diverged": sum(row == line.row for row, _ in lost)}
        found.append(Record(keys, {"gap": (pooled(ends), {})} if ends else {}))
    return [recipe for part in parts(found, "N", "P") for recipe in part]


_NAMES = (text("N, P", lambda recipe: f"{recipe.N}, {recipe.P}"), key("name", "recipe", left=True))


def tables(frame: Frame, experiment: Experiment) -> Iterator[Table]:
    """What each recipe reaches, the cost of the targets, differences from the first recipe."""
    found = recipes(frame, experiment)
    yield _reached(found, experiment)
    costs = []
    for target in dict.fromkeys(target for recipe in found for target in recipe.setting.targets):
        costs += [_cost("FLOPs", target, "flops", ".2e"), _cost("seconds", target, "seconds", ".0f")]
    notes = ["Until the gap closed first passes a share; means over the trainings that reach it; -: none does."]
    yield Table("What it costs to get there", [*_NAMES, *costs], found, ["N", "P"], notes)
    notes = [
        "Gap closed minus that of the first row of the problem, percentage points, 95 % interval over trainings "
        "(Welch's t, which does not use that the trainings of two recipes share their seeds). No verdict where a "
        "training diverged: the mean is then of those that ended. Several comparisons: one in twenty such intervals "
        "misses by chance."
    ]
    columns = [*_NAMES, measured("difference", None, ".1f", 100), key("verdict", left=True)]
    yield Table("Against the first recipe", columns, differences(found), ["N", "P"], notes)


def _reached(found: Sequence[Record], experiment: Experiment) -> Table:
    """Settings, cost and gap closed of every recipe."""
    clocks = {point.clock for recipe in found for curve in recipe.curves for point in curve}
    seconds = "of the training thread on a processor" if clocks == {"processor_seconds"} else "of the wall"
    notes = [
        "Embedding std: at the start. Gap closed after the last step: (marginals only - loss)/"
        "(marginals only - floor) on held-out contexts of the uniform law, with 95 % intervals, over trainings where "
        f"there are several (Student's t), else over contexts only. Seconds: {seconds}, evaluations left out.",
        *experiment.paper,
    ]
    columns = (
        *_NAMES,
        text("positions", lambda recipe: recipe.setting.model.positions),
        text("embedding\nstd", lambda recipe: f"{recipe.setting.model.embedding_scale:g}", left=False),
        text("optimiser", lambda recipe: recipe.setting.training.optimiser),
        Column("rate", lambda recipe: f"{recipe.setting.training.learning_rate:g}"),
        Column("batch", lambda recipe: f"{recipe.setting.training.batch}"),
        Column("steps", lambda recipe: f"{recipe.setting.training.steps}"),
        text("first stage", lambda recipe: _stages(recipe.setting)),
        text("trainings", _trainings, left=False),
        text("FLOPs", lambda recipe: number(_whole(recipe, "flops"), ".2e"), left=False),
        text("seconds", lambda recipe: number(_whole(recipe, "seconds"), ".0f"), left=False),
        measured("gap", "gap closed, %", ".1f", 100),
    )
    return Table("What each recipe reaches", columns, found, ["N", "P"], notes)


def _stages(setting: Row) -> str:
    steps = setting.training.steps
    stages = [f"{100 * stage.length(steps) / steps:.0f} % {stage.name}" for stage in setting.objective.stages]
    return "; ".join(stages) or "none"


def _trainings(recipe: Record) -> str:
    return f"{len(recipe.finals)}" + (f" ({recipe.diverged} diverged)" if recipe.diverged else "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _whole(recipe: Record, by: Cost) -> float:
    """Mean cost of its whole trainings."""
    return _mean([curve[-1].keys[by] for curve in recipe.curves])


def _cost(title: str, target: float, by: Cost, form: str) -> Column:
    """Mean cost of a target over the trainings that reach it, and how many do where not all."""

    def of(recipe: Record) -> str:
        costs = [cost_of(curve, target, by) for curve in recipe.curves]
        known = [cost for cost in costs if not math.isnan(cost)]
        some = f" ({len(known)} of {len(costs)})" if 0 < len(known) < len(costs) else ""
        return number(_mean(known), form) + some

    return Column(f"{title}\nto {target:g}", of)


def differences(found: Sequence[Record]) -> list[Record]:
    """Every recipe with several trainings against the first row of its problem: ``difference`` and ``verdict``."""
    return [
        other.plus(Record({"verdict": _verdict(apart, first, other)}, {"difference": (apart, {})}))
        for first, *others in parts(found, "N", "P")
        for other in others
        if min(len(first.finals), len(other.finals)) > 1
        for apart in [welch(other.finals, first.finals)]
    ]


def _verdict(difference: Estimate, first: Record, other: Record) -> str:
    if lost := [f"{one.diverged} of {one.setting.draws} of {one.name}" for one in (other, first) if one.diverged]:
        return f"none: {' and '.join(lost)} diverged"
    apart = "better than" if difference.low > 0 else "worse than" if difference.high < 0 else "not distinguished from"
    return f"{apart} {first.name}"


_LEFT = -0.1  # of the last panel, where the lines of the others are named


def figures(frame: Frame, experiment: Experiment) -> Mapping[str, Sheet]:
    """Gap closed against operations and seconds, and at the end, for each problem."""
    problems = parts(recipes(frame, experiment), "N", "P")
    heights = [max(4.0, 0.34 * len(part)) for part in problems] or [4.0]
    panels = [panel for part in problems for panel in (_curves(part, "flops"), _curves(part, "seconds"), _ends(part))]
    grid = {"height_ratios": heights, "width_ratios": (1, 1, 0.9)}
    return {"figure": Sheet(experiment.heading, panels, 3, (16, 0.8 + sum(heights)), grid=grid)}


def _curves(part: Sequence[Record], by: Cost) -> Panel:
    """Every training a line, those of the first recipe wider."""
    places = {recipe.row: place for place, recipe in enumerate(part)}

    def look(point: Record) -> Look:
        place = places[point.row]
        return {**place_look(place), "linewidth": 1.2 if place else 2.2, "alpha": 0.85}

    curves = [curve for recipe in part for curve in recipe.curves]
    return gap_panel(f"N = {part[0].N}, P = {part[0].P}: every line a training", curves, by, look, bare=True)


def _ends(part: Sequence[Record]) -> Panel:
    """Gap closed at the end, recipe by recipe: single trainings as dots, mean and interval beside."""
    lines = []
    for place, recipe in enumerate(part):
        colour = place_look(place)["color"]
        dot = {"marker": ".", "color": colour, "markersize": 7, "alpha": 0.6}
        sign = {"marker": "D" if len(recipe.finals) > 1 else "o", "markersize": 6, "elinewidth": 1.4, "capsize": 3}
        lines += [
            Record({"place": place, "look": dot}, {"gap": (Estimate(final, math.nan, math.nan), {})})
            for final in recipe.finals
        ]
        lines.append(recipe.plus(place=place, look={**sign, "color": colour}))

    def dress(axes: Axes) -> None:
        axes.set_yticks(range(len(part)), [recipe.name for recipe in part])
        for place, (recipe, label) in enumerate(zip(part, axes.get_yticklabels(), strict=True)):
            own = place_look(place)
            label.set_color(own["color"])
            axes.plot((_LEFT, _LEFT + 0.06), (place, place), linewidth=2, **own)
            words = f"{100 * recipe.value('gap'):.0f} %" if recipe.curves else "diverged"
            where = 1.02 if recipe.curves else 0.01
            axes.text(where, place, words, va="center", fontsize=8, color=own["color"])
        axes.set_xlim(_LEFT, 1.0)
        axes.grid(axis="y", visible=False)

    title = "diamonds: mean and 95 % interval over trainings;\ncircles: one training, interval over contexts"
    xlabel = "gap closed after the last step"
    return Panel(title, "spans", lines, x="gap", y="place", look=lambda line: line.look, xlabel=xlabel, dress=dress)
