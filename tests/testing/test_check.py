"""``check``: green on the truth, at the level it states; red on every fault of the gallery, by the check it names."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

import lo_theory
from lo_theory.diffusion import (
    Bernoulli,
    BinomialRule,
    FixedCount,
    OneAtATime,
    Pattern,
    Suffix,
    TwoRates,
    Uniform,
    entropy,
    margin,
    top_probability,
    vanilla,
)
from lo_theory.posterior import ExactPosterior
from lo_theory.posterior.weak import MarginalsOnly, Mixed, Sharpened
from lo_theory.problem import LODistribution, nae_sat, random_slab, sparse_parity
from lo_theory.rng import Key
from lo_theory.testing import Claims, Judge, Report, check, holm, mean_test, z_test
from lo_theory.testing.strategies import problems
from tests.budget import accept, reject

ROOT = Path(__file__).parents[2]
GALLERY = runpy.run_path(str(ROOT / "examples" / "would_have_caught.py"))
FAULTS = {fault.what: fault for fault in GALLERY["FAULTS"]}
PARITY = sparse_parity(3, 3, 2, 0.1, seed=0)
SKEWED = LODistribution(np.array([[0.97, 0.03]] * 4), sparse_parity(4, 4, 3, 0.02, seed=0).observations)
COINS = sparse_parity(3, 3, 2, 0.5, seed=0)
NAE = nae_sat(8, 24, seed=0)


# --- the level ------------------------------------------------------------------------------------------------------------------

SAMPLERS = 200
RIGHT = {
    "sampler": (PARITY, PARITY, 2_000, SAMPLERS),
    "skewed sampler": (SKEWED, SKEWED, 2_000, SAMPLERS),
    "posterior": (ExactPosterior(SKEWED), SKEWED, 300, 20),
    "decoder": ((ExactPosterior(COINS), vanilla(), BinomialRule(3)), COINS, 500, 25),
    "bernoulli": (Bernoulli(), PARITY, 1_000, 40),
    "two rates": (TwoRates(0.3, 0.8), PARITY, 1_000, 40),
    "pattern": (Pattern(2), PARITY, 1_000, 40),
    "suffix": (Suffix(), PARITY, 1_000, 40),
}


def at_most(reds, runs, level):
    """P-value that a report is red with probability ``level`` at most."""
    return float(stats.binom.sf(reds - 1, runs, level))


def test_the_truth_is_red_at_the_stated_level_at_most():
    level, naive = 0.05, 0
    for subject, problem, n, count in RIGHT.values():
        made = [check(subject, problem, seed=seed, n=n, level=level) for seed in range(count)]
        accept("check: the level", at_most(sum(not report.ok for report in made), count, level))
        if problem is subject:
            naive += sum(any(row.p_value is not None and row.p_value < level for row in report) for report in made)
    reject("check: the level", at_most(naive, 2 * SAMPLERS, level))  # every test at the level of the family


def test_holm_is_the_rule_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [True, False, False, True]
    assert holm([0.012, 0.0126, 0.016, 0.02, 0.049], 0.05).tolist() == [False] * 5
    assert holm([0.001] * 4, 0.05).all()
    assert holm([], 0.05).tolist() == []
    with pytest.raises(ValueError, match="p-values lie in"):
        holm([1.5], 0.05)


def test_the_mean_test_is_right_where_values_are_skewed():
    generator = np.random.default_rng(4)
    values = generator.lognormal(sigma=1.0, size=(4_000, 300))
    mean = float(np.exp(0.5))
    corrected, plain = ([test(row, mean) for row in values] for test in (mean_test, z_test))
    level = 0.01
    reds = [float(np.mean(np.array(p_values) < level)) for p_values in (corrected, plain)]
    assert reds[0] < 0.75 * reds[1]
    assert level < reds[1]
    assert mean_test(np.ones(100), 1.0) == 1.0
    assert mean_test(np.ones(100), 1.1) == 0.0
    assert mean_test(values[0], values[0].mean() - 0.1, slack=0.2) == 1.0
    assert mean_test(values[0], values[0].mean() - 10, slack=1) < 1e-6


# --- green ----------------------------------------------------------------------------------------------------------------------

LAWS = [Uniform(), Bernoulli(0.4), Bernoulli(), TwoRates(0.2, 0.9), Pattern(2), Suffix(), Suffix((5, 0, 1, 4, 2, 3))]
TRUE = [
    *(ExactPosterior(problem) for problem in (NAE, nae_sat(4, 4, seed=0, q=3), random_slab(5, 7, 0.7, seed=0))),
    *((ExactPosterior(PARITY), policy(), OneAtATime()) for policy in (vanilla, margin, entropy, top_probability)),
    (ExactPosterior(COINS), vanilla(), FixedCount(4)),
    *LAWS,
]


@pytest.mark.parametrize("subject", TRUE, ids=lambda it: getattr(it, "name", type(it).__name__))
def test_the_truth_is_green(subject):
    posterior = subject[0] if isinstance(subject, tuple) else subject
    problem = getattr(posterior, "distribution", PARITY)
    report = check(subject, problem, n=1_000)
    assert report.ok, report
    assert report.failed == ()


@settings(max_examples=25)
@given(problems())
def test_the_truth_of_any_problem_is_green(problem):
    for subject in (problem, ExactPosterior(problem), Uniform()):
        report = check(subject, problem, n=300, level=1e-6)
        assert report.ok, report


def test_a_claim_allows_for_a_known_gap():
    weak = MarginalsOnly(PARITY)
    report = check(weak, PARITY, n=1_000)
    assert report.failed == ("ELBO = entropy", "KL to the exact marginals"), (
        "fair coins: calibrated, and far from exact"
    )
    assert check(weak, PARITY, n=1_000, claims=Claims(kl=0.5)).ok


def test_a_known_gap_is_a_claim_that_chance_does_not_refute():
    mixed = Mixed(ExactPosterior(NAE), MarginalsOnly(NAE), 0.05)  # KL 0.0142 nats per token
    name = "KL to the exact marginals"
    verdicts = [check(mixed, NAE, seed=seed, n=1_000, claims=Claims(kl=0.0143))[name].verdict for seed in range(3)]
    assert verdicts == ["pass"] * 3
    assert check(mixed, NAE, n=1_000, claims=Claims(kl=0.012))[name].verdict == "FAIL"


def test_rounding_of_a_network_is_no_fault():
    @dataclass
    class Rounded:
        layout = NAE.layout

        def marginals(self, tokens):
            answer = ExactPosterior(NAE).marginals(tokens)
            return replace(answer, probs=answer.probs.astype(np.float32))

    assert check(Rounded(), NAE, n=500).ok


# --- red ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[pytest.mark.soak] * (fault.check == "calibration")) for what, fault in FAULTS.items()],
)
def test_every_fault_of_the_gallery_is_found_by_the_check_that_it_names(what):
    fault = FAULTS[what]
    ok, failed, result, _ = fault.found(0, wrong=True)
    assert not ok
    assert fault.check in failed
    assert result
    if fault.n < 20_000:
        assert fault.found(1, wrong=False)[0]


def test_the_page_has_a_line_for_every_fault():
    page = (ROOT / "docs" / "would_have_caught.md").read_text()
    lines = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (?:p = |[\d.e-]+ \(exact\))[^|]* \|", page, re.M)
    assert dict(lines) == {fault.what: fault.check for fault in FAULTS.values()}


class Peeking:
    """Knows the truth of three per cent of the tokens that it is asked about: rows are drawn at a known address."""

    def __init__(self, problem):
        self.layout, self.problem, self.exact = problem.layout, problem, ExactPosterior(problem)

    def marginals(self, tokens):
        answer = self.exact.marginals(tokens)
        rows = self.problem.sample(lo_theory.Key(0).fold("check").fold("data"), len(tokens))
        mine = (tokens == rows) | (tokens < 0)
        told = (np.random.default_rng(0).random(tokens.shape) < 0.03) & (tokens < 0) & mine.all(axis=1)[:, None]
        answer.probs[told] = 0.97 * np.eye(self.layout.n_values)[rows[told]] + 0.03 * answer.probs[told]
        return answer


class Shuffled(Peeking):
    """Answers for the row before."""

    def marginals(self, tokens):
        return self.exact.marginals(np.roll(tokens, 1, axis=0))


def test_leaks_wrong_rows_and_bad_answers_are_told_apart():
    assert "no better than Bayes" in check(Peeking(NAE), NAE, n=1_000).failed
    failed = check(Shuffled(NAE), NAE, n=400).failed
    assert {"revealed tokens kept", "rows independent of the batch", "calibration"} <= set(failed)
    bad = Peeking(NAE)
    bad.marginals = lambda tokens: replace(bad.exact.marginals(tokens), probs=np.zeros((len(tokens), 32, 2)))
    report = check(bad, NAE, n=400)
    assert report.failed == ("well formed",)
    assert "sums to 0" in report["well formed"].meaning


def test_calibration_finds_what_it_says_it_finds():
    noisy = nae_sat(8, 24, seed=0, noise=0.1)
    exact = ExactPosterior(noisy)
    said = float(re.search(r"by ([\d.]+) %", check(exact, noisy, n=1_000)["calibration"].finds)[1]) / 100
    assert 0.05 < said < 0.25

    def found(excess):
        made = (check(Sharpened(exact, excess), noisy, n=1_000, seed=seed) for seed in range(6))
        return sum("calibration" in report.failed for report in made)

    assert (found(said) >= 5, found(-said) >= 5, found(said / 4) <= 1) == (True, True, True)


def test_laws_are_held_to_their_own_loss():
    for law, other in ((Bernoulli(0.4), Bernoulli(0.5)), (Uniform(), TwoRates(0.5, 0.5)), (Pattern(2), Pattern(1))):
        measure = lambda masked, layout, other=other: lo_theory.testing.claims.measure_of(other, Claims())[0](  # noqa: E731
            masked, layout
        )
        assert check(law, PARITY, n=20_000, claims=Claims(measure=measure)).failed == ("mask weights unbiased",)
    long = check(Uniform(), NAE, n=2_000)
    assert "up to L = 10" in long["mask weights unbiased"].meaning
    assert long.ok


def test_decoders_that_break_a_promise():
    short = replace(FixedCount(4))
    parallel = check((ExactPosterior(PARITY), vanilla(), short), PARITY, n=1_000)
    assert "law of the data: probability" in parallel.failed
    assert parallel["likelihood of all strings sums to 1"].verdict == "n/a"
    weak = check((MarginalsOnly(PARITY), margin(), OneAtATime()), PARITY, n=1_000)
    assert "law of the data: by likelihood" in weak.failed
    assert weak["likelihood of all strings sums to 1"].ok

    class Half:
        name = "half"

        def plan(self, view, budget):
            return vanilla().plan(view, budget // 2)

    halved = check((ExactPosterior(PARITY), Half(), FixedCount(3)), PARITY, n=1_000)
    assert halved.failed == ("budget kept", "everything revealed at the end")
    bounded = runpy.run_path(str(ROOT / "examples" / "policy.py"))["ExpectedErrors"](0.0)
    assert check(bounded, PARITY, n=1_000, claims=Claims(budget="least")).ok


# --- the table and its refusals -------------------------------------------------------------------------------------------------


def test_the_table_is_text_and_its_rows_have_names():
    report = lo_theory.check(NAE, NAE, n=6_000)
    assert "all pass" in str(report)
    assert "fails a test with a p-value (here 5) with probability 0.001 at most, all together" in str(report)
    assert max(map(len, str(report).splitlines())) <= 132
    row = report["law of the data: joint"]
    assert row.result.startswith("p = ")
    assert "finds any law at total variation" in row.meaning
    assert [row.verdict for row in check(NAE.sample, NAE, n=6_000)] == ["pass"] * 8
    with pytest.raises(KeyError, match="there are well formed"):
        report["nonsense"]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (3, "check takes a sampler"),
        (ExactPosterior, "check takes a sampler"),
        ((ExactPosterior(NAE), margin()), "a tuple"),
        (
            lo_theory.as_module(ExactPosterior(NAE)),
            r"Oracle is a network: check the posterior that from_logits\(network, problem\)",
        ),
    ],
)
def test_what_is_no_subject_is_refused(subject, words):
    with pytest.raises(ValueError, match=words):
        check(subject, NAE)


def test_bad_arguments_are_refused():
    for options, words in (
        ({"n": 10}, "needs n >= 200 draws for its tests, got 10$"),
        ({"level": 1.0}, "level is a probability"),
    ):
        with pytest.raises(ValueError, match=words):
            check(NAE, NAE, **options)
    for make, words in (
        (lambda: Judge(len, "colour"), "a judge tells"),
        (lambda: Claims(budget="most"), "budget is"),
        (lambda: Claims(kl=-1), "not negative"),
        (lambda: check(Judge(lambda *given: np.zeros(3)), NAE), "one value a sequence"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    assert check(lambda n: np.zeros((n, 3), int), NAE).failed == ("well formed",)
    assert check(lambda n: np.full((n, 32), -1), NAE).failed == ("everything revealed at the end",)


@pytest.mark.parametrize("problem", [nae_sat(8, 24, seed=0), nae_sat(20, 80, seed=0)], ids=["small", "large"])
@pytest.mark.parametrize("lag", [1, 3, 8])
def test_copies_a_few_rows_apart_are_found_in_the_share_that_is_stated(problem: LODistribution, lag: int) -> None:
    """Copies of the share that the check says it finds with probability 0.99, in every one of eight seeds."""
    n = 2000
    share = float(check(problem, problem, n=n)["rows independent of each other"].finds.split()[6])
    assert 0 < share < 0.2

    def copying(key: Key, count: int) -> np.ndarray:
        tokens = problem.sample(key, count).copy()
        firsts = np.flatnonzero(np.arange(count) // lag % 2 == 0)
        firsts = firsts[firsts + lag < count]
        chosen = firsts[key.fold("copies").generator().random(len(firsts)) < share * 1.2]
        tokens[chosen + lag] = tokens[chosen]
        return tokens

    verdicts = [check(copying, problem, n=n, seed=seed)["rows independent of each other"].ok for seed in range(8)]
    assert verdicts == [False] * 8


def test_a_report_without_tests_of_chance_says_so() -> None:
    assert "depends on chance" in str(Report.of("it", "a problem", 1e-3, ()))
