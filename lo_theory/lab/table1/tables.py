"""The tables of a finished run, as data: every one a function from its rows to a ``Table``, which ``render`` shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from lo_theory.lab.config import Experiment
from lo_theory.lab.render import Table
from lo_theory.lab.rows import Row
from lo_theory.lab.seeds import with_seeds
from lo_theory.lab.summary import Measured, consistency_lines, gap_closed, group, quarter_losses
from lo_theory.lab.table1.effects import effects_table
from lo_theory.lab.table1.labels import named, variants
from lo_theory.lab.table1.readings_table import readings_table
from lo_theory.lab.table1.row import Published
from lo_theory.lab.texts import largest_z_text, number, percent, shown

__all__ = ["tables"]


def _pair(measured: Measured) -> str:
    """``25, 275``, and the name and the seeds of the row where it has them."""
    pair = "{}, {}".format(*measured.pair)
    return with_seeds(f"{pair} {measured.keys['name']}" if "name" in measured.keys else pair, measured.keys)


def _cell(measured: Measured) -> tuple[str, ...]:
    keys = measured.keys
    words = (str(keys["policy"]), *variants(keys))
    return _pair(measured), str(keys["denoiser"]), ", ".join(words), str(keys["steps"])


def _by_row(items: Iterable[Measured]) -> list[list[Measured]]:
    return [list(part) for _, part in itertools.groupby(items, key=lambda item: item.keys["row"])]


def _published(rows: Sequence[Published], pairs: set[tuple[int, int]], blank: int) -> tuple[tuple[str, ...], ...]:
    """The published rows of some pairs, in the columns of the accuracy table, the last ``blank`` empty."""
    return tuple(
        (f"{row.N}, {row.P}", "paper", row.policy, "?", f"{row.percent:.1f}", *[""] * blank)
        for row in rows
        if (row.N, row.P) in pairs
    )


def _line_notes(problems: Sequence[Measured], cells: Sequence[Measured]) -> list[str]:
    """The known lines of self-consistency and of agreement with the data, once if all pairs have the same."""
    lines = []
    for problem in problems:
        ceiling, constant, independent = (number(100 * value, ".1f") for value in consistency_lines(problem, cells))
        data = (100 * problem.value(name) for name in ("constant", "independent"))
        lines.append(
            f"Self-consistent: exact sampler {ceiling}, observations always at their most likely value {constant}, "
            "drawn from their single-token marginals {}; the last two agree with the data in {:.1f}, {:.1f}.".format(
                independent, *data
            )
        )
    if len(set(lines)) == 1:
        return lines[:1]
    return [f"({_pair(problem)}): {line}" for problem, line in zip(problems, lines, strict=True)]


def accuracy_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Accuracies of generated observations, with the published ones below."""
    cells = group(rows, "decode")
    noisy = any(cell.value("self_consistency_ceiling") < 1 for cell in cells)
    sections = [
        (
            part[0].pair,
            tuple(
                (
                    *_cell(cell),
                    percent(cell, "self_consistency"),
                    *([number(100 * cell.value("self_consistency_ceiling"), ".1f")] if noisy else []),
                    percent(cell, "consistent"),
                    percent(cell, "unpaired"),
                    number(cell.value("observation_mean")),
                )
                for cell in part
            ),
        )
        for part in _by_row(cells)
    ]
    notes = [
        "Per cent, with 95 % intervals over sequences. Self-consistent: observations that agree with the generated "
        "latents; wholly consistent: sequences of positive probability; unpaired: agreement with an unrelated sequence "
        "of the data."
    ]
    if noisy:
        notes.append("Ceiling: what observations drawn exactly given the generated latents would reach on average.")
    notes += _line_notes(group(rows, "problem"), cells)
    if experiment.reference is not None:
        pairs = {pair for pair, _ in sections}
        blank = 4 if noisy else 3
        ours = [(pair, lines + _published(experiment.reference.rows, {pair}, blank)) for pair, lines in sections]
        others = {(row.N, row.P) for row in experiment.reference.rows} - pairs
        sections = [*ours, ((0, 0), _published(experiment.reference.rows, others, blank))]
        notes.append(f"Paper: {experiment.reference.source}.")
    columns = (
        "N, P",
        "denoiser",
        "policy",
        "steps",
        "self-\nconsistent",
        *(["ceiling"] if noisy else []),
        "wholly\nconsistent",
        "unpaired",
        "mean\nobs.",
    )
    return Table(
        experiment.title or experiment.experiment, columns, tuple(lines for _, lines in sections if lines), tuple(notes)
    )


