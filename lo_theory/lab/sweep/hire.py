"""Which crew computes a sweep, with how many workers and threads, on which device; what all drivers must share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lo_theory.lab.execute import Request
from lo_theory.lab.machine import available_processors
from lo_theory.lab.runs import read_json, write_json
from lo_theory.lab.sweep.cluster import DaskCrew
from lo_theory.lab.sweep.crews import Crew, LocalCrew, SerialCrew

__all__ = ["CREWS", "Hired", "agree", "hire"]


@dataclass(frozen=True)
class Hired:
    """A crew that is not at work yet, how many cells it computes at a time, threads of each, device of trainings.

    ``device`` is None where no cell trains a network.
    """

    crew: Crew
    workers: int
    threads: int
    device: str | None


def hire(name: str, address: str, request: Request, folder: Path, *, trains: bool) -> Hired:
    """Make the crew called ``name`` for the sweep in ``folder``; ``trains``: whether any cell trains a network.

    Errors: ValueError for threads or a device other than the recorded ones, a device that is not there, or a cluster
    that does not answer.
    """
    recorded = _recorded(folder)
    threads = int(_settled(folder, "threads", request.threads, recorded.get("threads"), 1))
    settled = str(_settled(folder, "device", _kind(request.device), recorded.get("device"), "auto"))
    device = settled if request.device == "auto" else request.device
    workers = request.workers or max(1, available_processors() // threads)
    return CREWS[name](_Wish(address, workers, threads, device, trains))


def agree(folder: Path, hired: Hired) -> None:
    """Record threads and device for all drivers that come; ValueError if another was faster and has other ones."""
    facts = {"threads": hired.threads} | ({} if hired.device is None else {"device": _kind(hired.device)})
    recorded = _recorded(folder)
    for name, value in facts.items():
        _settled(folder, name, value, recorded.get(name), value)
    if facts.items() - recorded.items():
        write_json(folder / "facts.json", recorded | facts)


def _kind(device: str) -> str:
    """``cuda`` of ``cuda:1``: which of several GPUs it is decides nothing."""
    return device.partition(":")[0]


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / "facts.json"
    remedy = "remove it, and give --threads and --device as in the log.jsonl of the sweep's parts"
    return read_json(path, remedy=remedy) if path.exists() else {}


def _settled(folder: Path, name: str, asked: Any, recorded: Any, default: Any) -> Any:
    """The recorded fact, else the one asked for; other threads or another device would give other weights."""
    if recorded is None:
        return default if asked is None else asked
    if asked not in (None, "auto", recorded):
        raise ValueError(
            f"{folder} was begun with {name} = {recorded}, and going on with {asked} would give other weights: "
            f"give --{name} {recorded} or none, or another --out"
        )
    return recorded


@dataclass(frozen=True)
class _Wish:
    address: str
    workers: int
    threads: int
    device: str
    trains: bool


def _device(wish: _Wish) -> str | None:
    """The device of the cells that train: the one asked for, or a GPU if this machine has one."""
    if not wish.trains and wish.device in ("auto", "cpu"):
        return None  # without loading torch
    from lo_theory.lab.training import choose_device

    device = choose_device(wish.device)
    return device if wish.trains else None


def _visible_devices(device: str | None) -> list[str]:
    """The GPUs to use, as CUDA_VISIBLE_DEVICES names them: all that this process sees, or the one asked for."""
    if device is None or not device.startswith("cuda"):
        return []
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
    return [names[int(device.partition(":")[2])]] if ":" in device else names


def _pool(wish: _Wish) -> Hired:
    device = _device(wish)
    devices = _visible_devices(device)
    crew = LocalCrew(wish.workers, wish.threads, devices)
    return Hired(crew, wish.workers, wish.threads, "cuda" if devices else device)  # a worker sees one of them only


def _serial(wish: _Wish) -> Hired:
    return Hired(SerialCrew(), 1, wish.threads, _device(wish))


def _dask(wish: _Wish) -> Hired:
    if _kind(wish.device) not in ("auto", "cpu", "cuda"):
        raise ValueError(f"cells on a cluster are computed on cpu or cuda, got the device {wish.device!r}")
    crew = DaskCrew(wish.address, wish.workers, wish.threads)
    device = ("cuda" if crew.offers_gpu else "cpu") if wish.device == "auto" else _kind(wish.device)
    if wish.trains and device.startswith("cuda") and not crew.offers_gpu:
        with crew:
            raise ValueError(
                f"no worker of the cluster at {wish.address} offers the resource GPU: start them with "
                "--resources GPU=1, or give --device cpu"
            )
    return Hired(crew, crew.workers, wish.threads, device if wish.trains else None)


CREWS: Mapping[str, Callable[[_Wish], Hired]] = {"pool": _pool, "serial": _serial, "dask": _dask}
"""Every crew by its name."""
