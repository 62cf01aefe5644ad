"""The tables of the experiment on recipes: what each reaches, what it costs to get there, and who is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lo_theory.diffusion.statistics import Estimate, pooled, welch
from lo_theory.lab.config import Experiment
from lo_theory.lab.curves import Curve, gap_curves
from lo_theory.lab.recipes.row import Row as Setting
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.seeds import seed_texts
from lo_theory.lab.texts import shown

__all__ = ["Recipe", "recipes", "tables"]

_LEFT = ("N, P", "recipe", "positions", "optimiser", "first stage")


@dataclass(frozen=True)
class Recipe:
    """One row of the experiment: its settings and the curves of its trainings that ended."""

    index: int
    pair: tuple[int, int]
    setting: Setting
    curves: tuple[Curve, ...]
    diverged: int

    @property
    def finals(self) -> list[float]:
        """Gap closed after the last step, training by training."""
        return [end.value for curve in self.curves for end in curve.ends]

    @property
    def final(self) -> Estimate:
        """Mean of ``finals``: its interval is over trainings (Student's t) or, of one, over contexts."""
        return pooled([end for curve in self.curves for end in curve.ends])


def recipes(experiment: Experiment, rows: Sequence[Row]) -> list[Recipe]:
    """All rows of the experiment that have results, those of one problem together."""
    lost = {(row.keys["row"], row.keys["draw"]) for row in rows if row.metric == "diverged" and row.sums.total}
    curves = gap_curves(rows)
    found = []
    for index, (row_setting, seeds) in enumerate(zip(experiment.rows, seed_texts(experiment), strict=True)):
        setting = replace(row_setting, name=f"{row_setting.name} {seeds}".strip())
        own = [curve for curve in curves if curve.keys["row"] == index]
        ended = tuple(curve for curve in own if (index, curve.keys["draw"]) not in lost)
        pair = next(((row.keys["N"], row.keys["P"]) for row in rows if row.keys["row"] == index), None)
        if pair is not None:
            found.append(Recipe(index, pair, setting, ended, sum(row == index for row, _ in lost)))
    pairs = list(dict.fromkeys(recipe.pair for recipe in found))
    return sorted(found, key=lambda recipe: pairs.index(recipe.pair))


def _sections(found: Sequence[Recipe]) -> list[list[Recipe]]:
    pairs = dict.fromkeys(recipe.pair for recipe in found)
    return [[recipe for recipe in found if recipe.pair == pair] for pair in pairs]


def _stage(setting: Setting) -> str:
    stages = setting.objective.stages
    if not stages:
        return "none"
    shares = (f"{100 * stage.length(setting.training.steps) / setting.training.steps:.0f} %" for stage in stages)
    return "; ".join(f"{share} {'+'.join(stage.laws)}" for share, stage in zip(shares, stages, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _reached(recipe: Recipe) -> tuple[str, ...]:
    setting, training = recipe.setting, recipe.setting.training
    seconds = _mean([curve.seconds[-1] for curve in recipe.curves])
    draws = f"{len(recipe.finals)}" + (f" ({recipe.diverged} diverged)" if recipe.diverged else "")
    return (
        "{}, {}".format(*recipe.pair),
        setting.name,
        setting.model.positions,
        f"{setting.model.embedding_scale:g}",
        training.optimiser,
        f"{training.learning_rate:g}",
        f"{training.batch}",
        f"{training.steps}",
        _stage(setting),
        draws,
        f"{_mean([curve.flops[-1] for curve in recipe.curves]):.2e}",
        "-" if math.isnan(seconds) else f"{seconds:.0f}",
        shown(recipe.final, 100, ".1f") if recipe.curves else "-",
    )


def _cost(recipe: Recipe, target: float, by: str, form: str) -> str:
    """Mean cost of a target over the trainings that reach it, and how many do where not all."""
    costs = [curve.cost_of(target, by) for curve in recipe.curves]
    known = [cost for cost in costs if not math.isnan(cost)]
    if not known:
        return "-"
    return format(_mean(known), form) + ("" if len(known) == len(costs) else f" ({len(known)} of {len(costs)})")


def reached_table(experiment: Experiment, found: Sequence[Recipe]) -> Table:
    """Settings, cost and gap closed of every recipe."""
    columns = (
        *("N, P", "recipe", "positions", "embedding\nstd", "optimiser", "rate", "batch", "steps", "first stage"),
        *("trainings", "FLOPs", "seconds", "gap closed, %"),
    )
    clocks = {curve.clock for recipe in found for curve in recipe.curves}
    seconds = "of the training thread on a processor" if clocks == {"processor_seconds"} else "of the wall"
    notes: tuple[str, ...] = (
        "Embedding std: at the start. Gap closed after the last step: (marginals only - loss)/"
        "(marginals only - floor) on held-out contexts of the uniform law, with 95 % intervals, over trainings where "
        f"there are several (Student's t), else over contexts only. Seconds: {seconds}, evaluations left out.",
    )
    notes += () if experiment.reference is None else (f"Paper: {experiment.reference.source}.",)
    return Table(
        "What each recipe reaches",
        columns,
        tuple(tuple(map(_reached, part)) for part in _sections(found)),
        notes,
        _LEFT,
    )


def cost_table(found: Sequence[Recipe]) -> Table:
    """Operations and seconds until each target."""
    targets = list(dict.fromkeys(target for recipe in found for target in recipe.setting.targets))
    columns = ["N, P", "recipe"]
    for target in targets:
        columns += [f"FLOPs\nto {target:g}", f"seconds\nto {target:g}"]
    sections = []
    for part in _sections(found):
        lines = []
        for recipe in part:
            line = ["{}, {}".format(*recipe.pair), recipe.setting.name]
            for target in targets:
                line += [_cost(recipe, target, "flops", ".2e"), _cost(recipe, target, "seconds", ".0f")]
            lines.append(tuple(line))
        sections.append(tuple(lines))
    notes = ("Until the gap closed first passes a share; means over the trainings that reach it; -: none does.",)
    return Table("What it costs to get there", tuple(columns), tuple(sections), notes, _LEFT)


def difference_table(found: Sequence[Recipe]) -> Table:
    """Every recipe with several trainings against the first row of its problem."""
    sections = []
    for first, *others in _sections(found):
        lines = []
        for other in others:
            if min(len(first.finals), len(other.finals)) > 1:
                apart = welch(other.finals, first.finals)
                place = ("{}, {}".format(*first.pair), other.setting.name)
                lines.append((*place, shown(apart, 100, ".1f"), _verdict(apart, first, other)))
        sections.append(tuple(lines))
    notes = (
        "Gap closed minus that of the first row of the problem, percentage points, 95 % interval over trainings "
        "(Welch's t, which does not use that the trainings of two recipes share their seeds). No verdict where a "
        "training diverged: the mean is then of those that ended. Several comparisons: one in twenty such intervals "
        "misses by chance.",
    )
    columns = ("N, P", "recipe", "difference", "verdict")
    return Table("Against the first recipe", columns, tuple(filter(None, sections)), notes, (*_LEFT, "verdict"))


def _verdict(difference: Estimate, first: Recipe, other: Recipe) -> str:
    if first.diverged or other.diverged:
        wild = (one for one in (other, first) if one.diverged)
        lost = (f"{one.diverged} of {one.setting.draws} of {one.setting.name}" for one in wild)
        return f"none: {' and '.join(lost)} diverged"
    apart = "better than" if difference.low > 0 else "worse than" if difference.high < 0 else "not told apart from"
    return f"{apart} {first.setting.name}"


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """What each recipe reaches, the cost of the targets, differences from the first recipe."""
    found = recipes(experiment, rows)
    return [reached_table(experiment, found), cost_table(found), difference_table(found)]
