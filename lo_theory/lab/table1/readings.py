"""Which reading of the published table gives its numbers: every accuracy, decode and variant that was measured.

A reading says what "accuracy" is and how sequences were made; under each the measured numbers stand at some distance
from the published ones. Plain numbers, no torch, no matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lo_theory.diffusion.statistics import Estimate
from lo_theory.lab.rows import Row
from lo_theory.lab.settings import step_count
from lo_theory.lab.summary import Measured, add_row, group
from lo_theory.lab.table1.labels import variants
from lo_theory.lab.table1.row import Reference

__all__ = ["ADAPTIVE", "Pair", "Reading", "readings", "verdict"]

ADAPTIVE = "margin"
"""The paper's adaptive inference."""

_GENERATED = ("self_consistency", "unpaired")
_ONE_PASS = ("conditional", "infill", "infill_drawn")
_NAMES = {"infill_drawn": "infill, drawn", "self_consistency": "self-consistency"}
_POLICIES = ("vanilla", ADAPTIVE)
_NONE = Estimate(0.0, 0.0, 0.0)  # in one pass both policies are the same

Pair = tuple[int, int]


def _percent(share: Estimate) -> Estimate:
    return Estimate(*(100 * value for value in share))


@dataclass(frozen=True)
class Reading:
    """What accuracy is, of which denoiser, how it was decoded, and the values of both policies at every pair, per cent.

    ``effects``: adaptive minus vanilla in points, run by run where there are several runs. ``variant``: the name of the
    rows (positions, repeats), empty for the plain ones.
    """

    accuracy: str
    denoiser: str
    variant: str
    decode: str
    values: Mapping[Pair, tuple[Estimate, Estimate]]
    effects: Mapping[Pair, Estimate]

    @property
    def label(self) -> str:
        """``self-consistency, model, L/8 steps, argmax``."""
        return ", ".join(filter(None, (self.accuracy, self.denoiser, self.variant, self.decode)))

    def differences(self, published: Mapping[Pair, Mapping[str, float]]) -> dict[tuple[Pair, str], float]:
        """Measured minus published, in points, at the pairs that both have."""
        return {
            (pair, policy): value.value - published[pair][policy]
            for pair, values in self.values.items()
            for policy, value in zip(_POLICIES, values, strict=True)
            if policy in published.get(pair, {})
        }

    def distance(self, published: Mapping[Pair, Mapping[str, float]]) -> float:
        """Root mean square of the differences, in points.

        Where no pair is published: to the published pair that is nearest, averaged over the pairs measured.
        """
        found = list(self.differences(published).values())
        if found:
            return _rms(found)
        nearest = [
            min(
                _rms([value.value - line[name] for name, value in zip(_POLICIES, values, strict=True) if name in line])
                for line in published.values()
            )
            for values in self.values.values()
        ]
        return _rms(nearest)


def _rms(numbers: Sequence[float]) -> float:
    return math.sqrt(sum(number**2 for number in numbers) / len(numbers))


def published_numbers(reference: Reference) -> dict[Pair, dict[str, float]]:
    """The published per cents by pair and policy."""
    found: dict[Pair, dict[str, float]] = {}
    for line in reference.rows:
        found.setdefault((line.N, line.P), {})[line.policy] = line.percent
    return found


def _decode(cell: Measured, *, noise: bool = True) -> str:
    """``L/8 steps, argmax, gumbel 0.5``: how a cell was decoded; the steps as L/n where there is such an n."""
    length, steps = sum(cell.pair), int(cell.keys["steps"])
    share = f"L/{-(-length // steps)}"
    shown = share if step_count(share, length) == steps else str(steps)
    shown = "L" if steps == length else shown
    return ", ".join([f"{shown} steps", *variants(cell.keys if noise else {**cell.keys, "noise": ""})])


