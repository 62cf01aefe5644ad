"""The experiment on families: the satisfied mask law, settings, rows against known truths, verdicts, tables, figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import LAWS, TwoRates, Uniform
from lo_theory.diffusion.satisfied import Satisfied
from lo_theory.diffusion.statistics import Runs, Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.experiments.families import (
    check_exact,
    evaluation_law,
    gaps,
    nothing,
    verdict,
)
from lo_theory.lab.frame import Record, from_rows
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.settings import check_laws
from lo_theory.posterior import ExactPosterior, MarginalsOnly
from lo_theory.problem import MASK, Layout, nae_sat
from lo_theory.rng import Key
from tests.lab.tiny import tiny_of

Found = dict[tuple[str, str, str], Record]
LAYOUT = Layout(3, 6, 2, 2, np.array([4, 0, 8, 1, 2, 3, 5, 6, 7]))
_LAWS = ["uniform", "two_rates(1,0)", "two_rates(0.5,0)"]


def tiny(**changes: Any) -> dict[str, Any]:
    return tiny_of("families", **changes)


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("families")


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


@pytest.fixture(scope="module")
def found(frame: Any, experiment: Experiment) -> Found:
    return {(gap.law, gap.family, gap.role): gap for gap in gaps(frame, experiment)}


# --- the mask law -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_satisfied_hides_the_observations_of_value_zero_and_latents_at_its_rate(rate: float) -> None:
    tokens = np.tile(np.array([1, 0, 1, 1, 0, 0, 1, 0, 1], np.int8), (40, 1))
    masked, weight = Satisfied(rate).sample(Key(1), tokens, LAYOUT)
    assert masked.shape == weight.shape == (1, 40, 9)
    assert weight.dtype == np.float32
    observed = ~LAYOUT.is_latent
    assert (masked[0][:, observed] == (tokens[:, observed] == 0)).all()
    latents, _ = TwoRates(rate, 1.0).sample(Key(1), tokens, LAYOUT)
    assert (masked[0][:, ~observed] == latents[0][:, ~observed]).all()
    assert weight[0].sum(axis=1) == pytest.approx(1.0)
    assert ((weight > 0) == masked).all()


def test_satisfied_answers_a_row_by_its_number_alone_and_weighs_nothing_where_nothing_is_hidden() -> None:
    tokens = np.random.default_rng(0).integers(0, 2, (20, 9)).astype(np.int8)
    whole, part = (Satisfied(0.5).sample(Key(2), tokens[i:], LAYOUT, start=i) for i in (0, 7))
    for one, other in zip(whole, part, strict=True):
        assert (one[:, 7:] == other).all()
    assert not any(array.any() for array in Satisfied(0.0).sample(Key(1), np.ones((3, 9), np.int8), LAYOUT))


def test_satisfied_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match="r = 3"):
        Satisfied().sample(Key(0), np.zeros((1, 5), np.int8), Layout(2, 3, 2, 3))
    with pytest.raises(ValueError, match="rate of latents"):
        Satisfied(1.5)


@dataclass(frozen=True)
class Heavy:
    """A law of one's own whose weights sum to two."""

    name: str = "heavy"

    def sample(self, key: Key, tokens: np.ndarray, layout: Layout, *, start: int = 0) -> Any:
        masked, weight = Uniform().sample(key, tokens, layout, start=start)
        return masked, 2 * weight - 4 * ~masked


def test_a_law_of_ones_own_is_checked_wherever_masks_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAWS, "heavy", Heavy)
    row = resolve(tiny(evaluation={"laws": ["heavy"]})).rows[1]
    with pytest.raises(ValueError, match=r"evaluation\.laws: heavy gives row 0 at position \d+ the weight -4"):
        check_laws([("evaluation.laws", ["heavy"])], LAYOUT)
    with pytest.raises(ValueError, match="heavy gives row 0"):
        check_exact(row, row.problem.make())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_laws_are_read_by_the_names_that_tables_print() -> None:
    for text in ("satisfied", "satisfied(0.75)", "uniform", "two_rates(1,0)"):
        assert evaluation_law(text).name == text
    assert evaluation_law("satisfied(1)") == Satisfied()
    for text, message in (("satisfid", "unknown mask law"), ("satisfied(2)", "2"), ("satisfied(1.1.1)", "1.1.1")):
        with pytest.raises(ValueError, match=message):
            evaluation_law(text)


