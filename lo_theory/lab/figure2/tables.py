"""The tables of Figure 2: losses by mask law and role, how far the trainings have come, leaks, the paper's proxy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.seeds import seeded, with_seeds
from lo_theory.lab.summary import Measured, gap_closed, group
from lo_theory.lab.texts import shown

__all__ = ["leaking_rows", "short", "tables"]

_LEFT = ("N, P", "law", "role", "posterior")
_LEAKS_SHOWN = 5
_ROUNDING = 1e-12  # what is smaller is rounding


def short(value: float) -> str:
    """Four decimals, or two digits of what would vanish in them; ``-`` where there is nothing."""
    if math.isnan(value):
        return "-"
    if abs(value) <= _ROUNDING:
        return "0.0000"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.1e}"


def _pair(measured: Measured) -> str:
    return with_seeds("{}, {}".format(*measured.pair), measured.keys)


def _name(keys: Mapping[str, Any]) -> str:
    return "BP" if keys["posterior"] == "bp" else f"model, {keys['iterations']} steps"


def _percent(sums: Runs | None) -> str:
    return "-" if sums is None or not sums.n else f"{100 * sums.mean:.1f}"


def _with_error(runs: Runs) -> str:
    value, half = short(runs.mean), runs.estimate().half
    return value if math.isnan(half) else f"{value} ±{short(half)}"


def _hidden(keys: Mapping[str, Any]) -> str:
    """``l+o``, the latents and observations hidden, where all contexts of a law hide equally many."""
    return "{latents_hidden}+{observations_hidden}".format(**keys).removeprefix("+")


def _lengths(items: Iterable[Measured]) -> list[int]:
    return sorted({int(item.keys["iterations"]) for item in items if item.keys["posterior"] == "model"})


def _loss_line(item: Measured, bp: Measured | None) -> tuple[str, ...]:
    errors = (short(bp.value("kl")), _percent(bp.metrics["excluded"])) if bp is not None else ("-", "-")
    return (
        _pair(item),
        str(item.keys["law"]),
        str(item.keys["role"]),
        _hidden(item.keys),
        _percent(item.metrics["deterministic"]),
        short(item.value("exact")),
        short(item.value("model")),
        _with_error(item.metrics["kl"]),
        short(item.value("log_ratio")),
        *errors,
    )


_LOSS_NOTES = (
    "Nats per scored token of the role (a suffix scores the next token, every other law the hidden ones), on fresh "
    "data. Hidden: latents + observations. Determ.: contexts in per cent with exactly one assignment of the latents "
    "left, by the exact posterior (every latent certain to 1e-9). Bayes: loss of the exact posterior. KL: distance of "
    "the model's marginals from the exact ones, with 95 % intervals over sequences; its mean is that of loss - Bayes. "
    "Error: mean squared log-ratio of the model's and the exact probability of the true token, as in the paper's "
    "Figure 2. BP: belief propagation; excl.: true tokens in per cent that it excludes, each of which counts 27.6 nats "
    "(probabilities below 1e-12 count as 1e-12).",
)


def loss_tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """One table for each length of training: losses by law and role. Without a model, those of belief propagation."""
    items = [item for item in group(rows, "losses") if item.keys["role"] != "all"]
    models, bp = [item for item in items if not _is_bp(item)], [item for item in items if _is_bp(item)]
    lengths = _lengths(items)
    parts = [(f"the model after {n} steps", [item for item in models if item.keys["iterations"] == n]) for n in lengths]
    places = {_place(item): item for item in bp}
    title = experiment.title or experiment.experiment
    return [_loss_table(f"{title}: {whose}", part, places) for whose, part in parts or [("belief propagation", bp)]]


def _loss_table(title: str, items: Sequence[Measured], bp: Mapping[tuple[Any, ...], Measured]) -> Table:
    sections = tuple(
        tuple(_loss_line(item, bp.get(_place(item))) for item in items if item.keys["row"] == row)
        for row in dict.fromkeys(item.keys["row"] for item in items)
    )
    columns = ("N, P", "law", "role", "hidden", "determ.", "Bayes", "loss", "KL", "error", "BP KL", "BP\nexcl.")
    return Table(title, columns, sections, _LOSS_NOTES, _LEFT)


def _place(item: Measured) -> tuple[Any, ...]:
    """What two posteriors' rows share if they are about the same tokens."""
    return item.keys["row"], item.keys["law"], item.keys["role"]


