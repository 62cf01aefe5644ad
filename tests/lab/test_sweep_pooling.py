"""Which keys pooled cells share, intervals over cells, and the short form of an experiment with many rows."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import yaml

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.rows import Row
from lo_theory.lab.sweep.results import between_cells, common_settings, pooled_keys
from tests.lab.tiny import tiny


def test_only_keys_in_which_whole_cells_differ_are_pooled() -> None:
    def rows(seed: int) -> list[Row]:
        sums = Sums.single(1.0)
        return [Row("c", "x", sums, {"seed": seed, "N": 5, "step": step, "part": "a"}) for step in (seed, 7)]

    assert pooled_keys([rows(0), rows(1)]) == {"seed": "pooled"}
    assert pooled_keys([rows(0)]) == pooled_keys([]) == {}
    table = between_cells([("a", rows(0)[1:]), ("b", rows(0)[1:])])
    (line,) = csv.DictReader(io.StringIO(table))
    assert (line["cells"], line["n"], line["mean"]) == ("2", "2", "1.0")


@pytest.mark.parametrize(
    "rows",
    [
        [{}],
        [{"training": None, "decoding": {"denoisers": ["exact"]}}, {"seed": 1}],
        [
            {"problem": {"family": "random_slab", "N": 5, "P": 9}},
            {"problem": {"noise": 0.5}},
            {"model": {"shape": "6M"}},
        ],
    ],
)
def test_the_short_configuration_is_the_same_experiment(rows: list[dict[str, Any]]) -> None:
    document = tiny()
    if "family" in rows[0].get("problem", {}):
        document["problem"] = {}
        rows = [rows[0], *({"problem": {"family": "nae_sat", "N": 6, "P": 18}, **row} for row in rows[2:])]
    experiment = resolve({**document, "rows": rows})
    short = common_settings(experiment)
    assert resolve(yaml.safe_load(yaml.safe_dump(short))) == experiment
    if len(rows) > 1:
        assert "decoding" in short
        assert len(str(short)) < 0.8 * len(str(experiment.to_mapping()))
