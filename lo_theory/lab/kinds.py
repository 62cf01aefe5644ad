"""Every kind of row, once: its keys, and its metrics with their sort and one plain sentence each.

Rows are checked against it when they are written, shares are known by it, and ``docs/columns.md`` is made from it:
``python -m lo_theory.lab.kinds > docs/columns.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Sort = Literal["share", "mean", "single"]


class Metric(NamedTuple):
    """A quantity. share: in [0, 1] for every value; mean: any number; single: one value of a run, of no sequences."""

    sort: Sort
    says: str


@dataclass(frozen=True)
class Kind:
    """A kind of row: what it is about, the keys that it may have beside ``COMMON``, its metrics."""

    says: str
    keys: tuple[str, ...]
    metrics: Mapping[str, Metric] = field(default_factory=dict)


KEYS: Mapping[str, str] = MappingProxyType(
    {
        "unit": "the unit of work that wrote the row",
        "kind": "which of the tables below the metric is in",
        "row": "number of the experiment's row, from 0",
        "name": "the row's own name, where it has one",
        "family": "family of problems, with what tells its ensemble apart",
        "label": "predicate or ensemble",
        "N": "latents",
        "P": "observations",
        "q": "values of a latent",
        "k": "latents that an observation reads",
        "problem": "beginning of the problem's fingerprint",
        "seed": "seed of the row",
        "recipe": "how it was trained",
        "run": "in a pooled sweep: which of the pooled cells",
        "seeds": "in tables: the seeds in which rows of equal settings differ",
        "part": "in a sweep's store: the unit of the cell",
        "denoiser": "who decodes: `exact`, `model`",
        "posterior": "who answers: `exact`, `model`, `bp`, ...",
        "learner": "a learner of the experiment, by name",
        "policy": "which positions are revealed next",
        "steps": "steps of a decode",
        "schedule": "how many positions a step reveals",
        "counts": "tokens revealed at each step",
        "known": "tokens revealed, at random",
        "claim": "what a decoding rule is claimed to do, as `sampler_claims.CLAIMS` names it",
        "on": "the problem on which the claim is tested",
        "argmax": "whether the likeliest value is taken in place of a draw",
        "temperature": "temperature of the draws",
        "noise": "noise on the logits of a decode",
        "law": "mask law",
        "latents_hidden": "latents that a context hides",
        "observations_hidden": "observations that a context hides",
        "a": "mask rate of the latents",
        "b": "mask rate of the observations",
        "form": "how mask rates are laid out: `plane` or `lines`",
        "order": "reading order, by name",
        "order_kind": "kind of the reading order",
        "draw": "which of several repetitions",
        "puzzles": "which set of puzzles: `minimal`, `hard`, `clues(8)`, `random(8)`, `random`",
        "clues": "cells that a Sudoku shows, different clues of a Zebra puzzle",
        "technique": "what solves a puzzle, with all that is easier",
        "step": "steps of training so far",
        "training_steps": "length of the training in steps",
        "iterations": "length of the model's training in steps",
        "flops": "operations of training so far",
        "clock": "which seconds are fair to compare: `processor_seconds` on shared cores, else `training_seconds`",
        "role": "`latent`, `observation` or `all`",
        "position": "a position of the sequence",
        "time": "its place in the reading order",
        "c": "mean degree kM/N",
        "overlap": "overlap with the planted assignment",
        "observed": "which revealed observations count: `all` or `satisfied`",
        "revealed": "share of the latents that is given",
        "start": "where messages start: `planted`, `random` or `noise`",
    }
)
"""Every key, in the order of the page. A key with a dot in it is the path of a setting: a sweep's value on an axis."""

COMMON = (*("kind", "row", "name", "family", "label", "N", "P", "q", "k", "problem", "seed", "recipe"), "run", "part")
"""Keys that a row of any kind may have."""


def _shares(**says: str) -> dict[str, Metric]:
    return {name: Metric("share", text) for name, text in says.items()}


def _means(**says: str) -> dict[str, Metric]:
    return {name: Metric("mean", text) for name, text in says.items()}


def _singles(**says: str) -> dict[str, Metric]:
    return {name: Metric("single", text) for name, text in says.items()}


