"""The paper's claims beside what was measured: which definition of accuracy fits, and what adaptive decoding changes.

A reading is a definition: what "accuracy" is, and how sequences were made. Each has a distance to the published
numbers. An effect is adaptive minus vanilla decoding of one denoiser, run by run: a run is a
problem with a training of its own, and runs are alike where all but the seeds agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lo_theory.diffusion.statistics import Estimate, between
from lo_theory.lab.config import Experiment
from lo_theory.lab.drawing import COLOURS, INK, SEQUENTIAL, marker
from lo_theory.lab.frame import Frame, Record, gap, kind, minus, of_kind, pool, records
from lo_theory.lab.panel import Axes, Level, Look, Panel, Sheet
from lo_theory.lab.settings import step_count
from lo_theory.lab.table import PAIR, Column, Table, key, number, pair_text, plus_minus, text

if TYPE_CHECKING:
    from lo_theory.lab.experiments.table1 import Reference


ADAPTIVE = "margin"
"""The paper's adaptive inference."""

_POLICIES = ("vanilla", ADAPTIVE)
_GENERATED = ("self_consistency", "unpaired")
_ONE_PASS = ("conditional", "infill", "infill_drawn")
_NAMES = {"infill_drawn": "infill, drawn", "self_consistency": "self-consistency"}
_Pair = tuple[int, int]
_Published = Mapping[_Pair, Mapping[str, float]]  # per cents by pair and policy


@dataclass(frozen=True)
class Reading:
    """What accuracy is, of which denoiser, how it was decoded, and what was measured at every pair, in per cent.

    ``values``: of both policies, and ``effect``, adaptive minus vanilla, run by run where there are several runs.
    ``variant``: the name of the rows (positions, repeats), empty for the plain ones.
    """

    accuracy: str
    denoiser: str
    variant: str
    decode: str
    values: Mapping[_Pair, Mapping[str, Estimate]]

    @property
    def label(self) -> str:
        """``self-consistency, model, L/8 steps, argmax``."""
        return ", ".join(filter(None, (self.accuracy, self.denoiser, self.variant, self.decode)))

    def mean(self, policy: str) -> float:
        """Mean over the pairs."""
        return sum(values[policy].value for values in self.values.values()) / len(self.values)

    def differences(self, published: _Published) -> dict[tuple[_Pair, str], float]:
        """Measured minus published, in points, at the pairs that both have."""
        return {
            (pair, policy): values[policy].value - published[pair][policy]
            for pair, values in self.values.items()
            for policy in _POLICIES
            if policy in published.get(pair, {})
        }

    def distance(self, published: _Published) -> float:
        """Root mean square of the differences, in points.

        Where no pair is published: to the published pair that is nearest, averaged over the pairs measured.
        """
        if found := self.differences(published):
            return root_mean_square(list(found.values()))
        return root_mean_square(
            [
                min(
                    root_mean_square([values[name].value - line[name] for name in _POLICIES if name in line])
                    for line in published.values()
                )
                for values in self.values.values()
            ]
        )


def root_mean_square(numbers: Sequence[float]) -> float:
    """The root of the mean of the squares."""
    return math.sqrt(sum(number**2 for number in numbers) / len(numbers))


def published_numbers(reference: Reference) -> _Published:
    """The published per cents by pair and policy."""
    found: dict[_Pair, dict[str, float]] = {}
    for line in reference.rows:
        found.setdefault((line.N, line.P), {})[line.policy] = line.percent
    return found


def variants(line: Record, *, noise: bool = True) -> list[str]:
    """In what a decode differs from the plain one: schedule, likeliest tokens, temperature, noise on the scores."""
    words = (
        line.get("schedule", "fixed_count").replace("fixed_count", ""),
        "argmax" if line.get("argmax") else "",
        "" if line.get("temperature", 1.0) == 1.0 else f"temperature {line.temperature:g}",
        line.get("noise", "") if noise else "",
    )
    return [word for word in words if word]


