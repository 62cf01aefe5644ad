"""Sweep files: the grid that axes span, what is refused, and the ids of cells."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_theory.cli import main
from lo_theory.lab.config import resolve
from lo_theory.lab.sweep.cells import Shard, cell_id, make_cells
from lo_theory.lab.sweep.grid import Grid, label, load_grid, make_grid, pooled_over
from lo_theory.lab.task import TASKS
from tests.lab.grids import tiny_grid, write_grid
from tests.lab.tiny import tiny

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def ids(grid: Grid) -> list[str]:
    return [cell.id for cell in make_cells(*grid.expand())]


def test_the_grid_is_the_product_of_the_axes_and_paths_of_one_axis_go_together() -> None:
    grid = make_grid(tiny_grid())
    assert grid.size == 6
    experiment, points = grid.expand()
    assert points == [{"problem.P": P, "problem.seed": seed, "seed": seed} for P in (10, 15) for seed in range(3)]
    for row, point in zip(experiment.rows, points, strict=True):
        assert (row.problem.P, row.problem.seed, row.seed) == tuple(point.values())
        assert (row.problem.N, row.decoding.sequences, row.training) == (5, 8, None)
    assert label(points[4]) == "problem.P=15, problem.seed=1, seed=1"


def test_cells_are_those_of_the_same_rows_written_out() -> None:
    rows = [{"problem": {"P": P, "seed": s}, "seed": s} for P in (10, 15) for s in range(3)]
    plain = {name: value for name, value in tiny_grid(rows=rows).items() if name != "axes"}
    experiment, _ = make_grid(tiny_grid()).expand()
    assert experiment == resolve(plain)
    assert make_grid(plain).expand() == (experiment, [{"rows": i} for i in range(6)])  # rows alone are a grid too


def test_rows_multiply_with_the_axes_and_are_the_slowest() -> None:
    document = tiny_grid(rows=[{"problem": {"N": 5}}, {"problem": {"N": 6}, "decoding": {"sequences": 9}}])
    experiment, points = make_grid(document).expand()
    assert len(points) == 12
    assert [point["rows"] for point in points] == [0] * 6 + [1] * 6
    assert [row.problem.N for row in experiment.rows] == [5] * 6 + [6] * 6  # type: ignore[union-attr]
    assert [row.decoding.sequences for row in experiment.rows] == [8] * 6 + [9] * 6


def test_values_may_be_mappings_nulls_lists_and_places_in_lists() -> None:
    document = tiny()
    stages = [{"steps": 3, "laws": ["uniform"]}, {"steps": 4}]
    document |= {
        "objective": {"stages": stages},
        "axes": [
            {"problem": [{"N": 6}, {"family": "random_slab", "N": 5, "width": 0.7}]},
            {"objective.stages.0.steps": [7, 9]},
            {"decoding.policies": [["margin"], ["vanilla", "entropy"]]},
        ],
    }
    rows = make_grid(document).expand()[0].rows
    assert [type(row.problem).__name__ for row in rows] == ["NaeSat"] * 4 + ["RandomSlab"] * 4
    assert rows[0].problem.P == 18  # mappings merge
    assert [stage.steps for stage in rows[2].objective.stages] == [9, 4]
    assert rows[2].objective.stages[0].laws == ("uniform",)
    assert rows[1].decoding.policies == ("vanilla", "entropy")
    document["axes"] = [{"training": [None, {"steps": 7}], "decoding.denoisers": [["exact"], ["exact", "model"]]}]
    untrained, trained = make_grid(document).expand()[0].rows
    assert untrained.training is None
    assert (trained.training.steps, trained.training.batch) == (7, 16)


def test_a_preset_has_axes_of_its_own_and_the_command_line_replaces_or_adds_some() -> None:
    document = tiny_grid(pool=["seed"], presets={"more": {"axes": [{"seed": [0, 1]}], "decoding": {"sequences": 16}}})
    document["problem"]["P"] = 20
    more = make_grid(document, preset="more", sets=["evaluation.sequences=4"])
    assert (more.size, more.pool) == (2, ("seed",))
    rows = more.expand()[0].rows
    assert [(row.seed, row.decoding.sequences, row.evaluation.sequences) for row in rows] == [(0, 16, 4), (1, 16, 4)]
    assert make_grid({**document, "default_preset": "more"}).size == 2
    assert make_grid(document).size == 6
    assert make_grid(document, axes=["problem.P=[10, 12, 14]"]).size == 9
    assert make_grid(document, axes=["problem.noise=[0, 0.1]"]).size == 12
    assert pooled_over(make_grid(document), ["problem.seed", "seed"]).pool == ("problem.seed", "seed")
    document["presets"]["more"]["axes"] = [{"sede": [0]}]
    with pytest.raises(ValueError, match=r"unknown key sede: the closest is seed"):
        make_grid(document)  # presets that are not chosen are checked too


def test_a_recipe_is_written_out_where_it_stands_and_may_be_an_axis() -> None:
    mixed, pure = ("two_rates(0.1,0.9)", "uniform"), ("two_rates(0.1,0.9)",)
    document = tiny_grid(objective={"stages": [{"share": 0.5, "laws": list(mixed)}]})
    document["presets"] = {"tuned": {"recipe": "tuned", "training": {"steps": 9}}}
    row = make_grid(document, preset="tuned").expand()[0].rows[0]
    assert (row.training.optimiser, row.training.steps) == ("muon", 9)
    assert [(stage.share, stage.laws) for stage in row.objective.stages] == [
        (0.25, pure)
    ]  # the preset's, not the file's
    document |= {"axes": [{"recipe": ["paper", "tuned"]}, {"training.batch": [4, 8]}], "training": {"steps": 9}}
    document["problem"]["P"] = 10
    rows = make_grid(document).expand()[0].rows
    found = [(row.training.optimiser, row.training.batch, len(row.objective.stages)) for row in rows]
    assert found == [("adamw", 4, 0), ("adamw", 8, 0), ("muon", 4, 1), ("muon", 8, 1)]
    document["axes"] = [{"recipe": ["tuned"]}, {"objective.stages.0.share": [0.1, 0.2]}]  # of the recipe's stage
    rows = make_grid(document).expand()[0].rows
    assert [[(stage.share, stage.laws) for stage in row.objective.stages] for row in rows] == [
        [(0.1, pure)],
        [(0.2, pure)],
    ]


def test_a_million_cells_cost_nothing_before_they_are_made() -> None:
    hundred = list(range(100))
    began = time.process_time()
    grid = make_grid(tiny_grid(axes=[{"seed": hundred}, {"problem.seed": hundred}, {"decoding.chunk": hundred[1:]}]))
    assert grid.size == 990_000
    assert time.process_time() - began < 30  # a product would take a quarter of an hour


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        (
            {"axes": [{"problem.nois": [1]}]},
            r"axes at problem\.nois=1: unknown key problem\.nois: the closest is problem\.noise",
        ),
        ({"axes": [{"seed": [0]}, {"sede": [1]}]}, r"axes\[1\]\.sede: unknown key sede: the closest is seed"),
        ({"axes": [{"rows": [0, 1]}]}, r"axes\[0\]\.rows: unknown key rows"),
        ({"axes": [{"title": ["a"]}]}, r"axes\[0\]\.title: unknown key title"),
        ({"axes": []}, r"axes is empty: name at least one path"),
        ({"axes": {"seed": [0]}}, r"axes must be a list of mappings"),
        ({"axes": [{}]}, r"axes\[0\] must be a mapping from paths to lists of values"),
        ({"axes": [{"seed": []}]}, r"axes\[0\]\.seed is empty: give it at least one value"),
        ({"axes": [{"seed": 3}]}, r"axes\[0\]\.seed must be a list of values, got 3"),
        (
            {"axes": [{"seed": [0, 1], "problem.seed": [0]}]},
            r"axes\[0\]: seed has 2 values, problem\.seed has 1 values; .*equally long",
        ),
        ({"axes": [{"seed": [0, 1, 0]}]}, r"axes\[0\] holds seed=0 twice: leave one out"),
        ({"axes": [{"seed": [0]}, {"seed": [1]}]}, r"axes\[1\]\.seed gives values that axes\[0\]\.seed gives too"),
        (
            {"axes": [{"problem": [{}]}, {"problem.N": [5]}]},
            r"axes\[1\]\.problem\.N gives values that axes\[0\]\.problem",
        ),
        ({"axes": [{"problem.P": [5, 0]}]}, r"axes\[0\] at problem\.P=0: problem\.P must be at least 1, got 0"),
        ({"axes": [{"seed": [0, "a"]}]}, r"axes\[0\] at seed=a: seed must be an integer, got 'a'"),
        ({"axes": [{"decoding.steps.3": [1]}]}, r"'3' is no index of a list of 1"),
        ({"axes": [{"seed.x": [1]}]}, r"axes at seed\.x=1: seed must be an integer"),
        ({"rows": []}, r"rows is empty"),
        ({"rows": [{"seeed": 1}]}, r"unknown key seeed: the closest is seed"),
        ({"pool": ["sed"]}, r"pool names sed, which is no path of an axis: the closest is seed"),
        ({"pool": "seed"}, r"pool must be a list of paths"),
        ({"decoding": {"sequenzes": 3}}, r"unknown key decoding\.sequenzes: the closest is decoding\.sequences"),
        ({"recipe": "tunde"}, r"recipe must be one of paper, tuned, got 'tunde'"),
        ({"axes": [{"recipe": [["tuned"]]}]}, r"recipe must be one of"),
        ({"axes": [{"recipe": ["tuned", "tunde"]}]}, r"axes\[0\] at recipe=tunde: recipe must be one of"),
        ({"tsk": "table1"}, r"unknown key tsk: the closest is task"),
        ({"presets": {"a": {"axes": [{"seed": []}]}}}, r"axes\[0\]\.seed is empty"),
        ({"presets": ["a"]}, r"presets must be a mapping"),
        ({"default_preset": "b"}, r"unknown preset 'b': there are no presets"),
    ],
)
def test_a_wrong_axis_is_named_with_its_path(over: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_grid(tiny_grid(**over)).expand()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sets": ["problem.P=5"]}, r"--set problem\.P: the axis problem\.P gives its values; use --axis problem\.P="),
        ({"sets": ["problem={}"]}, r"--set problem: the axis problem\.P gives its values"),
        (
            {"sets": ["recipe=tuned"], "axes": ["training.batch=[4, 8]"]},
            r"--set recipe: the axis training\.batch gives its values",
        ),
        ({"sets": ["recipe=paper"], "axes": ["recipe=[tuned]"]}, r"--set recipe: the axis recipe gives its values"),
        (
            {"sets": ["model.positions=both"], "axes": ["recipe=[tuned, paper]"]},
            r"--set model\.positions: the axis recipe gives its values",
        ),
        ({"axes": ["recipe=[null, paper]"]}, r"recipe: null undoes nothing: name one of paper, tuned"),
        ({"sets": ["rows.0.seed=1"]}, r"--set rows\.0\.seed: the rows of a sweep are its cells"),
        ({"sets": ["axes=[]"]}, r"--set axes: the rows of a sweep are its cells"),
        ({"sets": ["decoding.sequenzes=1"]}, r"unknown key decoding\.sequenzes"),
        ({"axes": ["problem.seed=[1]"]}, r"--axis problem\.seed: the file takes problem\.seed and seed together"),
        ({"axes": ["problem.P"]}, r"--axis takes path=\[values\]"),
        ({"axes": ["problem.P=3"]}, r"--axis problem\.P must be a list of values, got 3"),
        ({"axes": ["problem.P=[1"]}, r"--axis problem\.P=\[1"),
        ({"preset": "papre"}, r"unknown preset 'papre': there are no presets"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_grid(tiny_grid(), **options).expand()


def test_a_cell_that_cannot_be_made_is_named_before_any_work() -> None:
    with pytest.raises(ValueError, match=r"cell \(problem\.N=2\): .*3 distinct latents cannot be drawn from N = 2"):
        ids(make_grid(tiny_grid(problem={"family": "nae_sat", "P": 9}, axes=[{"problem.N": [4, 2]}])))
    with pytest.raises(
        ValueError, match=r"cell \(decoding\.steps=\[\"L\", 15\]\): decoding\.steps: L and 15 are the same"
    ):
        ids(
            make_grid(
                tiny_grid(axes=[{"decoding.steps": [["L"], ["L", 15]]}], problem={"family": "nae_sat", "N": 5, "P": 10})
            )
        )
    document = tiny_grid(axes=[{"problem.k": [1, 9]}, {"problem.family": ["nae_sat", "random_slab"]}])
    with pytest.raises(ValueError, match=r"unknown key .*problem\.k"):
        make_grid(document).expand()
    with pytest.raises(ValueError, match=r"cell \(problem\.N=5\)\.problem\.P is missing"):
        make_grid(tiny_grid(axes=[{"problem.N": [5]}])).expand()


def test_a_file_is_named_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "grid.yaml", axes=[{"seed": []}])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: axes\[0\]\.seed is empty"):
        load_grid(path)


def test_ids_follow_what_decides_the_result_and_nothing_else(tmp_path: Path) -> None:
    base = ids(make_grid(tiny_grid()))
    assert len(set(base)) == 6
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in base)
    assert ids(make_grid(tiny_grid(title="another", pool=["seed"], experiment="other"))) == base
    turned = ids(make_grid(tiny_grid(axes=tiny_grid()["axes"][::-1])))
    assert set(turned) == set(base)
    assert turned != base
    larger = ids(make_grid(tiny_grid(axes=[{"problem.P": [10, 12, 15]}, tiny_grid()["axes"][1]])))
    assert set(base) < set(larger)
    assert not set(base) & set(ids(make_grid(tiny_grid(), sets=["decoding.sequences=9"])))
    # A problem is its arrays, however it came about.
    made = (
        resolve(yaml.safe_load(yaml.safe_dump(make_grid(tiny_grid()).expand()[0].to_mapping()))).rows[0].problem.make()
    )
    made.save(tmp_path / "problem.npz")
    stored = tiny_grid(problem={"family": "file", "path": str(tmp_path / "problem.npz")}, axes=[{"seed": [0]}])
    assert ids(make_grid(stored)) == base[:1]


def test_the_task_is_a_part_of_the_id() -> None:
    assert cell_id("table1", {"a": 1}) != cell_id("figure4", {"a": 1})
    assert cell_id("table1", {"a": 1, "b": 2}) == cell_id("table1", {"b": 2, "a": 1})


def test_two_cells_that_are_the_same_are_refused() -> None:
    document = tiny_grid(axes=[{"problem.noise": [0, 0.0]}], problem={"family": "nae_sat", "N": 5, "P": 10})
    with pytest.raises(
        ValueError, match=r"cells \(problem\.noise=0\) and \(problem\.noise=0\.0\) have the same problem"
    ):
        ids(make_grid(document))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_out_every_cell_once(count: int) -> None:
    cells = make_cells(*make_grid(tiny_grid()).expand())
    shares = [[cell.id for cell in cells if Shard.parse(f"{i}/{count}").has(cell)] for i in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == sorted(cell.id for cell in cells)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--shard takes i/n"):
        Shard.parse(text)


def test_the_example_and_the_other_experiments_are_grids() -> None:
    grid = load_grid(EXPERIMENTS / "sweep_example.yaml")
    assert grid.size == 200
    assert len(set(ids(grid))) == 200
    assert load_grid(EXPERIMENTS / "sweep_example.yaml", preset="quick").size == 8
    assert load_grid(EXPERIMENTS / "table1.yaml").size == 3
    assert {"table1", "thresholds"} <= set(TASKS)


def test_a_file_with_axes_given_to_run_points_to_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_grid(tmp_path / "grid.yaml")
    assert main(["run", str(file), "--out", str(tmp_path)]) == 2
    assert "lo-theory sweep" in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()