_LOSSES = _means(
    model="loss of the model, nats per token (per hidden token of a class)",
    exact="loss of the exact posterior, in the same contexts",
    kl="KL from the exact marginals to the model's; its expectation is model - exact",
)
_JUDGED = _LOSSES | _means(
    log_ratio="squared difference of ln p at the true token from the exact posterior",
    evidence="ln wealth of a bet that the model knows more than the context: large means a leak",
)
_CERTAIN = _shares(deterministic="share of contexts that leave one assignment of the latents")
_COSTS = _shares(infinite_cost="true sequences of which the denoiser excludes a token on the decoder's path") | _means(
    cost="ln p(x) - ln q(x along the decoder's path), nats per true sequence, where finite",
    dependence_error="its part from drawing tokens of one step independently",
    model_error="its part from marginals that are not the exact ones",
    calls="posterior calls that a decode of one sequence takes",
)
_ONE_PASS = _shares(
    conditional="observations named right in one pass, argmax, given the true latents",
    infill="hidden observations of a randomly masked true sequence named right, argmax",
    infill_drawn="the same with drawn values",
)
_GENERATED = (
    _shares(
        self_consistency="share of generated observations with the likeliest value given the generated latents",
        consistent="share of sequences in which all do",
        unpaired="agreement with an unrelated sequence of the data",
        observation_mean="mean of the generated observations (two values)",
    )
    | _means(
        self_consistency_ceiling="self-consistency of an exact sampler given the same latents",
        data_observation_mean="mean of the observations in the data",
    )
    | _singles(
        distinct="share of distinct latent strings",
        distinct_expected="the same of as many exact samples",
        bias_z="largest |z| of a latent's mean",
        bias_count="of how many",
        pair_z="largest |z| of a correlation of two latents",
        pair_count="of how many",
        total_variation="distance of the sequences' law to the data's (N <= 12)",
        total_variation_expected="its mean for as many exact samples",
        total_variation_deviation="its standard deviation for as many exact samples",
    )
)
_OPEN = (
    _means(
        latent_entropy="mean entropy of the exact marginals at hidden latents",
        token_entropy="mean entropy of the exact marginals at hidden tokens",
        joint_entropy="-ln P(hidden latents given the context)/h at the true latents, h of them hidden",
    )
    | _CERTAIN
    | _shares(refused="share of contexts that the exact posterior does not fit; left out of all others")
)


def _threshold(name: str, words: str) -> dict[str, str]:
    units = {"c": "mean degree kM/N", "density": "M/N", "neighbours": "(k-1)c"}
    return {
        f"{name}_{unit}{error}": f"{words} as {text}{', half of its 95 % interval' if error else ''}"
        for unit, text in units.items()
        for error in ("", "_error")
    }


