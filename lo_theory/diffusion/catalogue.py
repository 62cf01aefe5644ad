"""All policies by name, as experiment files write them: ``margin``, or ``mine(0.9)`` for one that takes numbers."""

from __future__ import annotations

from collections.abc import Callable

from lo_theory.diffusion.policies import Policy, entropy, fixed_order, margin, top_probability, vanilla

__all__ = ["POLICIES"]

POLICIES: dict[str, Callable[..., Policy]] = {
    "vanilla": vanilla,
    "top_probability": top_probability,
    "margin": margin,
    "entropy": entropy,
    "fixed_order": fixed_order,
}
