"""The tables of the experiment on orders: above the floor by compute, along each order, generated sequences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from lo_theory.diffusion.losses import gap_share, gap_span
from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.texts import largest_z_text, number, percent, with_error

__all__ = ["excess", "longest", "own_losses", "tables"]

_LEFT = ("N, P", "learner", "order", "policy")
_MILLI = 1e3


def own_losses(rows: Sequence[Row]) -> dict[tuple[int, str], list[Measured]]:
    """Losses of every learner on its own objective by (row, learner), budgets ascending.

    An order-aware one along its order, a masked one under the uniform law.
    """
    own = [item for item in group(rows, "along") if item.keys["learner"] == item.keys["order"]]
    found: dict[tuple[int, str], list[Measured]] = {}
    for item in (*own, *group(rows, "masked")):
        found.setdefault((int(item.keys["row"]), str(item.keys["learner"])), []).append(item)
    for items in found.values():
        items.sort(key=lambda item: float(item.keys["flops"]))
    return dict(sorted(found.items(), key=lambda entry: entry[0][0]))  # rows together, learners as they came


def excess(item: Measured, floor: float) -> Runs:
    """Nats per token above the floor, sequence by sequence: the KL, or without the exact posterior loss - floor."""
    return item.metrics["kl"] if "kl" in item.metrics else item.metrics["model"].shifted(-floor)


def _problems(rows: Sequence[Row]) -> dict[int, Measured]:
    return {int(item.keys["row"]): item for item in group(rows, "problem")}


def _name(item: Measured) -> str:
    n, p = item.pair
    return f"({n}, {p}), seed {item.keys['seed']}"


def reached(items: Iterable[Measured], problem: Measured) -> float:
    """FLOPs of the least training after which the floor counts as reached; nan if it never is."""
    floor = problem.value("floor")
    enough = problem.value("reached") * gap_span(floor, problem.value("marginals_only"))
    return next((float(item.keys["flops"]) for item in items if excess(item, floor).interval()[1] < enough), math.nan)


def compute_tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """Nats per token above the floor by training compute, a table a row of the experiment."""
    found, made = own_losses(rows), []
    published = () if experiment.reference is None else (f"Paper: {experiment.reference.source}.",)
    for index, problem in _problems(rows).items():
        floor, marginals = problem.value("floor"), problem.value("marginals_only")
        parts = {name: items for (row, name), items in found.items() if row == index}
        budgets = list(dict.fromkeys(float(item.keys["flops"]) for items in parts.values() for item in items))
        lines = []
        for name, items in parts.items():
            above = {float(item.keys["flops"]): excess(item, floor) for item in items}
            last = above[max(above)]
            closed = number(100 * gap_share(last.mean, floor, marginals), ".1f")
            cells = [with_error(above.get(flops), _MILLI) for flops in sorted(budgets)]
            lines.append((name, *cells, closed, number(reached(items, problem), ".1e")))
        columns = ("learner", *(f"{flops:.1e}" for flops in sorted(budgets)), "gap\nclosed", "floor\nreached")
        notes = (
            "10^-3 nats per token above the entropy floor after trainings of so many FLOPs, with 95 % intervals over "
            "sequences: KL to the exact conditionals on fresh data where measured, else loss - floor. Order-aware "
            "learners along their own order, masked ones under the uniform law (Proposition 2.1: the mean over all "
            "orders). Gap closed: per cent of the way from the marginals-only line "
            f"({number(marginals, '.4f')}) to the floor ({number(floor, '.4f')}). Floor "
            f"reached: least FLOPs at which the interval lies below {100 * problem.value('reached'):g} % of that way.",
        )
        made.append(
            Table(
                f"Above the floor by training FLOPs, {_name(problem)}",
                columns,
                (tuple(lines),),
                notes + published,
                _LEFT,
            )
        )
    return made


def longest(items: Sequence[Measured], length: str) -> list[Measured]:
    """Those of the longest training of their row; ``length``: the key that says how long, such as ``flops``."""
    whole: dict[int, float] = {}
    for item in items:
        row = int(item.keys["row"])
        whole[row] = max(whole.get(row, 0.0), float(item.keys[length]))
    return [item for item in items if float(item.keys[length]) == whole[int(item.keys["row"])]]


def along_table(rows: Sequence[Row]) -> Table:
    """Every order after the whole training: its own learner and the masked ones on the same sequences."""
    items = longest(group(rows, "along"), "flops")
    several = len({item.keys["row"] for item in items}) > 1
    sections = []
    for _, part in itertools.groupby(items, key=lambda item: (item.keys["row"], item.keys["order"])):
        lines = []
        for item in part:
            own = item.keys["learner"] == item.keys["order"]
            cells = [with_error(item.metrics.get(name), _MILLI) for name in ("kl", "kl_latents", "kl_observations")]
            lines.append(
                (
                    *(("{}, {}".format(*item.pair) if own else "",) if several else ()),
                    str(item.keys["order"]) if own else "",
                    "its own" if own else str(item.keys["learner"]),
                    number(item.value("model"), ".4f"),
                    number(item.value("exact"), ".4f"),
                    *cells,
                    "" if own else with_error(item.metrics.get("above_causal"), _MILLI),
                )
            )
        sections.append(tuple(lines))
    columns = (
        *(("N, P",) if several else ()),
        *("order", "learner", "loss", "exact\nloss", "KL", "at\nlatents", "at obser-\nvations", "above\nits own"),
    )
    notes = (
        "After the whole training: losses in nats per token; KL to the exact conditionals, its shares at latents and "
        "at observations, and how far a masked learner lies above the order's own one on the same sequences, in "
        "10^-3 nats per token, with 95 % intervals over sequences.",
    )
    return Table("Along the orders", columns, tuple(sections), notes, _LEFT)


def _sections(
    items: Sequence[Measured], line: Callable[[Measured], tuple[str, ...]]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    parts = itertools.groupby(items, key=lambda item: item.keys["row"])
    return tuple(tuple(line(item) for item in part) for _, part in parts)


def accuracy_table(rows: Sequence[Row]) -> Table:
    """The four accuracies of what the learners generate."""
    cells = group(rows, "generate")
    one_pass = {(item.keys["row"], item.keys["learner"]): item for item in group(rows, "one_pass")}

    def line(cell: Measured) -> tuple[str, ...]:
        other = one_pass.get((cell.keys["row"], cell.keys["learner"]))
        generated = (percent(cell, name) for name in ("self_consistency", "consistent", "unpaired"))
        conditional, infill = (percent(other, name) for name in ("conditional", "infill"))
        mean = number(cell.value("observation_mean"))
        return (str(cell.keys["learner"]), str(cell.keys["policy"]), *generated, mean, conditional, infill)

    columns = (
        *("learner", "policy", "self-\nconsistent", "wholly\nconsistent"),
        *("unpaired", "mean\nobs.", "conditional", "infill"),
    )
    notes = (
        "Per cent, with 95 % intervals over sequences; equal training FLOPs, one token a step, tokens drawn. The four "
        "accuracies are those of Table 1. Conditional: observations from true latents, most likely values, for masked "
        "learners in one pass, for an order that reads all latents first one after another; infill: masked learners "
        "only. Neither can be asked of another order.",
    )
    return Table("Generated sequences", columns, _sections(cells, line), notes, _LEFT)


def diversity_table(rows: Sequence[Row]) -> Table:
    """Whether generated sequences have the law of the data, and what they cost."""

    def line(cell: Measured) -> tuple[str, ...]:
        """One learner under one policy."""
        distinct = f"{100 * cell.value('distinct'):.1f} ({100 * cell.value('distinct_expected'):.1f})"
        distance, expected = (number(cell.value(f"total_variation{end}")) for end in ("", "_expected"))
        cost = [number(cell.value(name), ".0f") for name in ("forwards", "passes")]
        return (
            *(str(cell.keys["learner"]), str(cell.keys["policy"]), distinct),
            *(largest_z_text(cell, name) for name in ("bias", "pair")),
            *(
                f"{distance} ({expected})" if distance != "-" else "-",
                *cost,
                number(1e3 * cell.value("seconds"), ".2f"),
            ),
        )

    columns = (
        *("learner", "policy", "distinct %", "bias z", "pair z", "total\nvariation"),
        *("forwards", "passes", "ms"),
    )
    notes = (
        "Distinct latent strings, and expected of exact samples; largest |z| of a latent's mean and of a pair's "
        "correlation (!: 999 of 1000 exact samplers stay below); total variation distance to p_data (expected of as "
        "many exact samples; N <= 12). A sequence: calls of the network; their worth in passes over all L positions "
        "(a causal network keeps what it has read); milliseconds of wall time as it ran, beside what else was running.",
    )
    return Table(
        "Diversity and cost of generated sequences", columns, _sections(group(rows, "generate"), line), notes, _LEFT
    )


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    ordered = sorted(rows, key=lambda row: int(row.keys.get("row", 0)))
    return [
        *compute_tables(experiment, ordered),
        along_table(ordered),
        accuracy_table(ordered),
        diversity_table(ordered),
    ]