_POINTS = {"dynamic": "the dynamic threshold", "condensation": "the condensation threshold"}

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "problem": Kind(
            "known lines of the problem",
            (),
            _singles(
                floor="entropy of the sequence/L: the least loss, nats per token",
                marginals_only="sum of the single tokens' entropies/L: the loss without any constraint",
                latents_floor="mean ln(solutions)/N of Zebra puzzles: the least loss under `latents_only`, nats a cell",
                latents_marginals_only="ln q: the loss there without any constraint",
                constant="agreement with the data of observations that are always the likeliest value",
                independent="agreement with the data of observations drawn from their marginals",
                self_consistency_ceiling="self-consistency of exact sampling",
                self_consistency_constant="self-consistency of the likeliest value everywhere",
                self_consistency_independent="self-consistency of independent draws from the marginals",
                learned="share of the KL of the single-token marginals below which a problem counts as learned",
                reached="share of the way above the floor below which a loss counts as the floor",
            )
            | _shares(observation_mean="mean of the observations (two values)"),
        ),
        "formula": Kind(
            "what a formula gives",
            ("order", "order_kind", "time"),
            _singles(exact="exact conditional loss of what is read at `time`, nats"),
        ),
        "training": Kind(
            "a network that was trained",
            ("learner", "training_steps", "flops", "iterations", "draw"),
            _singles(
                parameters="weights in all",
                core_parameters="weights outside embeddings and head",
                diverged="1 if the loss was not finite",
            ),
        ),
        "held_out": Kind(
            "an evaluation on the way of a training",
            ("learner", "training_steps", "iterations", "draw", "step", "flops", "clock"),
            _means(excess="KL from the exact marginals to the model's on held-out contexts, nats per token")
            | _singles(
                training_seconds="spent on steps alone, of the wall",
                processor_seconds="spent on steps alone, of the processor",
                latents_first="of an order that is learned, P(a latent before an observation) by the forward head",
                latents_first_reverse="the same by the reverse head where all is hidden",
            ),
        ),
        "losses": Kind(
            "losses under a mask law",
            (
                *("law", "posterior", "training_steps", "flops", "iterations", "draw", "role"),
                *("latents_hidden", "observations_hidden"),
            ),
            _JUDGED
            | _means(
                kl_deterministic="KL in contexts that leave one assignment of the latents",
                kl_above="KL minus that of the posterior it is compared with, context by context",
                proxy_log_ratio="the same from a proxy, as the paper measures",
                excess="loss above the exact posterior's",
                overconfidence="largest probability at a hidden token less what the exact posterior gives that value",
                confidence_error="its absolute value",
            )
            | _CERTAIN
            | _shares(
                excluded="share of contexts in which the true token got less than the least probability",
                converged="share of contexts in which belief propagation converged",
            ),
        ),
        "class_losses": Kind(
            "the same by what the contexts hide",
            ("law", "posterior", "iterations", "role", "latents_hidden", "observations_hidden"),
            _JUDGED | _CERTAIN,
        ),
        "along": Kind(
            "losses along a reading order, over whole sequences",
            ("learner", "training_steps", "flops", "order", "order_kind", "draw"),
            _LOSSES
            | _means(
                kl_latents="the part of `kl` at latents, over all L tokens",
                kl_observations="the part of `kl` at observations, over all L tokens",
                above_causal="KL minus the causal learner's, by sequence; of losses without exact laws",
            ),
        ),
        "position": Kind(
            "losses at one place of a reading order",
            ("learner", "training_steps", "flops", "order", "order_kind", "time", "position", "role"),
            _LOSSES,
        ),
        "masked": Kind(
            "losses of a masked learner under the law of its training", ("learner", "training_steps", "flops"), _LOSSES
        ),
        "leaks": Kind(
            "whether a posterior beats Bayes",
            ("posterior", "iterations"),
            _singles(
                rows_tested="rows whose evidence was looked at",
                leaks="how many are over the threshold",
                largest_evidence="the largest ln wealth among them",
                threshold="ln wealth from which a row is a leak",
            ),
        ),
        "one_pass": Kind("accuracies without decoding", ("denoiser", "learner", "training_steps", "flops"), _ONE_PASS),
        "decode": Kind(
            "complete generated sequences",
            ("denoiser", "policy", "steps", "argmax", "schedule", "temperature", "noise", "draw"),
            _GENERATED
            | _shares(
                impossible="sequences that the exact posterior called impossible on the way",
                alive_steps="share of steps before that",
                dead_checks="of the observations, those revealed after that",
                live_errors="of the observations, wrong ones among those revealed before",
            )
            | _singles(forward_passes="passes of the network a sequence, of a decode that may take several a step")
            | _COSTS,
        ),
        "puzzles": Kind(
            "puzzles that were decoded, and the first error of those that failed",
            (
                *("denoiser", "policy", "steps", "argmax", "schedule", "temperature", "noise", "draw"),
                *("puzzles", "clues", "technique"),
            ),
            _shares(
                solved="1 if the finished grid is possible",
                by_model="1 if the first wrong step wrote a digit that the exact posterior excludes",
                by_dependence="1 if its digits were possible each by itself, and not together",
                cells_right="of the empty cells, those filled as in the only solution",
                cells_excluded="of the empty cells, those with a digit that was excluded, at the first error",
                cells_dead="of the empty cells, those filled after that",
                cells_dead_wrong="of the empty cells, those filled after that and not as in the only solution",
                unfinished="of learners of moves: 1 if a cell is never filled",
                void="of learners of moves: 1 if a move names no empty cell or no digit",
            ),
        ),
        "snapshot": Kind(
            "the network after a part of its training: what it knows, and by policy the sequences that it generates",
            ("step", "denoiser", "policy", "steps", "argmax", "schedule", "temperature", "noise"),
            _ONE_PASS
            | _means(
                excess="KL from the exact marginals under the uniform law (loss - floor without them), nats per token",
                observations_first="the same under the law `observations_first`",
            )
            | _GENERATED
            | _COSTS,
        ),
        "information": Kind(
            "the information curve of a problem, and what random orders cost by it",
            ("known", "schedule", "steps", "counts"),
            _means(
                entropy="entropy of a sequence as the sum of the curve, nats",
                hidden_entropy="mean entropy of one hidden token, nats",
                curve_cost="KL from the data to random order with these counts and exact marginals, nats a sequence",
            )
            | _singles(
                total_correlation="sum of the single tokens' entropies less that of the sequence, nats",
                bound_tc="upper bound on `curve_cost` from the total correlation alone",
                bound_dtc="upper bound from the dual total correlation alone",
                bound_mi="upper bound from the sum of the two alone",
            ),
        ),
        "claim": Kind(
            "two numbers of which a decoding rule is claimed to make the first at most the second, on one problem",
            ("claim", "on"),
            _means(measured="the first: nats a sequence, passes or a share", against="the second"),
        ),
        "generate": Kind(
            "complete sequences that a learner generates",
            ("learner", "policy", "training_steps", "flops"),
            _GENERATED
            | _singles(
                forwards="sequences sent through the network",
                passes="passes of the network a sequence",
                seconds="seconds a sequence, of the wall",
            )
            | _COSTS,
        ),
        "uncertainty": Kind("what a mask law leaves open, nats", ("law",), _OPEN),
        "cell": Kind(
            "what a pair of mask rates leaves open, and who knows it, nats",
            ("form", "a", "b", "posterior"),
            _OPEN
            | _means(
                kl_latent="KL from the exact marginals, per hidden latent",
                kl_token="KL from the exact marginals, per hidden token",
                evidence_error="error of ln P(context)/h where finite",
            )
            | _shares(
                contradicted="share of contexts that are called impossible",
                converged="share of contexts in which it converged",
            ),
        ),
        "propagation": Kind(
            "belief propagation on one planted problem",
            ("c", "observed", "start"),
            _means(
                degree="mean degree of the instance",
                overlap="overlap with the planted assignment",
                belief="mean belief in the planted values",
                confidence="mean largest marginal",
                excess="free entropy above that of uniform messages, nats a latent",
                iterations="sweeps until it converged or stopped",
            )
            | _shares(
                converged="1 if it converged",
                contradictory="1 where messages contradict each other",
            ),
        ),
        "threshold": Kind(
            "thresholds of an ensemble",
            ("observed", "revealed"),
            _singles(
                continuous="1 if all three coincide",
                **_threshold("kesten_stigum", "the Kesten-Stigum threshold"),
                **{name: text for key, words in _POINTS.items() for name, text in _threshold(key, words).items()},
                overlap_at_dynamic="overlap at the dynamic threshold",
                resolution="largest relative dip of c(overlap) that 95 % errors do not exclude",
                degree_revealed="c of the observations when all are revealed",
            ),
        ),
        "curve": Kind(
            "a point of the curve c(overlap), or of the losses of a training",
            ("overlap", "observed", "revealed", "learner", "training_steps", "flops", "step"),
            _singles(
                c="mean degree at that overlap",
                c_standard_error="its standard error",
                excess="excess free entropy",
            )
            | _means(loss="mean of the losses logged in a group of steps of which `step` is the last"),
        ),
        "fold": Kind(
            "two states beside each other, with a share of the latents revealed",
            ("observed", "revealed"),
            _singles(
                survives="1 if two states coexist at some degree; a threshold that is not there has no row",
                resolution="largest relative dip of c(overlap) that 95 % errors do not exclude",
                dynamic_c="c from which the planted state exists",
                dynamic_c_error="half of its 95 % interval",
                crossing_c="c from which its free entropy is the larger",
                crossing_c_error="half of its 95 % interval",
                spinodal_c="c up to which the uninformed state exists",
                spinodal_c_error="half of its 95 % interval",
            ),
        ),
        "population": Kind(
            "population dynamics from two starts",
            ("observed", "a", "b", "c"),
            _singles(
                planted="overlap, at latents that are not revealed, from the planted start",
                planted_error="its standard error",
                uninformed="overlap from the uninformed start",
                uninformed_error="its standard error",
                advantage="free entropy of the planted state minus that of the uninformed one",
                coexist="1 if the overlaps differ by more than 0.02 and five standard errors",
            ),
        ),
    }
)
"""By the value of the key ``kind``."""


