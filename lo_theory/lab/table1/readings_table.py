"""The table of the readings: under which of them do the published numbers come out? What a reading is: ``readings``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.table1.readings import Reading, published_numbers, readings, verdict
from lo_theory.lab.texts import shown

__all__ = ["readings_table"]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _reading_line(reading: Reading, distance: float, largest: float) -> tuple[str, ...]:
    pairs = list(reading.values)
    vanilla, adaptive = (_mean([both[i].value for both in reading.values.values()]) for i in (0, 1))
    if reading.decode == "one pass":
        effect = "0"
    elif len(pairs) == 1:
        effect = shown(reading.effects[pairs[0]], form="+.1f")
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
