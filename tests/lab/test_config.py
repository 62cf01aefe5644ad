from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lo_theory.lab.config import Experiment, load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.problems import NaeSat, RandomSlab
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.schema import merge, parse_yaml, read_yaml
from lo_theory.lab.settings import Shape, mask_law, step_count
from lo_theory.lab.task import TASKS
from tests.lab.tiny import tiny

TABLE1 = Path(__file__).parents[2] / "experiments" / "table1.yaml"


def identity(experiment: Experiment) -> str:
    task = TASKS[experiment.task]()
    return experiment.identity([task.prepare(row).content() for row in experiment.rows])


def test_a_mapping_becomes_settings_of_the_right_types() -> None:
    experiment = resolve(tiny())
    row = experiment.rows[0]
    assert row.problem == NaeSat("nae_sat", 6, 18)
    assert row.model.shape == Shape(1, 2, 16)
    assert row.training is not None
    assert row.training.steps == 150
    assert row.training.learning_rate == 4e-3
    assert row.decoding.policies == ("vanilla", "margin")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("training.stpes", 5, r"unknown key training\.stpes: the closest is training\.steps"),
        ("trainin", {}, r"unknown key trainin: the closest is training"),
        ("problem.Q", 5, r"unknown key problem\.Q: the closest is problem\.q"),
        ("problem.M", 5, r"unknown key rows\[0\]\.problem\.M|unknown key problem\.M"),
        ("model.shape.widht", 5, r"model\.shape\.widht: the closest is model\.shape\.width"),
        (
            "decoding.extra.0.polcy",
            "margin",
            r"decoding\.extra\[0\]\.polcy: the closest is decoding\.extra\[0\]\.policy",
        ),
        ("training.steps", "many", r"training\.steps must be an integer, got 'many' \(text\)"),
        ("training.steps", 1.5, r"training\.steps must be an integer, got 1\.5 \(a number\)"),
        ("training.steps", True, r"training\.steps must be an integer, got True"),
        ("training.steps", 0, r"training\.steps must be at least 1, got 0"),
        ("training.learning_rate", 0, r"training\.learning_rate must be greater than 0"),
        ("training.learning_rate", float("inf"), r"training\.learning_rate must be finite"),
        ("training.betas", [0.9], r"training\.betas must hold 2 values, got 1"),
        ("training.betas", 0.9, r"training\.betas must be a list"),
        ("training", [1], r"training must be a mapping of settings, got a list"),
        ("problem.noise", 1.5, r"problem\.noise must be at most 1"),
        ("problem.repeats", 1, r"problem\.repeats must be true/false, got 1"),
        ("problem.family", "nae", r"problem\.family must be one of .*the closest is nae_sat"),
        ("model.shape", "18M", r"model\.shape must be one of small, 6M, 19M.*the closest is 19M"),
        ("decoding.policies", ["margn"], r"decoding: unknown policy 'margn': the closest is margin"),
        ("decoding.steps", ["L/0"], r"steps are L .*got 'L/0'"),
        ("decoding.steps", [0], r"at least one step, got 0"),
        ("evaluation.laws", ["unifrom"], r"unknown mask law 'unifrom': the closest is uniform"),
        ("evaluation.laws", ["pattern"], r"mask law 'pattern'"),
        ("evaluation.laws", ["two_rates(0,2)"], r"must lie in \[0, 1\], got 2"),
        ("evaluation.laws", [], r"at least one mask law"),
        ("evaluation.laws", ["pattern(2.5)"], r"pattern\(2\.5\)'.*2\.5"),
        ("evaluation.laws", ["pattern(-1)"], r"pattern\(-1\)'.*-1"),
        ("evaluation.laws", ["suffix(3)"], r"suffix takes no numbers, got 1"),
        ("objective.laws", ["uniform(3)"], r"uniform takes no numbers, got 1"),
        ("objective.laws", ["two_rates(0.5)"], r"two_rates takes 2 numbers \(latents, observations\), got 1"),
        ("objective.laws", ["bernoulli(0.5,1)"], r"bernoulli takes 0 to 1 numbers \(alpha\), got 2"),
        ("objective.laws", ["pattern(four)"], r"pattern takes numbers, got four"),
        ("objective.laws", ["two_rates(0.5,)"], r"two_rates takes numbers, got 0\.5,"),
        ("evaluation.laws", ["uniform", "uniform"], r"evaluation\.laws names uniform twice"),
        ("evaluation.laws", ["two_rates(0,1)", "two_rates(0.0, 1)"], r"names two_rates\(0,1\) twice"),
        ("rows", [], r"rows is empty"),
        ("experiment", "../escape", r"experiment names a folder"),
        ("task", "table2", r"task must be one of table1, .*the closest is table1"),
        ("training", None, r"decoding asks for a model, but training is null"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(path: str, value: object, complaint: str) -> None:
    document = tiny()
    node = document
    *heads, last = path.split(".")
    for head in heads:
        node = node[int(head)] if isinstance(node, list) else node.setdefault(head, {})
    node[last] = value
    with pytest.raises(ValueError, match=complaint):
        resolve(document)


def test_a_missing_setting_is_named() -> None:
    document = tiny()
    del document["problem"]["N"]
    with pytest.raises(ValueError, match=r"rows\[0\]\.problem\.N is missing"):
        resolve(document)
    del document["problem"]["family"]
    with pytest.raises(ValueError, match=r"problem must be a mapping with the key family"):
        resolve(document)


def test_presets_are_laid_over_the_base_and_all_are_checked() -> None:
    assert resolve(tiny(), preset="longer").rows[0].training.steps == 300  # type: ignore[union-attr]
    assert resolve(tiny(), preset="exact").rows[0].training is None
    assert resolve({**tiny(), "default_preset": "longer"}).preset == "longer"
    with pytest.raises(ValueError, match=r"unknown preset 'papre': the presets are longer, exact"):
        resolve(tiny(), preset="papre")
    document = tiny()
    document["presets"]["longer"]["training"]["stepz"] = 1
    with pytest.raises(
        ValueError, match=r"unknown key presets\.longer\.training\.stepz: .*presets\.longer\.training\.steps"
    ):
        resolve(document, preset="exact")


def test_set_takes_yaml_values_lists_and_indices() -> None:
    document = tiny()
    document["rows"] = [{"training": {"steps": 7}}, {"problem": {"N": 7}}]
    sets = ["training.steps=90", "rows.1.problem.P=21", "decoding.policies=[margin]", "decoding.noise={scale: 0.5}"]
    experiment = resolve(document, sets=sets)
    assert [row.training.steps for row in experiment.rows if row.training] == [90, 90]  # also over a row's own
    assert [(row.problem.N, row.problem.P) for row in experiment.rows] == [(6, 18), (7, 21)]  # type: ignore[union-attr]
    assert experiment.rows[0].decoding.policies == ("margin",)
    assert experiment.rows[0].decoding.noise is not None
    assert resolve(tiny(), sets=["training.learning_rate=1e-3"]).rows[0].training.learning_rate == 1e-3  # type: ignore[union-attr]
    for assignment, complaint in [
        ("training.stpes=5", r"unknown key training\.stpes"),
        ("training", r"--set takes path=value"),
        ("rows.2.seed=1", r"'2' is no index of a list of 2"),
        ("seed.x=1", r"'x' would be below 0"),
        ("training.steps=[1", r"--set training\.steps=\[1"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            resolve({**document, "seed": 0}, sets=[assignment])


def test_resolving_leaves_the_document_alone_and_is_its_own_inverse() -> None:
    document = tiny()
    experiment = resolve(document, sets=["training.steps=9"])
    assert document == tiny()
    again = resolve(yaml.safe_load(yaml.safe_dump(experiment.to_mapping())))
    assert again == experiment
    assert identity(again) == identity(experiment)


def test_the_id_follows_what_decides_the_result_and_nothing_else(tmp_path: Path) -> None:
    base = identity(resolve(tiny()))
    assert re.fullmatch(r"[0-9a-f]{16}", base)
    for name, value in [("title", "another"), ("reference", None)]:
        assert identity(resolve({**tiny(), name: value})) == base
    assert identity(resolve(tiny(), sets=["seed=1"])) != base
    assert identity(resolve(tiny(), sets=["problem.seed=1"])) != base
    assert identity(resolve(tiny(), sets=["evaluation.sequences=65"])) != base
    assert identity(resolve(tiny(), preset="longer")) != base
    # A problem is its arrays, however it came about.
    resolve(tiny()).rows[0].problem.make().save(tmp_path / "problem.npz")
    stored = {**tiny(), "problem": {"family": "file", "path": str(tmp_path / "problem.npz")}}
    assert identity(resolve(stored)) == base


def test_yaml_refuses_repeated_keys_tags_and_bad_syntax_and_reads_4e_3(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"here, line 2: the key 'a' is given twice"):
        parse_yaml("a: 1\na: 2", "here")
    with pytest.raises(ValueError, match=r"here, line 2: the key 'b' is given twice"):
        parse_yaml("a:\n  {b: 1, b: 2}", "here")
    with pytest.raises(ValueError, match=r"line 1"):
        parse_yaml("!!python/object/apply:os.system ['true']", "here")
    with pytest.raises(ValueError, match=r"line 1"):
        parse_yaml("a: [1", "here")
    assert parse_yaml("a: 4e-3", "here") == {"a": 0.004}
    assert parse_yaml("[-1e5, 1.e3, 2E+2, e5, 1e]", "here") == [-1e5, 1e3, 200.0, "e5", "1e"]
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match=r"list\.yaml must hold a mapping"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("experiment: x\nrowz: []")
    with pytest.raises(ValueError, match=r"bad\.yaml: unknown key rowz: the closest is rows"):
        load(tmp_path / "bad.yaml")


def test_merge_is_deep_for_mappings_and_replaces_the_rest() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3]}, "d": {"e": 2}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_steps_and_laws_are_read_from_text() -> None:
    assert [step_count(steps, 60) for steps in ("L", "L/8", 7, 100)] == [60, 8, 7, 60]
    assert step_count("L/8", 5) == 1
    assert [mask_law(text).name for text in ("uniform", "pattern(4)", "two_rates(0.5, 1)", "bernoulli(0.3)")] == [
        "uniform",
        "pattern(4)",
        "two_rates(0.5,1)",
        "bernoulli(0.3)",
    ]


def test_cells_are_the_grid_and_the_extras_each_once() -> None:
    document = tiny()
    document["decoding"]["extra"] *= 2
    cells = resolve(document).rows[0].decoding.cells()
    assert len(cells) == 2 * 2 * 2 + 1
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.denoiser for cell in cells] == ["exact"] * 5 + ["model"] * 4
    assert cells[4].argmax


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("evaluation.laws=[pattern(7)]", r"rows\[0\]\.evaluation\.laws: .*l = 7 at N = 6"),
        ("objective.laws=[uniform, pattern(7)]", r"rows\[0\]\.objective\.laws: .*l = 7 at N = 6"),
        (
            "objective.stages=[{steps: 5}, {steps: 5, laws: [pattern(7)]}]",
            r"rows\[0\]\.objective\.stages\[1\]\.laws: .*l = 7 at N = 6",
        ),
        ("decoding.steps=[L, 24]", r"decoding\.steps: L and 24 are the same decode exact/vanilla/.* at L = 24"),
        ("decoding.steps=[L, L/1]", r"decoding\.steps: L and L/1 are the same decode"),
        ("decoding.steps=[3, L/8]", r"decoding\.steps: 3 and L/8 are the same decode"),
        ("decoding.steps=[L, 100]", r"decoding\.steps: L and 100 are the same decode"),
    ],
)
def test_settings_that_do_not_fit_the_problem_fail_before_any_work(
    assignment: str, complaint: str, tmp_path: Path
) -> None:
    experiment = resolve(tiny(), sets=[assignment])
    with pytest.raises(ValueError, match=complaint):
        execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    assert not list(tmp_path.iterdir())


