"""Figure 2 as an experiment: settings, units, rows, tables, figure, what it says of a leak, and going on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.diffusion.statistics import Runs, Sums
from lo_theory.lab.config import resolve
from lo_theory.lab.execute import Request, execute
from lo_theory.lab.experiments import figure2 as work
from lo_theory.lab.experiments.figure2 import figures, leaking, short
from lo_theory.lab.frame import Record, from_rows, kind, pool, records
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.rows import Row
from lo_theory.lab.runs import FinishedRun, journal
from lo_theory.lab.subject import Subject
from lo_theory.lab.task import tables
from lo_theory.posterior import ExactPosterior, Marginals
from tests.lab.tiny import tiny_of

FILE = Path(__file__).parents[2] / "experiments" / "figure2.yaml"


def tiny() -> dict[str, Any]:
    evaluation = {"sequences": 80, "laws": ["suffix", "two_rates(1,0)", "uniform"], "patterns": [1, 4], "proxy": True}
    training = {"steps": 40, "batch": 16, "warmup": 25}
    problem = {"family": "nae_sat", "N": 5, "P": 12}
    return tiny_of("figure2", problem=problem, training=training, further=[60], evaluation=evaluation)


@pytest.fixture(scope="module")
def finished(tiny_runs: Callable[[str], FinishedRun]) -> FinishedRun:
    return tiny_runs("figure2")


@pytest.fixture(scope="module")
def frame(finished: FinishedRun) -> Any:
    return from_rows(finished.rows)


def measured(rows: Any, name: str, **where: Any) -> list[Record]:
    return records(pool(kind(from_rows(rows), name, **where)))


def test_the_rows_are_those_of_the_library(finished: FinishedRun) -> None:
    from lo_theory.diffusion import Pattern
    from lo_theory.diffusion.pattern_losses import pattern_losses
    from lo_theory.posterior import BPPosterior
    from lo_theory.problem import nae_sat
    from lo_theory.rng import Key

    distribution = nae_sat(4, 8, seed=0)
    key = Key(0).fold("losses").fold("pattern(3)")
    exact, bp = ExactPosterior(distribution), BPPosterior(distribution)
    (expected,) = pattern_losses({"bp": bp}, exact, distribution, Pattern(3), key=key, n=12).values()
    for line in measured(finished.rows, "losses", posterior="bp", law="pattern(3)", role=["latent", "observation"]):
        own = {name: runs for name, (_, runs) in line.metrics.items() if name not in ("proxy_log_ratio", "kl_above")}
        assert own.keys() == expected.roles[line.role].keys()
        for name, runs in own.items():
            assert runs.sums == expected.roles[line.role][name] or runs.n == 0


def test_longer_trainings_start_alike_and_end_apart(leaky: FinishedRun) -> None:
    losses: dict[str, dict[int, float]] = {}
    for entry in journal(leaky.folder):
        if "loss" in entry:
            losses.setdefault(entry["model"], {})[entry["step"]] = entry["loss"]
    assert losses.keys() == {"0-40", "0-60"}
    assert losses["0-40"][20] == losses["0-60"][20], "one initialisation, one stream of data, one warm-up"
    assert losses["0-40"][40] != losses["0-60"][40], "each its own cosine"


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


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    """A run whose shorter training peeks."""
    honest = work._posterior

    def posterior(s: Subject, keys: Any) -> Any:
        return Peeking(s, ["pattern(4)", "uniform"]) if keys["iterations"] == 40 else honest(s, keys)

    document = tiny()
    document["evaluation"] |= {"laws": ["uniform"], "patterns": [4], "sequences": 1_000, "proxy": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_posterior", posterior)
        request = Request(tmp_path_factory.mktemp("leaky"), threads=1)
        yield execute(resolve(document), request, SilentProgress())


def test_a_leak_is_reported_as_a_metric_and_in_the_table(leaky: FinishedRun) -> None:
    run = leaky
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
    document["evaluation"] |= {"proxy": False, "sequences": 12}
    experiment = resolve(document)
    run = execute(experiment, Request(tmp_path, threads=1), SilentProgress())
    assert not list(run.folder.glob("*.safetensors"))
    assert run.facts["device"] == "cpu"
    assert len(tables(experiment, run.rows)) == 3, "of losses, of distances, of leaks"
    assert {path.name for path in run.folder.glob("*.png")} == {"figure.png", "figure-1.png"}
    noisy = [row for row in run.rows if row.keys["row"] == 1 and row.metric == "deterministic"]
    assert {row.sums.mean for row in noisy if row.keys.get("latents_hidden") == 4} == {0.0}


def test_patterns_left_out_are_all() -> None:
    document = tiny()
    document["evaluation"]["patterns"] = None
    row = resolve(document).rows[0]
    layout = row.problem.make().layout
    assert row.evaluation.texts(layout)[3:] == tuple(f"pattern({count})" for count in range(1, 5))


def test_numbers_are_short() -> None:
    shown = [short(value) for value in (0.25, 0.0, -1e-18, 4.2e-5, float("nan"))]
    assert shown == ["0.2500", "0.0000", "0.0000", "4.2e-05", "-"]


def test_a_leak_needs_the_threshold_of_its_own_problem() -> None:
    def row(number: int, kind: str, metric: str, value: float) -> Row:
        return Row(f"row{number}", metric, Sums.single(value), {"kind": kind, "row": number})

    rows = [row(i, "leaks", "threshold", 10.0 + 2 * i) for i in (0, 1)]
    rows += [row(i, "losses", "evidence", 11.0) for i in (0, 1)]
    assert [line.row for line in leaking(from_rows(rows))] == [0]