def _decode(cell: Record, *, noise: bool = True) -> str:
    """``L/8 steps, argmax, gumbel 0.5``: how a cell was decoded; the steps as L/n where there is such an n."""
    length, steps = cell.N + cell.P, cell.steps
    share = f"L/{-(-length // steps)}"
    shown = "L" if steps == length else share if step_count(share, length) == steps else str(steps)
    return ", ".join([f"{shown} steps", *variants(cell, noise=noise)])


def readings(frame: Frame, reference: Reference) -> list[Reading]:
    """Every reading that both policies were measured under, the nearest to the published numbers first.

    Noise on the scores does not change vanilla decoding, so with noise it is compared with vanilla without. Accuracies
    of one pass know no order: both policies have the same number. Several runs of a pair and name are pooled, with
    intervals over the runs.
    """
    found: dict[tuple[str, str, str, str], dict[_Pair, dict[str, Estimate]]] = {}
    cells: dict[tuple[str, str, str, _Pair], dict[str, Record]] = {}
    for cell in of_kind(frame, "decode", over="row"):
        place = (cell.denoiser, cell.get("name", ""), _decode(cell), (cell.N, cell.P))
        cells.setdefault(place, {})[cell.policy] = cell
    for (denoiser, variant, decode, pair), policies in cells.items():
        adaptive = policies.get(ADAPTIVE)
        plain = _decode(adaptive, noise=False) if adaptive is not None else decode
        vanilla = policies.get("vanilla") or cells.get((denoiser, variant, plain, pair), {}).get("vanilla")
        if adaptive is not None and vanilla is not None:
            for metric in _GENERATED:
                parts = (vanilla.estimate(metric), adaptive.estimate(metric), adaptive.minus(vanilla, metric))
                reading = (_NAMES.get(metric, metric), denoiser, variant, decode)
                found.setdefault(reading, {})[pair] = _in_percent(*parts)
    for item in of_kind(frame, "one_pass", over="row"):
        for metric in _ONE_PASS:
            reading = (_NAMES.get(metric, metric), item.denoiser, item.get("name", ""), "one pass")
            value = item.estimate(metric)
            found.setdefault(reading, {})[item.N, item.P] = _in_percent(value, value, Estimate(0.0, 0.0, 0.0))
    published = published_numbers(reference)
    return sorted((Reading(*place, values) for place, values in found.items()), key=lambda one: one.distance(published))


def _in_percent(*parts: Estimate) -> dict[str, Estimate]:
    scaled = [Estimate(*(100 * value for value in part)) for part in parts]
    return dict(zip((*_POLICIES, "effect"), scaled, strict=True))


def verdict(found: Sequence[Reading], reference: Reference) -> str:
    """Say under which reading the published numbers come out, or that none fits, and what follows from that."""
    published = published_numbers(reference)
    pairs = sorted({pair for reading in found for pair in reading.values})
    common = [pair for pair in pairs if pair in published]
    if not found:
        return ""
    if not common:
        return _elsewhere(found, pairs, published)
    names = ", ".join(f"({n}, {p})" for n, p in common)
    whole = [reading for reading in found if set(common) <= reading.values.keys()]
    tolerance = reference.tolerance
    fitting = [one for one in whole if max(map(abs, one.differences(published).values())) <= tolerance]
    if fitting:
        text = "; ".join(f"{one.label} (largest difference {_largest(one, published)})" for one in fitting)
        text = f"The published numbers at {names} come out within {tolerance:g} points under: {text}."
    else:
        best = next((one for one in whole if one.decode != "one pass"), whole[0])
        text = (
            f"Under none of {len(whole)} definitions do the published numbers at {names} come out within {tolerance:g} "
            f"points. The nearest that is decoded is {best.label}: {best.distance(published):.1f} points root mean "
            f"square, {_largest(best, published)} at most. "
        )
        text += " ".join(_nearest_alone(whole, policy, published) for policy in _POLICIES)
    missing = len(published) - len(common)
    return text + (f" {missing} of the {len(published)} published pairs were not run." if missing else "")


def _largest(reading: Reading, published: _Published) -> str:
    (pair, policy), points = max(reading.differences(published).items(), key=lambda item: abs(item[1]))
    return f"{points:+.1f} ({policy} at {pair})"


