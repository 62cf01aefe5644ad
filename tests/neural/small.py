"""Small problems and networks that the tests of this room share."""

from __future__ import annotations

from dataclasses import replace

from lo_theory.diffusion.masks import Rotation, TwoRates, Uniform
from lo_theory.neural import Masked, Stage, TrainConfig, TransformerConfig
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

PROBLEM = nae_sat(4, 8, seed=3)
LENGTH = PROBLEM.layout.length
NETWORK = TransformerConfig(layers=2, heads=2, width=16, inner=24, n_values=2, length=LENGTH)
CAUSAL = replace(NETWORK, causal=True)
TRAINING = TrainConfig(steps=12, batch=8, warmup=3, threads=1, log_every=5)
OBJECTIVE = Masked(PROBLEM, Uniform(), (Stage(4, Rotation((TwoRates(0.1, 0.9), Uniform()))),))
KEY = Key(11).fold("tests of the neural room")
