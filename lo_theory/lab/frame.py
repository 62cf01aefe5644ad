"""Measured rows as a pandas DataFrame, and what is made of them: pooled means, differences, gap closed.

The one place that knows pandas, which it loads when called. A frame of rows has a line for each row: ``unit``, the keys
(missing where a row lacks one), ``metric``, and the statistics ``n``, ``sum``, ``squared_deviations``. A *pooled* frame
has a line for each place and metric: the keys of the place, ``metric``, ``n``, ``mean``, ``low``, ``high`` (95 %: over
runs Student's t, over sequences ``Sums.interval``) and ``runs``, what each run has measured.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from lo_theory.diffusion.losses import gap_span
from lo_theory.diffusion.statistics import Estimate, Runs, Sums, pooled
from lo_theory.lab.kinds import KINDS, is_share, known_kinds
from lo_theory.lab.rows import STATISTICS, Row

if TYPE_CHECKING:
    from pandas import DataFrame


Frame: TypeAlias = "DataFrame"
"""A pandas DataFrame of rows, or pooled; pandas is loaded when one is made."""

RESULTS = ("metric", "n", "mean", "low", "high", "runs")
"""Columns of a pooled frame that are no keys."""

_WHICH_RUN = ("row", "run", "problem", "seed", "seeds", "problem.seed")  # keys in which runs of one place may differ
_NOTHING = Estimate(math.nan, math.nan, math.nan)


def from_rows(rows: Iterable[Row]) -> DataFrame:
    """A frame of rows, in their order; the empty text counts as missing. Costs some 5 us a row."""
    from pandas import DataFrame

    items = _migrated(list(rows))
    names = list(dict.fromkeys(name for row in items for name in row.keys))
    sums = [row.sums for row in items]
    return DataFrame(
        {"unit": [row.unit for row in items]}
        | {name: _column([row.keys.get(name, "") for row in items]) for name in names}
        | {"metric": [row.metric for row in items], "n": [one.n for one in sums]}
        | {"sum": [one.total for one in sums], "squared_deviations": [one.deviations for one in sums]}
    )


def _column(values: Sequence[Any]) -> Any:
    """A column of the narrowest type that holds its values and what is missing (the empty text)."""
    from pandas import array

    known = [None if _missing(value) else value for value in values]
    forms = {type(value) for value in known if value is not None}
    dtypes: dict[frozenset[type], str] = {frozenset({bool}): "boolean", frozenset({int}): "Int64"}
    dtypes |= {frozenset({float}): "Float64", frozenset({int, float}): "Float64", frozenset({str}): "string"}
    return array(known, dtype=dtypes.get(frozenset(forms), "object"))


def _migrated(rows: list[Row]) -> list[Row]:
    """Rows as they are written now. Older statistics are converted where files are read (``rows.read_sums``).

    Rows of problems did not have the lines of self-consistency: without noise, when all decodes have a ceiling of 1,
    they are 1, ``constant`` and ``independent``.
    """
    ceilings: dict[Any, set[float]] = {}
    known: set[Any] = set()
    for row in rows:
        if row.metric == "self_consistency_ceiling":
            at = row.keys.get("kind"), row.keys.get("row")
            known |= {at[1]} if at[0] == "problem" else set()
            ceilings.setdefault(at[1], set()).add(row.sums.mean) if at[0] == "decode" else None
    old = {row for row, found in ceilings.items() if found == {1.0}} - known
    made = []
    for row in rows:
        made.append(row)
        if row.keys.get("kind") == "problem" and row.keys.get("row") in old:
            if row.metric in ("constant", "independent"):
                made.append(Row(row.unit, f"self_consistency_{row.metric}", row.sums, row.keys))
            if row.metric == "constant":
                made.append(Row(row.unit, "self_consistency_ceiling", Sums.single(1.0), row.keys))
    return made


def kind(frame: DataFrame, name: str, **where: Any) -> DataFrame:
    """The rows of one kind whose keys have the values of ``where``, without the keys that none of them has.

    A value may be a list of values. Errors: ValueError for a kind or a key that is not declared.
    """
    there = set(frame["kind"].dropna()) if "kind" in frame else set()
    if name not in known_kinds() and name not in there:
        raise ValueError(f"no kind of row is called {name!r}: it is one of {', '.join(known_kinds())}")
    if name not in there:
        return frame.iloc[:0]
    chosen = (frame["kind"] == name).fillna(False)
    for key, value in where.items():
        if key not in frame:
            _require_declared(name, key)
            return frame.iloc[:0]
        values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        chosen &= frame[key].isin(list(values))
    part = frame[chosen]
    empty = [key for key in part.columns if part[key].isna().all() and key not in ("kind", *STATISTICS)]
    return part.drop(columns=empty) if len(part) else part


def with_texts(frame: DataFrame, key: str, texts: Sequence[str]) -> DataFrame:
    """The frame with ``texts[row]``, where it is not empty, under the key, after what rows have there."""
    if "row" not in frame or not any(texts):
        return frame
    own = frame[key].tolist() if key in frame else [""] * len(frame)
    both = [(word, "" if _missing(row) else texts[row]) for word, row in zip(own, frame["row"].tolist(), strict=True)]
    words = [" ".join(word for word in pair if not _missing(word)) for pair in both]
    return frame.assign(**{key: _column(words)})


def _require_declared(name: str, key: str) -> None:
    from lo_theory.lab.kinds import check_row

    if name in known_kinds():
        check_row({"kind": name, key: 0}, next(iter(known_kinds()[name].metrics)))


def pool(part: DataFrame, by: Sequence[str] | None = None, over: str | Sequence[str] = "sequences") -> DataFrame:
    """Mean and 95 % interval of every metric at each place, a place being the values of the keys ``by``.

    ``over`` "sequences": all sequences of a place count together. ``over`` a key, or several ("row", "draw"): each of
    its values is a run with a mean of its own; the runs weigh the same, and the interval is Student's t over them
    (``Runs``). Cells that a sweep has pooled (key ``run``) are runs always. Without ``by`` a place is whatever keys the
    rows have, but for those that tell runs apart. Places stay in the order of the rows.

    Errors: ValueError for rows of several kinds, for a key that they do not have, and where rows of one place differ
    in a key that is neither in ``by`` nor tells runs apart: then different things would be averaged.
    """
    runs = [] if over == "sequences" else [over] if isinstance(over, str) else list(over)
    keys = [name for name in part.columns if name not in ("unit", "metric", "kind", *STATISTICS)]
    names = _kind_of(part)
    for key in [*(by or ()), *runs]:
        if len(part) and key not in keys and key != "unit":
            _require_declared(names, key)
    apart = {*runs, *(_WHICH_RUN if runs else ()), "run"}
    by = [key for key in keys if key not in apart] if by is None else [key for key in by if key in keys]
    runs = [key for key in dict.fromkeys([*runs, "run"]) if key in part.columns]
    _require_alike(part, by, runs, keys)
    found: dict[tuple[Any, ...], dict[Hashable, Sums]] = {}
    for line in _lines(part):
        place = (*(None if _missing(line[key]) else line[key] for key in by), line["metric"])
        own = found.setdefault(place, {})
        run = tuple(line[key] for key in runs)
        own[run] = own[run] + _sums(line) if run in own else _sums(line)
    made = {place: Runs(parts) for place, parts in found.items()}
    return _pooled(names, by, ((place, one, _estimate(names, str(place[-1]), one)) for place, one in made.items()))


def _kind_of(part: DataFrame) -> str:
    names = sorted(set(part["kind"].dropna())) if "kind" in part else []
    if len(names) > 1:
        raise ValueError(f"rows of several kinds are not pooled, got {', '.join(names)}: choose one by kind()")
    return names[0] if names else next(iter(KINDS))


def _require_alike(part: DataFrame, by: Sequence[str], runs: Sequence[str], keys: Sequence[str]) -> None:
    """Raise ValueError where a place, or one run of it, holds rows that differ in a key that says what was measured."""
    free = [key for key in keys if key not in by and key not in runs]
    for others, where in (
        ([key for key in free if key not in _WHICH_RUN], [*by, "metric"]),
        ([key for key in free if key in _WHICH_RUN], [*by, *runs, "metric"]),
    ):
        if others and len(part):
            counts = part.groupby(where, sort=False, dropna=False)[others].nunique(dropna=False).max()
            if len(wrong := [key for key in others if counts[key] > 1]):
                raise ValueError(
                    f"rows of one place differ in {wrong[0]}: name it in by, choose one value with kind(), or, if its "
                    "values are runs, name it in over"
                )


def _estimate(name: str, metric: str, runs: Runs) -> Estimate:
    return runs.estimate(share=_shares(name, metric, runs))


def _shares(name: str, metric: str, runs: Runs) -> bool:
    return is_share(name, metric) and runs.sums.fits_share


def _pooled(
    name: str, by: Sequence[str], made: Iterable[tuple[tuple[Any, ...], Runs | Mapping[Hashable, Estimate], Estimate]]
) -> DataFrame:
    from pandas import DataFrame

    lines = [
        (name, *place, runs.n if isinstance(runs, Runs) else len(runs), *found, runs) for place, runs, found in made
    ]
    columns = zip(*lines, strict=True) if lines else [()] * (1 + len(by) + len(RESULTS))
    named = dict(zip(["kind", *by, *RESULTS], map(list, columns), strict=True))
    return DataFrame({key: _column(values) if key in by else values for key, values in named.items()})


def minus(pooled_frame: DataFrame, key: str, first: Any, second: Any) -> DataFrame:
    """Every metric where ``key`` is ``first`` less the same where it is ``second``, at places alike in all other keys.

    Over the runs that both have, run by run, with Student's t; of a single run over sequences, taken to be independent
    (``Runs.minus``). ``runs`` has the difference of each run.
    """
    by = [name for name in pooled_frame.columns if name not in (key, "kind", *RESULTS)]
    found: dict[tuple[Any, ...], dict[Any, Runs]] = {}
    for line in _lines(pooled_frame):
        if line[key] in (first, second):
            place = (*(None if _missing(line[name]) else line[name] for name in by), line["metric"])
            found.setdefault(place, {})[line[key]] = line["runs"]
    name = _kind_of(pooled_frame)

    def made() -> Iterator[tuple[tuple[Any, ...], Mapping[Hashable, Estimate], Estimate]]:
        for place, both in found.items():
            if first in both and second in both:
                one, other = both[first], both[second]
                share = all(_shares(name, place[-1], runs) for runs in (one, other))
                common = [run for run in one.parts if run in other.parts]
                each = {run: Runs.of(one.parts[run]).minus(Runs.of(other.parts[run]), share=share) for run in common}
                yield place, each, one.minus(other, share=share)

    return _pooled(name, by, made())


def gap(losses: DataFrame, problem: DataFrame, metric: str = "") -> DataFrame:
    """Gap closed, 1 - excess/(marginals only - floor), as the metric ``gap``, of pooled losses under one law.

    The excess is ``metric``; without one ``kl`` where it was measured, which is the less noisy, else loss - floor. Each
    run has the lines of its own problem; of several the mean with Student's t over the runs. Places are matched by the
    keys that both frames have. nan where the lines coincide (``gap_span``).
    """
    shared = [name for name in problem.columns if name in losses.columns and name not in ("kind", *RESULTS)]
    by = [name for name in losses.columns if name not in ("kind", *RESULTS)]
    names = [name for name in problem.columns if name not in ("kind", *RESULTS)]
    at = {tuple(place[names.index(key)] for key in shared): found for place, found in _by_place(problem).items()}

    def made() -> Iterator[tuple[tuple[Any, ...], Mapping[Hashable, Estimate], Estimate]]:
        for place, found in _by_place(losses).items():
            own = at.get(tuple(place[by.index(key)] for key in shared), {})
            chosen = metric or ("kl" if "kl" in found else "model")
            if chosen in found and {"floor", "marginals_only"} <= own.keys():
                each = {run: _gap(sums, chosen, run, own) for run, sums in found[chosen].parts.items()}
                yield (*place, "gap"), each, pooled(list(each.values()))

    return _pooled(_kind_of(losses), by, made())


def _gap(sums: Sums, metric: str, run: Hashable, lines: Mapping[str, Runs]) -> Estimate:
    floor, marginals = (
        lines[name].parts[run].mean if run in lines[name].parts else lines[name].mean
        for name in ("floor", "marginals_only")
    )
    excess = Runs.of(sums.shifted(-floor if metric == "model" else 0.0)).estimate()
    span = gap_span(floor, marginals)
    return Estimate(1 - excess.value / span, 1 - excess.high / span, 1 - excess.low / span)


def _by_place(pooled_frame: DataFrame) -> dict[tuple[Any, ...], dict[str, Runs]]:
    by = [name for name in pooled_frame.columns if name not in ("kind", *RESULTS)]
    found: dict[tuple[Any, ...], dict[str, Runs]] = {}
    for line in _lines(pooled_frame):
        place = tuple(None if _missing(line[name]) else line[name] for name in by)
        found.setdefault(place, {})[line["metric"]] = line["runs"]
    return found


@dataclass(frozen=True)
class Record:
    """One place of a pooled frame: its keys as attributes, its metrics by name; what tables and panels take as a line.

    ``row.N``, ``row.get("name", "")``, ``row.value("kl")``, ``row.estimate("kl")``. A key that the place lacks raises
    AttributeError; a metric that it lacks is nan.
    """

    keys: Mapping[str, Any]
    metrics: Mapping[str, tuple[Estimate, Any]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        keys = self.__dict__.get("keys", {})
        if name not in keys:
            raise AttributeError(f"a record has no key {name!r}: it has {', '.join(keys)}")
        return keys[name]

    def get(self, key: str, default: Any = None) -> Any:
        """A key, or the default where the place lacks it."""
        return self.keys.get(key, default)

    def estimate(self, metric: str) -> Estimate:
        """A metric with its 95 % interval; nan where it was not measured."""
        return self.metrics[metric][0] if metric in self.metrics else _NOTHING

    def value(self, metric: str) -> float:
        """Mean of a metric; nan where it was not measured."""
        return self.estimate(metric).value

    def minus(self, other: Record, metric: str) -> Estimate:
        """A metric less that of another place: over the runs that both have, else over sequences (``Runs.minus``)."""
        (_, mine), (_, theirs) = self.metrics[metric], other.metrics[metric]
        name = str(self.get("kind", ""))
        return mine.minus(theirs, share=_shares(name, metric, mine) and _shares(name, metric, theirs))  # type: ignore[no-any-return]

    def runs(self, metric: str) -> dict[Hashable, Estimate]:
        """A metric run by run, each with its own interval; empty where it was not measured."""
        found = self.metrics[metric][1] if metric in self.metrics else {}
        if isinstance(found, Runs):
            name = str(self.get("kind", ""))
            return {run: _estimate(name, metric.split()[-1], Runs.of(sums)) for run, sums in found.parts.items()}
        return dict(found)

    def by_run(self) -> list[Record]:
        """The same run by run: of each run a record of what it has measured, with the key ``run``."""
        found = {metric: self.runs(metric) for metric in self.metrics}
        names = dict.fromkeys(run for runs in found.values() for run in runs)
        return [
            Record({**self.keys, "run": run}, {name: (runs[run], {}) for name, runs in found.items() if run in runs})
            for run in names
        ]

    def plus(self, *others: Record, **keys: Any) -> Record:
        """The same with more keys, and with keys and metrics of other records, of which it keeps its own."""
        metrics: dict[str, Any] = {}
        given: dict[str, Any] = {}
        for other in (*reversed(others), self):
            metrics |= other.metrics
            given |= other.keys
        return Record(given | keys, metrics)


def records(pooled_frame: DataFrame, spread: str = "") -> list[Record]:
    """One record for each place, in order.

    With ``spread`` the values of that key come before the metrics' names (``bp kl_latent``) in place of being a key.
    """
    by = [name for name in pooled_frame.columns if name not in (spread, *RESULTS)]
    found: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
    for line in _lines(pooled_frame):
        keys = {name: line[name] for name in by if not _missing(line[name])}
        _, metrics = found.setdefault(tuple(keys.items()), (keys, {}))
        name = f"{line[spread]} {line['metric']}" if spread else line["metric"]
        metrics[name] = (Estimate(line["mean"], line["low"], line["high"]), line["runs"])
    return [Record(keys, metrics) for keys, metrics in found.values()]


def of_kind(
    frame: DataFrame,
    name: str,
    by: Sequence[str] | None = None,
    over: str | Sequence[str] = "sequences",
    **where: Any,
) -> list[Record]:
    """What was measured: one record for each place of the rows of one kind; see ``kind`` and ``pool``."""
    return records(pool(kind(frame, name, **where), by, over))


def parts(lines: Iterable[Record], *keys: str) -> list[list[Record]]:
    """Records with equal values of the keys together, in the order in which these values first appear."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for line in lines:
        found.setdefault(tuple(line.get(key) for key in keys), []).append(line)
    return list(found.values())


