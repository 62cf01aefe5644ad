"""The memory that training takes: said before it begins, and kept from step to step. Asks the device what is free.

The estimate counts what torch keeps for the backward pass, tensor by tensor, so it follows the code in model.py.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import replace
from pathlib import Path

import torch

from lo_theory.neural.config import TrainConfig
from lo_theory.neural.flops import core_parameters
from lo_theory.neural.model import VECTOR, TransformerConfig
from lo_theory.neural.parallel import Ranks
from lo_theory.neural.posterior import resolve_precision
from lo_theory.problem.seams import checked

__all__ = ["count_parameters", "estimate_memory", "free_memory", "keep_memory", "require_memory"]

_GIB = 2**30
_KEPT = ((-3, 2**25), (-1, 2**31 - 1))  # M_MMAP_THRESHOLD, the most that every glibc takes, and M_TRIM_THRESHOLD
_PEAK = 1.1  # what an allocator rounds up and cannot give back at once


def _parameters(network: TransformerConfig) -> tuple[int, int]:
    """All parameters, and those of the blocks' matrices."""
    width = network.width
    places = network.places if network.positions != "rope" else 0
    hidden = network.layers * (4 * width**2 + 3 * width * network.inner_width)
    return core_parameters(network) + (network.token_ids + places + network.n_values) * width, hidden


def count_parameters(network: TransformerConfig) -> int:
    """All parameters of a network, without making it."""
    return _parameters(network)[0]


def _sequence_bytes(network: TransformerConfig, *, half: bool, on_cpu: bool) -> int:
    """Bytes that one sequence takes in the forward and backward pass: what is kept, and the largest passing tensors."""
    places, width, inner = network.places, network.width, network.inner_width
    turned = 2 * width if network.positions != "learned" else 0  # rotated queries and keys beside the plain ones
    normal = 2 * width if not on_cpu else 0  # torch's own norm keeps its result without the weight, ours does not
    if not half:
        layer = 4 * (8 * width + normal + turned + 4 * inner + network.heads) + 8
        passing = 4 * 5 * max(inner, width)
    else:
        filled = places + -places % VECTOR  # keys of the CPU's bfloat16 attention
        attention = 6 * width * 2 + 2 * network.heads * filled if on_cpu else (6 * width + turned) * 2
        layer = 4 * (2 * width + normal) + 2 * 5 * width + attention + 2 * 4 * inner + 4 * network.heads + 8
        passing = max(2 * 5 * inner, 3 * 2 * network.heads * filled if on_cpu else 0)
    outside = 4 * 4 * width + 4 * 6 * network.n_values + 5 * 8
    return places * (network.layers * layer + passing + outside)


@checked
def estimate_memory(network: TransformerConfig, training: TrainConfig, *, ranks: int = 1, passes: int = 1) -> int:
    """Bytes that training takes on each device at its peak.

    Weights, gradients, optimiser, average, and the activations of the rows that go through the network at once (the
    rank's slice of the batch, or ``microbatch``), each ``passes`` times, as an objective of two masks, of three passes
    and so on keeps them all for the backward pass. Where measured (on a CPU, one pass) within a fifth of the peak;
    torch itself, CUDA's context and workspaces (about a GiB) come on top, torch.compile takes less. Cost: none.
    """
    half = resolve_precision(training.precision, training.device) == "bfloat16"
    parameters, hidden = _parameters(network)
    copies = 4 * 4 * parameters - (4 * hidden if training.optimiser == "muon" else 0)  # weight, gradient, two moments
    copies += 4 * parameters * ((training.ema is not None) + (ranks > 1)) + (2 * parameters if half else 0)
    on_cpu = torch.device(training.device).type != "cuda"
    rows = passes * min(-(-training.batch // ranks), training.microbatch or training.batch)
    return int(_PEAK * (copies + rows * _sequence_bytes(network, half=half, on_cpu=on_cpu)))


def keep_memory() -> bool:
    """Let this process keep up to 2 GiB that it frees; whether it could (glibc alone can).

    Tensors are made anew in every step. Given back to the system and asked for again they cost a page fault each 4 KiB.
    What it costs: ``tests/bench/test_step_bench.py``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    done = [mallopt(*option) for option in _KEPT]
    return all(done)


def _control_group_limit() -> int | None:
    """What the control group of this process may still take, where it has a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that training could take on a device now; None where the system does not say.

    Of a GPU what is free, with what torch holds and does not use; of a computer what is available without swapping.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        available = 1024 * int(found.group(1))
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return None
    limit = _control_group_limit()
    return available if limit is None else min(available, limit)


def require_memory(network: TransformerConfig, training: TrainConfig, ranks: Ranks, passes: int = 1) -> None:
    """ValueError, before anything is computed, if training does not fit its device: what it needs, what is free, and
    the largest power of two as ``microbatch`` that fits. ``passes``: see ``estimate_memory``.
    """
    device = ranks.device(training.device)
    free, sharing = free_memory(device), 1 if device.type == "cuda" else ranks.local_count
    needed = sharing * estimate_memory(network, training, ranks=ranks.count, passes=passes)
    if free is None or needed <= free:
        return
    rows = min(-(-training.batch // ranks.count), training.microbatch or training.batch)
    remedy = "use a smaller network"
    for power in reversed(range(rows.bit_length())):
        smaller = replace(training, microbatch=2**power)
        if 2**power < rows and sharing * estimate_memory(network, smaller, ranks=ranks.count, passes=passes) <= free:
            remedy = f"set microbatch to {2**power} (gradients are added up, the result is the same up to rounding)"
            break
    times = f", {passes} passes each," if passes > 1 else ""
    raise ValueError(
        f"training {network.layers} layers of width {network.width} on {rows} sequences of {network.places} tokens at "
        f"once{times} needs about {needed / _GIB:.2f} GiB of memory, {device} has {free / _GIB:.2f} GiB free: {remedy}"
    )
