"""Figure 2 as an experiment: settings, units, rows, tables, figure, what it says of a leak, and going on after a kill."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion import Sums
from lo_theory.lab.config import load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.figure2 import work
from lo_theory.lab.figure2.figure import make_figures
from lo_theory.lab.figure2.tables import leaking_rows, short
from lo_theory.lab.figure2.work import CLASS_METRICS
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.render import to_markdown
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, journal
from lo_theory.lab.subject import Subject
from lo_theory.lab.summary import group
from lo_theory.lab.tables import tables
from lo_theory.posterior import ExactPosterior, Marginals
from tests.figures import rendered

FILE = Path(__file__).parents[2] / "experiments" / "figure2.yaml"
_TINY: dict[str, Any] = {
    "experiment": "tiny2",
    "title": "A tiny figure",
    "task": "figure2",
    "problem": {"family": "nae_sat", "N": 5, "P": 12},
    "model": {"shape": {"layers": 1, "heads": 2, "width": 16}},
    "training": {"steps": 40, "batch": 16, "warmup": 25},
    "further": [60],
    "evaluation": {"sequences": 80, "laws": ["suffix", "two_rates(1,0)", "uniform"], "patterns": [1, 4], "proxy": True},
    "reference": {"source": "made up", "statement": "latents err more"},
}


def tiny() -> dict[str, Any]:
    return copy.deepcopy(_TINY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    with rendered():
        return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


def test_every_law_leaves_rows_by_class_and_role_for_every_posterior(finished: FinishedRun) -> None:
    roles = {
        (row.keys["law"], row.keys["posterior"], row.keys["iterations"], row.keys["role"])
        for row in finished.rows
        if row.keys["kind"] == "losses"
    }
    laws = {"suffix": 2, "two_rates(1,0)": 1, "uniform": 2, "pattern(1)": 2, "pattern(4)": 2}
    who = [("model", 40), ("model", 60), ("bp", "")]
    expected = {
        (law, *one, role)
        for law, count in laws.items()
        for one in who
        for role in ("all", "latent", "observation")[: count + 1]
    }
    assert roles == expected
    classes = group(finished.rows, "class_losses")
    assert {item.keys["law"] for item in classes} == {"suffix", "uniform"}, "of the others the rows by role say it all"
    assert all(set(item.metrics) == set(CLASS_METRICS) for item in classes)
    for item in group(finished.rows, "losses"):
        hidden = (item.keys["latents_hidden"], item.keys["observations_hidden"])
        known = {"pattern(1)": (1, 2), "pattern(4)": (4, 10), "two_rates(1,0)": (5, 0)}
        assert hidden == known.get(item.keys["law"], ("", ""))
    suffix = [item for item in classes if item.keys["law"] == "suffix" and item.keys["posterior"] == "bp"]
    assert sum(item.metrics["model"].n for item in suffix) == 80


def test_the_rows_are_those_of_the_library(finished: FinishedRun) -> None:
    from lo_theory.diffusion import Pattern
    from lo_theory.diffusion.pattern_losses import pattern_losses
    from lo_theory.posterior import BPPosterior
    from lo_theory.problem import nae_sat
    from lo_theory.rng import Key

    distribution = nae_sat(5, 12, seed=0)
    key = Key(0).fold("losses").fold("pattern(4)")
    exact, bp = ExactPosterior(distribution), BPPosterior(distribution)
    (expected,) = pattern_losses({"bp": bp}, exact, distribution, Pattern(4), key=key, n=80).values()
    items = [item for item in group(finished.rows, "losses") if item.keys["posterior"] == "bp"]
    found = {item.keys["role"]: item for item in items if item.keys["law"] == "pattern(4)"}
    for role in ("latent", "observation"):
        own = {name: sums for name, sums in found[role].metrics.items() if name not in ("proxy_log_ratio", "kl_above")}
        assert own.keys() == expected.roles[role].keys()
        for name, sums in own.items():
            assert sums.sums == expected.roles[role][name] or sums.n == 0


def test_longer_trainings_start_alike_and_end_apart(finished: FinishedRun) -> None:
    losses: dict[str, dict[int, float]] = {}
    for entry in journal(finished.folder):
        if "loss" in entry:
            losses.setdefault(entry["model"], {})[entry["step"]] = entry["loss"]
    assert losses.keys() == {"0-40", "0-60"}
    assert losses["0-40"][20] == losses["0-60"][20], "one initialisation, one stream of data, one warm-up"
    assert losses["0-40"][40] != losses["0-60"][40], "each its own cosine"
    assert {path.name for path in finished.folder.glob("*.safetensors")} == {
        "model-0-40.safetensors",
        "model-0-60.safetensors",
    }


def test_the_tables_hold_every_quantity(finished: FinishedRun) -> None:
    experiment = resolve(finished.config)
    content = tables(experiment, finished.rows)
    assert [table.title for table in content] == [
        "A tiny figure: the model after 40 steps",
        "A tiny figure: the model after 60 steps",
        "The paper's proxy",
        "How far each posterior is from the Bayes optimum",
        "No model beats Bayes",
    ]
    assert [sum(map(len, table.sections)) for table in content] == [9, 9, 9, 3, 3]
    assert all(len(row) == len(table.columns) for table in content for section in table.sections for row in section)
    text = to_markdown(content)
    assert text == (finished.folder / "table.md").read_text()
    for word in ("| 5, 12 | pattern(4) | latent | 4+10 |", "Paper: latents err more (made up)", "| none |", "BP"):
        assert word in text
    assert "LEAK" not in text
    line = next(row for row in content[0].sections[0] if row[1:3] == ("suffix", "latent"))
    assert line[4:6] == ("0.0", "0.6931")


def test_the_figure_shows_every_law_and_the_papers_panel(finished: FinishedRun) -> None:
    experiment = resolve(finished.config)
    (figure,) = make_figures(experiment, finished.rows).values()
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:2] == ["loss, nats per scored token", "KL from the exact marginals, nats"]
    for axes in figure.axes[:2]:
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["suffix", "uniform", "pattern(1)", "pattern(4)", "two_rates(1,0)"]
    assert len(figure.axes[0].containers) == 3 * 9, "three posteriors, nine pairs of law and role"
    assert any("Figure 2" in axes.get_title() for axes in figure.axes)
    assert any("proxy" in axes.get_title() for axes in figure.axes)
    assert (finished.folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def without_done(folder: Path, copy_to: Path, units: int) -> Path:
    """The folder as a kill after ``units`` units would leave it, the last one half written."""
    target = copy_to / folder.parent.name / folder.name
    shutil.copytree(folder, target)
    for name in ("done.json", "table.csv", "table.md", "classes.csv", "figure.png", "figure.pdf"):
        (target / name).unlink()
    parts = (target / "rows.jsonl").read_bytes().split(b"\n\n")
    (target / "rows.jsonl").write_bytes(b"\n\n".join(parts[:units]) + b"\n\n" + parts[units][: len(parts[units]) // 2])
    return target


def test_a_killed_run_goes_on_to_the_same_rows(finished: FinishedRun, tmp_path: Path) -> None:
    target = without_done(finished.folder, tmp_path, units=4)
    again = execute(resolve(tiny()), Request(tmp_path, threads=1), SilentProgress())
    assert again.folder == target
    for name in ("rows.jsonl", "table.csv", "table.md", "classes.csv"):
        assert (target / name).read_bytes() == (finished.folder / name).read_bytes()


class Peeking:
    """The exact posterior, told one hidden token in thirty."""

    def __init__(self, s: Subject, law_keys: list[str]) -> None:
        self.layout, self.exact = s.distribution.layout, ExactPosterior(s.distribution)
        keys = [s.key.fold("losses").fold(name).fold("data") for name in law_keys]
        self.truths = [s.distribution.sample(key, s.row.evaluation.sequences) for key in keys]
        self.generator = np.random.default_rng(0)

    def marginals(self, tokens: np.ndarray) -> Marginals:
        answer = self.exact.marginals(tokens)
        agreeing = [truth for truth in self.truths if ((tokens == -1) | (tokens == truth)).all()]
        peeks = self.generator.random(tokens.shape) < 0.03
        return replace(answer, probs=np.where(peeks[:, :, None], np.eye(2)[agreeing[0]], answer.probs))


def test_a_leak_is_reported_as_a_metric_and_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = work._posterior

    def posterior(s: Subject, keys: Any) -> Any:
        return Peeking(s, ["pattern(4)", "uniform"]) if keys["iterations"] == 40 else honest(s, keys)

    monkeypatch.setattr(work, "_posterior", posterior)
    document = tiny()
    document["evaluation"] |= {"laws": ["uniform"], "patterns": [4], "sequences": 1_000, "proxy": False}
    experiment = resolve(document)
    run = execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    leaks = {(item.keys["posterior"], item.keys["iterations"]): item for item in group(run.rows, "leaks")}
    assert leaks["model", 40].value("leaks") >= 1
    assert leaks["model", 60].value("leaks") == leaks["bp", ""].value("leaks") == 0
    tested = sum(item.value("rows_tested") for item in leaks.values())
    assert tested == len([row for row in run.rows if row.metric == "evidence"])
    found = leaking_rows(run.rows)
    assert len(found) == leaks["model", 40].value("leaks")
    assert {row.keys["iterations"] for row in found} == {40}
    text = (run.folder / "table.md").read_text()
    assert "LEAK in " in text
    assert "LEAK: model, 40 steps, pattern(4), 4+10 hidden, latents: evidence" in text


def test_belief_propagation_needs_no_training_and_every_problem_has_a_figure_of_its_own(tmp_path: Path) -> None:
    document = tiny() | {"training": None, "further": [], "rows": [{}, {"problem": {"noise": 0.1}}]}
    document["evaluation"] |= {"proxy": False, "sequences": 30}
    experiment = resolve(document)
    run = execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    assert not list(run.folder.glob("*.safetensors"))
    assert run.facts["device"] == "cpu"
    assert [table.title for table in tables(experiment, run.rows)] == [
        "A tiny figure: belief propagation",
        "How far each posterior is from the Bayes optimum",
        "No model beats Bayes",
    ]
    assert {path.name for path in run.folder.glob("*.png")} == {"figure.png", "figure-1.png"}
    noisy = [row for row in run.rows if row.keys["row"] == 1 and row.metric == "deterministic"]
    assert {row.sums.mean for row in noisy if row.keys.get("latents_hidden") == 4} == {0.0}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("further", [30], r"must grow, beginning above training\.steps: got \[40, 30\]"),
        ("further", [60, 60], r"must grow"),
        ("further", [], r"evaluation\.proxy asks for a model trained further"),
        ("training", None, r"further lengths are given, but training is null"),
        ("evaluation.patterns", [1, 1], r"name pattern\(1\) twice"),
        ("evaluation.patterns", [5, 6], r"pattern\(l\) hides l = 1\.\.N latents, got l = 6 at N = 5"),
        ("evaluation.patterns", [0], r"evaluation\.patterns must be at least 1, got 0"),
        ("evaluation.laws", ["uniform", "uniform"], r"name uniform twice"),
        ("evaluation.laws", ["uniformly"], r"unknown mask law 'uniformly': the closest is uniform"),
        ("evaluation.seqences", 5, r"the closest is evaluation\.sequences"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, path: str, value: Any, complaint: str) -> None:
    document = tiny()
    first, _, second = path.partition(".")
    if second:
        document[first][second] = value
    else:
        document[first] = value
    with pytest.raises(ValueError, match=complaint):
        execute(resolve(document), Request(tmp_path), SilentProgress())


def test_patterns_left_out_are_all_and_may_not_be_named_again() -> None:
    document = tiny()
    document["evaluation"]["patterns"] = None
    row = resolve(document).rows[0]
    layout = row.problem.make().layout
    assert row.evaluation.texts(layout)[3:] == tuple(f"pattern({count})" for count in range(1, 5))
    document["evaluation"]["laws"] = ["pattern(2)"]
    with pytest.raises(ValueError, match=r"laws name pattern\(2\), which is among the patterns"):
        resolve(document)


def test_the_presets_are_what_the_paper_says() -> None:
    paper, proxy = (load(FILE, preset=name).rows[0] for name in ("paper", "proxy"))
    for row in (paper, proxy):
        assert (row.problem.N, row.problem.P, row.problem.k) == (20, 280, 3)
        assert (row.model.shape, row.model.positions) == ("19M", "rope")
        assert (row.training.batch, row.training.learning_rate, row.training.weight_decay) == (256, 4e-4, 0.1)
        assert row.training.learning_rate * row.training.final_ratio == pytest.approx(4e-5)
        assert row.lengths[:2] == (2_000, 10_000)
        texts = row.evaluation.texts(row.problem.make().layout)
        assert [f"pattern({count})" for count in range(1, 20)] == list(texts[-19:])
        assert {"uniform", "suffix"} < set(texts)
        assert row.evaluation.sequences == 1_000
    assert paper.lengths[-1] == 10_000
    assert not paper.evaluation.proxy
    assert proxy.lengths[-1] == 50_000
    assert proxy.evaluation.proxy
    for name in ("quick", "cpu"):
        assert load(FILE, preset=name).rows[0].model.positions == "learned"


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0.25, 0.0, -1e-18, 4.2e-5, float("nan"))] == [
        "0.2500",
        "0.0000",
        "0.0000",
        "4.2e-05",
        "-",
    ]


def test_a_leak_needs_the_threshold_of_its_own_problem() -> None:
    def row(number: int, metric: str, value: float) -> Row:
        return Row(f"row{number}", metric, Sums.single(value), {"row": number})

    rows = [row(0, "threshold", 10), row(1, "threshold", 12), row(0, "evidence", 11), row(1, "evidence", 11)]
    assert [found.keys["row"] for found in leaking_rows(rows)] == [0]
