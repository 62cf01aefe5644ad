"""Networks along a training: the last is the trained model, and fits on numbers whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.table1_along import along_tables, fits, learned, snapshots
from lo_theory.lab.frame import from_rows
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from tests.lab.decodes import measured, share
from tests.lab.tiny import tiny

PAIRS = {(6, 18): 3.0, (8, 16): 2.0}


def network(row: int, step: int, gap: float, predicted: float, effect: float, pair: tuple[int, int]) -> Iterator[Row]:
    """A network that closed ``gap`` of 0.4 nats, with this prediction as a share of them and this effect in points."""
    place = {"row": row, "N": pair[0], "P": pair[1]}
    keys = {"kind": "snapshot", "step": step, **place}
    excess = 0.4 * (1 - gap)
    for name, value in (("excess", excess), ("observations_first", excess + 0.4 * predicted)):
        yield Row("unit", name, Sums.of([value + 0.001 * (-1) ** i for i in range(100)]), keys)
    yield from (Row("unit", name, share(90.0), keys) for name in ("conditional", "infill"))
    plain = {"denoiser": "model", "steps": sum(pair), "argmax": False, "schedule": "fixed_count", "temperature": 1.0}
    for policy, percent in (("vanilla", 80.0), ("margin", 80.0 + effect)):
        own = {**keys, **plain, "policy": policy}
        yield from (Row("unit", name, share(percent), own) for name in ("self_consistency", "unpaired"))
        yield Row("unit", "self_consistency", share(10.0), {**own, "steps": 8})  # another number of steps


def trainings(count: int, slope: float, bend: float = 0.0) -> list[Row]:
    """Trainings of four networks each; the effect is ``slope`` points a prediction, and ``bend`` a gap squared."""
    rows: list[Row] = []
    for row in range(count):
        pair = list(PAIRS)[row % 2]
        place = {"kind": "problem", "row": row, "N": pair[0], "P": pair[1]}
        rows += [
            Row("unit", name, Sums.single(value), place) for name, value in (("floor", 0.2), ("marginals_only", 0.6))
        ]
        for i in range(4):
            predicted = 0.1 * math.cos(5 * row + 3 * i)
            closed = -0.2 + 0.3 * i
            rows += network(row, 100 * (i + 1), closed, predicted, slope * predicted + bend * closed**2, pair)
    return rows


def test_a_snapshot_has_its_gap_its_prediction_and_its_effect() -> None:
    found = snapshots(from_rows(trainings(2, 50.0)))
    assert [(line.row, line.step) for line in found] == [(row, step) for row in (0, 1) for step in (100, 200, 300, 400)]
    for row in (0, 1):
        for i, line in enumerate(found[4 * row : 4 * row + 4]):
            predicted = 0.1 * math.cos(5 * row + 3 * i)
            assert line.value("gap") == pytest.approx(-0.2 + 0.3 * i)
            assert line.value("predicted") == pytest.approx(predicted)
            assert line.value("effect") == pytest.approx(0.5 * predicted)
            assert line.value("ratio") == (3.0, 2.0)[row]
    assert [line.step for line in learned(found)] == 2 * [200, 300, 400], "a gap below 0 is not learned"


@pytest.mark.parametrize("slope", [50.0, -80.0])
def test_the_fit_finds_what_the_effect_was_made_of(slope: float) -> None:
    found = fits(snapshots(from_rows(trainings(6, slope))))
    by = {fit.names: fit for fit in found}
    alone, everything = by["predicted",], by["gap", "square", "predicted", "ratio"]
    assert alone.explained == pytest.approx(1, abs=1e-9)
    assert everything.explained == pytest.approx(1, abs=1e-9)
    assert math.copysign(1, alone.slopes["predicted"].value) == math.copysign(1, slope)
    assert alone.signs == 1
    assert all(abs(everything.slopes[name].value) < 1e-6 for name in ("gap", "square", "ratio")), (
        "nothing of these was in it"
    )
    assert by["gap",].explained < 0.5
    assert by["ratio",].explained < 0.5
    assert found == sorted(found, key=lambda fit: fit.explained)


def test_an_effect_that_falls_with_the_square_of_the_gap_is_told_from_one_that_falls_with_the_gap() -> None:
    by = {fit.names: fit for fit in fits(snapshots(from_rows(trainings(6, 0.0, bend=-30.0))))}
    assert by["gap", "square"].explained == pytest.approx(1, abs=1e-9)
    assert by["gap", "square"].slopes["gap"].value == pytest.approx(0, abs=1e-6)
    assert by["gap",].explained < 0.99


def test_few_trainings_have_no_fit() -> None:
    assert fits(snapshots(from_rows(trainings(3, 50.0)))) == []


def test_the_nearest_to_the_published_numbers_is_the_nearest() -> None:
    document = tiny()
    document["reference"]["rows"] = [
        {"N": 6, "P": 18, "policy": "vanilla", "percent": 79.0},
        {"N": 6, "P": 18, "policy": "margin", "percent": 84.0},
    ]
    rows = trainings(4, 50.0)
    *_, nearest = along_tables(from_rows(rows), resolve(document))
    ((line, *_),) = nearest.sections
    values = {
        (found.row, found.step): 80 + 100 * found.value("effect")
        for found in snapshots(from_rows(rows))
        if found.N == 6
    }
    best = min(values.values(), key=lambda margin: (margin - 84) ** 2)
    assert line[:2] == ["6, 18", "self-consistency"]
    assert line[4:6] == ["80.0", f"{best:.1f}"]
    assert line[7] == f"{math.sqrt(((80 - 79) ** 2 + (best - 84) ** 2) / 2):.1f}"


def test_the_last_network_on_the_way_is_the_trained_model(tmp_path: Path) -> None:
    document = tiny()
    document |= {
        "along": {"sequences": 64, "cost_sequences": 8},
        "training": {**document["training"], "steps": 40, "evaluations": 3},
    }
    document["decoding"] |= {"denoisers": ["model"], "extra": [], "cost_sequences": 8}
    finished = execute(resolve(document), Request(tmp_path, threads=1), SilentProgress())
    rows = finished.rows
    assert [line.step for line in snapshots(from_rows(rows))] == [14, 28, 40]
    last = measured(rows, "snapshot", step=40)
    trained = measured(rows, "decode") + measured(rows, "one_pass", denoiser="model")
    for line in trained:
        own = next(each for each in last if all(each.get(key) == line.get(key) for key in ("policy", "steps")))
        for name in line.metrics:
            np.testing.assert_array_equal(own.estimate(name), line.estimate(name), err_msg=name)
    (known,) = (line for line in last if line.get("policy") is None)
    (kl,) = measured(rows, "losses", law="uniform")
    assert known.estimate("excess") == kl.estimate("kl")
    first = measured(rows, "snapshot", step=14)
    assert all(line.metrics.keys() == other.metrics.keys() for line, other in zip(first, last, strict=True))
    assert [line.estimate("excess") for line in first][:1] != [known.estimate("excess")], "another network"


def test_along_without_evaluations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.evaluations"):
        resolve({**tiny(), "along": {"sequences": 8}})