def _nearest_alone(found: Sequence[Reading], policy: str, published: _Published) -> str:
    """The reading nearest to the numbers of one policy."""
    points = [
        (one, [apart for (_, name), apart in one.differences(published).items() if name == policy]) for one in found
    ]
    distances = [(root_mean_square(apart), one.label) for one, apart in points if apart]
    if not distances:
        return ""
    distance, label = min(distances, key=lambda item: item[0])
    return f"{policy.capitalize()} alone: {label} ({distance:.1f})."


def _elsewhere(found: Sequence[Reading], pairs: Sequence[_Pair], published: _Published) -> str:
    """At pairs that are not published only the sign and the size of the effect can be compared."""
    effects = [line[ADAPTIVE] - line["vanilla"] for line in published.values() if set(_POLICIES) <= line.keys()]
    names = ", ".join(f"({n}, {p})" for n, p in pairs)
    text = f"No published pair was run, only {names}, so no definition can be confirmed here."
    if not effects:
        return text
    decoded = [one for one in found if one.decode != "one pass" and one.denoiser == "model"]
    measured = [(one, pair, values["effect"]) for one in decoded for pair, values in one.values.items()]
    above = [(one, pair, effect) for one, pair, effect in measured if effect.value >= min(effects)]
    signs = [sum(effect.low > 0 for *_, effect in measured), sum(effect.high < 0 for *_, effect in measured)]
    text += (
        f" What can be compared is adaptive minus vanilla, published as {min(effects):+.1f} to {max(effects):+.1f} "
        f"points: of {len(measured)} cases, a definition with the model at a pair, it is above zero in {signs[0]} and "
        f"below in {signs[1]} (95 % intervals over runs, of one run over sequences), and as large as published in "
    )
    listed = "; ".join(f"{one.label} at {pair} ({effect.value:+.1f})" for one, pair, effect in above)
    return text + (f"{len(above)}: {listed}." if above else "none.") + " Nothing follows for the published sizes."


def readings_table(frame: Frame, experiment: Experiment) -> Table:
    """Every reading with its distance to the published numbers, the nearest first, and a sentence on what fits."""
    reference = experiment.reference
    found = readings(frame, reference) if reference is not None else []
    published = published_numbers(reference) if reference is not None else {}
    sizes = {one.label: [abs(points) for points in one.differences(published).values()] for one in found}
    where = (
        "; largest: the largest of the differences."
        if any(sizes.values())
        else ", to the published pair that is nearest: these sizes are not published."
    )
    return Table(
        "Which definition of accuracy fits the published numbers?",
        (
            text("accuracy", lambda one: one.accuracy),
            text("of", lambda one: " ".join(filter(None, (one.denoiser, one.variant)))),
            text("decoded", lambda one: one.decode),
            Column("pairs", lambda one: str(len(one.values))),
            Column("vanilla", lambda one: f"{one.mean('vanilla'):.1f}"),
            Column("adaptive", lambda one: f"{one.mean(ADAPTIVE):.1f}"),
            Column("adaptive -\nvanilla", _effect_text),
            Column("distance", lambda one: f"{one.distance(published):.1f}"),
            Column("largest", lambda one: number(max(sizes[one.label], default=math.nan), ".1f")),
        ),
        found,
        notes=(
            verdict(found, reference) if reference is not None else "",
            "Per cent, means over the pairs; adaptive is margin. Distance: root mean square of measured minus "
            f"published in points, vanilla and adaptive{where}",
            "In one pass nothing is decoded, so both policies have one number, and no published difference comes from "
            "it.",
        ),
    )


def _effect_text(reading: Reading) -> str:
    if reading.decode == "one pass":
        return "0"
    if len(reading.values) == 1:
        return plus_minus(next(iter(reading.values.values()))["effect"], "+.1f")
    return f"{reading.mean(ADAPTIVE) - reading.mean('vanilla'):+.1f}"