def diversity_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Whether the generated sequences have the law of the data."""
    sections = tuple(
        tuple(
            (
                *_cell(cell),
                f"{100 * cell.value('distinct'):.1f} ({100 * cell.value('distinct_expected'):.1f})",
                largest_z_text(cell, "bias"),
                largest_z_text(cell, "pair"),
                f"{number(cell.value('total_variation'))} ({number(cell.value('total_variation_expected'))})"
                if "total_variation" in cell.metrics
                else "-",
            )
            for cell in part
        )
        for part in _by_row(group(rows, "decode"))
    )
    columns = ("N, P", "denoiser", "policy", "steps", "distinct", "bias z", "pair z", "TV to p_data")
    notes = (
        "Distinct: distinct latent strings in per cent of the sequences (what the data would give). Bias z, pair z: "
        "largest |z| of a latent's mean and of a pair's correlation, ! where 999 of 1000 exact samplers stay below. "
        "TV: total variation distance between the sequences and p_data, N <= 12 (what as many exact samples give).",
    )
    return Table("Diversity: have the generated sequences the law of the data?", columns, sections, notes)


def model_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Losses of the trained models beside their lines."""
    problems = {problem.keys["row"]: problem for problem in group(rows, "problem")}
    sections = []
    for part in _by_row(group(rows, "losses")):
        lines = []
        for loss in part:
            problem, uniform = problems[loss.keys["row"]], loss.keys["law"] == "uniform"
            lines.append(
                (
                    _pair(loss),
                    str(loss.keys["law"]),
                    number(loss.value("model"), ".4f"),
                    shown(loss.estimate("exact"), form=".3f"),
                    number(problem.value("floor"), ".4f") if uniform else "",
                    number(problem.value("marginals_only"), ".4f") if uniform else "",
                    shown(loss.estimate("kl"), form=".4f"),
                    shown(gap_closed(loss, problem), 100, ".1f") if uniform else "",
                )
            )
        sections.append(tuple(lines))
    columns = ("N, P", "law", "loss", "exact\nloss", "floor", "single\ntokens", "KL", "gap\nclosed")
    notes = (
        "Nats per token on fresh data, by mask law, with 95 % intervals over sequences. Exact loss: the exact "
        "posterior's on the model's contexts, under the uniform law the floor in the mean. KL: distance of the model's "
        "marginals from the exact ones. Single tokens: loss of the marginals only. Gap closed = (marginals only - "
        "loss)/(marginals only - floor) in per cent, loss - floor measured as KL where there is one.",
    )
    return Table("The trained models", columns, tuple(sections), notes)


def one_pass_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Accuracies that need no decoding."""
    sections = tuple(
        tuple(
            (
                _pair(item),
                str(item.keys["denoiser"]),
                *(percent(item, name) for name in ("conditional", "infill", "infill_drawn")),
            )
            for item in part
        )
        for part in _by_row(sorted(group(rows, "one_pass"), key=lambda item: item.keys["row"]))
    )
    notes = (
        "Conditional: observations given the true latents; infill: hidden observations of a true sequence under the "
        "uniform mask law, most likely values or drawn from the marginals. Per cent, with 95 % intervals over "
        "sequences.",
    )
    return Table(
        "One pass, no decoding", ("N, P", "denoiser", "conditional", "infill", "infill, drawn"), sections, notes
    )


_QUARTERS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")


def class_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """KL of the uniform law's contexts by what they hide, in quarters; the single classes are in classes.csv."""
    sections = []
    for part in _by_row(item for item in group(rows, "class_losses") if item.keys["law"] == "uniform"):
        cells = quarter_losses(part)
        if cells:
            numbers = [[number(cells[i, j].mean) if (i, j) in cells else "-" for j in range(4)] for i in range(4)]
            sections.append(tuple((_pair(part[0]), _QUARTERS[i], *numbers[i]) for i in range(4)))
    columns = ("N, P", "latents hidden", *(f"observations\n{name}" for name in _QUARTERS))
    notes = (
        "KL in nats per hidden token, uniform mask law, by the share of latents and of observations hidden; class by "
        "class and for the other laws in classes.csv.",
    )
    return Table("Where the models err", columns, tuple(sections), notes)


_TABLES: tuple[Callable[[Experiment, Sequence[Row]], Table], ...] = (
    accuracy_table,
    readings_table,
    effects_table,
    diversity_table,
    one_pass_table,
    model_table,
    class_table,
)


def tables(experiment: Experiment, rows: Sequence[Row]) -> list[Table]:
    """All tables, in the order in which they are shown."""
    ordered = sorted(named(experiment, rows), key=lambda row: int(row.keys.get("row", 0)))
    return [make(experiment, ordered) for make in _TABLES]
