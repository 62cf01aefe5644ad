"""Event files hold the numbers of the journal, by step, the later of two entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lo_theory.cli import main
from lo_theory.lab.events import write_events

SESSION = 1_700_000_000 * 10**9


def journal(folder: Path, *entries: dict[str, object]) -> Path:
    lines = [json.dumps({"session": SESSION, "seconds": 1.5, **entry}) for entry in entries]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n{torn")
    return folder


def training(step: int, loss: float, model: str = "0", **more: object) -> dict[str, object]:
    return {"event": "training", "model": model, "step": step, "loss": loss, "law": "uniform", **more}


def test_curves_are_those_of_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run := tmp_path / "run").mkdir()
    entries = [training(20, 0.7, gradient_norm=2.0), training(40, 0.6), training(20, 0.65), training(20, 9.0, "1")]
    start = {"event": "start", "model": "0", "step": 0, "threads": 1}
    journal(run, start, *entries, training(60, float("nan")))
    for _ in range(2):  # again: the same, not twice
        assert main(["tensorboard", str(run), "--to", str(tmp_path / "to")]) == 0
        assert capsys.readouterr().out.split() == [str(tmp_path / "to" / "run" / f"model-{name}") for name in "01"]
    found = EventAccumulator(str(tmp_path / "to" / "run" / "model-0")).Reload()
    losses = found.Scalars("loss/uniform")
    assert [event.step for event in losses] == [20, 40]
    assert [event.value for event in losses] == pytest.approx([0.65, 0.6])
    assert losses[0].wall_time == pytest.approx(1_700_000_001.5)
    assert [event.step for event in found.Scalars("gradient_norm")] == [20]
    assert set(found.Tags()["scalars"]) == {"loss/uniform", "gradient_norm"}


def test_a_run_without_trainings_says_so(tmp_path: Path) -> None:
    journal(tmp_path, {"event": "session", "workers": 1})
    with pytest.raises(ValueError, match="has no training"):
        write_events(tmp_path, tmp_path / "to")
    assert not (tmp_path / "to").exists()
