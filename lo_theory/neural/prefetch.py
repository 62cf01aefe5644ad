"""Batches drawn ahead of the network by one background thread.

A batch depends on its address (key, step, rows) and on nothing else, so drawing it early, in another thread, or again
gives the same bits. Touches torch, and the generators of nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from lo_theory.neural.objectives import Batch

__all__ = ["Prefetch"]

THREAD = "lo_theory-batches"

Tensors = dict[str, Tensor]


class Prefetch:
    """The batches of ``steps``, one after another, on ``device``.

    ``draw(step)`` runs in one thread of its own, at most ``depth`` batches ahead; with ``depth`` 0 in the caller's.
    What ``draw`` raises is raised by ``__next__`` where its batch is due. A context manager: leaving it drops what
    nobody asked for and ends the thread, after at most the one draw that is under way.

    To a CUDA device batches go from pinned memory without waiting.
    """

    def __init__(self, draw: Callable[[int], Batch], steps: range, *, depth: int, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:  # which one is meant is known to this thread only
            device = torch.device("cuda", torch.cuda.current_device())
        self._draw, self._depth, self._device = draw, depth, device
        self._steps = iter(steps)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD) if depth else None
        self._ahead: deque[Future[Tensors]] = deque()

    def __enter__(self) -> Prefetch:
        for _ in range(self._depth):
            self._submit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Tensors]:
        return self

    def __next__(self) -> Tensors:
        if self._pool is None:
            return self._send(self._prepare(next(self._steps)))
        if not self._ahead:
            raise StopIteration
        batch = self._ahead.popleft().result()
        self._submit()  # only now, so that no more than depth batches ever wait
        return self._send(batch)

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None and self._pool is not None:
            self._ahead.append(self._pool.submit(self._prepare, step))

    def _prepare(self, step: int) -> Tensors:
        """Draw one batch into memory from which the device can take it."""
        drawn = self._draw(step)
        if self._device.type != "cuda":
            return {name: torch.from_numpy(values) for name, values in drawn.items()}
        with torch.cuda.device(self._device):  # a thread begins on device 0, and pinning would open a context there
            return {name: torch.from_numpy(np.ascontiguousarray(values)).pin_memory() for name, values in drawn.items()}

    def _send(self, batch: Tensors) -> Tensors:
        # Torch's allocator keeps a pinned block until the copies out of it are done, so none is overwritten early.
        return {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
