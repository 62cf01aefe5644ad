"""The tables of the experiment on families: what is above Bayes, law by law, and what that says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lo_theory.diffusion.statistics import Runs
from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.seeds import seeded, with_seeds
from lo_theory.lab.summary import Measured, group
from lo_theory.lab.texts import with_error

__all__ = ["NOTHING", "Gaps", "Place", "gaps", "tables"]

NOTHING = 1e-9
"""Where the single-token marginals lie less above Bayes than this, in nats per token, there is nothing to know."""

_LEFT = ("family", "verdict", "learner", "role")
_MILLI = 1e3


@dataclass(frozen=True)
class Place:
    """Which gaps: of one row, under one mask law (empty: along the order), at the tokens of one role."""

    row: int
    family: str
    law: str
    role: str = "all"


@dataclass(frozen=True)
class Gaps:
    """KL above Bayes in nats per token at one place: ``models`` by training steps, ascending.

    ``bp`` None where there is no factor graph or it was not asked for, ``above_bp`` the last model minus it, context by
    context; ``marginals``: what there is to know. ``learned``: the share of ``marginals`` below which a gap counts as
    closed, and two gaps as level.
    """

    models: dict[int, Runs]
    marginals: Runs | None
    bp: Runs | None = None
    above_bp: Runs | None = None
    learned: float = 0.05

    @property
    def last(self) -> Runs:
        """The gap after the whole training."""
        return self.models[max(self.models)]

    @property
    def nothing(self) -> bool:
        """Whether the tokens revealed say nothing about any single hidden one."""
        return self.marginals is not None and self.marginals.mean < NOTHING

    def closed(self, sums: Runs) -> bool:
        """Whether the 95 % interval lies below the share that counts as closed."""
        return self.marginals is not None and sums.interval()[1] < self.learned * self.marginals.mean

    @property
    def trend(self) -> str:
        """What longer training does: ``falls`` or ``rises`` if the 95 % intervals at its ends are apart, else ``flat``.

        Of the first and the last training, as if their contexts were independent; they are the same, so a small change
        is missed rather than invented.
        """
        (first_low, first_high), (last_low, last_high) = self.models[min(self.models)].interval(), self.last.interval()
        return "falls" if last_high < first_low else "rises" if last_low > first_high else "flat"

    @property
    def against_bp(self) -> str:
        """``level with BP`` only where the whole 95 % interval of the difference is small; else who is above."""
        if self.above_bp is None or self.marginals is None:
            return "no BP" if self.bp is None else "not compared with BP"  # rows of an older version
        (low, high), least = self.above_bp.interval(), self.learned * self.marginals.mean
        if -least < low and high < least:
            return "level with BP"
        return "above BP" if low > 0 else "below BP" if high < 0 else "not told apart from BP"

    @property
    def verdict(self) -> str:
        """In words, by the rules that the table's notes state."""
        if self.nothing:
            return "nothing to know"
        if self.closed(self.last):
            return "learned"
        return f"{self.against_bp}; gap {self.trend}"


def gaps(rows: Sequence[Row]) -> dict[Place, Gaps]:
    """All gaps under mask laws, laws in order of appearance and within each the rows in order."""
    shares = {int(item.keys["row"]): item.value("learned") for item in group(rows, "problem")}
    parts: dict[Place, dict[str, Measured]] = {}
    for item in group(rows, "losses"):
        keys = item.keys
        place = Place(int(keys["row"]), with_seeds(str(keys["family"]), keys), str(keys["law"]), str(keys["role"]))
        parts.setdefault(place, {})[f"{keys['posterior']}{keys['training_steps']}"] = item
    laws = list(dict.fromkeys(place.law for place in parts))
    found = {}
    for place in sorted(parts, key=lambda place: (laws.index(place.law), place.row)):
        items = parts[place]
        models = {
            int(item.keys["training_steps"]): item.metrics["kl"]
            for item in items.values()
            if item.keys["posterior"] == "mdm"
        }
        if models:
            bp, marginals = (items[name].metrics["kl"] if name in items else None for name in ("bp", "marginals"))
            above = items[f"mdm{max(models)}"].metrics.get("kl_above")
            share = shares.get(place.row, math.nan)
            found[place] = Gaps(dict(sorted(models.items())), marginals, bp, above, share)
    return found