def beside(lines: Iterable[Record], others: Iterable[Record], *keys: str) -> list[Record]:
    """Each record with what the one of ``others`` has that agrees in the keys (the last, of several), if any does."""
    at = {tuple(other.get(key) for key in keys): other for other in others}
    places = ((line, at.get(tuple(line.get(key) for key in keys))) for line in lines)
    return [line if other is None else line.plus(other) for line, other in places]


def each(lines: Iterable[Record], *metrics: str) -> list[Record]:
    """One record for each of the metrics that a record has: its name is the key ``metric``, its value the only metric,
    ``value``.
    """
    return [
        Record({**line.keys, "metric": name}, {"value": line.metrics[name]})
        for line in lines
        for name in metrics
        if name in line.metrics
    ]


def grouped(lines: Iterable[Record], *keys: str) -> list[Record]:
    """Records with equal values of the keys beside each other, by the first key first, values as they first appear."""
    found = list(lines)
    places = [{value: i for i, value in enumerate(dict.fromkeys(line.get(key) for line in found))} for key in keys]
    return sorted(found, key=lambda line: [place[line.get(key)] for key, place in zip(keys, places, strict=True)])


def _lines(frame: DataFrame) -> Iterator[dict[str, Any]]:
    """The lines of a frame, by column, as plain Python values."""
    columns = [frame[name].tolist() for name in frame.columns]
    return (dict(zip(frame.columns, line, strict=True)) for line in zip(*columns, strict=True))


def _sums(line: Mapping[str, Any]) -> Sums:
    return Sums(int(line["n"]), *(float(line[name]) for name in STATISTICS[1:]))


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or value != value or value == ""
