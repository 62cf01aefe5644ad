"""One decode seen step by step: what is recorded is what was decoded, and what is believed is what is true."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from lo_theory.cli import main
from lo_theory.diffusion import FixedCount, OneAtATime, decode, margin, vanilla
from lo_theory.lab.config import resolve
from lo_theory.lab.decode_view import Trace, Wanted, find_model, make_figure, record, to_csv, trace_all
from lo_theory.lab.drawing import styled
from lo_theory.lab.sweep.cells import cell_id
from lo_theory.lab.task import TASKS
from lo_theory.posterior import BPPosterior, ExactPosterior, Marginals
from lo_theory.problem import nae_sat
from lo_theory.problem.layout import MASK
from lo_theory.rng import Key
from tests.cli.complaint import complaint
from tests.figures import rendered
from tests.lab.tiny import tiny

PROBLEM = nae_sat(6, 18, seed=0)
POSTERIORS = {"exact": ExactPosterior(PROBLEM), "bp": BPPosterior(PROBLEM)}
HIDDEN = np.full(PROBLEM.layout.length, MASK, np.int8)


def path_cost(trace: Trace) -> float:
    """-sum of ln of the exact marginals of the tokens as they were revealed."""
    places = np.flatnonzero(trace.revealed >= 0)
    return -float(np.log(trace.beliefs["exact"][trace.revealed[places], places, trace.tokens[-1, places]]).sum())


@pytest.mark.parametrize("policy", [vanilla(), margin()], ids=lambda policy: policy.name)
def test_beliefs_of_the_exact_posterior_obey_the_chain_rule_along_any_order(policy) -> None:  # type: ignore[no-untyped-def]
    trace = record(PROBLEM, POSTERIORS, "exact", policy, OneAtATime(), key=Key(1), given=HIDDEN)
    assert path_cost(trace) == pytest.approx(-float(PROBLEM.log_prob(trace.tokens[-1:])[0]))
    assert not trace.impossible.any()
    assert not trace.wrong.any()
    assert (np.diff(trace.undetermined) <= 0).all()
    assert trace.undetermined[0] == PROBLEM.layout.length
    several = record(PROBLEM, POSTERIORS, "exact", policy, FixedCount(3), key=Key(1), given=HIDDEN)
    assert path_cost(several) != pytest.approx(6 * np.log(2))  # independent draws of one step do not


def test_a_trace_is_the_decode_that_nobody_watched() -> None:
    given = HIDDEN.copy()
    given[:4] = PROBLEM.sample(Key(5), 1)[0, :4]
    trace = record(PROBLEM, POSTERIORS, "bp", margin(), FixedCount(4), key=Key(2), given=given)
    plain = decode(POSTERIORS["bp"], margin(), FixedCount(4), key=Key(2), n=1, given=given[None])
    np.testing.assert_array_equal(trace.tokens[-1], plain.tokens[0])
    np.testing.assert_array_equal(trace.revealed, plain.step_revealed[0])
    assert trace.steps == 4
    for step in range(4):
        np.testing.assert_array_equal(trace.tokens[step], np.where(trace.revealed >= step, MASK, plain.tokens[0]))
    assert (np.isnan(trace.kl) | trace.hidden).all()
    assert np.nanmin(trace.kl) >= 0
    np.testing.assert_array_equal(POSTERIORS["exact"].marginals(trace.tokens[2:3]).probs[0], trace.beliefs["exact"][2])
    with pytest.raises(ValueError, match="nothing is hidden"):
        record(PROBLEM, POSTERIORS, "exact", margin(), OneAtATime(), key=Key(2), given=plain.tokens[0])


class Halved:
    """The exact posterior with every probability halved: no laws."""

    def __init__(self, exact: ExactPosterior) -> None:
        self.layout, self._exact = exact.layout, exact

    def marginals(self, tokens: NDArray[np.int8]) -> Marginals:
        answer = self._exact.marginals(tokens)
        return Marginals(answer.probs / 2, answer.log_evidence, answer.converged)


def test_an_answer_that_is_none_is_refused_by_the_name_of_who_gave_it() -> None:
    problem = nae_sat(5, 10, seed=0)
    exact = ExactPosterior(problem)
    hidden = np.full(problem.layout.length, MASK, np.int8)
    for name, other in (("bp", "exact"), ("exact", "bp")):
        posteriors = {"exact": exact, "bp": exact, name: Halved(exact)}
        with pytest.raises(ValueError, match=f"{name} gives row 0 at position 0 no probabilities"):
            record(problem, posteriors, other, vanilla(), OneAtATime(), key=Key(0), given=hidden)


def test_what_is_inconsistent_is_marked() -> None:
    traces = [
        record(PROBLEM, POSTERIORS, "exact", vanilla(), FixedCount(2), key=Key(seed), given=HIDDEN) for seed in range(8)
    ]
    assert any(trace.wrong.any() for trace in traces)  # half of the tokens at once cannot all agree
    for trace in traces:
        latents, observed = PROBLEM.layout.split(trace.tokens[-1])
        values = latents[PROBLEM.observations.scopes]
        true = (values != values[:, :1]).any(axis=1)
        np.testing.assert_array_equal(trace.wrong[PROBLEM.layout.observation_positions], observed != true)


def test_figure_and_csv_hold_every_step(tmp_path: Path) -> None:
    traces = trace_all(resolve(tiny(), preset="exact"), Wanted(steps="L/4", hide="pattern(3)"))
    assert [(trace.denoiser, trace.policy) for trace in traces] == [
        (denoiser, policy) for denoiser in ("exact", "bp") for policy in ("vanilla", "margin")
    ]
    for trace in traces:
        np.testing.assert_array_equal(trace.tokens[0], traces[0].tokens[0])  # the same context
    lines = list(csv.DictReader(to_csv(traces).splitlines()))
    assert len(lines) == sum(int(trace.hidden.sum() + (trace.revealed < 0).sum()) for trace in traces)
    for line in lines:
        assert float(line["exact_p0"]) + float(line["exact_p1"]) == pytest.approx(1, abs=1e-5)
    with styled():
        figure = make_figure(traces, "A decode")
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    for word in ("exact posterior, vanilla", "belief propagation, margin", "of 18 observations consistent"):
        assert word in titles
    assert "Decoded by belief propagation" in titles
    assert "What belief propagation knows" in titles
    assert "Decoded by the exact posterior" in titles


def test_a_run_without_its_checkpoint_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = Path(__file__).parents[2] / "experiments" / "results" / "table1-cpu"
    command = ["decode-view", str(published), "--steps", "2", "--policies", "margin", "--no-gif", "--to", str(tmp_path)]
    assert main(command) == 0
    assert "no checkpoint of row 0" in capsys.readouterr().err
    assert "bp_p1" in (tmp_path / "decode.csv").read_text().splitlines()[0]


def test_the_command_finds_the_model_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny(), sort_keys=False))
    out, short = ["--out", str(tmp_path / "runs")], ["--set", "training.steps=2", "decoding.denoisers=[exact]"]
    short += ["decoding.extra=[]", "decoding.sequences=4", "evaluation.sequences=4"]
    assert main(["run", str(config), *short, *out, "--quiet"]) == 0
    capsys.readouterr()
    with rendered():
        assert main(["decode-view", "tiny", "--steps", "L/8", "--policies", "margin", *out]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in paths] == ["decode.png", "decode.pdf", "decode.csv", "decode.gif"]
    assert "model_p1" in paths[2].read_text().splitlines()[0]
    with Image.open(paths[3]) as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]
    before = [path.read_bytes() for path in paths[:3]]
    with rendered():
        assert main(["decode-view", "tiny", "--steps", "L/8", "--policies", "margin", "--no-gif", *out]) == 0
    assert [path.read_bytes() for path in paths[:3]] == before
    assert capsys.readouterr().err == ""
    wrong = {
        "--policies=marign": "unknown policy 'marign': the closest is margin",
        "--hide=pattern(9)": "--hide: ",
        "--hide=suffx": "unknown mask law",
        "--steps=L/x": "steps are L",
        "--row=3": "row 3 does not exist: tiny has rows 0 to 0",
        "--preset=exact": "has its preset already",
        "--model=nothing.safetensors": "no checkpoint at nothing.safetensors",
        "--hide=two_rates(0,0)": "nothing is hidden",
    }
    for option, expected in wrong.items():
        assert expected in complaint(["decode-view", "tiny", *option.split("=", 1), *out], capsys)


def test_the_model_of_a_sweep_is_found_with_its_cell(tmp_path: Path) -> None:
    experiment = resolve({**tiny(), "rows": [{"seed": 3}, {"seed": 4}]})
    content = TASKS["table1"]().prepare(experiment.rows[1]).content()
    path = tmp_path / "tiny" / "sweep-table1" / "cells" / cell_id("table1", content) / "model-0.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    results = tmp_path / "tiny" / "0123456789abcdef"
    assert find_model(experiment, 1, results) == path
    assert find_model(experiment, 0, results) is None
    assert find_model(experiment, 1, None) is None
