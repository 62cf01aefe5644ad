"""Tables, CSV and figure of a finished run."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lo_theory.diffusion.statistics import Sums
from lo_theory.lab.config import Experiment, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.figures import write_figures
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.render import Table, print_tables, to_csv, to_markdown
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun
from lo_theory.lab.summary import Measured, gap_closed, group, largest_z
from lo_theory.lab.tables import tables
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
    }
    assert yaml.safe_load((finished.folder / "config.yaml").read_text())["rows"][0]["problem"]["N"] == 6
    assert finished.facts["threads"] == 1
    assert finished.facts["device"] == "cpu"
    assert {"torch", "numpy", "numba", "python", "lo_theory"} <= finished.facts["versions"].keys()


def test_known_truths_of_the_exact_posterior_are_in_the_rows(finished: FinishedRun) -> None:
    cells = [cell for cell in group(finished.rows, "decode") if cell.keys["denoiser"] == "exact"]
    assert len(cells) == 5
    one_at_a_time = [cell for cell in cells if cell.keys["steps"] == 24]
    assert all(cell.value("self_consistency") == 1 and cell.value("consistent") == 1 for cell in one_at_a_time)
    several = [cell for cell in cells if cell.keys["steps"] == 3]
    assert len(several) == 2
    assert all(cell.value("consistent") < 0.7 for cell in several)
    problem = group(finished.rows, "problem")[0]
    assert problem.value("floor") == pytest.approx(6 * math.log(2) / 24)
    assert problem.value("marginals_only") == pytest.approx((6 * math.log(2) + 18 * 0.5623351) / 24)
    assert problem.value("constant") == pytest.approx(0.75)
    assert problem.value("independent") == pytest.approx(0.625)
    exact = next(item for item in group(finished.rows, "one_pass") if item.keys["denoiser"] == "exact")
    assert exact.value("conditional") == 1


def test_classes_pool_to_the_number_of_contexts(finished: FinishedRun) -> None:
    classes = [item for item in group(finished.rows, "class_losses") if item.keys["law"] == "uniform"]
    assert sum(item.metrics["kl"].n for item in classes) == 64
    given = [item for item in group(finished.rows, "class_losses") if item.keys["law"] == "two_rates(0,1)"]
    assert [(item.keys["latents_hidden"], item.keys["observations_hidden"]) for item in given] == [(0, 18)]
    assert given[0].value("exact") == pytest.approx(0, abs=1e-12)


def test_the_tables_hold_every_number_and_fit_a_terminal(finished: FinishedRun, experiment: Experiment) -> None:
    content = tables(experiment, finished.rows)
    assert len(content) == 5
    assert [sum(len(section) for section in table.sections) for table in content] == [9 + 1, 9, 2, 2, 4]
    printed = text(content, 80)
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
    assert "\x1b" not in printed
    for word in ("100.0 ±", "78.1", "paper", "margin, argmax", "gap closed", "two_rates(0,1)", "pair z"):
        assert word in printed
    lines = [line for line in printed.splitlines() if line.startswith("6, 18")]
    assert len(lines) == 9 + 9 + 2 + 2 + 4  # no row is wrapped
    for table in content:
        assert all(len(row) == len(table.columns) for section in table.sections for row in section)
    markdown = to_markdown(content)
    assert markdown == (finished.folder / "table.md").read_text()
    assert "| 6, 18 | exact | vanilla | 24 | 100.0 ±" in markdown


def test_csv_gives_back_every_statistic_in_full(finished: FinishedRun) -> None:
    both = [(finished.folder / name).read_text() for name in ("table.csv", "classes.csv")]
    read = [line for part in both for line in csv.DictReader(io.StringIO(part))]
    assert len(read) == len(finished.rows)
    found = {
        (line["unit"], line["metric"], line.get("latents_hidden", ""), line.get("observations_hidden", "")): Sums(
            int(line["n"]), float(line["sum"]), float(line["sum_of_squares"])
        )
        for line in read
    }
    for row in finished.rows:
        hidden = [str(row.keys.get(name, "")) for name in ("latents_hidden", "observations_hidden")]
        assert found[(row.unit, row.metric, *hidden)] == row.sums  # type: ignore[comparison-overlap]
    line = next(line for line in read if line["metric"] == "self_consistency" and line["denoiser"] == "model")
    assert float(line["low"]) < float(line["mean"]) < float(line["high"])
    assert to_csv([]) == "unit,metric,n,sum,sum_of_squares,mean,low,high\n"


def test_the_figure_has_equal_bytes_for_equal_rows(
    finished: FinishedRun, experiment: Experiment, tmp_path: Path
) -> None:
    write_figures(tmp_path, experiment, finished.rows)
    for name in ("figure.png", "figure.pdf"):
        assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()
    fewer = [row for row in finished.rows if row.metric != "bias_z" and row.keys.get("denoiser") != "model"]
    write_figures(tmp_path, experiment, fewer)
    assert (tmp_path / "figure.png").read_bytes() != (finished.folder / "figure.png").read_bytes()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_tables_and_figure_of_an_experiment_without_a_model(tmp_path: Path) -> None:
    finished = execute(resolve(tiny(), preset="exact"), Request(tmp_path), SilentProgress())
    content = tables(resolve(finished.config), finished.rows)
    assert [table.title.split(":")[0] for table in content] == ["A tiny table", "Diversity", "One pass, no decoding"]
    assert not list(finished.folder.glob("*.safetensors"))


def test_a_model_without_the_exact_posterior_is_measured_by_its_loss(tmp_path: Path) -> None:
    sets = ["evaluation.exact=false", "decoding.denoisers=[model]", "decoding.extra=[]", "training.steps=2"]
    finished = execute(resolve(tiny(), sets=sets), Request(tmp_path, threads=1), SilentProgress())
    loss = group(finished.rows, "losses")[0]
    assert set(loss.metrics) == {"model"}
    gap, half = gap_closed(loss, group(finished.rows, "problem")[0])
    assert -1 < gap < 0.3
    assert half > 0
    assert {row.keys.get("denoiser", "model") for row in finished.rows} == {"model"}


def test_equal_keys_add() -> None:
    keys = {"kind": "decode", "N": 6}
    rows = [
        Row("a", "x", Sums(2, 1.0, 0.5), keys),
        Row("b", "x", Sums(2, 2.0, 2.0), keys),
        Row("b", "y", Sums(1, 3, 9), keys),
    ]
    (measured,) = group(rows, "decode")
    assert measured.metrics == {"x": Sums(4, 3.0, 2.5), "y": Sums(1, 3, 9)}
    assert group(rows, "losses") == []


def test_a_share_that_never_fails_has_an_interval_all_the_same() -> None:
    measured = Measured({}, {"consistent": Sums(2000, 2000.0, 2000.0)})
    low, high = measured.interval("consistent")
    assert 0.997 < low < 0.999
    assert high == pytest.approx(1, abs=1e-12)


def test_largest_z_is_the_quantile_of_the_largest() -> None:
    from scipy.stats import norm

    for count in (1, 28, 66):
        assert (2 * norm.cdf(largest_z(count)) - 1) ** count == pytest.approx(0.999)
