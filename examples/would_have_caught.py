"""Faults that published code has had, put into small models, and the check that goes red for each.

``python examples/would_have_caught.py`` prints the table of docs/would_have_caught.md, each fault beside its twin.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lo_theory import ExactPosterior, Key, Layout, Marginals, check, decode, nae_sat, sparse_parity
from lo_theory.diffusion import FixedCount, OneAtATime, TopK, View, entropy, margin, row_integers, vanilla
from lo_theory.diffusion.masks import Masks
from lo_theory.posterior.weak import Sharpened
from lo_theory.testing import Claims, Judge, SameLaw, same_law

NAE = nae_sat(8, 24, seed=0)
PARITY = sparse_parity(4, 4, 3, 0.1, seed=0)  # short enough to list every mask and every string
COINS = sparse_parity(4, 4, 3, 0.5, seed=0)  # independent tokens: several a step keep their law
EXACT = ExactPosterior(NAE)


# --- posteriors and what judges them ---------------------------------------------------------------------------------


@dataclass
class BatchNormalised:
    """Divides the odds by their mean over the batch, as a layer that normalises by batch does."""

    layout: Layout = NAE.layout

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        """See Posterior."""
        answer = EXACT.marginals(tokens)
        shifted = answer.probs / (0.1 + answer.probs.mean(axis=0))
        revealed = answer.probs.max(axis=2, keepdims=True) == 1
        probs = np.where(revealed, answer.probs, shifted / shifted.sum(axis=2, keepdims=True))
        return Marginals(probs, np.full(len(tokens), np.nan), answer.converged)


def accuracy(posterior: Any, truth: NDArray[np.int8], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the hidden positions whose most likely value is the true one."""
    guess = posterior.marginals(np.where(masked, -1, truth).astype(np.int8)).probs.argmax(axis=2)
    return (masked & (guess == truth)).sum(axis=1) / masked.sum(axis=1)