def readings(rows: Iterable[Row], reference: Reference) -> list[Reading]:
    """Every reading that both policies were measured under, the nearest to the published numbers first.

    Noise on the scores does not change vanilla decoding, which then stands for itself. Accuracies of one pass know no
    order: both policies have the same number. Several runs of a pair and name are pooled, with intervals over the runs.
    """
    kept = list(rows)
    found: dict[tuple[str, str, str, str], dict[Pair, tuple[Estimate, Estimate, Estimate]]] = {}
    cells: dict[tuple[str, str, str, Pair], dict[str, Measured]] = {}
    for cell in group(kept, "decode"):
        place = (str(cell.keys["denoiser"]), str(cell.keys.get("name", "")), _decode(cell), cell.pair)
        add_row(cells.setdefault(place, {}), str(cell.keys["policy"]), cell)
    for (denoiser, variant, decode, pair), policies in cells.items():
        if ADAPTIVE not in policies:
            continue
        plain = (denoiser, variant, _decode(policies[ADAPTIVE], noise=False), pair)
        vanilla = policies.get("vanilla") or cells.get(plain, {}).get("vanilla")
        if vanilla is not None:
            for metric in _GENERATED:
                adaptive = policies[ADAPTIVE]
                reading = (_NAMES.get(metric, metric), denoiser, variant, decode)
                found.setdefault(reading, {})[pair] = (
                    _percent(vanilla.estimate(metric)),
                    _percent(adaptive.estimate(metric)),
                    _percent(adaptive.minus(vanilla, metric)),
                )
    passes: dict[tuple[str, str, Pair], Measured] = {}
    for item in group(kept, "one_pass"):
        add_row(passes, (str(item.keys["denoiser"]), str(item.keys.get("name", "")), item.pair), item)
    for (denoiser, variant, pair), item in passes.items():
        for metric in _ONE_PASS:
            value = _percent(item.estimate(metric))
            reading = (_NAMES.get(metric, metric), denoiser, variant, "one pass")
            found.setdefault(reading, {})[pair] = (value, value, _NONE)
    published = published_numbers(reference)
    made = [
        Reading(
            *place,
            {pair: (vanilla, adaptive) for pair, (vanilla, adaptive, _) in parts.items()},
            {pair: effect for pair, (_, _, effect) in parts.items()},
        )
        for place, parts in found.items()
    ]
    return sorted(made, key=lambda reading: reading.distance(published))


def verdict(found: Sequence[Reading], reference: Reference) -> str:
    """Say under which reading the published numbers come out, or that none fits, and how far that carries."""
    published = published_numbers(reference)
    pairs = sorted({pair for reading in found for pair in reading.values})
    common = [pair for pair in pairs if pair in published]
    if not found:
        return ""
    if not common:
        return _elsewhere(found, pairs, published)
    names = ", ".join(f"({n}, {p})" for n, p in common)
    whole = [reading for reading in found if set(common) <= reading.values.keys()]
    tolerance = reference.tolerance
    fitting = [one for one in whole if max(map(abs, one.differences(published).values())) <= tolerance]
    if fitting:
        text = "; ".join(f"{one.label} (largest difference {_largest(one, published)})" for one in fitting)
        text = f"The published numbers at {names} come out within {tolerance:g} points under: {text}."
    else:
        best = next((one for one in whole if one.decode != "one pass"), whole[0])
        text = (
            f"Under none of {len(whole)} readings do the published numbers at {names} come out within {tolerance:g} "
            f"points. The nearest that is decoded is {best.label}: {best.distance(published):.1f} points root mean "
            f"square, {_largest(best, published)} at most. "
        )
        text += " ".join(_nearest_alone(whole, policy, published) for policy in _POLICIES)
    missing = len(published) - len(common)
    return text + (f" {missing} of the {len(published)} published pairs were not run." if missing else "")


def _largest(reading: Reading, published: Mapping[Pair, Mapping[str, float]]) -> str:
    (pair, policy), points = max(reading.differences(published).items(), key=lambda item: abs(item[1]))
    return f"{points:+.1f} ({policy} at {pair})"


def _nearest_alone(found: Sequence[Reading], policy: str, published: Mapping[Pair, Mapping[str, float]]) -> str:
    """The reading nearest to the numbers of one policy."""

    def distance(reading: Reading) -> float:
        return _rms([points for (_, name), points in reading.differences(published).items() if name == policy])

    known = [one for one in found if any(name == policy for _, name in one.differences(published))]
    if not known:
        return ""
    best = min(known, key=distance)
    return f"{policy.capitalize()} alone: {best.label} ({distance(best):.1f})."


def _elsewhere(found: Sequence[Reading], pairs: Sequence[Pair], published: Mapping[Pair, Mapping[str, float]]) -> str:
    """At pairs that are not published only the sign and the size of the effect can be compared."""
    effects = [line[ADAPTIVE] - line["vanilla"] for line in published.values() if set(_POLICIES) <= line.keys()]
    names = ", ".join(f"({n}, {p})" for n, p in pairs)
    text = f"No published pair was run, only {names}, so no reading can be confirmed here."
    if not effects:
        return text
    decoded = [one for one in found if one.decode != "one pass" and one.denoiser == "model"]
    measured = [(one, pair, one.effects[pair]) for one in decoded for pair in one.values]
    above = [(one, pair, effect) for one, pair, effect in measured if effect.value >= min(effects)]
    signs = [sum(effect.low > 0 for *_, effect in measured), sum(effect.high < 0 for *_, effect in measured)]
    text += (
        f" What can be compared is adaptive minus vanilla, published as {min(effects):+.1f} to {max(effects):+.1f} "
        f"points: of {len(measured)} cases, a reading of the model at a pair, it is above zero in {signs[0]} and below "
        f"in {signs[1]} (95 % intervals over runs, of one run over sequences), and as large as published in "
    )
    listed = "; ".join(f"{one.label} at {pair} ({effect.value:+.1f})" for one, pair, effect in above)
    return text + (f"{len(above)}: {listed}." if above else "none.") + " Nothing follows for the published sizes."