def readings_sheet(frame: Frame, experiment: Experiment) -> dict[str, Sheet]:
    """One panel a pair, one line a reading, the nearest to the published numbers on top; nothing without those."""
    found = readings(frame, experiment.reference) if experiment.reference is not None else []
    if not found:
        return {}
    published = published_numbers(experiment.reference)
    pairs = sorted({pair for reading in found for pair in reading.values})
    legend: list[Look] = [
        {"marker": "s", "color": COLOURS["exact"], "label": "exact posterior"},
        {"marker": "s", "color": COLOURS["model"], "label": "model"},
        {"marker": marker("vanilla"), "color": INK, "markerfacecolor": "white", "label": "vanilla"},
        {"marker": marker(ADAPTIVE), "color": INK, "label": "adaptive (margin)"},
    ]
    if set(pairs) & published.keys():
        dashes = {"published vanilla": "--", "published adaptive": "-"}
        legend += [{"color": COLOURS["paper"], "linestyle": dash, "label": label} for label, dash in dashes.items()]
    width = 4.6 + 3.2 * len(pairs)
    return {
        "readings": Sheet(
            f"Which definition fits? {experiment.heading}",
            [_of_readings(pair, found, published) for pair in pairs],
            len(pairs),
            (width, 2.4 + 0.27 * len(found)),
            legend,
            entries=min(len(legend), int(width / 1.6)),
            grid={"sharey": True},
        )
    }


def _of_readings(pair: _Pair, found: Sequence[Reading], published: _Published) -> Panel:
    """Vanilla and adaptive accuracy under each reading; beside them what is published of the pair.

    Of a pair that is not published the range of all published ones.
    """
    lines = [
        Record(
            {"label": one.label, "denoiser": one.denoiser, "policy": policy},
            {"accuracy": (one.values[pair][policy], {})} if pair in one.values else {},
        )
        for one in found
        for policy in _POLICIES
    ]

    def look(line: Record) -> Look:
        colour = COLOURS[line.denoiser]
        fill = colour if line.policy == ADAPTIVE else "white"
        return {"color": colour, "marker": marker(line.policy), "markerfacecolor": fill, "markersize": 5}

    def dress(axes: Axes) -> None:
        for i, one in enumerate(found):
            if pair in one.values:
                ends = [one.values[pair][policy].value for policy in _POLICIES]
                axes.plot(ends, [i, i], color=COLOURS[one.denoiser], linewidth=1, alpha=0.5, zorder=1)
        _draw_published(axes, [published[pair]] if pair in published else list(published.values()))
        axes.set_ylim(len(found) - 0.4, -1.8)
        axes.tick_params(labelsize=8)

    title = "({}, {})".format(*pair)
    return Panel(title, "spans", lines, x="accuracy", y="label", look=look, xlabel="accuracy, %", dress=dress)


def _draw_published(axes: Axes, lines: Sequence[Mapping[str, float]]) -> None:
    """A published number as a line, several as a range with its name."""
    for policy, style in zip(_POLICIES, ("--", "-"), strict=True):
        numbers = [line[policy] for line in lines if policy in line]
        if len(numbers) == 1:
            axes.axvline(numbers[0], color=COLOURS["paper"], linestyle=style, linewidth=1.2, zorder=0)
        elif numbers:
            low, high = min(numbers), max(numbers)
            axes.axvspan(low, high, color=COLOURS["paper"], alpha=0.12, linewidth=0, zorder=0)
            name = f"published\n{'adaptive' if policy == ADAPTIVE else policy}"
            centred: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7, "color": COLOURS["paper"]}
            axes.text((low + high) / 2, -1.65, name, **centred)


# --- adaptive minus vanilla, run by run ---


def effects(frame: Frame) -> list[Record]:
    """Adaptive minus vanilla of runs that are alike, pooled over them; ``gap``: closed by the model of each run."""
    losses, problems = kind(frame, "losses", law="uniform"), kind(frame, "problem")
    gaps = {pair_text(line): line for line in records(gap(pool(losses, over="row"), pool(problems, over="row")))}
    found = records(minus(pool(kind(frame, "decode"), over="row"), "policy", ADAPTIVE, "vanilla"))
    return [line.plus(gaps.get(pair_text(line), line)) if line.denoiser == "model" else line for line in found]


def _tokens(effect: Record) -> str:
    return ", ".join([*([] if effect.argmax else ["drawn"]), *variants(effect)])


