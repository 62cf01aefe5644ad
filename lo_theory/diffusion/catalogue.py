"""Mask laws and policies by name, as experiment files write them: ``margin``, or ``threshold(0.9)`` with a number."""

from __future__ import annotations

from collections.abc import Callable

from lo_theory.diffusion.confidence_rules import entropy_bounded, factor, frechet, threshold
from lo_theory.diffusion.lookahead_rules import information_gain, lookahead, position_calibrated
from lo_theory.diffusion.masks import (
    Bernoulli,
    LatentsOnly,
    MaskLaw,
    ObservationsFirst,
    Pattern,
    Suffix,
    TwoRates,
    Uniform,
)
from lo_theory.diffusion.mirrored import Mirror, MirrorUniform, mirror_p_pots
from lo_theory.diffusion.plackett_luce import PlackettLuce
from lo_theory.diffusion.policies import Policy, entropy, fixed_order, margin, top_probability, vanilla
from lo_theory.diffusion.rates import bell, bell_unweighted, p_pots
from lo_theory.diffusion.remasking import p2, remdm_cap, remdm_confidence, remdm_loop, remdm_rescale
from lo_theory.diffusion.stable_rules import stable

__all__ = ["LAWS", "POLICIES"]

LAWS: dict[str, Callable[..., MaskLaw]] = {
    "uniform": Uniform,
    "bernoulli": Bernoulli,
    "pattern": Pattern,
    "two_rates": TwoRates,
    "suffix": Suffix,
    "observations_first": ObservationsFirst,
    "latents_only": LatentsOnly,
    "plackett_luce": PlackettLuce,
    "bell": bell,
    "bell_unweighted": bell_unweighted,
    "p_pots": p_pots,
    "mirror": Mirror,
    "mirror_uniform": MirrorUniform,
    "mirror_p_pots": mirror_p_pots,
}

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