def test_laws_and_steps_that_fit_are_let_through() -> None:
    sets = ["evaluation.laws=[pattern(6), suffix, bernoulli]", "objective.laws=[uniform, uniform, pattern(2)]"]
    row = resolve(tiny(), sets=sets).rows[0]
    row.check_fits(row.problem.make())
    # Laws that no model would be trained or measured under are not asked.
    row = resolve(tiny(), preset="exact", sets=["evaluation.laws=[pattern(7)]"]).rows[0]
    row.check_fits(row.problem.make())


def test_other_families_are_chosen_by_their_name() -> None:
    document = {**tiny(), "problem": {"family": "random_slab", "N": 5, "P": 15, "width": 0.7}}
    assert resolve(document).rows[0].problem == RandomSlab("random_slab", 5, 15, 0.7)
    with pytest.raises(ValueError, match=r"colouring.*k must be 2, got 3"):
        resolve({**tiny(), "problem": {"family": "all_k_subsets", "N": 4, "predicate": "colouring"}})


def test_a_policy_of_ones_own_takes_numbers_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lo_theory.cli import main
    from lo_theory.diffusion import POLICIES, TopK

    def leaning(share: float) -> TopK:
        return TopK(f"leaning({share})", lambda view: share * view.marginals.probs.max(axis=2))

    with pytest.raises(ValueError, match=r"unknown policy 'leaning\(0.5\)'"):
        resolve({**tiny(), "decoding": {"policies": ["leaning(0.5)"]}})
    monkeypatch.setitem(POLICIES, "leaning", leaning)
    with pytest.raises(ValueError, match=r"leaning takes 1 numbers \(share\), got 0"):
        resolve({**tiny(), "decoding": {"policies": ["leaning"]}})
    decoding = {"sequences": 8, "denoisers": ["exact", "bp"], "policies": ["vanilla", "leaning(0.5)"], "steps": ["L"]}
    document = {**tiny(), "decoding": decoding, "training": None, "evaluation": {"sequences": 8}, "presets": {}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    assert main(["run", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    table = (folder / "table.md").read_text()
    assert "leaning(0.5)" in table
    assert "| bp |" in table
    assert (folder / "figure.png").exists()
    slab = {"family": "random_slab", "N": 5, "P": 6}
    (row,) = resolve({**document, "problem": slab}).rows
    with pytest.raises(ValueError, match="bp takes observations that are tables, not slabs"):
        TASKS["table1"]().prepare(row).check()
