"""Arguments of another kind than the hints name are refused by name, everywhere in the public API."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lo_theory
from lo_theory.diffusion import DecodeOptions, Pattern, dead_checks, gap_closed, losses
from lo_theory.neural import TrainConfig, TransformerConfig
from lo_theory.posterior import BPPosterior, ExactPosterior, condition
from lo_theory.problem import LODistribution, Predicate, nae, nae_sat
from lo_theory.problem.planted import planted
from lo_theory.problem.seams import _kinds, check_count, checked
from lo_theory.rng import Key
from lo_theory.thresholds import kesten_stigum

PROBLEM = nae_sat(4, 6, seed=0)
EXACT = ExactPosterior(PROBLEM)
TOKENS = PROBLEM.sample(Key(0), 2)
ROOMS = ("problem", "posterior", "thresholds", "diffusion", "testing", "neural")


def public() -> Iterator[tuple[str, Any]]:
    """Functions and classes that the package and its rooms name."""
    for room in ("lo_theory", *(f"lo_theory.{room}" for room in ROOMS)):
        module = importlib.import_module(room)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or (inspect.isclass(value) and typing.Protocol not in value.__bases__):
                yield f"{room}.{name}", value


def looked_at(value: Any) -> dict[str, tuple[type, ...]]:
    """The parameters whose hints name kinds that can be checked."""
    function = value.__init__ if inspect.isclass(value) else value
    hints = typing.get_type_hints(value if dataclasses.is_dataclass(value) else function)
    names = list(inspect.signature(function).parameters)
    return {name: _kinds(hints[name]) for name in names if name in hints and _kinds(hints[name])}


UNCHECKED = {
    "the package makes them, and hands them out": [
        "Allocation",
        "Batch",
        "BPResult",
        "Calibration",
        "Check",
        "Checkpoint",
        "ClassLoss",
        "Cost",
        "Curve",
        "DecodeCost",
        "Decoded",
        "Diversity",
        "ElboVariance",
        "FirstErrors",
        "Fold",
        "GradientVariance",
        "InformationCurve",
        "LearnedPlan",
        "LogitsPosterior",
        "LossVariance",
        "Losses",
        "Marginals",
        "MaskWindow",
        "MovedLaw",
        "Oracle",
        "Overlap",
        "PatternLosses",
        "PlanGradient",
        "Ranks",
        "Report",
        "SameLaw",
        "Series",
        "Starts",
        "StepCost",
        "Sums",
        "Sweep",
        "Trained",
        "Transition",
        "View",
    ],
    "a check of its own": ["Key", "Shape"],
    "a name, and what a protocol asks for": ["AlongOrder", "OneAtATime", "TopK"],
    "belief propagation checks its options": ["BPOptions", "BPPosterior", "run", "run_batch"],
}


@pytest.mark.parametrize(("name", "value"), list(dict(public()).items()), ids=list(dict(public())))
def test_every_public_door_looks_at_the_kinds_that_it_names(name: str, value: Any) -> None:
    if any(name.rpartition(".")[2] in names for names in UNCHECKED.values()):
        return
    for parameter in looked_at(value):
        with pytest.raises(ValueError, match=rf"^{parameter} must be .*; got .*object"):
            value(**{parameter: object()})


CALLS = {
    "exact": (
        lambda: ExactPosterior("a"),
        r"^distribution must be a problem, such as nae_sat\(25, 275, seed=0\); got 'a'",
    ),
    "bp": (lambda: BPPosterior("a"), r"^distribution must be a problem, such as nae_sat.*; got 'a' of type str"),
    "condition": (lambda: condition(EXACT, TOKENS[0]), "^distribution must be a problem, .*ExactPosterior"),
    "gap_closed": (lambda: gap_closed(0.1, EXACT), "^distribution must be a problem, .*ExactPosterior"),
    "gap_closed text": (lambda: gap_closed("0.1", PROBLEM), r"^excess must be a number; got '0\.1' of type str"),
    "dead_checks": (lambda: dead_checks(EXACT, TOKENS), "^distribution must be a problem"),
    "dead_checks tokens": (
        lambda: dead_checks(PROBLEM, TOKENS),
        r"^decoded must be a Decoded, such as decode\(\.\.\.\) returns; got .*ndarray",
    ),
    "temperature": (lambda: DecodeOptions(temperature="1"), "^temperature must be a number; got '1' of type str"),
    "chunk": (lambda: DecodeOptions(chunk=2.5), r"^chunk must be a whole number; got 2\.5 of type float"),
    "argmax": (lambda: DecodeOptions(argmax="no"), "^argmax must be True or False; got 'no'"),
    "sample": (lambda: PROBLEM.sample(Key(0), 3.0), r"^n must be a whole number; got 3\.0 of type float"),
    "sample start": (lambda: PROBLEM.sample(Key(0), 3, start="0"), "^start must be a whole number; got '0'"),
    "save": (lambda: PROBLEM.save(3), r"^path must be text or Path\(\.\.\.\); got 3"),
    "observations": (lambda: LODistribution(np.full((4, 2), 0.5), "nae"), r"observations.*TableObservations.*'nae'"),
    "true for one": (lambda: nae(True, 3), "^q must be a whole number; got True"),
    "a class": (lambda: kesten_stigum(Predicate), r"the class Predicate, not made: write Predicate\(\.\.\.\)"),
    "a function": (lambda: planted(nae, 30, 4.0, key=Key(0)), r"the function nae, not called: write nae\(\.\.\.\)"),
    "key": (lambda: losses(EXACT, None, PROBLEM, Pattern(2), key=3, n=2), r"^key must be an address .* Key\(3\)"),
    "network": (lambda: TransformerConfig(length="8", values=2), "^length must be a whole number; got '8'"),
    "training": (lambda: TrainConfig(steps=10, batch="4"), "^batch must be a whole number; got '4'"),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_the_error_names_what_was_given_and_what_to_write(name: str) -> None:
    call, words = CALLS[name]
    with pytest.raises(ValueError, match=words):
        call()


@checked
def probe(count: int, share: float, flag: bool, where: str | Path | None = None, rows: list[int] | int = 0) -> Any:
    """A function of all kinds."""
    return count, share, flag, where, rows


def test_numbers_of_numpy_pass_and_what_no_hint_names_is_not_looked_at() -> None:
    passed = (np.int8(3), np.float32(0.5), np.bool_(True), Path("a"), "anything")
    assert probe(*passed) == passed
    assert probe(count=3, share=1, flag=False, where="a") == (3, 1, False, "a", 0)
    assert probe(3, Fraction(1, 3), True) == (3, Fraction(1, 3), True, None, 0)
    assert probe.__name__ == "probe"
    assert list(inspect.signature(probe).parameters) == ["count", "share", "flag", "where", "rows"]
    with pytest.raises(TypeError, match=r"probe\(\) missing"):
        probe(3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.float64(3), 0.5, True), r"^count must be a whole number; got .*3\.0.* of type float64"),
        ((3, True, True), "^share must be a number; got True of type bool"),
        ((3, 0.5, 1), "^flag must be True or False; got 1 of type int"),
        ((3, 0.5, None), "^flag must be True or False; got None"),
        ((3, 0.5, True, 5), r"^where must be text or Path\(\.\.\.\) or None; got 5 of type int"),
        ((None, 0.5, True), "^count must be a whole number; got None"),
    ],
)
def test_another_kind_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        probe(*arguments)


def test_a_count_is_one_or_more() -> None:
    check_count(1, "a loss is measured on at least one context")
    with pytest.raises(ValueError, match="on at least one context, got n = 0"):
        check_count(0, "a loss is measured on at least one context")


def test_the_package_is_looked_at_whole() -> None:
    assert len(dict(public())) > 100
    assert set(lo_theory.__all__) <= {name.rpartition(".")[2] for name, _ in public()} | {"MASK", "Posterior"}
