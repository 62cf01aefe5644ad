"""Masks, orders, decoding and evaluation: everything about diffusion that needs no network."""

from lo_theory.diffusion.decode import Decoded, DecodeOptions, decode
from lo_theory.diffusion.diversity import Diversity, diversity
from lo_theory.diffusion.evaluate import conditional_accuracy, generated_accuracies, infill_accuracies
from lo_theory.diffusion.leaks import evidence, find_leaks, leak_threshold
from lo_theory.diffusion.losses import ClassLoss, Losses, gap_closed, losses
from lo_theory.diffusion.masks import (
    LAWS,
    Bernoulli,
    MaskLaw,
    Pattern,
    Rotation,
    Suffix,
    TwoRates,
    Uniform,
    describe,
    per_hidden,
    row_integers,
)
from lo_theory.diffusion.orders import ORDERS, AlongOrder, order_losses, reading_order
from lo_theory.diffusion.pattern_losses import PatternLosses, pattern_losses
from lo_theory.diffusion.policies import (
    POLICIES,
    BinomialRule,
    FixedCount,
    Noise,
    OneAtATime,
    Policy,
    Schedule,
    TopK,
    View,
    entropy,
    fixed_order,
    margin,
    top_probability,
    vanilla,
)
from lo_theory.diffusion.statistics import Sums

__all__ = [
    "LAWS",
    "ORDERS",
    "POLICIES",
    "AlongOrder",
    "Bernoulli",
    "BinomialRule",
    "ClassLoss",
    "DecodeOptions",
    "Decoded",
    "Diversity",
    "FixedCount",
    "Losses",
    "MaskLaw",
    "Noise",
    "OneAtATime",
    "Pattern",
    "PatternLosses",
    "Policy",
    "Rotation",
    "Schedule",
    "Suffix",
    "Sums",
    "TopK",
    "TwoRates",
    "Uniform",
    "View",
    "conditional_accuracy",
    "decode",
    "describe",
    "diversity",
    "entropy",
    "evidence",
    "find_leaks",
    "fixed_order",
    "gap_closed",
    "generated_accuracies",
    "infill_accuracies",
    "leak_threshold",
    "losses",
    "margin",
    "order_losses",
    "pattern_losses",
    "per_hidden",
    "reading_order",
    "row_integers",
    "top_probability",
    "vanilla",
]
