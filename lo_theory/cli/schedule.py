"""The command ``schedule``: what each schedule of a random order costs on a problem, and the best one.

Prints a table, writes nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lo_theory.cli.samples import add_families, family_problem
from lo_theory.cli.shared import show_tables

if TYPE_CHECKING:
    from lo_theory.diffusion import InformationCurve, Schedule
    from lo_theory.diffusion.statistics import Estimate, Sums
    from lo_theory.lab.frame import Record
    from lo_theory.lab.table import Table

__all__ = ["add_commands"]

_DESCRIPTION = """\
Revealing several tokens at once with exact marginals costs KL(data || sampler) nats a sequence. In random order that
is the left Riemann error of the information curve h_j, the entropy of a hidden token when j random others are
revealed; the best counts are found by a dynamic programme over the curve (docs/frozen.md, docs/equations.md).
"""

_GRID = tuple(2.0 ** (k / 2) for k in range(-6, 7))  # of a and b of the Beta curves


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``schedule`` to the subparsers ``commands``, one family of problems below it for each."""
    words = "what each schedule of several tokens a step costs in random order, and the best one"
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("schedule", help=words, description=_DESCRIPTION, formatter_class=raw)
    for family in add_families(command, shared):
        family.add_argument("--steps", type=int, required=True, metavar="T", help="steps of a decode")
        family.add_argument(
            "-n", type=int, default=200, metavar="SEQUENCES", help="to measure the curve (default: 200)"
        )
        family.add_argument("--seed", type=int, default=0, help="seed of the sequences (default: 0)")
        family.set_defaults(function=_schedule)


def _schedule(options: argparse.Namespace) -> None:
    from lo_theory.diffusion import information_curve
    from lo_theory.posterior import ExactPosterior
    from lo_theory.rng import Key

    distribution = family_problem(options).make()
    length = distribution.layout.length
    if not 1 <= options.steps <= length:
        raise ValueError(f"--steps lies between 1 and L = {length}, got {options.steps}")
    key = Key(options.seed).fold("schedule")
    curve = information_curve(ExactPosterior(distribution), distribution, key=key, n=options.n)
    show_tables([_table(curve, options.steps)])
    measured = _estimate(curve.entropy)
    words = f"{measured.value:.3f} ±{measured.half:.3f} from the curve, {distribution.entropy():.3f} in closed form"
    print(f"Entropy of a sequence, nats: {words}.")


def _table(curve: InformationCurve, steps: int) -> Table:
    """A line for each schedule, the best counts first, and last the random counts of the paper's rule."""
    from lo_theory.diffusion import (
        FixedCount,
        RevealCurve,
        best_counts,
        binomial_cost,
        certificates,
        certified_counts,
        counts_cost,
        random_sizes_cost,
        schedule_counts,
    )
    from lo_theory.diffusion.statistics import Estimate
    from lo_theory.lab.table import Table, key, measured
    from lo_theory.rng import Key

    length, nats = curve.values.shape[1], curve.nats
    shapes: list[Schedule] = [FixedCount(steps), RevealCurve(steps, "cosine"), RevealCurve(steps)]
    counts = {schedule.name: schedule_counts(schedule, length, Key(0)) for schedule in shapes}
    betas = [RevealCurve(steps, "beta", a, b) for a in _GRID for b in _GRID]
    every = [(schedule.name, schedule_counts(schedule, length, Key(0))) for schedule in betas]
    name, least = min(every, key=lambda it: counts_cost(nats, it[1]))
    known = {"best": best_counts(nats, steps), f"best {name}": least, **counts}
    known |= {f"by {of} alone": certified_counts(length, steps, of) for of in ("TC", "DTC")}
    lines = [_line(name, made, _estimate(curve.cost(made)), certificates(nats, made)) for name, made in known.items()]
    lines.sort(key=lambda line: line.value("nats"))
    for name, mean in (("random_sizes", random_sizes_cost), ("binomial", binomial_cost)):
        lines.append(_line(f"{name}({steps})", None, Estimate(mean(nats, steps), math.nan, math.nan), {}))
    bounds = [measured(of, f"by {of}", ".3f") for of in ("TC", "DTC", "MI")]
    last = key("counts", "tokens at each step", left=True)
    columns = [key("schedule", left=True), measured("nats"), *bounds, measured("Li, Cai", form=".3f"), last]
    return Table(f"Cost of {steps} steps in random order, nats a sequence", columns, lines, notes=_NOTE)


_NOTE = (
    "KL from the law of the data to that of a sampler with exact marginals, 95 % intervals over sequences. best: of "
    "all counts the least on this curve; best beta: of beta(steps, a, b) with a and b from 1/8 to 8. binomial: the "
    "paper's rule, random_sizes: random counts whose mean cost is a known share of TC, both in the mean over their "
    "counts. by TC, DTC, MI: upper bounds that know of the curve only TC (the cost of one step), DTC or MI = TC + DTC; "
    "they can lie below a cost by the error of the curve. Li, Cai: arXiv 2505.21400. by TC alone, by DTC alone: the "
    "counts with the least such bound."
)


def _estimate(sums: Sums) -> Estimate:
    from lo_theory.diffusion.statistics import Estimate

    return Estimate(sums.mean, *sums.interval())


def _line(name: str, counts: list[int] | None, nats: Estimate, bounds: Mapping[str, float]) -> Record:
    from lo_theory.diffusion.statistics import Estimate
    from lo_theory.lab.frame import Record

    words = "random" if counts is None else " ".join(map(str, counts))
    shown = {"Li, Cai" if "2505" in of else of: Estimate(bound, math.nan, math.nan) for of, bound in bounds.items()}
    estimates = {"nats": nats, **shown}
    return Record({"schedule": name, "counts": words}, {of: (estimate, None) for of, estimate in estimates.items()})