_DECLARED: dict[str, Kind] = {}
"""Kinds of rows of users' experiments."""


def declare(kinds: Mapping[str, Kind]) -> None:
    """Let rows have the kinds of a user's experiment; ValueError for a name that this package has."""
    taken = sorted(set(kinds) & set(KINDS))
    if taken:
        raise ValueError(f"KINDS has {taken[0]!r}, which is a kind of rows of lo_theory: give yours another name")
    _DECLARED.update(kinds)


def shares(kinds: Mapping[str, Kind]) -> dict[str, list[str]]:
    """The metrics of some kinds whose values lie in [0, 1]: what intervals must know, in a form for done.json."""
    return {name: [metric for metric, of in kind.metrics.items() if of.sort == "share"] for name, kind in kinds.items()}


def declare_shares(found: Mapping[str, Sequence[str]]) -> None:
    """Let intervals of a user's rows be right where the experiment itself is not loaded; ``found`` as of ``shares``."""
    for name, metrics in found.items():
        if name not in known_kinds():
            _DECLARED[name] = Kind("of a user's experiment", (), {metric: Metric("share", "") for metric in metrics})


def known_kinds() -> Mapping[str, Kind]:
    """All kinds of rows, those of users' experiments that were loaded included."""
    return {**KINDS, **_DECLARED}


