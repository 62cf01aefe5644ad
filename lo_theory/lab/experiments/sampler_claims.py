"""What public decoding rules claim, each as an inequality between two measured numbers, on problems of growing size.

A claim is refuted where its number exceeds what it is held against on one of them. The denoiser is the exact posterior,
so whatever is lost is lost by the rule. The smallest such problem is its counterexample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lo_theory.diffusion import (
    Counts,
    DecodeCost,
    DecodeOptions,
    InformationCurve,
    Schedule,
    Sums,
    TopK,
    View,
    best_counts,
    certificates,
    decode,
    decode_cost,
    information_curve,
    log_likelihood,
    margin,
    schedule_counts,
    true_margin,
)
from lo_theory.diffusion.correctors import Corrector, Gibbs, Rehide, moved_law
from lo_theory.lab.frame import Frame, Record, of_kind, parts
from lo_theory.lab.settings import policy, schedule
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table import Column, Table, key, number, text
from lo_theory.lab.units import Unit
from lo_theory.posterior import ExactPosterior, MarginalsOnly, Mixed
from lo_theory.problem import LODistribution, TableObservations, colouring, nae, nae_sat, sparse_parity
from lo_theory.problem.families import predicate_observations
from lo_theory.rng import Key

_TINY = 1e-6  # nats: less is rounding
_LISTED = 10  # tokens up to which all strings are listed
_LONG = 64  # tokens from which fewer sequences are measured, and none generated
_NOTHING = Sums.single(0.0)

Both = tuple[Sums, Sums]
"""What is measured, and what it is held against."""


@dataclass(frozen=True)
class Case:
    """One problem, its exact posterior, and how many sequences a cost is measured on."""

    name: str
    problem: LODistribution
    exact: ExactPosterior
    key: Key
    n: int

    @property
    def length(self) -> int:
        """L."""
        return self.problem.layout.length

    def cost(self, rule: str, steps: Schedule) -> DecodeCost:
        """Of the rule with the exact denoiser, on the same sequences for all rules."""
        return decode_cost(self.exact, policy(rule), steps, self.problem, key=self.key, n=self.n)

    def few(self) -> int:
        """Steps of at most four tokens each, at least two."""
        return max(2, -(-self.length // 4))


@dataclass(frozen=True)
class Claim:
    """Who claims what in which words, and what is measured of it: ``statement`` says that the first of the two numbers
    of ``measure(case)`` is at most the second; None where a problem is too large for it.
    """

    source: str
    quote: str
    statement: str
    measure: Callable[[Case], Both | None]


def ladder(key: Key, n: int, threads: int) -> Iterator[Case]:
    """Problems in the order of their length; on the longest a tenth of the sequences."""
    triple, path = np.array([[0, 1, 2]], np.int32), np.array([[0, 1, 2], [1, 2, 3]], np.int32)
    edges = np.array(list(itertools.combinations(range(4), 2)), np.int32)
    found = {
        "NAE, 1 triple, L = 4": _uniform(3, 2, predicate_observations(nae(2, 3), triple)),
        "NAE, 2 triples, L = 6": _uniform(4, 2, predicate_observations(nae(2, 3), path)),
        "noisy parity, L = 8": sparse_parity(4, 4, 3, 0.1, seed=0),
        "3-colouring of K4, L = 10": _uniform(4, 3, predicate_observations(colouring(3), edges)),
        "NAE (8, 24), L = 32": nae_sat(8, 24, seed=0),
        "NAE (25, 275), L = 300": nae_sat(25, 275, seed=0),
    }
    for name, problem in found.items():
        measured = n if problem.layout.length < _LONG else max(2, n // 10)
        yield Case(name, problem, ExactPosterior(problem, threads=threads), key.fold(name), measured)


def _uniform(n: int, q: int, observations: TableObservations) -> LODistribution:
    return LODistribution(np.full((n, q), 1 / q), observations)


def _free(rule: str, case: Case) -> Both:
    """The nats of a rule that chooses how many tokens it reveals, against none."""
    return case.cost(rule, schedule("fixed_count", case.length)).total, _NOTHING


def _no_dearer(rule: str, than: str, case: Case) -> Both:
    """Nats of one rule and of another in steps of at most four tokens."""
    steps = schedule("fixed_count", case.few())
    return case.cost(rule, steps).total, case.cost(than, steps).total


def _mode(rule: str, case: Case) -> Both | None:
    """Share of the contexts in which the most likely tokens of several positions revealed at once are not the most
    likely string there, all strings listed.
    """
    if case.length > _LISTED:
        return None
    strings = _strings(case.problem)
    weights = np.exp(case.problem.log_prob(strings))
    wrong: list[bool] = []

    def judge(view: View, next_masked: np.ndarray) -> None:
        for tokens, shown, laws in zip(view.tokens, view.masked & ~next_masked, view.marginals.probs, strict=True):
            if shown.sum() > 1:
                fits = ((tokens < 0) | (strings == tokens)).all(axis=1)
                _, which = np.unique(strings[:, shown], axis=0, return_inverse=True)
                joint = np.bincount(which.ravel(), weights * fits)
                product = (strings[:, shown] == laws[shown].argmax(axis=1)).all(axis=1)
                wrong.append(bool(joint[which.ravel()[product][0]] < joint.max() - _TINY))

    steps = schedule("fixed_count", case.length)
    decode(case.exact, policy(rule), steps, key=case.key, n=200, options=DecodeOptions(observer=judge))
    return (Sums.of(np.array(wrong, float)) if wrong else _NOTHING), _NOTHING


def _strings(problem: LODistribution) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, problem.layout.values.tolist()))), np.int8)


def _within_tolerance(gamma: float, case: Case) -> Both:
    """The dearest step of an entropy-bounded decode, against the tolerance."""
    steps = case.cost(f"entropy_bounded({gamma})", schedule("fixed_count", case.length)).steps
    return max((step.dependence for step in steps), key=lambda one: one.mean), Sums.single(gamma)


def _fewer_passes(case: Case) -> Both:
    steps = schedule("fixed_count", case.length)
    return case.cost("frechet(0)", steps).calls, case.cost("factor(1)", steps).calls


def _likelihoods(case: Case) -> Both | None:
    """How far the likelihoods of all strings are from one in sum, under a denoiser that is not exact."""
    if case.length > _LISTED:
        return None
    weak = Mixed(case.exact, MarginalsOnly(case.problem), 0.3)
    steps, by_margin = schedule("fixed_count", case.length), margin().score
    rule = TopK("margin, the first of equals", lambda view: by_margin(view) - 1e-6 * np.arange(case.length))
    logs = log_likelihood(weak, rule, steps, _strings(case.problem), key=case.key)
    return Sums.single(abs(float(np.exp(logs).sum()) - 1)), _NOTHING


def _curve_of(case: Case) -> InformationCurve:
    return information_curve(case.exact, case.problem, key=case.key.fold("curve"), n=case.n)


def _below_certificate(case: Case) -> Both:
    """Nats of equal steps in random order, against the bound by mutual informations."""
    curve = _curve_of(case)
    counts = schedule_counts(schedule("fixed_count", case.few()), case.length, case.key)
    return curve.cost(counts), Sums.single(certificates(curve.nats, counts)["MI, 2505.21400"])


def _logarithmic(case: Case) -> Both:
    """Nats of the best ceil(log2 L) steps in random order, against a hundredth of the entropy."""
    curve = _curve_of(case)
    counts = best_counts(curve.nats, max(1, math.ceil(math.log2(case.length))))
    return curve.cost(counts), Sums.single(0.01 * case.problem.entropy())


def _sizes_no_dearer(name: str, case: Case) -> Both:
    """Nats of random order by one schedule, and in equal steps."""
    first, second = (case.cost("vanilla", schedule(one, case.few())).total for one in (name, "fixed_count"))
    return first, second


def _two_steps(case: Case) -> Both:
    """Nothing, against the nats of latents first and observations second: a claim that few steps must cost."""
    layout = case.problem.layout
    found = case.cost("fixed_order", Counts((layout.n_latents, layout.n_observations)))
    return Sums.single(_TINY * 10), found.total


def _with_the_answer(case: Case) -> Both:
    """Nats along the order of Gt-Margin, which reads the sequence, and along that of the margin."""
    truth = case.problem.sample(case.key.fold("data"), case.n)
    steps = schedule("fixed_count", case.few())
    oracle = decode_cost(case.exact, true_margin(truth), steps, case.problem, key=case.key, n=case.n)
    return oracle.total, case.cost("margin", steps).total


def _moved(corrector: Corrector, case: Case) -> Both | None:
    """Total variation between the law of the data and what one corrector step makes of it, all strings listed."""
    if case.length > _LISTED:
        return None
    (moved,) = moved_law(case.problem, [corrector])
    return Sums.single(moved.total_variation), _NOTHING


def _wrong(rule: str, than: str, case: Case, *, times: int = 2) -> Both | None:
    """Share of impossible sequences among those generated in as many steps of the one and of the other, ``times`` as
    many as true sequences of other claims.
    """
    if case.length > _LONG:
        return None
    steps = schedule("binomial", 2 * case.few())
    decoded = (decode(case.exact, policy(one), steps, key=case.key, n=times * case.n) for one in (rule, than))
    first, second = (Sums.of(np.isneginf(case.problem.log_prob(one.tokens))) for one in decoded)
    return first, second


CLAIMS: Mapping[str, Claim] = {
    "adaptive order": Claim(
        "Train for the Worst, Plan for the Best, 2502.06768",
        "by adaptively choosing the token decoding order, we can substantially enhance the capabilities of MDMs",
        "margin costs no more than random order, at most four tokens a step",
        partial(_no_dearer, "margin", "vanilla"),
    ),
    "threshold": Claim(
        "Fast-dLLM, 2505.22618",
        "selectively decodes tokens exceeding a confidence threshold, [...] maintaining generation quality",
        "threshold(0.9) costs nothing",
        partial(_free, "threshold(0.9)"),
    ),
    "factor": Claim(
        "Fast-dLLM, 2505.22618",
        "selectively decodes tokens exceeding a confidence threshold, mitigating dependency violations",
        "what factor(1) reveals at once is, taken as most likely tokens, the most likely string",
        partial(_mode, "factor(1)"),
    ),
    "factor, drawn": Claim(
        "Fast-dLLM, 2505.22618",
        "maintaining generation quality",
        "factor(1) costs nothing when tokens are drawn",
        partial(_free, "factor(1)"),
    ),
    "profile": Claim(
        "Fast-dLLM++, 2606.02955",
        "adds a provable heterogeneity bonus when the selected tokens have uneven confidences",
        "frechet(0) takes no more passes than factor(1)",
        _fewer_passes,
    ),
    "profile, mode": Claim(
        "Fast-dLLM++, 2606.02955",
        "Distribution-free Fréchet-Hoeffding lower bound on joint correctness",
        "what frechet(0) reveals at once is, taken as most likely tokens, the most likely string",
        partial(_mode, "frechet(0)"),
    ),
    "entropy bound": Claim(
        "EB-Sampler, 2505.24857",
        "dynamically unmasks multiple tokens in one function evaluation with predefined approximate error tolerance",
        "no step of entropy_bounded(0.5) costs more than 0.5 nats in the mean",
        partial(_within_tolerance, 0.5),
    ),
    "certain tokens": Claim(
        "EB-Sampler, 2505.24857",
        "a given sequence of partially masked tokens determines the values of multiple unknown tokens",
        "entropy_bounded(0), which reveals together only what is certain, costs nothing",
        partial(_free, "entropy_bounded(0)"),
    ),
    "stability": Claim(
        "KLASS, 2511.05664",
        "speeds up generation significantly while maintaining sample quality",
        "stable(0.01, 0.9) costs nothing",
        partial(_free, "stable(0.01,0.9)"),
    ),
    "information gain": Claim(
        "Info-Gain Sampler, 2602.18176",
        "consistently outperforms existing samplers for MDMs",
        "information_gain(8) costs no more than margin, at most four tokens a step (it scores single positions, the "
        "release sets)",
        partial(_no_dearer, "information_gain(8)", "margin"),
    ),
    "position": Claim(
        "PC-Sampler, 2508.13021",
        "Position-Aware Calibration of Decoding Bias in Masked Diffusion Models (title)",
        "position_calibrated(0.25, 10) costs no more than top probability, at most four tokens a step (latents come "
        "first in these sequences, which its discount by position happens to favour)",
        partial(_no_dearer, "position_calibrated(0.25,10)", "top_probability"),
    ),
    "remasking": Claim(
        "ReMDM, 2503.00307",
        "when the computation budget is limited, ReMDM better maintains quality",
        "remdm_cap(0.1) writes no more impossible sequences than vanilla in as many steps",
        partial(_wrong, "remdm_cap(0.1)", "vanilla", times=10),
    ),
    "remasking, as released": Claim(
        "ReMDM, 2503.00307",
        "when the computation budget is limited, ReMDM better maintains quality",
        "remdm_cap(0.008), a rate of the released scripts, writes no more impossible sequences than vanilla",
        partial(_wrong, "remdm_cap(0.008)", "vanilla", times=10),
    ),
    "planning": Claim(
        "Path Planning (P2), 2502.03540",
        "critically enhances generative quality through the new capability of refining and updating existing unmasked "
        "tokens",
        "p2(1) writes no more impossible sequences than top probability in as many steps",
        partial(_wrong, "p2(1)", "top_probability"),
    ),
    "corrector": Claim(
        "Gibbs sampling",
        "(textbook, not quoted: redrawing one token given all others keeps the law)",
        "one position chosen at random and redrawn leaves the law of the data as it is",
        partial(_moved, Gibbs("random", 1)),
    ),
    "corrector, informed": Claim(
        "Informed correctors, 2407.21243",
        "(no claim of theirs, tested here: redrawing where the model is least sure keeps the law)",
        "redrawing the least confident position leaves the law of the data as it is",
        partial(_moved, Gibbs("least_confident", 1)),
    ),
    "corrector, several": Claim(
        "Informed correctors, 2407.21243",
        "(no claim of theirs, tested here: several redrawn at once keep the law)",
        "redrawing two positions at once, chosen at random, leaves the law of the data as it is",
        partial(_moved, Gibbs("random", 2)),
    ),
    "corrector, remasking": Claim(
        "ReMDM, 2503.00307",
        "(no claim of theirs, tested here: hiding again at the end keeps the law)",
        "hiding each token with probability 0.1 and redrawing the hidden at once leaves the law as it is",
        partial(_moved, Rehide(0.1)),
    ),
    "first hitting": Claim(
        "First-hitting sampler, 2409.02908",
        "theoretically equivalent to MDMs' original generation process",
        "one uniform position a step costs nothing",
        partial(_free, "vanilla"),
    ),
    "likelihood": Claim(
        "DUEL, 2603.01367",
        "DUEL samplers admit exact likelihood computation under the test-time distribution",
        "with a denoiser that is not exact, the likelihoods of all strings along margin's paths sum to one (the first "
        "of equal positions; where ties are broken at random, they do not)",
        _likelihoods,
    ),
    "certificate": Claim(
        "Li and Cai, 2505.21400",
        "decays inversely with the number of iterations T and scales linearly with the mutual information",
        "equal steps of at most four tokens in random order cost no more than the bound by mutual informations",
        _below_certificate,
    ),
    "logarithmic": Claim(
        "Chen, Cong and Li, 2511.04647",
        "in some natural settings, one can sample in O(log n) steps without any visible loss in performance",
        "these problems are such settings: the best log2 L steps in random order cost at most 1 % of the entropy",
        _logarithmic,
    ),
    "random sizes": Claim(
        "Adaptation to Intrinsic Dependence, 2602.20126",
        "the benefit of randomized unmasking sizes in inference schedule design",
        "random sizes cost no more than equal ones, in as many steps on random order",
        partial(_sizes_no_dearer, "random_sizes"),
    ),
    "cosine": Claim(
        "MaskGIT, 2202.04200",
        "(its schedule, not quoted: few tokens at first, more later)",
        "the cosine costs no more than equal steps, in random order",
        partial(_sizes_no_dearer, "cosine"),
    ),
    "few steps": Claim(
        "Is Your Diffusion Sampler Actually Correct?, 2602.19619",
        "not distributionally correct even under an oracle denoiser, with transition-level mismatch that vanishes only "
        "as the number of steps approaches the sequence length",
        "latents first, then all observations, in two steps, costs more than 1e-5 nats",
        _two_steps,
    ),
    "with the answer": Claim(
        "Gt-Margin, 2602.09501",
        "leveraging this oracle unmasking order significantly enhances final generation quality",
        "the order that reads the answer costs no more than margin, at most four tokens a step",
        _with_the_answer,
    ),
}


def units(s: Subject, n: int) -> Iterator[Unit]:
    """One unit for each claim, on n sequences of each problem."""
    for name in CLAIMS:
        yield s.unit(f"claim/{name}", f"claim {name}", partial(_found, s, name, n))


def _found(s: Subject, name: str, n: int) -> list[Finding]:
    found = []
    for case in ladder(s.key.fold("claims"), n, s.threads):
        measured = CLAIMS[name].measure(case)
        if measured is not None:
            numbers = dict(zip(("measured", "against"), measured, strict=True))
            found.append(Finding("claim", {"claim": name, "on": case.name}, numbers))
    return found


def _exceeds(line: Record) -> bool:
    """Whether what is measured exceeds what it is held against, beyond 3.3 standard errors of the difference."""
    first, second = line.estimate("measured"), line.estimate("against")
    halves = [0.0 if math.isnan(one.half) else one.half for one in (first, second)]  # nan: an exact number
    return first.value - second.value - 3.3 / 1.96 * math.hypot(*halves) > _TINY


def _shown(line: Record) -> str:
    return f"{number(line.value('measured'), '.3g')} against {number(line.value('against'), '.3g')}"


def tables(frame: Frame) -> Iterator[Table]:
    """Each claim with its source, and what became of it."""
    lines = []
    for found in parts(of_kind(frame, "claim"), "claim"):
        against = [line for line in found if _exceeds(line)]
        keys = {
            "verdict": "refuted" if against else "not refuted",
            "smallest": f"{against[0].on}: {_shown(against[0])}" if against else "",
            "largest": f"{found[-1].on}: {_shown(found[-1])}",
        }
        lines.append(found[0].plus(**keys))
    if lines:
        yield Table("Claims of decoding rules, with the exact denoiser", _COLUMNS, lines, notes=_NOTES)


def _of(part: str) -> Callable[[Record], str]:
    return lambda line: str(getattr(CLAIMS[line.claim], part))


_COLUMNS: Sequence[Column] = (
    text("source", _of("source")),
    text("claim", _of("quote")),
    text("measured", _of("statement")),
    key("verdict", left=True),
    key("smallest", "smallest counterexample", left=True),
    key("largest", "largest problem", left=True),
)

_NOTES = (
    "Measured is an inequality between two numbers (nats a sequence, passes or shares), first against second. Refuted: "
    "the first is larger on one of the problems tried, beyond 3.3 standard errors of the difference as if the two were "
    "independent; the smallest such problem is the counterexample. Else it is not refuted, which is no proof. The "
    "denoiser is the exact posterior: what a rule does for a worse one is in the other tables. Where all strings are "
    "listed the largest problem has L = 10."
)
