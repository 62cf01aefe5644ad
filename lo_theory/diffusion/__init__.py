"""Masks, orders, decoding and evaluation: everything about diffusion that needs no network."""

from lo_theory.diffusion.catalogue import POLICIES
from lo_theory.diffusion.confidence_rules import Prefix, entropy_bounded, factor, frechet, threshold
from lo_theory.diffusion.costs import DecodeCost, StepCost, decode_cost, log_likelihood
from lo_theory.diffusion.decode import Decoded, DecodeOptions, Observer, decode
from lo_theory.diffusion.diversity import Diversity, diversity
from lo_theory.diffusion.evaluate import (
    conditional_accuracy,
    dead_checks,
    find_dead_ends,
    generated_accuracies,
    infill_accuracies,
)
from lo_theory.diffusion.information import (
    InformationCurve,
    best_counts,
    binomial_cost,
    counts_cost,
    information_curve,
)
from lo_theory.diffusion.leaks import evidence, find_leaks, leak_threshold
from lo_theory.diffusion.lookahead_rules import information_gain, lookahead, position_calibrated
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
    Noise,
    Policy,
    TopK,
    View,
    entropy,
    fixed_order,
    margin,
    top_probability,
    vanilla,
)
from lo_theory.diffusion.schedules import (
    SCHEDULES,
    BinomialRule,
    Counts,
    FixedCount,
    OneAtATime,
    RevealCurve,
    Schedule,
    schedule_counts,
)
from lo_theory.diffusion.stable_rules import stable, true_margin
from lo_theory.diffusion.statistics import Sums

__all__ = [
    "LAWS",
    "ORDERS",
    "POLICIES",
    "SCHEDULES",
    "AlongOrder",
    "Bernoulli",
    "BinomialRule",
    "ClassLoss",
    "Counts",
    "DecodeCost",
    "DecodeOptions",
    "Decoded",
    "Diversity",
    "FixedCount",
    "InformationCurve",
    "Losses",
    "MaskLaw",
    "Noise",
    "Observer",
    "OneAtATime",
    "Pattern",
    "PatternLosses",
    "Policy",
    "Prefix",
    "RevealCurve",
    "Rotation",
    "Schedule",
    "StepCost",
    "Suffix",
    "Sums",
    "TopK",
    "TwoRates",
    "Uniform",
    "View",
    "best_counts",
    "binomial_cost",
    "conditional_accuracy",
    "counts_cost",
    "dead_checks",
    "decode",
    "decode_cost",
    "describe",
    "diversity",
    "entropy",
    "entropy_bounded",
    "evidence",
    "factor",
    "find_dead_ends",
    "find_leaks",
    "fixed_order",
    "frechet",
    "gap_closed",
    "generated_accuracies",
    "infill_accuracies",
    "information_curve",
    "information_gain",
    "leak_threshold",
    "log_likelihood",
    "lookahead",
    "losses",
    "margin",
    "order_losses",
    "pattern_losses",
    "per_hidden",
    "position_calibrated",
    "reading_order",
    "row_integers",
    "schedule_counts",
    "stable",
    "threshold",
    "top_probability",
    "true_margin",
    "vanilla",
]