def is_share(kind: str, metric: str) -> bool:
    """Whether the values of a metric lie in [0, 1], so that its interval does; False for what is not declared."""
    kinds = known_kinds()
    known = kinds[kind].metrics.get(metric) if kind in kinds else None
    return known is not None and known.sort == "share"


def check_row(keys: Mapping[str, Any], metric: str) -> None:
    """Raise ValueError for a row with a kind, a key or a metric that is not declared, naming the closest that is."""
    name, kinds = str(keys["kind"]), known_kinds()
    if name not in kinds:
        raise ValueError(f"no kind of row is called {name!r}{_closest(name, kinds)}: declare it in KINDS")
    kind = kinds[name]
    known = {*COMMON, *kind.keys}
    for key in keys:
        if key not in known and "." not in key:
            raise ValueError(f"rows of kind {name} have no key {key!r}{_closest(key, known)}: declare it in KINDS")
    if metric not in kind.metrics:
        raise ValueError(
            f"rows of kind {name} have no metric {metric!r}{_closest(metric, kind.metrics)}: declare it in KINDS"
        )


def _closest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, sorted(known), 1)
    return f" (closest: {found[0]})" if found else ""


_HEAD = """# Columns: what rows, tables and CSV files hold

This page explains every column that `lo_theory.read(folder)` and the CSV files have, and every metric in a sentence.
It is made from `KINDS` by `python -m lo_theory.lab.kinds > docs/columns.md`; rows are checked against it when they
are written.

A run measures *rows*. Each has keys that say what was measured, a `metric`, and three numbers: `n` values, their `sum`
and `squared_deviations` from their mean (in CSV also `mean`, `low` and `high`, the 95 % interval), so that rows of
several runs add. `lo_theory.read(folder)` gives them as a pandas DataFrame, one row a line. Losses are in nats per
token, seconds are of the wall unless said. [concepts.md](concepts.md) explains the words.

A metric is a *share* (every value lies in [0, 1], and so does the interval), a *mean* (of one number a sequence), or
*single* (one number of a run: it adds over no sequences, and its interval is over runs).
"""


def columns_page() -> str:
    """The page docs/columns.md."""
    lines = [_HEAD, "## Keys", "", "| key | says |", "|---|---|"]
    lines += [f"| `{name}` | {says} |" for name, says in KEYS.items()]
    lines += ["| `problem.N`, `training.steps`, ... | in a sweep: the cell's value on an axis |", "", "## Kinds"]
    lines += ["", f"Rows of every kind may have the keys {', '.join(f'`{name}`' for name in COMMON)}."]
    for name, kind in KINDS.items():
        own = f"; keys {', '.join(f'`{key}`' for key in kind.keys)}" if kind.keys else ""
        lines += ["", f"**`{name}`**: {kind.says}{own}", "", "| metric | sort | is |", "|---|---|---|"]
        lines += [f"| `{metric}` | {one.sort} | {_cell(one.says)} |" for metric, one in kind.metrics.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    import sys

    sys.stdout.write(columns_page())