def along(rows: Sequence[Row]) -> dict[int, dict[int, Runs]]:
    """KL of the order-aware learner along its own order, by row and training steps."""
    found: dict[int, dict[int, Runs]] = {}
    for item in group(rows, "along"):
        found.setdefault(int(item.keys["row"]), {})[int(item.keys["training_steps"])] = item.metrics["kl"]
    return {row: dict(sorted(items.items())) for row, items in sorted(found.items())}


def _with_error(sums: Runs | None) -> str:
    return with_error(sums, _MILLI)


def _half_and_whole(models: dict[int, Runs]) -> tuple[str, str]:
    """The gaps after the shortest training and after the longest, if there are two."""
    first, last = min(models), max(models)
    return ("-" if first == last else _with_error(models[first])), _with_error(models[last])


def law_table(law: str, found: dict[Place, Gaps], orders: dict[int, dict[int, Runs]]) -> Table:
    """All families under one mask law, the order-aware learner beside."""
    lines, shares = [], set()
    for place, gap in found.items():
        if place.law == law and place.role == "all":
            shares.add(f"{100 * gap.learned:g} %")
            own = orders.get(place.row)
            aware = ("-", "-") if own is None else _half_and_whole(own)
            to_know = _with_error(gap.marginals)
            masked = _half_and_whole(gap.models)
            lines.append((place.family, to_know, _with_error(gap.bp), *masked, gap.verdict, *aware))
    columns = (
        *("family", "to know", "BP", "model,\nfirst", "model,\nlast", "verdict"),
        *("order-aware,\nfirst", "order-aware,\nlast"),
    )
    of = " or ".join(sorted(shares))
    notes: tuple[str, ...] = (
        "Minus Bayes: KL from the exact marginals in 10^-3 nats per token, with 95 % intervals over contexts; BP -: no "
        "factor graph. To know: of the single-token marginals, which read nothing. First and last: shortest and "
        "longest training of the masked model, and of the order-aware learner along its own order, latents first, on "
        f"whole sequences (the same in every table). Verdict: learned, if the last interval is below {of} of what "
        "there is to know. Else by the last model minus BP, context by context: level with BP (a candidate for "
        f"hardness), if its interval lies within {of} of what there is to know; above BP (a fast algorithm gets "
        "further from the same tokens: not yet learned) or below BP, if zero is outside; else not told apart. Gap "
        "falls or rises: intervals of first and last apart.",
    )
    if law.startswith("satisfied"):
        notes += (
            "Only observations of value 1 are revealed. The exact posterior takes the hidden as missing at random, as "
            "all others do: KL compares marginals given the same tokens, losses at the true token mean nothing here.",
        )
    return Table(f"Above Bayes under {law}", columns, (tuple(lines),), notes, _LEFT)


def role_table(experiment: Experiment, found: dict[Place, Gaps]) -> Table:
    """The same gaps role by role."""
    sections = []
    for law in dict.fromkeys(place.law for place in found):
        lines = [
            (
                law,
                place.family,
                place.role,
                _with_error(gap.marginals),
                _with_error(gap.bp),
                *_half_and_whole(gap.models),
            )
            for place, gap in found.items()
            if place.law == law and place.role != "all"
        ]
        sections.append(tuple(lines))
    columns = ("law", "family", "role", "to know", "BP", "model,\nfirst", "model,\nlast")
    notes: tuple[str, ...] = ("10^-3 nats per hidden token of the role: means over its hidden tokens in a context.",)
    notes += () if experiment.reference is None else (f"Paper: {experiment.reference.source}.",)
    return Table("By role", columns, tuple(sections), notes, ("law", *_LEFT))


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """A table a mask law, and one of all by role."""
    ordered = sorted(seeded(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    found, orders = gaps(ordered), along(ordered)
    made = [law_table(law, found, orders) for law in dict.fromkeys(place.law for place in found)]
    return [*made, role_table(experiment, found)]
