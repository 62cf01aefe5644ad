"""Settings of each experiment that make no sense, or do not fit its problem: named before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.schema import merge
from tests.lab.tiny import tiny_of

NAE = {"family": "nae_sat", "N": 5, "P": 9}
SLAB = {"family": "random_slab", "N": 5, "P": 9}
SAT = {"family": "all_k_subsets", "N": 5, "predicate": "sat"}


def one_row(**row: Any) -> dict[str, Any]:
    """One row in place of those of the file."""
    return {"rows": [row]}


def family(**row: Any) -> dict[str, Any]:
    return one_row(**{"name": "a", "problem": NAE, **row})


def rules(*every: Mapping[str, Any], **row: Any) -> dict[str, Any]:
    given = {"rules": list(every)} if every else {}
    return one_row(**{"name": "a", "problem": NAE, "denoisers": ["exact"], **given, **row})


def hardness(**row: Any) -> dict[str, Any]:
    return one_row(**{"problem": NAE, "training": None, **row})


def nae(**row: Any) -> dict[str, Any]:
    return one_row(ensemble={"family": "nae"}, **row)


def recipe(**changes: Any) -> dict[str, Any]:
    training = {"steps": 30, "batch": 8, "evaluations": 3}
    return {"rows": [{"name": "a"}], **changes, "training": changes.get("training", training)}


def stages(*every: Mapping[str, Any]) -> dict[str, Any]:
    return recipe(objective={"stages": list(every)})


REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "families": [
        (family(name=" "), "name is empty"),
        (family(shares=[0.5]), "must hold 1"),
        (family(evaluation={"laws": ["two_rates(1,0)", "two_rates(1, 0)"]}), r"two_rates\(1,0\) twice"),
        (family(evaluation={"laws": []}), "at least one"),
        (family(evaluation={"laws": ["pattern(9)"]}), "evaluation.laws: .*l = 9 at N = 5"),
        (family(evaluation={"laws": ["two_rates(1,0)"], "limit_states": 2}), "evaluation.* the exact posterior needs"),
        (family(masked={"laws": ["pattern(9)"]}), "l = 9 at N = 5"),
    ],
    "figure2": [
        ({"further": [8]}, r"must grow, beginning above training\.steps: got \[10, 8\]"),
        ({"further": [60, 60]}, r"must grow"),
        ({"further": []}, r"evaluation\.proxy asks for a model trained further"),
        ({"training": None}, r"further lengths are given, but training is null"),
        ({"evaluation": {"patterns": [1, 1]}}, r"names pattern\(1\) twice"),
        ({"evaluation": {"patterns": [4, 5]}}, r"pattern\(l\) hides l = 1\.\.N latents, got l = 5 at N = 4"),
        ({"evaluation": {"patterns": [0]}}, r"evaluation\.patterns must be at least 1, got 0"),
        ({"evaluation": {"laws": ["uniform", "uniform"]}}, r"names uniform twice"),
        ({"evaluation": {"laws": ["uniformly"]}}, r"unknown mask law 'uniformly': the closest is uniform"),
        ({"evaluation": {"laws": ["pattern(2)"], "patterns": None}}, r"pattern\(2\), which is among the patterns"),
        ({"evaluation": {"seqences": 5}}, r"the closest is evaluation\.sequences"),
    ],
    "figure4": [
        ({"degrees": []}, r"degrees must hold at least one value"),
        ({"degrees": [2, 2]}, r"degrees must hold at least one value, each once"),
        ({"degrees": [0]}, r"degrees must be greater than 0, got 0"),
        ({"N": 0}, r"N must be at least 2, got 0"),
        ({"starts": ["planted", "warm"]}, r"starts\[1\] must be one of planted, random, noise"),
        ({"iteration": {"damping": 1.0}}, r"damping must be below 1"),
        ({"ensemble": {"family": "xor", "q": 3, "k": 3}}, r"parities q = 2"),
        ({"training": {"steps": 5}}, r"unknown key training"),
        ({"N": 5, "degrees": [2, 80]}, r"rows\[0\]\.degrees\[1\]: degree 80.*raise N"),
    ],
    "hardness": [
        (hardness(cells={"latents": [0, 1.5]}), "1.5"),
        (hardness(cells={"latents": [-0.1, 1]}), "-0.1"),
        (hardness(cells={"latents": []}), "latents is empty"),
        (hardness(cells={"observations": []}), "observations is empty"),
        (hardness(cells={"observations": [0.5, 0.5]}), "must ascend"),
        (hardness(cells={"latents": [0], "observations": [0]}), "hides nothing"),
        (hardness(judged=["bp", "model"]), "training is null"),
        (hardness(training={"steps": 5}), "does not name model"),
        (hardness(judged=["bp", "bp"]), "twice"),
        (hardness(population={"observations": [0.5, 1.0]}), "below 1"),
        (hardness(population={"latents": [0.0, 1.0]}), "greater than 0"),
        (hardness(problem=SLAB), "leave bp out"),
        (hardness(problem=SLAB, judged=[], thresholds={}), "random slabs"),
        (hardness(problem=SAT, thresholds={}), "set thresholds"),
    ],
    "orders": [
        ({"shares": [0.5]}, "must hold 1"),
        ({"shares": [0.999, 1.0], "training": {"steps": 100}}, "names 100 twice"),
        ({"orders": [], "masked": []}, "nothing to learn"),
        ({"orders": [{"name": "random"}, {"name": "random"}]}, "random twice"),
        ({"orders": [{"name": "random"}], "masked": [{"name": "random"}]}, "name of an order"),
        ({"masked": [{}, {}]}, "mdm twice"),
        ({"orders": [{"name": "reversed", "draws": 2}]}, "draws must be 1, got 2"),
        ({"orders": [{"name": "random", "swaps": 2}]}, "takes no swaps"),
        ({"orders": [{"name": "closer", "swaps": 0}]}, "at least 1"),
        ({"orders": [{"name": "identity"}]}, "one of latents_first"),
        ({"masked": [{"laws": ["pattern(9)"]}]}, r"masked\[0\].*l = 9 at N = 5"),
        ({"problem": {"N": 12, "P": 40}, "evaluation": {"limit_states": 2}}, r"evaluation.exact: along \S+ at time"),
    ],
    "proposals": [
        ({"objective": {"kind": "pumas(2)"}}, r"unknown objective 'pumas\(2\)': the closest is puma \(kinds: masked, "),
        ({"rows": [{"name": "a", "objective": {"kind": "puma"}}]}, r"puma takes 1 to 2 numbers \(stages, tau\), got 0"),
        (
            {"objective": {"kind": "puma"}, "rows": [{"name": "a", "objective": {"laws": ["bell(0.2)"]}}]},
            r"objective 'puma': puma takes 1 to 2 numbers \(stages, tau\), got 0",
        ),
        ({"rows": [{"name": "a", "objective": {"kind": "puma(0)"}}]}, r"a pool has at least one stage, got 0"),
        ({"objective": {"kind": "proseco", "laws": ["bell(0.2)"]}}, r"draws its own masks: leave out laws, not bell"),
        ({"rows": [{"name": " "}]}, r"name is empty"),
        ({"training": {"steps": 8, "evaluations": 0}}, r"training\.evaluations is 0"),
        (
            {"training": {"steps": 2, "evaluations": 2}, "objective": {"kind": "learned_order", "stages": []}},
            r"are 0 steps of learned",
        ),
        ({"evaluation": {"laws": ["suffix"]}}, r"uniform among its laws"),
        ({"evaluation": {"exact": False}}, r"exact: true"),
        ({"decoding": {"denoisers": ["exact"]}}, r"decoding is of the model alone"),
        ({"problem": {"family": "sparse_parity", "N": 5, "P": 3, "k": 3, "noise": 0.5}}, "no gap to close"),
    ],
    "recipes": [
        (recipe(recipe="tuend"), r"recipe must be one of paper, tuned, got 'tuend' .*the closest is tuned"),
        (recipe(recipe=["tuned"]), r"recipe must be one of"),
        (recipe(rows=[{"name": "a", "recipe": "best"}]), r"rows\[0\]\.recipe must be one of"),
        (recipe(rows=[{"name": " "}]), r"name is empty"),
        (recipe(training={"steps": 3, "evaluations": 0}), r"training\.evaluations is 0"),
        (recipe(targets=[]), r"targets is empty"),
        (recipe(targets=[0]), r"targets must be greater than 0"),
        (recipe(model={"embedding_scale": 0}), r"model\.embedding_scale must be greater than 0"),
        (stages({"laws": ["uniform"]}), r"a stage lasts steps or a share of them"),
        (stages({"steps": 3, "share": 0.5}), r"a stage lasts steps or a share of them"),
        (stages({"share": 1.5}), r"share must be at most 1"),
        (stages({"share": 0.7}, {"share": 0.5}), r"objective: the shares .* at most 1.* up 1\.2"),
        (stages({"steps": 20}, {"share": 0.5}), r"stages last 20 \+ 15 steps, .*steps is 30: .*share"),
        (
            recipe(problem={"family": "sparse_parity", "N": 5, "P": 3, "k": 3, "noise": 0.5}, recipe="tuned"),
            "no gap to close",
        ),
    ],
    "samplers": [
        (rules(name=" "), "name is empty"),
        (rules(denoisers=[]), "at least one of denoisers"),
        (rules(denoisers=["exactly"]), "unknown denoiser 'exactly': the closest is exact"),
        (rules(denoisers=["few_rounds(1.5)"]), r"few_rounds\(1\.5\)': rounds must be a whole number; got 1\.5"),
        (rules({"policies": ["margni"]}), "unknown policy 'margni': the closest is margin"),
        (rules({"policies": ["vanilla"], "schedules": ["even"]}), "unknown schedule 'even'"),
        (rules({"policies": []}), "policies is empty"),
        (rules({"policies": ["vanilla"], "steps": ["L/0"]}), "steps are L"),
        (rules({"policies": ["vanilla"], "denoisers": ["mixed(3)"]}), r"share lies in \[0, 1\], got 3"),
        (rules(denoisers=["exact", "model"], training=None), "denoisers name model, but training is null"),
        (rules(problem=SLAB, denoisers=["exact", "few_rounds(2)"]), r"few_rounds\(2\) takes .* tables, not slabs"),
        (rules(limit_states=2), "the exact posterior needs 32 states, over the limit of 2"),
    ],
    "thresholds": [
        (one_row(ensemble={"family": "sat", "k": 3}), r"family must be one of colouring, nae, xor"),
        (one_row(ensemble={"family": "colouring", "q": 3, "k": 3}), r"colourings have k = 2"),
        (nae(revealed=1.0), r"below 1, got 1"),
        (nae(revealed=-0.1), r"revealed must be at least 0"),
        (nae(budget={"size": 5}), r"a population has 512"),
        (nae(reference={}), r"unknown key"),
    ],
}
CASES = [(task, *case) for task, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("task", "changes", "complaint"), CASES, ids=[f"{task}: {words}" for task, _, words in CASES])
def test_what_makes_no_sense_is_named_before_any_work(
    task: str, changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=complaint):
        execute(resolve(merge(tiny_of(task), changes)), Request(tmp_path), SilentProgress())
    assert not list(tmp_path.rglob("*.safetensors"))
