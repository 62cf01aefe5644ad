"""What training costs in floating-point operations, and how fast they come. Touches torch and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn

from lo_theory.neural.model import TransformerConfig
from lo_theory.problem.seams import checked

__all__ = ["Meter", "core_parameters", "flop_per_token", "measure_matmul_rate"]

_SIZES = {"cuda": 8192, "cpu": 1024}
_PRODUCTS = 10


def core_parameters(network: TransformerConfig) -> int:
    """Parameters outside embeddings and head, the paper's way of counting: 18,880,896 for the 19M shape."""
    width, inner = network.width, network.inner_width
    return network.layers * (4 * width**2 + 3 * width * inner + 2 * width) + width


@checked
def flop_per_token(network: TransformerConfig) -> int:
    """Floating-point operations of training on one token: 6 x core parameters + 12 x layers x width x L.

    Forward and backward, a multiplication and an addition counted as two; L is the number of places the network
    computes on (``pad_to`` where given). Attention is counted whole, also where causal; embeddings and head, norms,
    softmax and optimiser are not counted.
    """
    return 6 * core_parameters(network) + 12 * network.layers * network.width * network.places


@checked
def measure_matmul_rate(device: str = "cpu", seconds: float = 1.0, *, size: int | None = None) -> float:
    """FLOP/s of the bfloat16 product of two size x size matrices on one device: what ``utilisation`` is measured by.

    ``size`` is 8192 on a GPU and 1024 on a CPU (with torch's threads as set) where not given. The median over rounds
    of ten products, for about ``seconds`` after a warm-up. Cost: those seconds, and three matrices. ValueError for a
    size or a time that is not positive.
    """
    place = torch.device(device)
    size = _SIZES.get(place.type, 1024) if size is None else size
    if size < 1 or not seconds > 0:
        raise ValueError(f"size and seconds must be positive, got {size} and {seconds}")
    generator = torch.Generator(place).manual_seed(0)  # of constant numbers a GPU makes products faster than it can
    left, right = (torch.randn(size, size, generator=generator, device=place).bfloat16() for _ in range(2))
    out = torch.empty_like(left)

    def round_of_products() -> float:
        began = time.perf_counter()
        for _ in range(_PRODUCTS):
            torch.mm(left, right, out=out)
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter() - began

    round_of_products()
    times, began = [round_of_products()], time.perf_counter()
    while time.perf_counter() - began < seconds:
        times.append(round_of_products())
    return 2.0 * size**3 * _PRODUCTS / median(times)


def _clocks() -> dict[str, float]:
    """What the clocks show: of the wall, and of this thread on a processor."""
    return {"training_seconds": time.perf_counter(), "processor_seconds": time.thread_time()}


class Meter:
    """Counts the sequences that go through a network in training, and the time in which they do.

    The count is that of all ranks: this one sees ``rows`` of a batch, and all see equally many sequences a row. Tokens
    are those of the data; pads cost operations, but are no tokens. ``peak_flops``: what the devices of all ranks could
    do together.
    """

    def __init__(self, network: TransformerConfig, *, rows: int, batch: int, peak_flops: float | None = None) -> None:
        self._network, self._rows, self._batch, self._peak = network, rows, batch, peak_flops
        self._own, self._before = 0, 0
        self._since, self._at = time.perf_counter(), 0
        self._clocks = _clocks()

    @property
    def sequences(self) -> int:
        """Sequences since the first step of the run."""
        return self._before + self._own * self._batch // self._rows

    @property
    def flops(self) -> float:
        """Operations since the first step of the run, see ``flop_per_token``."""
        return self._operations(self.sequences)

    def _operations(self, sequences: int) -> float:
        return float(sequences) * self._network.places * flop_per_token(self._network)

    def begin(self, sequences: int) -> None:
        """Start the clock of a run that has seen so many sequences."""
        self._own, self._before = 0, sequences
        self._since, self._at = time.perf_counter(), sequences
        self._clocks = _clocks()

    @contextmanager
    def count(self, network: nn.Module) -> Iterator[None]:
        """Count what goes through ``network`` to be learned from inside this context; evaluations are not counted."""

        def see(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if torch.is_grad_enabled():
                self._own += len(arguments[0])

        handle = network.register_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that is not training: evaluations and checkpoints. The device must be waited for before and inside."""
        began, clocks = time.perf_counter(), _clocks()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began
            self._clocks = {name: at + _clocks()[name] - clocks[name] for name, at in self._clocks.items()}

    def spent(self) -> dict[str, float]:
        """``training_seconds`` and ``processor_seconds`` since ``begin``, pauses left out.

        The second is time on a processor of the thread that asks, which is the fair one on a machine shared with other
        work; torch's further threads, data drawn ahead and a GPU are not in it. The device must have been waited for.
        """
        return {name: now - self._clocks[name] for name, now in _clocks().items()}

    def read(self) -> dict[str, float]:
        """``flops`` so far, and ``tokens_per_second`` and ``flops_per_second`` since the last reading.

        With a peak also ``utilisation``, the share of it. The device must have been waited for. The first reading
        contains what is done once (compiling, warming up).
        """
        now, sequences = time.perf_counter(), self.sequences
        seconds, new = max(now - self._since, 1e-9), sequences - self._at
        self._since, self._at = now, sequences
        rate = self._operations(new) / seconds
        values = {
            "flops": self.flops,
            "tokens_per_second": new * self._network.length / seconds,
            "flops_per_second": rate,
        }
        return values if self._peak is None else {**values, "utilisation": rate / self._peak}
