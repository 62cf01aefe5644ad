"""For which weakness of a denoiser does an adaptive order pay? Denoisers whose weakness is known, against the truth.

python examples/weak_denoisers.py [--problem 8 24] [--sequences 300] [--only NAME ...] [--model CHECKPOINT]

Prints what decodes cost one token a step and in L/8 steps, where along a decode and on which tokens it is lost, and
what the KL by mask pattern predicts of the order. All policies of a denoiser walk the same true sequences.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lo_theory import (
    MASK,
    BPPosterior,
    ExactPosterior,
    Key,
    Layout,
    LODistribution,
    Marginals,
    Posterior,
    decode,
    nae_sat,
)
from lo_theory.diffusion import (
    DecodeOptions,
    FixedCount,
    ObservationsFirst,
    OneAtATime,
    Sums,
    TopK,
    Uniform,
    View,
    decode_cost,
    diversity,
    generated_accuracies,
    log_likelihood,
    margin,
    pattern_losses,
    vanilla,
)
from lo_theory.diffusion.statistics import Estimate, difference
from lo_theory.posterior import BPOptions
from lo_theory.posterior.weak import Forgetful, MarginalsOnly, Mixed, PropagationOnly, Sharpened, few_rounds

KEY = Key(1).fold("weak denoisers")
NAMES = ("vanilla", "margin", "latents_first", "observations_first")
SLOW = ("rounds_1", "rounds_3", "bp", "bp_noisy_start")
QUARTERS = 4


@dataclass(frozen=True)
class NoForward:
    """Never learned that observations follow from latents: hidden ones are predicted from the revealed ones alone.

    p(o_j | revealed observations); latents have their exact law given all that is revealed.
    """

    exact: ExactPosterior

    @property
    def layout(self) -> Layout:
        """See Posterior."""
        return self.exact.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """See Posterior; log_evidence is not known. Cost: two calls of the exact posterior."""
        rows = self.layout.check_tokens(tokens)
        without = np.where(self.layout.is_latent, np.int8(MASK), rows)
        answer, other = self.exact.marginals(rows), self.exact.marginals(without)
        probs = np.where(self.layout.is_latent[:, None], answer.probs, other.probs)
        return Marginals(probs, np.full(len(rows), np.nan), answer.converged & other.converged)


class InPlaces:
    """``weak`` in a share of all places, else ``exact``: which, depends on the position and on all that is revealed.

    A place is a position in a context. Its number in [0, 1) is a linear hash of the context, by position, modulo 1.
    """

    def __init__(self, exact: Posterior, weak: Posterior, share: float) -> None:
        self.exact, self.weak, self.share, self.layout = exact, weak, share, exact.layout
        length = self.layout.length
        self.hash = KEY.fold("places").generator().random((2, length, length))

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """See Posterior; log_evidence is not known. Cost: one call of each."""
        rows = self.layout.check_tokens(tokens)
        answers = self.exact.marginals(rows), self.weak.marginals(rows)
        number = ((rows == 0) @ self.hash[0] + (rows == 1) @ self.hash[1] + self.hash[0, 0]) % 1
        probs = np.where((number < self.share)[:, :, None], answers[1].probs, answers[0].probs)
        return Marginals(probs, np.full(len(rows), np.nan), answers[0].converged & answers[1].converged)


class Walk:
    """Watches true sequences on their way through a decode with one token a step.

    ``error`` float64[n, L]: ln p(x_i | C) - ln q(x_i | C) of the token revealed at each step; ``latent``: its role.
    """

    def __init__(self, exact: ExactPosterior, truth: NDArray[np.int8]) -> None:
        self.exact, self.truth = exact, truth
        self.error, self.latent = np.zeros(truth.shape), np.zeros(truth.shape, np.bool_)

    def __call__(self, view: View, next_masked: NDArray[np.bool_]) -> None:
        """See Observer."""
        rows, positions = np.nonzero(view.masked & ~next_masked)
        values, into = self.truth[view.start + rows, positions], (view.start + rows, view.step)
        exact = self.exact.marginals(view.tokens).probs[rows, positions, values]
        with np.errstate(divide="ignore"):
            self.error[into] = np.log(exact) - np.log(view.marginals.probs[rows, positions, values])
        self.latent[into] = view.layout.is_latent[positions]


def denoisers(problem: LODistribution, exact: ExactPosterior) -> dict[str, Callable[[], Posterior]]:
    """Every denoiser by name."""
    rest = MarginalsOnly(problem)

    def forgetful(share: float) -> Forgetful:
        count = problem.layout.n_observations
        order = np.argsort(KEY.fold("forgotten").generator().random(count))
        return Forgetful(exact, np.sort(order[: round(share * count)]))

    return {
        "exact": lambda: exact,
        "marginals_only": lambda: rest,
        "propagation_only": lambda: PropagationOnly(problem),
        "rounds_1": lambda: few_rounds(problem, 1),
        "rounds_3": lambda: few_rounds(problem, 3),
        "bp": lambda: BPPosterior(problem),
        "bp_noisy_start": lambda: BPPosterior(problem, options=BPOptions("sequential", noise=0.5)),
        "forgetful_0.25": lambda: forgetful(0.25),
        "forgetful_0.5": lambda: forgetful(0.5),
        "mixed_0.1": lambda: Mixed(exact, rest, 0.1),
        "mixed_0.3": lambda: Mixed(exact, rest, 0.3),
        "sharpened_-0.5": lambda: Sharpened(exact, -0.5),
        "sharpened_1": lambda: Sharpened(exact, 1.0),
        "unsure_in_places": lambda: InPlaces(exact, rest, 0.05),
        "oversure_in_places": lambda: InPlaces(exact, Sharpened(exact, 2.0), 0.5),
        "no_forward": lambda: NoForward(exact),
    } | {
        f"between_{share}": lambda share=share: Mixed(NoForward(exact), PropagationOnly(problem), share)
        for share in (0.1, 0.25, 0.5)
    }


def policies() -> dict[str, TopK]:
    """The policies compared. With two values a token, top_probability and entropy choose as margin does.

    The last two reveal one role in random order, then the other.
    """

    def first(latents: bool) -> Callable[[View], NDArray[np.float64]]:
        return lambda view: np.broadcast_to(view.layout.is_latent == latents, view.masked.shape).astype(np.float64)

    ordered = TopK("latents_first", first(True)), TopK("observations_first", first(False))
    return {policy.name: policy for policy in (vanilla(), margin(), *ordered)}


@dataclass(frozen=True)
class Subject:
    """One denoiser of one problem, judged on ``n`` sequences; ``walks`` by policy."""

    problem: LODistribution
    exact: ExactPosterior
    denoiser: Posterior
    n: int
    walks: dict[str, Walk]

    @classmethod
    def walked(cls, exact: ExactPosterior, denoiser: Posterior, names: Sequence[str], n: int) -> Subject:
        """Walk the same n true sequences under every policy of ``names``, one token a step."""
        problem, walks = exact.distribution, {}
        truth = problem.sample(KEY.fold("data"), n)
        for name in names:
            walks[name] = Walk(exact, truth)
            options = DecodeOptions(observer=walks[name])
            log_likelihood(denoiser, policies()[name], OneAtATime(), truth, key=KEY, options=options)
        return cls(problem, exact, denoiser, n, walks)

    def paired(self, policy: str, beside: str = "vanilla") -> str:
        """Nats under ``policy`` less those under ``beside``, over the sequences where both are finite."""
        with np.errstate(invalid="ignore"):
            apart = self.walks[policy].error.sum(axis=1) - self.walks[beside].error.sum(axis=1)
        return shown(estimate(Sums.of(apart[np.isfinite(apart)])), sign=True)

    def finite(self, policy: str) -> NDArray[np.bool_]:
        """bool[n]: sequences none of whose tokens the denoiser excludes on the path of ``policy``."""
        return np.isfinite(self.walks[policy].error).all(axis=1)


def estimate(sums: Sums, *, share: bool = False, scale: float = 1.0) -> Estimate:
    """The mean and its 95 % interval, times ``scale``."""
    low, high = sums.interval(share=share)
    return Estimate(scale * sums.mean, scale * low, scale * high)


def shown(value: Estimate, digits: int = 3, *, sign: bool = False) -> str:
    """Mean ± half of the interval."""
    return f"{value.value:{'+' if sign else ''}.{digits}f} ±{value.half:.{digits}f}"


def written(subject: Subject, policy: str, schedule: FixedCount | OneAtATime) -> list[str]:
    """Of decoded sequences: self-consistency and wholly consistent ones in per cent; distinct ones, 1 if as many as in
    data; the mean observation.
    """
    tokens = decode(subject.denoiser, policies()[policy], schedule, key=KEY, n=subject.n).tokens
    found, spread = generated_accuracies(subject.problem, tokens, KEY), diversity(subject.problem, tokens, KEY)
    shares = (estimate(found[name], share=True, scale=100) for name in ("self_consistency", "consistent"))
    distinct = spread.distinct / spread.distinct_expected
    return [*(shown(value, 1) for value in shares), f"{distinct:.2f}", f"{found['observation_mean'].mean:.3f}"]


def one_a_step(subject: Subject) -> list[list[str]]:
    """By policy: nats, those above vanilla, sequences of infinite cost in per cent, and what is written."""
    rows = []
    for policy, walk in subject.walks.items():
        finite = subject.finite(policy)
        total = shown(estimate(Sums.of(walk.error.sum(axis=1)[finite])))
        above = "" if policy == "vanilla" else subject.paired(policy)
        excluded = f"{100 * (1 - finite.mean()):.1f}"
        rows.append([policy, total, above, excluded, *written(subject, policy, OneAtATime())])
    return rows


def several_a_step(subject: Subject) -> list[list[str]]:
    """By policy, in L/8 steps: nats in all, dependence error, model error, and what is written."""
    rows, schedule = [], FixedCount(max(1, subject.problem.layout.length // 8))
    for name in ("vanilla", "margin"):
        policy = policies()[name]
        arguments = (subject.denoiser, policy, schedule, subject.problem)
        cost = decode_cost(*arguments, key=KEY, n=subject.n, exact=subject.exact)
        parts = [shown(estimate(sums)) for sums in (cost.total, cost.dependence, cost.model)]
        rows.append([name, *parts, f"{100 * cost.infinite.mean:.1f}", *written(subject, name, schedule)])
    return rows


def where(subject: Subject) -> list[list[str]]:
    """By policy: nats lost on latents and on observations in each quarter of a decode, one token a step."""
    rows = []
    for policy, walk in subject.walks.items():
        finite = subject.finite(policy)
        edges = np.linspace(0, walk.error.shape[1], QUARTERS + 1).astype(int)
        for role, own in (("latents", walk.latent), ("observations", ~walk.latent)):
            lost = np.where(own, walk.error, 0.0)[finite].mean(axis=0)
            parts = [lost[first:end].sum() for first, end in itertools.pairwise(edges)]
            rows.append([policy, role, *(f"{part:.3f}" for part in parts), f"{sum(parts):.3f}"])
    return rows


def predicted(subject: Subject) -> list[list[str]]:
    """L times the KL of uniform contexts, which is what vanilla costs, and of those with observations first; what their
    difference predicts of margin, and what was measured: margin less vanilla, and less observations first.
    """
    arguments = ({"it": subject.denoiser}, subject.exact, subject.problem)
    sums = [
        pattern_losses(*arguments, law, key=KEY.fold("patterns"), n=4 * subject.n)["it"].total["kl"]
        for law in (Uniform(), ObservationsFirst())
    ]
    found = [estimate(each, scale=subject.problem.layout.length) for each in sums]
    apart = difference(found[1], found[0])
    sign = "neither" if apart.low <= 0 <= apart.high else "margin pays" if apart.value < 0 else "margin costs"
    chosen = subject.paired("margin", "observations_first") if "observations_first" in subject.walks else ""
    return [[*(shown(value) for value in found), shown(apart, sign=True), sign, subject.paired("margin"), chosen]]


TABLES: dict[str, tuple[str, list[str], Callable[[Subject], list[list[str]]]]] = {
    "one": (
        "One token a step: nats per sequence, which are all model error",
        ["policy", "nats", "above vanilla", "infinite %", "self-cons. %", "consistent %", "distinct", "mean obs."],
        one_a_step,
    ),
    "several": (
        "In L/8 steps: nats per sequence",
        [
            "policy",
            "nats",
            "dependence",
            "model",
            "infinite %",
            "self-cons. %",
            "consistent %",
            "distinct",
            "mean obs.",
        ],
        several_a_step,
    ),
    "where": (
        "Where one token a step loses: nats by quarter of the decode and by role",
        ["policy", "role", "first", "second", "third", "last", "all"],
        where,
    ),
    "predicted": (
        "The sign from the KL by mask pattern: L x KL, nats per sequence",
        ["uniform", "obs. first", "difference", "predicted", "margin - vanilla", "margin - obs. first"],
        predicted,
    ),
}


def print_table(name: str, subjects: dict[str, Subject]) -> None:
    """One table of ``TABLES`` over all denoisers."""
    title, heads, rows_of = TABLES[name]
    rows = [["denoiser", *heads], *([who, *row] for who, subject in subjects.items() for row in rows_of(subject))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        print("  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problem", type=int, nargs=2, default=(8, 24), metavar=("N", "P"), help="L&O-NAE-SAT, seed 0")
    parser.add_argument("--sequences", type=int, default=300, help="walked, and decoded, by each policy")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--policies", nargs="+", choices=NAMES, default=NAMES, help="vanilla and margin always are")
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help=f"these denoisers; left out: all but {', '.join(SLOW)}"
    )
    parser.add_argument("--model", help="checkpoint of a network trained on this problem, as one more denoiser")
    options = parser.parse_args(arguments)
    problem = nae_sat(*options.problem, seed=0)
    exact = ExactPosterior(problem)
    known = denoisers(problem, exact)
    names = [name for name in known if name not in SLOW] if options.only is None else options.only
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no denoiser is called {unknown[0]}: take {', '.join(known)}")
    chosen = {name: known[name]() for name in names}
    if options.model:
        from lo_theory import TrainedPosterior, load_model

        chosen["model"] = TrainedPosterior(load_model(options.model, problem=problem.fingerprint()), problem.layout)
    walked = [name for name in NAMES if name in options.policies or name in ("vanilla", "margin")]
    subjects = {name: Subject.walked(exact, each, walked, options.sequences) for name, each in chosen.items()}
    for name in options.tables:
        print_table(name, subjects)


if __name__ == "__main__":
    main()
