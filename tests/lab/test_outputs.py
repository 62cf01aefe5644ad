"""Tables, CSV and figure of a finished run."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.drawing import COLOURS
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments.table1_shown import figures
from lo_theory.lab.frame import from_rows, gap, kind, pool, records
from lo_theory.lab.measures import lines as problem_lines
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.table import Table, largest_z, print_tables, to_markdown
from lo_theory.lab.task import tables
from lo_theory.lab.units import versions
from lo_theory.problem import LODistribution, TableObservations, nae_sat, random_slab
from tests.lab.decodes import measured
from tests.lab.tiny import tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    out = tmp_path_factory.mktemp("runs")
    return execute(resolve(tiny()), Request(out, threads=1), SilentProgress())


@pytest.fixture(scope="module")
def experiment(finished: FinishedRun) -> Experiment:
    return resolve(finished.config)


def text(content: list[Table], width: int) -> str:
    stream = io.StringIO()
    print_tables(Console(file=stream, width=width), content)
    return stream.getvalue()


def test_the_folder_holds_what_is_promised(finished: FinishedRun) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        *("config.yaml", "started.json", "lock", "rows.jsonl", "log.jsonl", "done.json", "model-0.safetensors"),
        *("table.csv", "classes.csv", "table.md", "figure.png", "figure.pdf"),
        *("summary.png", "summary.pdf", "readings.png", "readings.pdf"),
    }
    assert yaml.safe_load((finished.folder / "config.yaml").read_text())["rows"][0]["problem"]["N"] == 6
    assert finished.facts["threads"] == 1
    assert finished.facts["device"] == "cpu"
    assert {"torch", "numpy", "numba", "python", "lo_theory"} <= finished.facts["versions"].keys()


def test_known_truths_of_the_exact_posterior_are_in_the_rows(finished: FinishedRun) -> None:
    cells = measured(finished.rows, "decode", denoiser="exact")
    assert len(cells) == 5
    one_at_a_time = [cell for cell in cells if cell.steps == 24]
    assert all(cell.value("self_consistency") == 1 and cell.value("consistent") == 1 for cell in one_at_a_time)
    several = [cell for cell in cells if cell.steps == 3]
    assert len(several) == 2
    assert all(cell.value("consistent") < 0.7 for cell in several)
    (problem,) = measured(finished.rows, "problem")
    assert problem.value("floor") == pytest.approx(6 * math.log(2) / 24)
    assert problem.value("marginals_only") == pytest.approx((6 * math.log(2) + 18 * 0.5623351) / 24)
    assert problem.value("constant") == pytest.approx(0.75)
    assert problem.value("independent") == pytest.approx(0.625)
    (exact,) = measured(finished.rows, "one_pass", denoiser="exact")
    assert exact.value("conditional") == 1


def test_the_tables_fit_a_terminal(finished: FinishedRun, experiment: Experiment) -> None:
    content = tables(experiment, finished.rows)
    printed = text(content, 80)
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
    assert "\x1b" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("6, 18")]
    assert len(lines) == 9 + 9 + 2 + 2 + 4  # no row is wrapped


def test_a_model_without_the_exact_posterior_is_measured_by_its_loss(tmp_path: Path) -> None:
    sets = ["evaluation.exact=false", "decoding.denoisers=[model]", "decoding.extra=[]", "training.steps=2"]
    finished = execute(resolve(tiny(), sets=sets), Request(tmp_path, threads=1), SilentProgress())
    losses, problem = (pool(kind(from_rows(finished.rows), name)) for name in ("losses", "problem"))
    assert set(losses.metric) == {"model"}
    closed = records(gap(losses, problem))[0].estimate("gap")
    assert -1 < closed.value < 0.3
    assert closed.half > 0
    assert {row.keys.get("denoiser", "model") for row in finished.rows} == {"model"}


def test_largest_z_is_the_quantile_of_the_largest() -> None:
    from scipy.stats import norm

    for count in (1, 28, 66):
        assert (2 * norm.cdf(largest_z(count)) - 1) ** count == pytest.approx(0.999)


def slow_lines(distribution: LODistribution) -> tuple[float, float, float]:
    """The lines of self-consistency, assignment by assignment and value by value."""
    layout, marginals = distribution.layout, distribution.token_marginals
    ceiling = constant = independent = 0.0
    for latents in itertools.product(range(layout.q), repeat=layout.n_latents):
        weight = math.prod(distribution.prior[i, value] for i, value in enumerate(latents))
        given = distribution.observations.probabilities([latents])[0]
        for j, position in enumerate(layout.observation_positions):
            top = [v for v in range(layout.r) if given[j, v] == max(given[j])]
            share = weight / layout.n_observations
            ceiling += share * sum(given[j, v] for v in top)
            constant += share * (int(marginals[position].argmax()) in top)
            independent += share * sum(marginals[position, v] for v in top)
    return ceiling, constant, independent


def biased(noise: float) -> LODistribution:
    """Observations of two tables, one of which ties, three values, latents that are not fair."""
    noisy = [[1 - noise, noise / 2, noise / 2]] * 3 + [[noise / 2, noise / 2, 1 - noise]]
    tied = [[0.4, 0.4, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]
    law = TableObservations([[0, 1], [1, 2], [2, 0]], [noisy, tied], [0, 1, 0])
    return LODistribution([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], law)


@pytest.mark.parametrize(
    "distribution", [nae_sat(6, 18, seed=0, noise=0.1), biased(0.3), random_slab(5, 7, 0.7, seed=1)]
)
def test_the_lines_of_self_consistency_are_those_of_self_consistency(distribution: LODistribution) -> None:
    lines = problem_lines(distribution)
    found = [lines[f"self_consistency_{name}"] for name in ("ceiling", "constant", "independent")]
    assert found == pytest.approx(slow_lines(distribution))


def test_noise_separates_self_consistency_from_agreement_with_the_data() -> None:
    lines = problem_lines(nae_sat(6, 18, seed=0, noise=0.1))
    assert lines["self_consistency_ceiling"] == pytest.approx(0.9)
    assert (lines["self_consistency_constant"], lines["constant"]) == pytest.approx((0.75, 0.7))
    assert (lines["self_consistency_independent"], lines["independent"]) == pytest.approx((0.6, 0.58))


def test_with_noise_the_ceiling_is_printed_and_drawn_pair_by_pair(tmp_path: Path) -> None:
    document = tiny()
    document["rows"] = [{"problem": {"noise": 0.1}}, {"problem": {"noise": 0.2, "N": 7, "P": 21}}]
    experiment = resolve(document, preset="exact")
    finished = execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    accuracy = tables(experiment, finished.rows)[0]
    titles = [title for title, _ in accuracy.heads]
    place = titles.index("ceiling")
    assert [row[place] for section in accuracy.sections for row in section] == ["90.0"] * 5 + ["80.0"] * 5 + [""]
    assert all(len(row) == len(titles) for section in accuracy.sections for row in section)
    printed = text([accuracy], 80)
    assert len([line for line in printed.splitlines() if line.startswith(("6, 18", "7, 21"))]) == 10
    assert "exact sampler 90.0" in to_markdown([accuracy])
    assert "exact sampler 80.0" in to_markdown([accuracy])
    drawn = levels(panels(experiment, finished.rows)[0])
    assert drawn == pytest.approx([90, 75, 60, 80, 75, 57.5])


def panels(experiment: Experiment, rows: list[Row]) -> list[Any]:
    """The panels of the first figure."""
    drawn = figures(from_rows(rows), experiment)["figure"].draw()
    return [axes for axes in drawn.axes if axes.axison]


def levels(axes: Any) -> list[float]:
    """Heights of the reference lines over the pairs, in the order drawn."""
    lines = [line.get_ydata() for line in axes.lines if line.get_color() == COLOURS["line"]]
    return [y[0] for y in lines if len(y) == 2 and y[0] == y[1]]


def test_without_noise_nothing_is_printed_of_a_ceiling(finished: FinishedRun, experiment: Experiment) -> None:
    assert "ceiling" not in dict(tables(experiment, finished.rows)[0].heads)
    older = [row for row in finished.rows if not (row.keys["kind"] == "problem" and row.metric.startswith("self_"))]
    assert len(older) == len(finished.rows) - 3
    for rows in (older, finished.rows):
        assert levels(panels(experiment, rows)[0]) == pytest.approx([100, 75, 62.5])
    cells = [replace(row, sums=Sums.single(0.9)) if row.metric.endswith("ceiling") else row for row in older]
    assert levels(panels(experiment, cells)[0]) == [], "not to be known from rows that lack them"


def test_only_one_token_a_step_is_filled(finished: FinishedRun, experiment: Experiment) -> None:
    def filled(rows: list[Row]) -> list[bool]:
        axes = panels(experiment, rows)[0]
        drawn = [
            container.lines[0] for container in axes.containers if container.lines[0].get_color() != COLOURS["paper"]
        ]
        return [line.get_markerfacecolor() != "white" for line in drawn]

    steps = [cell.steps for cell in measured(finished.rows, "decode")]
    assert filled(finished.rows) == [count == 24 for count in steps]
    short = [row for row in finished.rows if row.keys.get("steps") != 24]
    assert filled(short) == [False] * steps.count(3)


def test_rows_of_one_problem_are_told_apart_by_name_and_cells_by_noise(tmp_path: Path) -> None:
    document = tiny()
    document["training"], document["decoding"]["denoisers"] = None, ["exact"]
    noise = {"scale": 0.5, "annealed": True, "logarithmic": True}
    document["decoding"]["extra"] = [
        {"denoiser": "exact", "policy": "margin"},  # is in the grid
        {"denoiser": "exact", "policy": "margin", "noise": noise},
    ]
    document["rows"] = [{}, {"name": "repeats", "problem": {"repeats": True}}]
    found = execute(resolve(document), Request(tmp_path), SilentProgress())
    cells = measured(found.rows, "decode")
    assert [cell.get("noise") for cell in cells if cell.row == 0] == [*([None] * 4), "gumbel 0.5 annealed log"]
    assert {cell.get("name") for cell in cells} == {None, "repeats"}
    accuracy = tables(resolve(found.config), found.rows)[0]
    lines = [line for section in accuracy.sections for line in section]
    assert lines[4][:3] == ["6, 18", "exact", "margin, gumbel 0.5 annealed log"]
    assert lines[5][0] == "6, 18 repeats"


def test_a_checkout_that_was_never_installed_says_so_among_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "lo_theory":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("lo_theory.lab.units.metadata.version", version)
    assert versions()["lo_theory"] == "not installed"
    assert versions()["numpy"] == "1"
