"""Figure 2 as an experiment: settings, units, rows, tables, figure, what it says of a leak, and going on after a kill."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion.statistics import Runs, Sums
from lo_theory.lab.config import load, resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments import figure2 as work
from lo_theory.lab.experiments.figure2 import figures, leaking, short
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.measures import CLASS_METRICS
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, journal
from lo_theory.lab.subject import Subject
from lo_theory.lab.table import to_markdown
from lo_theory.lab.task import tables
from lo_theory.posterior import ExactPosterior, Marginals

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
    return execute(resolve(tiny()), Request(tmp_path_factory.mktemp("runs"), threads=1), SilentProgress())


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def measured(rows: Any, name: str, **where: Any) -> list[Record]:
    return records(pool(kind(from_rows(rows), name, **where)))


def test_every_law_leaves_rows_by_class_and_role_for_every_posterior(finished: FinishedRun) -> None:
    losses = measured(finished.rows, "losses")
    roles = {(line.law, line.posterior, line.get("iterations"), line.role) for line in losses}
    laws = {"suffix": 2, "two_rates(1,0)": 1, "uniform": 2, "pattern(1)": 2, "pattern(4)": 2}
    who = [("model", 40), ("model", 60), ("bp", None)]
    expected = {
        (law, *one, role)
        for law, count in laws.items()
        for one in who
        for role in ("all", "latent", "observation")[: count + 1]
    }
    assert roles == expected
    classes = measured(finished.rows, "class_losses")
    assert {line.law for line in classes} == {"suffix", "uniform"}, "of the others the rows by role say it all"
    assert all(set(line.metrics) == set(CLASS_METRICS) for line in classes)
    known = {"pattern(1)": (1, 2), "pattern(4)": (4, 10), "two_rates(1,0)": (5, 0)}
    for line in losses:
        assert (line.get("latents_hidden"), line.get("observations_hidden")) == known.get(line.law, (None, None))
    suffix = kind(from_rows(finished.rows), "class_losses", law="suffix", posterior="bp", metric="model")
    assert suffix.n.sum() == 80


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
    for line in measured(finished.rows, "losses", posterior="bp", law="pattern(4)", role=["latent", "observation"]):
        own = {name: runs for name, (_, runs) in line.metrics.items() if name not in ("proxy_log_ratio", "kl_above")}
        assert own.keys() == expected.roles[line.role].keys()
        for name, runs in own.items():
            assert runs.sums == expected.roles[line.role][name] or runs.n == 0


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
    assert all(len(row) == len(table.heads) for table in content for section in table.sections for row in section)
    text = to_markdown(content)
    for word in ("| 5, 12 | pattern(4) | latent | 4+10 |", "Paper: latents err more (made up)", "| none |", "BP"):
        assert word in text
    assert "LEAK" not in text
    line = next(row for row in content[0].sections[0] if row[1:3] == ["suffix", "latent"])
    assert line[4:6] == ["0.0", "0.6931"]


def test_the_figure_shows_every_law_and_the_papers_panel(finished: FinishedRun, frame: Any) -> None:
    (sheet,) = figures(frame, resolve(finished.config)).values()
    figure = sheet.draw()
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:2] == ["loss, nats per scored token", "KL from the exact marginals, nats"]
    for axes in figure.axes[:2]:
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["suffix", "uniform", "pattern(1)", "pattern(4)", "two_rates(1,0)"]
    points = [container.lines[0] for container in figure.axes[0].containers]
    assert sum(len(line.get_xdata()) for line in points) == 3 * 9, "three posteriors, nine pairs of law and role"
    assert any("Figure 2" in axes.get_title() for axes in figure.axes)
    assert any("proxy" in axes.get_title() for axes in figure.axes)
    assert (finished.folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_many_places_of_an_order_are_shown_in_groups() -> None:
    values = {place: Sums.of([place, place + 0.5]) for place in range(60)}
    keys = {"row": 0, "N": 20, "P": 40, "law": "suffix", "posterior": "bp"}
    rows = [Row("u", "kl", values[0], {"kind": "losses", "role": "latent", **keys})]
    for place, sums in values.items():
        hidden = {"latents_hidden": max(0, 20 - place), "observations_hidden": min(40, 60 - place)}
        role = "latent" if place < 20 else "observation"
        rows.append(Row("u", "kl", sums, {"kind": "class_losses", "role": role, **keys, **hidden}))
    (sheet,) = figures(from_rows(rows), resolve(tiny())).values()
    panel = next(panel for panel in sheet.panels if panel.title.startswith("suffix"))
    found = {(line.position, line.role): line.estimate("kl") for line in panel.lines}
    assert len(found) == 21, "groups of three places, in the seventh of which both roles are"
    assert found[1, "latent"] == pytest.approx(Runs.of(values[0] + values[1] + values[2]).estimate())
    assert found[19, "latent"] == pytest.approx(Runs.of(values[18] + values[19]).estimate())


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
    leaks = {line.get("iterations"): line for line in measured(run.rows, "leaks")}
    assert leaks[40].value("leaks") >= 1
    assert leaks[60].value("leaks") == leaks[None].value("leaks") == 0
    tested = sum(line.value("rows_tested") for line in leaks.values())
    assert tested == len([row for row in run.rows if row.metric == "evidence"])
    assert [line.iterations for line in leaking(from_rows(run.rows))] == [40] * int(leaks[40].value("leaks"))
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
        ("evaluation.patterns", [1, 1], r"names pattern\(1\) twice"),
        ("evaluation.patterns", [5, 6], r"pattern\(l\) hides l = 1\.\.N latents, got l = 6 at N = 5"),
        ("evaluation.patterns", [0], r"evaluation\.patterns must be at least 1, got 0"),
        ("evaluation.laws", ["uniform", "uniform"], r"names uniform twice"),
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
    shown = [short(value) for value in (0.25, 0.0, -1e-18, 4.2e-5, float("nan"))]
    assert shown == ["0.2500", "0.0000", "0.0000", "4.2e-05", "-"]


def test_a_leak_needs_the_threshold_of_its_own_problem() -> None:
    def row(number: int, kind: str, metric: str, value: float) -> Row:
        return Row(f"row{number}", metric, Sums.single(value), {"kind": kind, "row": number})

    rows = [row(i, "leaks", "threshold", 10.0 + 2 * i) for i in (0, 1)]
    rows += [row(i, "losses", "evidence", 11.0) for i in (0, 1)]
    assert [line.row for line in leaking(from_rows(rows))] == [0]