# --- what is measured -------------------------------------------------------------------------------------------------


def test_single_tokens_answer_whatever_is_revealed_as_bayes_does_with_nothing_revealed() -> None:
    distribution = nae_sat(6, 12, seed=1)
    posterior, exact = MarginalsOnly(distribution), ExactPosterior(distribution)
    tokens = distribution.sample(Key(0), 3)
    tokens[:, ::2] = MASK
    probs = posterior.marginals(tokens).probs
    assert probs.sum(axis=2) == pytest.approx(1.0)
    assert (probs[:, 1::2].argmax(axis=2) == tokens[:, 1::2]).all()
    hidden = exact.marginals(np.full((1, 18), MASK, np.int8)).probs[0]
    assert probs[0, ::2] == pytest.approx(hidden[::2])


def test_first_and_last_are_the_shortest_and_the_longest_training(finished: FinishedRun, found: Found) -> None:
    for law, family, role in found:
        own = {"kind": "losses", "posterior": "mdm", "law": law, "role": role}
        for who, keys in {"": own, "aware ": {"kind": "along"}}.items():
            for name, steps in (("first", 5), ("last", 10)):
                asked = {**keys, "family": family, "training_steps": steps}
                (row,) = (row for row in finished.rows if row.metric == "kl" and asked.items() <= row.keys.items())
                assert found[law, family, role].value(f"{who}{name} kl") == row.sums.mean


def test_symmetric_problems_leave_single_latents_unknown_and_odd_parities_do_not(
    found: Found,
) -> None:
    unknown = {place[:2] for place, gap in found.items() if place[2] == "all" and nothing(gap)}
    assert unknown == {("two_rates(1,0)", "slab")}
    assert verdict(found["two_rates(1,0)", "slab", "all"]) == "nothing to know"


def test_the_gap_of_bp_on_odd_parities_is_all_there_is_to_know(found: Found) -> None:
    gap = found["two_rates(1,0)", "odd parity", "all"]
    assert gap.value("marginals kl") == pytest.approx(math.log(2)), "Bayes knows every latent"
    assert gap.value("bp kl") == pytest.approx(math.log(2))
    assert verdict(gap).startswith("level with BP; gap "), "neither knows anything"


# --- the verdicts -----------------------------------------------------------------------------------------------------


def around(mean: float, spread: float = 0.01) -> Sums:
    return Sums.of([mean - spread, mean + spread] * 50)


def judged(**measured: Sums | None) -> str:
    """The verdict on what was measured, of what there is to know where it is left out."""
    names = {"first": "first kl", "last": "last kl", "bp": "bp kl", "above": "last kl_above", "known": "marginals kl"}
    given = {"known": around(0.7), **measured}
    sums = {names[name]: Runs.of(one) for name, one in given.items() if one is not None}
    return verdict(Record({"learned": 0.05}, {name: (runs.estimate(), runs) for name, runs in sums.items()}))


@pytest.mark.parametrize(
    ("half", "whole", "above", "expected"),
    [
        (0.5, 0.01, None, "learned"),
        (0.5, 0.2, 0.2, "above BP; gap falls"),
        (0.5, 0.5, 0.5, "above BP; gap flat"),
        (0.2, 0.5, 0.5, "above BP; gap rises"),
        (0.5, 0.5, 0.0, "level with BP; gap flat"),
        (0.5, 0.5, 0.01, "level with BP; gap flat"),  # above, but by less than what counts
        (0.5, 0.4, -0.2, "below BP; gap falls"),
        (0.5, 0.2, None, "not compared with BP; gap falls"),
    ],
)
def test_a_verdict_follows_from_the_intervals(half: float, whole: float, above: float | None, expected: str) -> None:
    difference = None if above is None else around(above)
    assert judged(first=around(half), last=around(whole), bp=around(0.3), above=difference) == expected


def test_wide_intervals_say_little() -> None:
    wide = around(0.01, spread=0.5)
    models = {"first": around(0.5), "last": wide}
    assert judged(**models) == "no BP; gap falls"
    assert judged(**models, bp=wide, above=wide) == "not distinguished from BP; gap falls"
    assert judged(**models, bp=wide, above=around(0.0)) == "level with BP; gap falls", "paired, they are level"
    assert judged(last=around(0.5)) == "no BP; gap flat", "one training"
    assert judged(first=around(0.5), last=around(0.5), known=Sums.of([0.0] * 9)) == "nothing to know"
