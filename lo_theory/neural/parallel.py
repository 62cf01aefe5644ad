"""Several processes that train one network, one a device, as torchrun starts them: data-parallel training.

Every rank holds all weights and takes its slice of the rows of a step; gradients are summed over the ranks once a
step, so all ranks take the same step. There is no wrapper around the network, so compiling and adding up gradients
work as with one process. Touches torch.distributed and the variables that torchrun sets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
from torch import Tensor, distributed

from lo_theory.problem.seams import checked

__all__ = ["Ranks", "current_ranks", "join_ranks"]


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run, and which of them this one is; alone without torchrun.

    ``local`` and ``local_count`` are rank and number on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this rank: of several on one machine each takes its own GPU."""
        device = torch.device(name)
        if self.count == 1 or device.type != "cuda" or device.index is not None:
            return device
        return torch.device("cuda", self.local)

    def rows(self, batch: int) -> tuple[int, int]:
        """Start and number of this rank's rows of a step: the slices of all ranks are the batch, each row once."""
        if batch < self.count:
            raise ValueError(f"a batch of {batch} rows cannot be shared by {self.count} ranks: start fewer")
        start = batch * self.rank // self.count
        return start, batch * (self.rank + 1) // self.count - start

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their sums over the ranks, in place; every rank gets the same bits.

        One transfer of all of them, 4 bytes a parameter, after the backward pass. RuntimeError if a rank is gone.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        try:
            distributed.all_reduce(flat)
        except RuntimeError as error:
            self._lost(error)
        parts = flat.split([tensor.numel() for tensor in tensors])
        shaped = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), shaped)

    def agree(self, what: str, value: object, device: torch.device) -> None:
        """Wait for all ranks; ValueError if they do not name the same ``value``, RuntimeError if one is gone."""
        if self.count == 1:
            return
        digest = hashlib.blake2b(repr(value).encode(), digest_size=7).digest()
        own = torch.tensor([int.from_bytes(digest)], dtype=torch.int64, device=device)
        found = [torch.zeros_like(own) for _ in range(self.count)]
        try:
            distributed.all_gather(found, own)
        except RuntimeError as error:
            self._lost(error)
        other = [rank for rank, there in enumerate(found) if int(there) != int(own)]
        if other:
            raise ValueError(
                f"ranks disagree on {what}: rank {self.rank} has {value!s:.60}, rank {other[0]} another; all need the "
                "same command, the same files and the same versions"
            )

    def _lost(self, error: RuntimeError) -> NoReturn:
        raise RuntimeError(
            f"rank {self.rank} of {self.count} has lost another rank, which died, stopped, or was silent for too long: "
            "training stopped, the last checkpoint is kept; the same command continues from there"
            f" ({str(error).splitlines()[0]})"
        ) from error


def current_ranks() -> Ranks:
    """The ranks that ``join_ranks``, or the program itself, has brought together; one rank where none were."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Ranks()
    rank, count = distributed.get_rank(), distributed.get_world_size()
    local = int(os.environ.get("LOCAL_RANK", rank))
    return Ranks(rank, count, local, int(os.environ.get("LOCAL_WORLD_SIZE", count)))


@checked
@contextmanager
def join_ranks(device: str = "cpu", *, timeout_seconds: float = 600.0) -> Iterator[Ranks]:
    """Join the ranks that torchrun started; ``train`` inside this context shares its work among them.

    Gloo between CPUs, NCCL between GPUs, one GPU a rank. Without torchrun it is one rank and does nothing, so a program
    can always use it. ``timeout_seconds``: so long a rank waits for another, e.g. while rank 0 writes a checkpoint or
    evaluates, before it stops with an error. Between CPUs the death of a rank is noticed at once (its connections
    close); between GPUs NCCL's own watchdog ends the process after the time-out, sooner under torchrun, which ends
    all ranks when one ends in an error. ValueError for a rank without a GPU of its own.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be positive, got {timeout_seconds}")
    on_gpu, local = torch.device(device).type == "cuda", int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"rank {local} of this machine needs a GPU of its own, there are {torch.cuda.device_count()}: start as "
                "many ranks as there are GPUs (torchrun --nproc-per-node)"
            )
        torch.cuda.set_device(local)
    backend, own = ("nccl", torch.device("cuda", local)) if on_gpu else ("gloo", None)
    distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds), device_id=own)
    try:
        yield current_ranks()
    except BaseException:
        if not on_gpu:  # NCCL may wait for ranks that no longer answer; the end of the process frees everything
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()
