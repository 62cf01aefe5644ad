"""``evaluate``: a model or posterior of one's own against the truth, in one call: losses, decodes, diversity, leaks.

What it finds are rows, as those of an experiment, measured by the same functions. Writes the page asked for only.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from lo_theory.diffusion import FixedCount, OneAtATime, Schedule, TwoRates, Uniform, decode, find_dead_ends, losses
from lo_theory.diffusion.contexts import draw_contexts
from lo_theory.diffusion.losses import gap_share
from lo_theory.diffusion.pattern_losses import pattern_losses
from lo_theory.lab import measures
from lo_theory.lab.costs import cost_table, measured_costs
from lo_theory.lab.frame import Frame, Record, from_rows, of_kind
from lo_theory.lab.rows import Row
from lo_theory.lab.settings import check_laws, mask_law, policy, require_laws
from lo_theory.lab.subject import Finding, as_rows
from lo_theory.lab.table import (
    Column,
    Table,
    key,
    largest,
    mean,
    number,
    percent,
    plus_minus,
    print_tables,
    text,
    with_expected,
)
from lo_theory.lab.units import available_processors, versions
from lo_theory.posterior import ExactPosterior, MarginalsOnly, Posterior
from lo_theory.problem import LODistribution
from lo_theory.problem.seams import check_count, checked
from lo_theory.rng import Key

_PROBED = 64  # contexts by which it is judged whether the exact posterior fits
_COSTED = 256  # true sequences on which the cost of a decode is measured, at most
_WIDTH = 118  # letters in a line of the tables as text


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What ``evaluate`` has found. Shown in a terminal or notebook it is its tables.

    ``rows``: every measured quantity with its keys (docs/columns.md); ``facts``: the call, seconds, versions;
    ``settings``: the arguments, by name.
    """

    rows: Sequence[Row]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def frame(self) -> Frame:
        """A pandas DataFrame, one row a line: kind, keys, metric, n, sum, squared_deviations."""
        return from_rows(self.rows)

    @cached_property
    def tables(self) -> list[Table]:
        """Losses by mask law, accuracies of decodes, diversity, costs of decodes, accuracies in one pass, leaks."""
        return list(_tables(self.frame))

    def page(self, path: str | Path) -> Path:
        """Write everything as one HTML file that asks for nothing. Errors: ValueError where ``path`` is a folder."""
        from lo_theory.lab.report import Source, write_report

        target = Path(path)
        config = "".join(f"{name}: {value}\n" for name, value in self.settings.items())
        title = f"{self.settings.get('model', 'A model')} against the exact posterior"
        source = Source(target.with_suffix(""), title, config, self.facts, self.tables, (), rows=self.rows)
        return write_report(source, target)

    def __repr__(self) -> str:
        stream = io.StringIO()
        print_tables(Console(file=stream, width=_WIDTH), self.tables)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


@checked
def evaluate(
    model: Any,
    problem: LODistribution,
    *,
    seed: int = 0,
    sequences: int = 1000,
    masks: Sequence[str] | None = None,
    policies: Sequence[str] = ("vanilla", "margin"),
    limit: int = 2**22,
) -> Evaluation:
    """Judge a model on a problem: how far from Bayes it is, and what its decodes are worth.

    ``model``: a posterior, or whatever ``from_logits(model, problem)`` takes (name its token ids there, and give what
    it returns). ``masks``: mask laws as configurations name them; uniform and three patterns when left out. Losses are
    on ``sequences`` fresh contexts of each law, the same for the model, the marginals-only line and the exact
    posterior; by each of ``policies`` as many sequences are decoded one token a step and four times faster, by the
    model and by the exact posterior. Everything is addressed by ``seed``. ``limit``: states that the exact posterior
    may enumerate at once; where the problem's contexts take more it is left out, and with it KL, leaks and dead ends.

    The cost of each decode in nats is measured on at most 256 true sequences, of policies that hide nothing again.

    Cost: sequences * (laws + 1.25 L policies) rows through the model, and through the exact posterior; for the costs of
    decodes 1.25 L rows more for each of their sequences and policies. Errors: ValueError for a law or policy that is
    none, and those of ``from_logits``.
    """
    check_count(sequences, "a model is evaluated on at least one sequence")
    laws = _default_masks(problem) if masks is None else tuple(masks)
    require_laws(laws)
    check_laws([("masks", laws)], problem.layout)
    chosen = {text: policy(text) for text in policies}
    began, posterior = time.perf_counter(), _posterior(model, problem)
    judge = _Judge(problem, posterior, _exact(problem, limit), Key(seed).fold("evaluate"), sequences)
    found = [("problem", measures.problem(problem))]
    found += [(f"losses/{law}", judge.losses(law)) for law in laws]
    if judge.exact is not None:
        found.append(("leaks", _leaks([finding for _, part in found for finding in part])))
    found.append(("one_pass", judge.one_pass()))
    found += [(f"decode/{text}", judge.decodes(text, made)) for text, made in chosen.items()]
    layout = problem.layout
    shared: dict[str, Any] = {"row": 0, "N": layout.n_latents, "P": layout.n_observations}
    shared |= {"problem": problem.fingerprint()[:8], "seed": seed}
    rows = [row for name, findings in found for row in as_rows(f"row0/{name}", shared, findings)]
    settings = {
        "model": getattr(posterior, "name", type(posterior).__name__),
        "problem": f"N = {layout.n_latents}, P = {layout.n_observations}, fingerprint {problem.fingerprint()}",
        **{"seed": seed, "sequences": sequences, "masks": list(laws), "policies": list(chosen), "limit": limit},
    }
    call = f"evaluate(model, problem, {seed=}, {sequences=}, masks={list(laws)}, policies={list(chosen)}, {limit=})"
    facts = {"command": call, "seconds": round(time.perf_counter() - began, 1), "versions": versions()}
    return Evaluation(rows, facts, settings)


