"""Tables that compare: which reading gives the published numbers, and adaptive minus vanilla over several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.table1.readings import ADAPTIVE, Reading, Value, published_numbers, readings, verdict

__all__ = ["effects_table", "readings_table"]

_EFFECTS = (("self_consistency", "self-consistent"), ("consistent", "wholly consistent"))


def _signed(value: Value) -> str:
    half = (value.high - value.low) / 2
    return f"{value.percent:+.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}")


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _reading_line(reading: Reading, distance: float, largest: float) -> tuple[str, ...]:
    pairs = list(reading.values)
    vanilla, adaptive = (_mean([both[i].percent for both in reading.values.values()]) for i in (0, 1))
    if reading.decode == "one pass":
        effect = "0"
    elif len(pairs) == 1:
        effect = _signed(reading.effect(pairs[0]))
    else:
        effect = f"{adaptive - vanilla:+.1f}"
    return (
        reading.accuracy,
        " ".join(filter(None, (reading.denoiser, reading.variant))),
        reading.decode,
        str(len(pairs)),
        f"{vanilla:.1f}",
        f"{adaptive:.1f}",
        effect,
        f"{distance:.1f}",
        "-" if math.isnan(largest) else f"{largest:.1f}",
    )


def readings_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Every reading with its distance to the published numbers, the nearest first, and a sentence on what fits."""
    columns = (
        "accuracy",
        "of",
        "decoded",
        "pairs",
        "vanilla",
        "adaptive",
        "adaptive -\nvanilla",
        "distance",
        "largest",
    )
    title = "Which reading fits the published numbers?"
    if experiment.reference is None:
        return Table(title, columns, ())
    found, published = readings(rows, experiment.reference), published_numbers(experiment.reference)
    lines = []
    for reading in found:
        differences = [abs(points) for points in reading.differences(published).values()]
        lines.append(_reading_line(reading, reading.distance(published), max(differences, default=math.nan)))
    compared = any(reading.differences(published) for reading in found)
    notes = (
        verdict(found, experiment.reference),
        "Per cent, means over the pairs; adaptive is margin. Distance: root mean square of measured minus published in "
        "points, vanilla and adaptive"
        + (
            "; largest: the largest of the differences."
            if compared
            else ", to the published pair that is nearest: these sizes are not published."
        ),
        "In one pass nothing is decoded, so both policies have one number, and no published difference comes from it.",
    )
    return Table(title, columns, (tuple(lines),) if lines else (), notes, left=("accuracy", "of", "decoded"))


def effects_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Adaptive minus vanilla where a pair was run on several problems or trainings, with intervals over them."""
    runs: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, Measured]]] = {}
    place: tuple[str, ...]
    for cell in group(rows, "decode"):
        keys = cell.keys
        tokens = "argmax" if keys["argmax"] else "drawn"
        place = ("{}, {}".format(*cell.pair), str(keys.get("name", "")), str(keys["denoiser"]), str(keys["steps"]))
        place = (*place, ", ".join(filter(None, (tokens, str(keys.get("noise", "")), _warmth(keys["temperature"])))))
        run = (str(keys["row"]), str(keys["problem"]), str(keys["seed"]))
        runs.setdefault(place, {}).setdefault(run, {})[str(keys["policy"])] = cell
    lines = []
    for (pair, name, denoiser, steps, tokens), found in runs.items():
        both = [one for one in found.values() if {"vanilla", ADAPTIVE} <= one.keys()]
        if len(both) > 1:
            named = " ".join(filter(None, (pair, name)))
            lines.append((named, denoiser, steps, tokens, str(len(both)), *_effects(both)))
    columns: tuple[str, ...] = ("N, P", "denoiser", "steps", "tokens", "runs")
    for _, title in _EFFECTS:
        columns += (title.replace(" ", "\n"), "least, most", "above 0")
    notes = (
        "Points of per cent, adaptive (margin) minus vanilla of one trained model. Mean over runs, each with a problem "
        "and a training of its own where their seeds differ, with its 95 % interval over runs (Student's t), which "
        "holds what differs between them; the least and the most of a run; runs in which it is positive.",
    )
    left = ("N, P", "denoiser", "tokens")
    return Table("Adaptive minus vanilla", columns, (tuple(lines),) if lines else (), notes, left=left)


def _warmth(temperature: float) -> str:
    return "" if temperature == 1.0 else f"temperature {temperature:g}"


def _effects(runs: Sequence[dict[str, Measured]]) -> list[str]:
    from scipy.stats import t

    texts = []
    for metric, _ in _EFFECTS:
        points = [100 * (run[ADAPTIVE].value(metric) - run["vanilla"].value(metric)) for run in runs]
        sums = Sums.of(points)
        half = float(t.ppf(0.975, sums.n - 1)) * sums.standard_error
        texts += [f"{sums.mean:+.1f} ±{half:.1f}", f"{min(points):+.1f}, {max(points):+.1f}"]
        texts.append(f"{sum(point > 0 for point in points)}/{len(points)}")
    return texts
