"""Loss and gradient norm as training goes: kept on the device, looked at seldom. Touches torch only.

On a GPU the program runs ahead of the device; a look at a number waits until the device has caught up, and a look at
every step would leave it idle between steps. So the device itself remembers the first step that was not finite.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from lo_theory.neural.config import TrainConfig

__all__ = ["NotFinite", "Watch"]

_NAMES = ("loss", "gradient norm")


class NotFinite(FloatingPointError):
    """A loss, a gradient or a weight is not finite; ``step``: where that was first, or first noticed; -1 if unknown."""

    def __init__(self, message: str, step: int = -1) -> None:
        super().__init__(message)
        self.step = step


class Watch:
    """The sum of the losses since the last log, the last gradient norm, and what was first not finite, if anything.

    ``running``: float64[], the sum, which a checkpoint keeps. ``every_step``: look after every step; the default except
    on CUDA, as it costs nothing on a CPU. The numbers are kept on a CUDA device, else on the CPU.
    """

    def __init__(self, config: TrainConfig, device: torch.device, *, every_step: bool | None = None) -> None:
        self.config = config
        self.every_step = device.type != "cuda" if every_step is None else every_step
        self._home = device if device.type == "cuda" else torch.device("cpu")  # not every device knows float64
        self.running = torch.zeros((), dtype=torch.float64, device=self._home)
        self._last, self._what = torch.zeros(2, 2, dtype=torch.float64, device=self._home)
        self._where = torch.full_like(self._last, -1.0)  # the step, exact up to 2**53

    @torch.no_grad()
    def see(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take in the loss and the norm of the gradient at ``step``.

        Waits for the device only with ``every_step``, and then raises as ``look`` does.
        """
        self._last = torch.stack((loss.detach(), norm.detach())).to(self._home).double()
        first = ~torch.isfinite(self._last) & (self._where < 0)
        self._where = torch.where(first, step, self._where)
        self._what = torch.where(first, self._last, self._what)
        self.running = self.running + self._last[0]
        if self.every_step:
            self.look()

    def look(self) -> tuple[float, float]:
        """Sum of the losses since ``begin_again``, and the last gradient norm; waits for the device.

        FloatingPointError naming the step if a loss or a gradient was not finite.
        """
        numbers = torch.cat((self.running[None], self._last, self._where, self._what)).tolist()
        running, norm, where, what = numbers[0], numbers[2], numbers[3:5], numbers[5:7]
        broken = [(step, name, value) for step, name, value in zip(where, _NAMES, what, strict=True) if step >= 0]
        if broken:
            step, name, value = min(broken, key=lambda found: found[0])  # of one step the loss comes first
            self.refuse(f"{name} is {value}", int(step))
        return running, norm

    def begin_again(self, running: Tensor | None = None) -> None:
        """Start a new sum, at zero or with what a checkpoint kept."""
        self.running = torch.zeros_like(self.running) if running is None else running.to(self._home)

    def refuse(self, what: str, step: int) -> NoReturn:
        """Stop the run because of something that is not finite."""
        raise NotFinite(
            f"{what} at step {step} of {self.config.steps}: training stopped, the last checkpoint is kept; "
            f"try a learning rate below {self.config.learning_rate:g}, a longer warm-up or float32",
            step,
        )

    def require_finite(self, tensors: dict[str, Tensor], step: int) -> None:
        """FloatingPointError if a number in ``tensors`` is not finite: nothing like that goes into a checkpoint."""
        for name, value in tensors.items():
            if value.is_floating_point() and not math.isfinite(float(value.detach().sum(dtype=torch.float64))):
                self.refuse(f"{name} is not finite", step)