def _default_masks(problem: LODistribution) -> tuple[str, ...]:
    """Uniform, and patterns that hide a quarter, half and three quarters of the latents."""
    n = problem.layout.n_latents
    counts = dict.fromkeys(count for count in (n // 4, n // 2, 3 * n // 4) if 1 <= count < n)
    return ("uniform", *(f"pattern({count})" for count in counts))


def _posterior(model: Any, problem: LODistribution) -> Posterior:
    if hasattr(model, "marginals") and hasattr(model, "layout"):
        found: Posterior = model
        return found
    from lo_theory.neural import from_logits

    return from_logits(model, problem)


def _exact(problem: LODistribution, limit: int) -> ExactPosterior | None:
    """The exact posterior, if it takes contexts of the problem within ``limit``."""
    exact = ExactPosterior(problem, limit=limit, threads=available_processors())
    for law in (TwoRates(1, 0), Uniform()):
        ((batch,),) = draw_contexts(problem, law, Key(0), _PROBED, size=_PROBED)
        if not exact.estimate_cost(batch.tokens).fits.all():
            return None
    return exact


@dataclass(frozen=True)
class _Judge:
    """One model on one problem."""

    problem: LODistribution
    model: Posterior
    exact: ExactPosterior | None
    key: Key
    n: int

    def losses(self, text: str) -> list[Finding]:
        """Losses of the model, and of the single-token marginals, under one law."""
        law, judged = mask_law(text), {"model": self.model, "marginals": MarginalsOnly(self.problem)}
        key, keys = self.key.fold("losses").fold(law.name), {"law": law.name}
        if self.exact is not None:
            measured = pattern_losses(judged, self.exact, self.problem, law, key=key, n=self.n)
            each = ((name, part) for name, part in measured.items())
            return [found for name, part in each for found in measures.by_pattern({**keys, "posterior": name}, part)]
        totals = {name: losses(one, None, self.problem, law, key=key, n=self.n).model for name, one in judged.items()}
        return [
            Finding("losses", {**keys, "posterior": name, "role": "all"}, {"model": total})
            for name, total in totals.items()
        ]

    def _denoisers(self) -> dict[str, Posterior]:
        return {"model": self.model} | ({} if self.exact is None else {"exact": self.exact})

    def one_pass(self) -> list[Finding]:
        """Accuracies without decoding."""
        key = self.key.fold("one pass")
        return [
            Finding("one_pass", {"denoiser": name}, measures.one_pass(denoiser, self.problem, key, self.n))
            for name, denoiser in self._denoisers().items()
        ]

    def decodes(self, text: str, made: Any) -> list[Finding]:
        """Complete sequences, one token a step and in a quarter of the steps."""
        length, found = self.problem.layout.length, []
        for steps in dict.fromkeys((length, -(-length // 4))):
            schedule: Schedule = OneAtATime() if steps == length else FixedCount(steps)
            key = self.key.fold("decode").fold(f"{text}/{steps}")
            for name, denoiser in self._denoisers().items():
                decoded = decode(denoiser, made, schedule, key=key, n=self.n)
                ends = {}
                if self.exact is not None:
                    seen = decoded if name == "exact" else find_dead_ends(self.exact, decoded)
                    ends = measures.dead_ends(self.problem, seen)
                metrics = measures.generated(self.problem, decoded.tokens, key.fold("judge"), ends)
                rule, n = (made, schedule), min(self.n, _COSTED)
                metrics |= measured_costs(denoiser, rule, self.problem, key=key, n=n, exact=self.exact)
                found.append(Finding("decode", {"denoiser": name, "policy": text, "steps": steps}, metrics))
        return found


def _leaks(found: Sequence[Finding]) -> list[Finding]:
    """Whether the model beats Bayes in any row of losses."""
    rows = {i: one for i, one in enumerate(found) if "evidence" in one.metrics and one.keys["posterior"] == "model"}
    facts = measures.leaks({i: one.metrics["evidence"].total for i, one in rows.items()}, rows)
    return [Finding("leaks", {"posterior": "model"}, measures.singles(facts))]


# --- tables ---

_LAW, _ROLE = key("law", left=True), key("role", left=True)
_WHO = (key("denoiser", left=True), key("policy", left=True), key("steps"))


def _four(title: str, of: str, metric: str) -> Column:
    """A mean in four decimals, of the line or of a record that it keeps under the key ``of``."""
    return Column(title, lambda line: number((line.get(of) or line).value(metric), ".4f"))


def _gap(line: Record) -> str:
    """Gap closed in per cent: by KL where there is one, else by the loss below that of the single tokens."""
    other, known = line.get("marginals"), line.get("lines")
    if "kl" in line.metrics:
        share = gap_share(line.value("kl"), 0.0, other.value("kl"))
    elif line.law == "uniform":
        floor, single = known.value("floor"), known.value("marginals_only")
        share = gap_share(single - floor - (other.value("model") - line.value("model")), floor, single)
    else:
        share = math.nan
    return number(100 * share, ".1f")


def _loss_table(frame: Frame) -> Table:
    known = of_kind(frame, "problem")[0]
    every = of_kind(frame, "losses")
    single = {(line.law, line.role): line for line in every if line.posterior == "marginals"}
    lines = [
        line.plus(marginals=single[line.law, line.role], lines=known) for line in every if line.posterior == "model"
    ]
    judged = any("kl" in line.metrics for line in lines)
    notes = [
        "All: nats per token, weighted as the law says; elsewhere nats per hidden token of the role. Fresh data, the "
        "same contexts in every column of a line. Single tokens: loss of the marginals without any constraint.",
        f"Under the uniform law the least loss is {known.value('floor'):.4f} (entropy/L), that of the marginals "
        f"{known.value('marginals_only'):.4f}.",
    ]
    exact = [
        _four("Bayes", "", "exact"),
        Column("KL", lambda line: plus_minus(line.estimate("kl"), ".4f")),
        percent("deterministic", "determined"),
    ]
    notes.append(
        "Bayes: loss of the exact posterior. KL: from the exact marginals to the model's, with 95 % intervals over "
        "sequences. Gap closed = 1 - KL/KL of the single tokens. Determined: contexts, in per cent, that leave one "
        "assignment of the latents."
        if judged
        else "The exact posterior does not fit the limit: no KL. Gap closed = (single tokens - loss) here/(single "
        "tokens - floor) by the known lines."
    )
    return Table(
        "Losses by mask law",
        (
            *(_LAW, _ROLE, _four("single\ntokens", "marginals", "model"), _four("loss", "", "model")),
            *(exact if judged else ()),
            Column("gap\nclosed, %", _gap),
        ),
        lines,
        section=["law"],
        notes=notes,
    )


def _tables(frame: Frame) -> Iterator[Table]:
    cells = of_kind(frame, "decode")
    noisy = any(cell.value("self_consistency_ceiling") < 1 for cell in cells)
    ends = any("impossible" in cell.metrics for cell in cells)
    yield _loss_table(frame)
    yield Table(
        "Accuracy of generated sequences",
        (
            *(*_WHO, percent("self_consistency", "self-\nconsistent")),
            *([mean("self_consistency_ceiling", "ceiling", ".1f", 100)] if noisy else []),
            *(percent("consistent", "wholly\nconsistent"), percent("unpaired")),
            *([percent("impossible", "dead\nends")] if ends else []),
        ),
        cells,
        notes="Per cent, with 95 % intervals over sequences. Self-consistent: observations with the likeliest value "
        "given the generated latents; wholly consistent: sequences of positive probability; unpaired: agreement with "
        "an unrelated sequence of the data; dead ends: sequences that became impossible on the way, as the exact "
        "posterior sees it.",
    )
    yield Table(
        "Diversity: have they the law of the data?",
        (
            *(*_WHO, with_expected("distinct", "distinct", ".1f", 100), largest("bias", "bias z")),
            *(largest("pair", "pair z"), with_expected("total_variation", "TV to p_data", ".3f")),
        ),
        cells,
        notes="In brackets what as many exact samples give. ! where 999 of 1000 exact samplers stay below. TV: total "
        "variation distance, N <= 12.",
    )
    yield cost_table(cells, _WHO)
    yield Table(
        "One pass, no decoding",
        (key("denoiser", left=True), *(percent(name) for name in ("conditional", "infill", "infill_drawn"))),
        of_kind(frame, "one_pass"),
        notes="Per cent. Conditional: observations given the true latents; infill: hidden observations of a true "
        "sequence under the uniform law, most likely or drawn values.",
    )
    if leaks := of_kind(frame, "leaks"):
        yield Table(
            "Does it beat Bayes?",
            (
                *(mean("rows_tested", "rows tested", ".0f"), mean("largest_evidence", "largest evidence", ".1f")),
                *(mean("threshold", form=".1f"), text("leaks", _leak)),
            ),
            leaks,
            notes="Nobody can, who sees the context only: a leak says that the model knows of tokens that are hidden. "
            "At most one honest model in a thousand is called one.",
        )


def _leak(line: Record) -> str:
    return f"LEAK in {count:.0f} rows" if (count := line.value("leaks")) else "none"