def _is_bp(item: Measured) -> bool:
    return item.keys["posterior"] == "bp"


def progress_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Losses under the uniform law beside the floor and the marginals-only line."""
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    lines = []
    for item in group(rows, "losses"):
        if item.keys["law"] == "uniform" and item.keys["role"] == "all":
            problem = problems[item.keys["row"]]
            lines.append(
                (
                    _pair(item),
                    _name(item.keys),
                    short(item.value("model")),
                    _with_error(item.metrics["exact"]),
                    short(problem.value("floor")),
                    short(problem.value("marginals_only")),
                    _with_error(item.metrics["kl"]),
                    shown(gap_closed(item, problem), 100, ".1f"),
                )
            )
    columns = ("N, P", "posterior", "loss", "Bayes", "floor", "marginals\nonly", "KL", "gap closed")
    notes = (
        "Uniform mask law, all tokens, nats per token. Gap closed = 1 - KL/(marginals only - floor) in per cent. 95 % "
        "intervals over sequences.",
    )
    return Table("How far each posterior is from the Bayes optimum", columns, (tuple(lines),), notes, _LEFT)


def leaking_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of ``evidence`` over the threshold of their problem, the largest first."""
    thresholds = {row.keys["row"]: row.sums.mean for row in rows if row.metric == "threshold"}
    found = [
        row for row in rows if row.metric == "evidence" and row.sums.total >= thresholds.get(row.keys["row"], math.inf)
    ]
    return sorted(found, key=lambda row: -row.sums.total)


def leak_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """No posterior beats Bayes: what was tested, and what was found."""
    lines = tuple(
        (
            _pair(item),
            _name(item.keys),
            f"{item.value('rows_tested'):.0f}",
            f"{item.value('largest_evidence'):.1f}",
            f"{item.value('threshold'):.1f}",
            f"LEAK in {item.value('leaks'):.0f} rows" if item.value("leaks") else "none",
        )
        for item in group(rows, "leaks")
    )
    notes = [
        "Does any posterior beat Bayes, in any row (law, latents hidden, observations hidden, role)? Evidence: ln of "
        "the wealth won by betting on its probability of the true token against the exact one; over the threshold with "
        "probability at most 0.001 over all rows of a problem, for posteriors that see the context only."
    ]
    for row in leaking_rows(rows)[:_LEAKS_SHOWN]:
        keys = row.keys
        place = f", {_hidden(keys)} hidden" if _hidden(keys) else ""
        notes.append(
            f"LEAK: {_name(keys)}, {keys['law']}{place}, {keys['role']}s: evidence {row.sums.total:.1f}; it knows of "
            "tokens that its context hides."
        )
    columns = ("N, P", "posterior", "rows tested", "largest\nevidence", "threshold", "leaks")
    return Table("No model beats Bayes", columns, (lines,), tuple(notes), _LEFT)


def proxy_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """The paper's way of measuring beside ours: errors against the model trained longest."""
    items = [item for item in group(rows, "losses") if item.keys["role"] != "all"]
    lengths = _lengths(items)
    own = {_place(item): item for item in items if lengths and item.keys["iterations"] == lengths[-1]}
    lines = tuple(
        (
            _pair(item),
            _name(item.keys),
            str(item.keys["law"]),
            str(item.keys["role"]),
            short(item.value("proxy_log_ratio")),
            short(item.value("log_ratio")),
            short(own[_place(item)].value("log_ratio")),
        )
        for item in items
        if "proxy_log_ratio" in item.metrics and not _is_bp(item)
    )
    columns = (
        "N, P",
        "posterior",
        "law",
        "role",
        "error against\nthe proxy",
        "error against\nexact",
        "the proxy's\nown",
    )
    notes = (
        "Mean squared log-ratio at the true token, against the model trained longest (the paper's proxy) and against "
        "the exact posterior, and the error of the proxy itself against the exact posterior.",
    )
    return Table("The paper's proxy", columns, (lines,), notes, _LEFT)


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    ordered = sorted(seeded(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    made = [
        *loss_tables(experiment, ordered),
        proxy_table(experiment, ordered),
        progress_table(experiment, ordered),
        leak_table(experiment, ordered),
    ]
    if made and experiment.reference is not None:
        note = f"Paper: {experiment.reference.statement} ({experiment.reference.source})."
        first = made[0]
        made[0] = Table(first.title, first.columns, first.sections, (*first.notes, note), first.left)
    return made
