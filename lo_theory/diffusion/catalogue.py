"""All policies by name, as experiment files write them: ``margin``, or ``threshold(0.9)`` where one takes numbers."""

from __future__ import annotations

from collections.abc import Callable

from lo_theory.diffusion.confidence_rules import entropy_bounded, factor, frechet, threshold
from lo_theory.diffusion.lookahead_rules import information_gain, lookahead, position_calibrated
from lo_theory.diffusion.policies import Policy, entropy, fixed_order, margin, top_probability, vanilla
from lo_theory.diffusion.remasking import p2, remdm_cap, remdm_confidence, remdm_loop, remdm_rescale
from lo_theory.diffusion.stable_rules import stable

__all__ = ["POLICIES"]

POLICIES: dict[str, Callable[..., Policy]] = {
    "vanilla": vanilla,
    "top_probability": top_probability,
    "margin": margin,
    "entropy": entropy,
    "fixed_order": fixed_order,
    "threshold": threshold,
    "factor": factor,
    "frechet": frechet,
    "entropy_bounded": entropy_bounded,
    "information_gain": information_gain,
    "lookahead": lookahead,
    "position_calibrated": position_calibrated,
    "stable": stable,
    "remdm_cap": remdm_cap,
    "remdm_rescale": remdm_rescale,
    "remdm_confidence": remdm_confidence,
    "remdm_loop": remdm_loop,
    "p2": p2,
}
