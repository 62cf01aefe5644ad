from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_theory.cli import main
from lo_theory.lab.config import load, resolve
from lo_theory.lab.dry_run import dry_run
from lo_theory.lab.engine import Stop
from lo_theory.lab.execute import Request, execute, prepare
from lo_theory.lab.planning import plan_trainings
from lo_theory.lab.progress import SilentProgress
from lo_theory.lab.runs import Followed
from lo_theory.lab.schema import read_yaml
from lo_theory.lab.units import Context, Options
from lo_theory.neural import Transformer, estimate_memory, flop_per_token
from tests.cli.complaint import complaint
from tests.lab.grids import write_grid
from tests.lab.tiny import tiny

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CASES = [
    (path.stem, preset)
    for path in sorted(EXPERIMENTS.glob("*.yaml"))
    if not {"axes", "entries"} & (document := read_yaml(path)).keys()
    for preset in document.get("presets", {})
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return path


def test_a_stated_rate_gives_the_operations_that_can_be_counted_by_hand(tmp_path: Path) -> None:
    (estimate,) = dry_run(resolve(tiny()), Request(tmp_path), rate=1e12)
    network = estimate.learner.network
    sequence = 24 * flop_per_token(network)
    assert estimate.flops == 150 * 16 * sequence
    evaluated = 2 * 64 + 2 * 64  # two mask laws; one pass with the latents given and one with infill
    decoded = 64 * 2 * (24 + 3)  # two policies, one token a step and L/8 steps
    assert estimate.forward_flops == pytest.approx((evaluated + decoded) * sequence / 3)
    assert estimate.seconds == pytest.approx((estimate.flops + estimate.forward_flops) / 1e12)
    assert estimate.parameters[0] == sum(part.numel() for part in Transformer(network, seed=0).parameters())
    assert estimate.parameters[1] == Transformer(network, seed=0).core_parameters()
    assert estimate.config.device == "cuda"  # which need not be here
    assert estimate.memory == estimate_memory(network, estimate.config)
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_estimated_cell_by_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = {"training": {"steps": 150, "batch": 16}, "model": {"shape": {"layers": 1, "heads": 2, "width": 16}}}
    file, out = write_grid(tmp_path / "grid.yaml", **over), tmp_path / "runs"
    assert main(["sweep", str(file), "--dry-run", "--rate", "1e-6", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for P in (10, 15):
        assert shown.count(f"problem.P={P}, problem.seed=") == shown.count(f"(5, {P})") == 3
    assert main(["sweep", str(file), "--dry-run", "--rate", "1e-6", "--out", str(out), "--shard", "1/2"]) == 0
    assert 0 < capsys.readouterr().out.count("problem.P=") < 6
    assert not out.exists()
    both = complaint(["sweep", str(file), "--dry-run", "--show"], capsys)
    assert both.endswith("--show what is finished: give one of them")
    assert complaint(["sweep", str(file), "--rate", "3"], capsys).endswith("give it with --dry-run")


def test_the_command_measures_shows_and_leaves_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert main(["run", str(config), "--dry-run", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Dry run: A tiny table" in shown
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("0 ")]
    assert "150" in line
    assert float(line[-3]) > 0  # TFLOP/s, measured
    assert main(["run", str(config), "--dry-run", "--preset", "exact", "--out", str(out)]) == 0
    assert capsys.readouterr().out == "nothing is trained: there is nothing to estimate\n"
    assert not out.exists()


@pytest.mark.parametrize(("name", "preset"), CASES, ids=["-".join(case) for case in CASES])
def test_every_training_of_every_experiment_is_planned(name: str, preset: str, tmp_path: Path) -> None:
    """Whatever its task, and the paper's sizes included; nothing is trained."""
    prepared, folder = prepare(load(EXPERIMENTS / f"{name}.yaml", preset=preset), Request(tmp_path))
    run, options = Followed(folder, {}), Options()
    planned = plan_trainings(prepared, run, options)
    context = Context(run, options, SilentProgress(), Stop())
    units = [unit.name for i, row in enumerate(prepared) if row.trains for unit in row.units(i, context) if unit.cost]
    assert [one.unit.name for one in planned] == units
    files = [one.learner.file for one in planned]
    assert len(set(files)) == len(files)  # each with a checkpoint of its own
    assert all(one.config.steps * one.config.batch > 0 for one in planned)
    assert not list(tmp_path.iterdir())


def refused(change: dict[str, Any], out: Path, workers: int = 1) -> str:
    with pytest.raises(ValueError, match="GiB") as error:
        execute(resolve(tiny() | change), Request(out, workers=workers, threads=1), SilentProgress())
    assert not list(out.iterdir())  # said before a folder is made
    return str(error.value)


def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    large = {"name": "large", "model": {"shape": {"layers": 2, "heads": 2, "width": 64}}}
    rows = {"rows": [{}, large]}
    small, big = (one.memory for one in dry_run(resolve(tiny() | rows), Request(out), rate=1e12))
    assert small < big

    def free(size: int) -> None:
        monkeypatch.setattr("lo_theory.neural.memory.free_memory", lambda device: size)

    free(2**20)
    said = refused(rows, out)
    assert said.startswith("rows[0], (6, 18) training: training 1 layers of width 16 on 16 sequences of 24 tokens")
    free(big)
    assert "2 trainings at once need about" in refused(rows, out, workers=2)
    assert "one alone fits: give --workers 1" in refused(rows, out, workers=2)
    free((small + big) // 2)
    assert refused(rows, out).startswith("rows[1], (6, 18) large training: training 2 layers of width 64")
    free(2**20)
    assert main(["run", str(config), "--dry-run", "--out", str(out)]) == 0  # says so, and does not measure
    shown = capsys.readouterr().out
    assert " !" in shown
    assert "does not fit the 0.00 GiB free" in shown


def test_rates_that_make_no_sense_are_one_clear_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "runs")]
    line = complaint(["run", str(config), "--dry-run", "--rate", "0", *out], capsys)
    assert "--rate must be positive, got 0 TFLOP/s" in line
    line = complaint(["run", str(config), "--dry-run", "--rate", "nan", *out], capsys)
    assert "--rate must be positive, got nan TFLOP/s" in line
    line = complaint(["run", str(config), "--rate", "100", *out], capsys)
    assert "give it with --dry-run" in line
    assert not (tmp_path / "runs").exists()
