"""The table of claims: known answers, and that a verdict follows the numbers."""

from __future__ import annotations

import re

import pytest

from lo_theory.diffusion import POLICIES, Sums
from lo_theory.lab.experiments import sampler_claims
from lo_theory.lab.experiments.sampler_claims import CLAIMS, ladder, tables
from lo_theory.lab.frame import from_rows
from lo_theory.lab.rows import Row
from lo_theory.lab.settings import policy
from lo_theory.rng import Key

CASES = {case.length: case for case in ladder(Key(3), 200, 1)}
FREE = ("certain tokens", "first hitting", "corrector", "factor", "profile, mode", "likelihood")


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("length", [4, 6, 8])
def test_what_must_hold_does(name, length) -> None:
    measured, against = CLAIMS[name].measure(CASES[length])
    assert against.mean == 0
    assert abs(measured.mean) < 1e-9


@pytest.mark.parametrize(
    ("name", "length"),
    [("corrector, several", 4), ("corrector, informed", 6), ("corrector, remasking", 4), ("factor, drawn", 6)],
)
def test_what_moves_the_law_is_seen(name, length) -> None:
    measured, _ = CLAIMS[name].measure(CASES[length])
    assert measured.mean > 1e-3


def test_known_numbers_of_one_triple() -> None:
    """Four tokens, one a triple: margin takes two latents with the observation, or the three latents' last."""
    two_of_three, _ = CLAIMS["corrector, several"].measure(CASES[4])
    assert two_of_three.mean == pytest.approx(1 / 6)
    step, tolerance = CLAIMS["entropy bound"].measure(CASES[4])
    assert tolerance.mean == 0.5
    assert step.mean <= 0.5


def test_the_ladder_is_in_the_order_of_length_and_names_it() -> None:
    assert list(CASES) == sorted(CASES)
    assert all(case.name.endswith(f"L = {length}") for length, case in CASES.items())


def test_every_claim_has_a_source_and_rules_that_exist() -> None:
    assert len(CLAIMS) >= 12
    for claim in CLAIMS.values():
        assert claim.source
        assert claim.quote
        for name in re.findall(r"\b[a-z0-9_]+(?=\()", claim.statement):
            assert name in POLICIES
    assert policy("p2(1)").name


def rows(*numbers: tuple[str, Sums, Sums]) -> list[Row]:
    keys = {"kind": "claim", "row": 0, "claim": "threshold"}
    return [
        Row("row0/claim/threshold", metric, sums, {**keys, "on": on})
        for on, measured, against in numbers
        for metric, sums in (("measured", measured), ("against", against))
    ]


def shown(*numbers: tuple[str, Sums, Sums]) -> list[str]:
    (table,) = tables(from_rows(rows(*numbers)))
    return table.sections[0][0]


def test_a_verdict_follows_the_numbers() -> None:
    nothing, noise, much = Sums.single(0.0), Sums.of([1.0, -0.9] * 50), Sums.of([1.0, 0.9] * 50)
    small, large = ("L = 4", nothing, nothing), ("L = 8", much, nothing)
    assert shown(small, ("L = 8", noise, nothing))[3] == "not refuted"
    line = shown(small, large, ("L = 10", much, nothing))
    assert line[3] == "refuted"
    assert line[4] == "L = 8: 0.95 against 0"
    assert line[5] == "L = 10: 0.95 against 0"
    assert shown(small, ("L = 8", nothing, much))[3] == "not refuted"
    assert shown(("L = 8", Sums.single(2e-6), nothing))[3] == "refuted"


def test_a_frame_without_claims_has_no_table() -> None:
    keys = {"kind": "problem", "row": 0}
    assert list(tables(from_rows([Row("row0/problem", "floor", Sums.single(1.0), keys)]))) == []


def test_a_broken_rule_is_found(monkeypatch) -> None:
    """A threshold that reveals everything at once costs the total correlation."""
    monkeypatch.setitem(POLICIES, "threshold", lambda tau: POLICIES["entropy_bounded"](1e9))
    measured, _ = CLAIMS["threshold"].measure(CASES[6])
    assert measured.mean > 0.1
    assert sampler_claims.CLAIMS["threshold"].statement.startswith("threshold(0.9)")