def _points(effect: Record, metric: str) -> list[float]:
    """What is known of each run, in points of per cent."""
    return [100 * run.value for run in effect.runs(metric).values() if not math.isnan(run.value)]


def _over_runs(title: str, metric: str, form: Callable[[list[float]], str]) -> Column:
    return Column(title, lambda line: form(_points(line, metric)))


def effects_table(frame: Frame) -> Table:
    """Adaptive minus vanilla where several runs are alike, with intervals over them."""

    def of(metric: str, title: str) -> Iterator[Column]:
        yield _over_runs(title, metric, lambda points: plus_minus(between(points), "+.1f"))
        yield _over_runs("least, most", metric, lambda points: f"{min(points):+.1f}, {max(points):+.1f}")
        yield _over_runs("above 0", metric, lambda points: f"{sum(point > 0 for point in points)}/{len(points)}")

    return Table(
        "Adaptive minus vanilla",
        (
            *(PAIR, key("denoiser", left=True), key("steps"), text("tokens", _tokens)),
            _over_runs("runs", "self_consistency", lambda points: str(len(points))),
            _over_runs("gap\nclosed, %", "gap", lambda gaps: f"{min(gaps):.0f} to {max(gaps):.0f}" if gaps else ""),
            *of("self_consistency", "self-consistent"),
            *of("consistent", "wholly\nconsistent"),
        ),
        [line for line in effects(frame) if len(_points(line, "self_consistency")) > 1],
        notes="Points of per cent, adaptive (margin) minus vanilla of one trained model. Mean over runs, each with a "
        "problem and a training of its own where their seeds differ, with its 95 % interval over runs (Student's t), "
        "which holds what differs between them; the least and the most of a run; runs in which it is positive. Gap "
        "closed: the least and the most of their models.",
    )


def pair_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each pair of an experiment, in their order from dark to light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    shades = colormaps[SEQUENTIAL]
    return {name: to_hex(shades(0.85 * i / max(1, len(names) - 1))) for i, name in enumerate(names)}


def effects_sheet(frame: Frame) -> dict[str, Sheet]:
    """Adaptive minus vanilla against how far the model has learned, one mark a run; nothing below two trained models.

    Self-consistency, one token a step and several, of tokens that are drawn as they come.
    """
    runs = [
        Record({**line.keys, "run": run}, {"effect": (points, {}), "gap": (line.runs("gap")[run], {})})
        for line in effects(frame)
        if _tokens(line) == "drawn"
        for run, points in line.runs("self_consistency").items()
        if run in line.runs("gap") and not math.isnan(line.runs("gap")[run].value)
    ]
    if len({run.run for run in runs}) < 2:
        return {}
    names = list(dict.fromkeys(map(pair_text, runs)))
    colours = pair_colours(names)
    mark = {"marker": "o", "markersize": 4, "linestyle": ""}
    least = min(-4.0, *(110 * run.value("gap") for run in runs))

    def panel(title: str, lines: Sequence[Record], ylabel: str = "") -> Panel:
        """The effect against the gap closed, of the runs of ``lines``."""
        return Panel(
            title,
            "curves",
            lines,
            x=lambda run: Estimate(*(100 * end for end in run.estimate("gap"))),
            y="effect",
            look=lambda run: {**mark, "color": colours[pair_text(run)], "label": pair_text(run)},
            levels=[Level(0.0, {})],
            scale=100,
            xlabel="gap closed by the model, % (0: marginals only; 100: Bayes-optimal)",
            ylabel=ylabel,
            dress=lambda axes: axes.set_xlim(least, 104),
        )

    one, several = ([run for run in runs if (run.steps == run.N + run.P) == whole] for whole in (True, False))
    ylabel = "margin - vanilla, percentage points of self-consistency"
    panels = [panel("One token a step", one, ylabel), panel("Several tokens a step", several)]
    title, entries = "Adaptive minus vanilla against how far the model has learned", min(6, len(names))
    shared = {"sharex": True, "sharey": True}
    return {"effects": Sheet(title, panels, 2, (10, 4.6), entries=entries, grid=shared)}
