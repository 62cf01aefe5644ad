"""Checkpoints: one safetensors file with a checksum, whole or absent, of which nothing is ever executed.

The file holds named tensors and one metadata key with a canonical JSON header, so equal content gives equal bytes.
May touch torch and the file system; knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from lo_theory.neural.model import Transformer, TransformerConfig
from lo_theory.problem.seams import checked
from lo_theory.problem.storage import write_atomically

__all__ = [
    "AVERAGE",
    "FORMAT",
    "Checkpoint",
    "digest",
    "load",
    "load_model",
    "model_tensors",
    "refuse_difference",
    "restore_model",
    "save",
    "save_model",
]

FORMAT = 1
"""Version of the file's layout; other versions are refused."""

_KEY = "lo_theory"
_MODEL, _HEADS = "model/", "heads/"
_MOST_TURNS = 2**22  # numbers in the tables of rotary positions, which a file does not hold
AVERAGE = "ema/"
"""What the names of a network's averaged parameters begin with."""


@dataclass(frozen=True)
class Checkpoint:
    """Header (values that JSON can hold) and tensors of one file."""

    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """32 hexadecimal digits over the header and over every tensor's name, type, shape and bytes."""
    digest = hashlib.blake2b(_canonical(header).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@checked
def save(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically (temporary name, fsync, rename, fsync of the folder).

    Tensors are copied to the CPU. Equal content gives a file equal byte for byte. Errors: OSError as the system
    raises it; ``path`` then still holds what it held before.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(checkpoint.tensors.items())}
    header = {**checkpoint.header, "format": FORMAT}
    signed = {**header, "checksum": digest(header, tensors)}
    content = serialise(tensors, metadata={_KEY: _canonical(signed)})
    return write_atomically(path, lambda file: file.write(content))


@checked
def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify it.

    Errors: FileNotFoundError; ValueError that says whether the file is damaged (truncated, bits flipped), foreign
    (not written by ``save``) or of another format version. Cost: one pass over the bytes. Executes nothing of the
    file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); a damaged checkpoint is to be deleted"
        ) from error
    if _KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file of another program: its metadata has no {_KEY!r} entry")
    try:
        header = json.loads(metadata[_KEY])
        checksum, version = header.pop("checksum"), header.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: its header cannot be read ({error!r}); delete it to start again"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {version!r}, this version reads {FORMAT}: train again, or use the older "
            "version"
        )
    if checksum != digest({**header, "format": version}, tensors):
        raise ValueError(f"{path} is damaged: its content does not match its checksum; delete it to start again")
    return Checkpoint(header, tensors)


def refuse_difference(path: str | Path, part: str, found: Any, expected: Any) -> None:
    """Raise ValueError naming the first entry in which a checkpoint's ``part`` differs from what is expected."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys()):
            refuse_difference(path, f"{part}.{name}", found.get(name), expected.get(name))
    elif found != expected:
        raise ValueError(
            f"{path} is a checkpoint of something else: its {part} is {found!r}, expected {expected!r}; "
            "move it away to train anew"
        )


def model_tensors(model: Transformer, prefix: str = _MODEL) -> dict[str, Tensor]:
    """Name the network's parameters as they are stored, those of an average with the prefix ``AVERAGE``.

    What a plain ``Transformer`` of this form has not (further heads) is stored apart, so that ``load_model`` can leave
    it out.
    """
    plain = Transformer.shapes(model.config)
    return {f"{'' if name in plain else _HEADS}{prefix}{name}": tensor for name, tensor in model.state_dict().items()}


def _stored(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in checkpoint.tensors.items() if name.startswith(prefix)}


def _stored_for(network: type[Transformer], checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The parameters stored for a network of this class: the further heads only where it is no plain one."""
    heads = {} if network is Transformer else _stored(checkpoint, _HEADS + prefix)
    return {**_stored(checkpoint, prefix), **heads}


def restore_model(model: Transformer, checkpoint: Checkpoint, path: str | Path, prefix: str = _MODEL) -> None:
    """Copy a checkpoint's parameters into ``model``, or say which one is missing or has another shape."""
    stored = _stored_for(type(model), checkpoint, prefix)
    _require_fit(type(model), model.config, stored, path)
    model.load_state_dict(stored)


def _require_fit(
    network: type[Transformer], config: TransformerConfig, stored: Mapping[str, Tensor], path: str | Path
) -> None:
    """ValueError where parameters are not those of a network of this form; takes no memory for that network."""
    layers = len({name.split(".")[1] for name in stored if name.startswith("blocks.")})
    refuse_difference(path, "parameters.blocks", layers, config.layers)
    turns = 0 if config.positions == "learned" else config.places * config.width // config.heads
    if turns > max(_MOST_TURNS, sum(value.numel() for value in stored.values())):
        raise ValueError(f"{path} claims {config.places} positions for its network: it is damaged, or not ours")
    shapes = network.shapes(config)
    refuse_difference(path, "parameters", {name: list(value.shape) for name, value in stored.items()}, shapes)


@checked
def load_model(
    path: str | Path, *, problem: str | None = None, network: type[Transformer] = Transformer
) -> Transformer:
    """Rebuild the network of a checkpoint, on the CPU: the average of the weights where training kept one (``ema``).

    ``problem``: the fingerprint the network must have been trained on; not compared when left out. ``network``: the
    class of the network; a plain ``Transformer``, which leaves out further heads, unless one asks for them. Errors as
    ``load``, and ValueError for another problem or for parameters that do not fit the stored configuration.
    """
    checkpoint = load(path)
    header = checkpoint.header
    try:
        config, trained_on = TransformerConfig(**header["model"]), header["objective"]["problem"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no network of this version: {error!r}") from error
    if problem is not None:
        refuse_difference(path, "problem", trained_on, problem)
    averaged = any(name.startswith(AVERAGE) for name in checkpoint.tensors)
    prefix = AVERAGE if averaged else _MODEL
    stored = _stored_for(network, checkpoint, prefix)
    try:
        _require_fit(network, config, stored, path)  # before memory is taken for what the header claims
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} holds no network of this version: {error}") from error
    model = network(config, seed=0)
    model.load_state_dict(stored)
    return model.eval()


@checked
def save_model(path: str | Path, model: Transformer, *, problem: str | None = None) -> Path:
    """Write a network alone, whole or not at all: what ``load_model`` reads, and no training continues.

    ``problem``: the fingerprint of what it was trained on, to be compared when it is loaded. Errors as ``save``.
    """
    header = {"model": asdict(model.config), "objective": {"problem": problem}}
    return save(path, Checkpoint(header, model_tensors(model)))
