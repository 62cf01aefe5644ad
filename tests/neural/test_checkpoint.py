from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lo_theory.neural import Checkpoint, Transformer, checkpoint, load, load_model, save, train
from lo_theory.problem import nae_sat
from tests.neural.small import KEY, NETWORK, OBJECTIVE, PROBLEM, TRAINING


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    train(NETWORK, replace(TRAINING, steps=2), OBJECTIVE, KEY, checkpoint=path)
    return path


def example() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b": torch.randn(3, 4, generator=generator),
        "a": torch.arange(5),
        "empty": torch.zeros(0),
        "one": torch.tensor(2.0),
    }
    return Checkpoint({"step": 3, "nested": {"z": [1, 2], "a": None}}, tensors)


def test_what_is_saved_is_loaded_and_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    given = example()
    first, second = save(tmp_path / "1", given), tmp_path / "2"
    found = load(first)
    assert found.header == given.header
    assert found.tensors.keys() == given.tensors.keys()
    assert all(torch.equal(found.tensors[name], given.tensors[name]) for name in given.tensors)
    save(second, Checkpoint(dict(reversed(given.header.items())), dict(reversed(given.tensors.items()))))
    assert first.read_bytes() == second.read_bytes()
    save(second, found)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "2"]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "c", example())
    content = path.read_bytes()
    for size in [0, 1, 7, 8, 9, 40, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="damaged"):
            load(path)


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "c", example())
    content = bytearray(path.read_bytes())
    for place in range(len(content)):
        bit = 1 << (place % 8)
        content[place] ^= bit
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged|format|another program"):
            load(path)
        content[place] ^= bit
    path.write_bytes(content)
    load(path)


def test_foreign_files_and_other_versions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "foreign"
    save_file({"weight": torch.zeros(2)}, foreign, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="another program"):
        load(foreign)
    save_file({"weight": torch.zeros(2)}, foreign, metadata={"lo_theory": json.dumps([1])})
    with pytest.raises(ValueError, match="header"):
        load(foreign)
    foreign.write_bytes(b"\x80\x04K\x01.")  # a pickle of the number 1
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        load(foreign)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load(tmp_path / "absent")
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    newer = save(tmp_path / "newer", example())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 2, this version reads 1"):
        load(newer)


def test_a_network_comes_back_with_its_weights_or_is_refused_by_name(written: Path, tmp_path: Path) -> None:
    model = load_model(written, problem=PROBLEM.fingerprint())
    assert model.config == NETWORK
    stored = load(written)
    assert all(torch.equal(value, stored.tensors[f"model/{name}"]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="problem"):
        load_model(written, problem=nae_sat(4, 8, seed=4).fingerprint())
    wider = {**stored.header, "model": asdict(replace(NETWORK, inner=32))}
    other = save(tmp_path / "other", Checkpoint(wider, stored.tensors))
    with pytest.raises(ValueError, match=r"blocks\.0\.feedforward\.down\.weight"):
        load_model(other)
    del (less := dict(stored.tensors))["model/norm.weight"]
    with pytest.raises(ValueError, match=r"norm\.weight is None"):
        load_model(save(tmp_path / "less", Checkpoint(stored.header, less)))
    with pytest.raises(ValueError, match="no network"):
        load_model(save(tmp_path / "none", example()))


@pytest.mark.parametrize(
    "claim",
    [
        {"layers": 10**9},
        {"width": 2**40},
        {"width": 2**20, "inner": 1},
        {"inner": 2**40},
        {"length": 10**12},
        {"n_values": 2**50},
        {"positions": "rope", "length": 10**11},
        {"positions": "both", "pad_to": 10**11},
        {"layers": 1.5},
        {"width": 10**30},
        {"heads": "two"},
        {"pad_to": [1]},
        {"positions": "none"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_header_that_claims_another_network_is_refused_before_memory_is_taken(
    claim: dict[str, object], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = load(written)
    forged = {**stored.header, "model": {**asdict(NETWORK), **claim}}
    path = save(tmp_path / "forged", Checkpoint(forged, stored.tensors))

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a network was made")

    monkeypatch.setattr(Transformer, "__init__", refuse)
    with pytest.raises(ValueError, match="forged"):
        load_model(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "c", example())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, Checkpoint({"step": 4}, {"a": torch.ones(3)}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_the_bytes_of_a_checkpoint_hold_nothing_that_runs(written: Path) -> None:
    header_size = int.from_bytes(written.read_bytes()[:8], "little")
    header = json.loads(written.read_bytes()[8 : 8 + header_size])
    assert list(header["__metadata__"]) == ["lo_theory"]
    assert {name.split("/")[0] for name in header if name != "__metadata__"} == {"model", "optimiser", "running_loss"}
    assert Transformer(NETWORK, seed=0).state_dict().keys() == {
        name.removeprefix("model/") for name in header if name.startswith("model/")
    }