def unrelated(posterior: Any, truth: NDArray[np.int8], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same against other sequences of the data."""
    guess = posterior.marginals(np.where(masked, -1, truth).astype(np.int8)).probs.argmax(axis=2)
    return (masked & (guess == np.roll(truth, 1, axis=0))).sum(axis=1) / masked.sum(axis=1)


def cross_entropy(posterior: Any, truth: NDArray[np.int8], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean cross-entropy of the hidden positions of each sequence."""
    probs = posterior.marginals(np.where(masked, -1, truth).astype(np.int8)).probs
    true = np.take_along_axis(probs, truth[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    return -(masked * np.log(true)).sum(axis=1) / masked.sum(axis=1)


def by_batch(posterior: Any, truth: NDArray[np.int8], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same, divided by what a sequence of the batch hides on average."""
    return cross_entropy(posterior, truth, masked) * masked.sum(axis=1) / masked.sum(axis=1).mean()


# --- samplers --------------------------------------------------------------------------------------------------------


def own_seeds(key: Key, n: int) -> NDArray[np.int8]:
    """Two ranks, each with its own half of the rows."""
    return np.concatenate([NAE.sample(key, n // 2), NAE.sample(key, n - n // 2, start=n // 2)])


def one_seed(key: Key, n: int) -> NDArray[np.int8]:
    """Two ranks that begin with the same seed."""
    return np.concatenate([NAE.sample(key, n // 2), NAE.sample(key, n - n // 2)])


def together(key: Key, n: int) -> NDArray[np.int8]:
    """Decoded with eight tokens a step, and taken for samples of the data."""
    return decode(EXACT, vanilla(), FixedCount(4), key=key, n=n).tokens


@dataclass(frozen=True)
class Gumbel:
    """Standard Gumbel noise, -ln(-ln u), with u uniform in this precision."""

    dtype: Any

    def __call__(self, key: Key, n: int) -> NDArray[np.float64]:
        """float64[n] or float32[n]."""
        uniform = key.generator().random(n, dtype=self.dtype)
        return -np.log(-np.log(np.maximum(uniform, np.finfo(self.dtype).tiny)))


# --- policies and schedules ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corrector:
    """One position a step, and at the steps between L - 2 and L - 2 + rounds one revealed position is hidden again.

    The redrawn position is uniform, and the exact posterior draws it given all others: the law of the data is kept.
    ``reads_flag``: whether anybody reads ``rounds``.
    """

    rounds: int
    reads_flag: bool = True
    name: str = "corrector"
    remasks: bool = True

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Policy."""
        following = vanilla().plan(view, budget)
        first = view.layout.length - 2
        if self.reads_flag and first <= view.step < first + self.rounds:
            chosen = row_integers(view.key.fold("again"), len(following), first, start=view.start)
            places = np.argsort(view.masked, axis=1, kind="stable")  # revealed ones first
            following[np.arange(len(following)), places[np.arange(len(following)), chosen]] = True
        return following


@dataclass(frozen=True)
class Rounds:
    """One position a step, ``rounds`` steps more than there are positions."""

    rounds: int
    name: str = "rounds"

    def steps(self, hidden: int) -> int:
        """See Schedule."""
        return hidden + self.rounds

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """See Schedule."""
        return np.asarray(masked.any(axis=1), np.int64)


@dataclass(frozen=True)
class Cosine:
    """After step s of S a share 1 - cos(pi s/(2 S)) is revealed; ``late`` counts the steps from 0."""

    count: int
    late: int = 0
    name: str = "cosine"

    def steps(self, hidden: int) -> int:
        """See Schedule."""
        return self.count

    def budget(self, step: int, masked: NDArray[np.bool_], key: Key, start: int) -> NDArray[np.int64]:
        """See Schedule."""
        length, last = masked.shape[1], step == self.count - 1
        kept = 0 if last else round(length * np.cos(np.pi / 2 * (step + 1 - self.late) / self.count))
        return np.maximum(masked.sum(axis=1) - kept, 0)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share revealed after each step."""
        return 1 - np.cos(np.pi / 2 * np.arange(1, self.count + 1) / self.count)


@dataclass
class Private:
    """Random positions; with a generator of its own in place of the key it is given."""

    own: bool
    name: str = "random"
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def plan(self, view: View, budget: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Policy."""
        if not self.own:
            return vanilla().plan(view, budget)
        return TopK("random", lambda view: self.generator.random(view.masked.shape)).plan(view, budget)


# --- mask laws -------------------------------------------------------------------------------------------------------


def uniforms(key: Key, n: int, length: int, start: int) -> NDArray[np.float64]:
    """float64[n, length] in (0, 1], by address: row i depends on the key and on ``start`` + i."""
    return np.stack([row_integers(key.fold(i), n, 2**53, start=start) + 1 for i in range(length)], axis=1) / 2**53


@dataclass(frozen=True)
class Weighted:
    """Rate t of density 1/2 + t instead of 1, weight 1/(t L p(t)): the same loss as the plain one, differently spread.

    Faults: ``importance`` leaves out 1/p(t), ``rate`` leaves out 1/t, ``rank`` seeds by where the batch begins.
    """

    fault: str = ""
    name: str = "weighted"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        where = key.fold(start) if self.fault == "rank" else key
        drawn = uniforms(where, len(tokens), layout.length + 1, 0 if self.fault == "rank" else start)
        t = (np.sqrt(1 + 8 * drawn[:, :1]) - 1) / 2
        masked = drawn[:, 1:] <= t
        density = 1.0 if self.fault == "importance" else 0.5 + t
        weight = masked / (layout.length * density * (1.0 if self.fault == "rate" else t))
        return masked[None], weight.astype(np.float32)[None]


@dataclass(frozen=True)
class Mirror:
    """Two masks of a sequence, u < t and u > 1 - t with one u for each position; or each with its own."""

    independent: bool = False
    name: str = "mirror"

    def sample(self, key: Key, tokens: NDArray[np.int8], layout: Layout, *, start: int = 0) -> Masks:
        """See MaskLaw."""
        n, length = tokens.shape
        t = uniforms(key.fold("t"), n, 1, start)
        u = uniforms(key.fold("u"), n, length, start)
        other = uniforms(key.fold("v"), n, length, start) if self.independent else u
        masked = np.stack([u <= t, other > 1 - t])
        return masked, (masked / (t * length)).astype(np.float32)


# --- the gallery -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What goes wrong, the check that says so, and the subject with and without it."""

    what: str
    check: str
    wrong: Any
    right: Any
    problem: Any = NAE
    claims: Claims | None = None
    n: int = 4_000

    def found(self, seed: int, *, wrong: bool, share: float = 1.0) -> tuple[bool, tuple[str, ...], str, str]:
        """Whether nothing failed, what failed, the result of the check named, and n; with ``share`` of n draws."""
        subject = self.wrong if wrong else self.right
        if isinstance(subject, Gumbel):
            law: SameLaw = same_law(subject, stats.gumbel_r, seed=seed, n=round(share * 20_000), level=1e-3)
            return law.ok, () if law.ok else (self.check,), f"p = {law.p_value:.2g}", f"{law.n:,}"
        report = check(subject, self.problem, seed=seed, claims=self.claims, n=round(share * self.n))
        results = {row.name: row.result for row in report}
        return report.ok, report.failed, results.get(self.check, ""), f"{self.n:,}"


def decoder(policy: Any, schedule: Any, problem: Any = PARITY) -> tuple[Any, Any, Any]:
    """The exact posterior with this policy and schedule."""
    return ExactPosterior(problem), policy, schedule


UPSIDE_DOWN = TopK("entropy", lambda view: -entropy().score(view))

FAULTS = [
    Fault(
        "the highest entropy is picked where the lowest was meant",
        "picks the highest score",
        decoder(UPSIDE_DOWN, OneAtATime()),
        decoder(entropy(), OneAtATime()),
        PARITY,
        Claims(score=entropy().score),
    ),
    Fault(
        "the second of two mirrored masks is drawn by itself",
        "paired masks are mirror images",
        Mirror(independent=True),
        Mirror(),
        PARITY,
    ),
    Fault(
        "an importance weight is dropped",
        "mask weights unbiased",
        Weighted("importance"),
        Weighted(),
        PARITY,
        n=100_000,
    ),
    Fault("the weight 1/t is dropped", "well formed", Weighted("rate"), Weighted(), PARITY),
    Fault("noise is seeded by rank", "rows independent of the batch", Weighted("rank"), Weighted(), PARITY),
    Fault("all ranks begin with one seed", "rows independent of each other", one_seed, own_seeds, n=20_000),
    Fault("a layer normalises by batch", "rows independent of the batch", BatchNormalised(), EXACT),
    Fault(
        "a loss is divided by a mean over the batch",
        "rows independent of the batch",
        Judge(by_batch, "loss"),
        Judge(cross_entropy, "loss"),
    ),
    Fault(
        "accuracy is taken against an unrelated sequence",
        "accuracy is that of the exact posterior",
        Judge(unrelated),
        Judge(accuracy),
    ),
    Fault("probabilities are sharpened, p^1.05", "KL to the exact marginals", Sharpened(EXACT, 0.05), EXACT),
    Fault("the same, by its outcomes alone", "calibration", Sharpened(EXACT, 0.05), EXACT, n=40_000),
    Fault(
        "a flag that nothing reads: the sampler never remasks",
        "remasks as its law says",
        decoder(Corrector(4, reads_flag=False), Rounds(4)),
        decoder(Corrector(4), Rounds(4)),
        PARITY,
        Claims(remasked=4),
    ),
    Fault(
        "the revealed share is a step late",
        "revealed share on its schedule",
        decoder(vanilla(), Cosine(6, late=1), COINS),
        decoder(vanilla(), Cosine(6), COINS),
        COINS,
        Claims(revealed=Cosine(6).shares),
    ),
    Fault(
        "a policy draws from a generator of its own",
        "likelihood of all strings sums to 1",
        Private(True),
        Private(False),
        PARITY,
    ),
    Fault(
        "several tokens a step, taken for samples of the data",
        "law of the data: probability",
        together,
        lambda key, n: decode(EXACT, margin(), OneAtATime(), key=key, n=n).tokens,
        n=6_000,
    ),
    Fault("Gumbel noise in float32 cuts the tails", "assert_same_law", Gumbel(np.float32), Gumbel(np.float64)),
]


def main() -> None:
    """Print the table: each fault once, and with ``--runs`` how often it is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="seeds for the share of runs in which it is found")
    runs = parser.parse_args().runs
    print("| what goes wrong | the check that goes red | result | n | found | with n/10 | twin fails |")
    print("|---|---|---|---|---|---|---|")
    for fault in FAULTS:
        wrong = [fault.found(seed, wrong=True) for seed in range(runs)]
        fewer = [fault.found(seed, wrong=True, share=0.1) for seed in range(runs)]
        found, less = (sum(fault.check in failed for _, failed, *_ in made) for made in (wrong, fewer))
        alarms = sum(not fault.found(seed, wrong=False)[0] for seed in range(runs))
        (_, _, result, drawn), counts = wrong[0], f"{found} of {runs} | {less} of {runs} | {alarms} of {runs}"
        print(f"| {fault.what} | {fault.check} | {result} | {drawn} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
