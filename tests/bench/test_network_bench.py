"""What a decode asks of a trained network: the marginals of a batch, and a whole decode, with the network of table1.

Beside it the training forward under autocast, 128 rows at once, which is how marginals were made before
``neural/inference.py``. Goal: no slower at any of these sizes, and at most two thirds of the time at (12, 48). Both are
asked for the same contexts, in turns, at five stages of a decode, and decode in turns; least processor time of each,
one torch thread. Weights do not matter, so the network is untrained. Run by ``make bench``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from lo_theory.diffusion import OneAtATime, decode, vanilla
from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig
from lo_theory.neural.posterior import autocast, in_batches
from lo_theory.neural.threads import torch_threads
from lo_theory.posterior import Marginals
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

KEY = Key(0).fold("bench of networks")
TURNS, DECODED = 5, 100
STAGES = (1.0, 0.8, 0.5, 0.3, 0.1)  # share of the positions that is hidden
ROWS = {(12, 48): 512, (8, 24): 512, (25, 275): 64}


class Before:
    """The training forward as a posterior: all positions, torch's own operations."""

    def __init__(self, posterior: TrainedPosterior) -> None:
        self.model, self.precision, self.layout = posterior.model, posterior.precision, posterior.layout

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """As ``TrainedPosterior.marginals``."""
        rows = np.asarray(tokens)
        probs = np.empty((*rows.shape, self.model.config.n_values), np.float32)
        with autocast(self.precision, "cpu"):
            return in_batches(rows, probs, 128, lambda part: self.model(torch.from_numpy(part).long()).softmax(dim=-1))


def sides(size: tuple[int, int], precision: str) -> dict[str, Any]:
    layout = nae_sat(*size, seed=0).layout
    config = TransformerConfig(layers=3, heads=8, width=96, inner=192, n_values=2, length=layout.length)
    now = TrainedPosterior(Transformer(config, seed=1), layout, precision=precision)
    now.marginals(np.full((8, layout.length), -1))  # compiles
    return {"before": Before(now), "now": now}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", list(ROWS), ids=str)
def test_marginals_of_a_step(benchmark: Any, capsys: Any, size: tuple[int, int], precision: str) -> None:
    problem, rows, both = nae_sat(*size, seed=0), ROWS[size], sides(size, precision)
    length = problem.layout.length
    complete, order = problem.sample(KEY, rows), KEY.generator().random((rows, length)).argsort(axis=1)
    stages = [np.where(order < max(1, round(share * length)), -1, complete).astype(np.int8) for share in STAGES]
    least = {name: np.full(len(STAGES), np.inf) for name in both}

    def turn() -> None:
        for stage, tokens in enumerate(stages):
            for name, side in both.items():
                began = time.process_time()
                side.marginals(tokens)
                least[name][stage] = min(least[name][stage], time.process_time() - began)

    with torch_threads(1):
        benchmark.group = "marginals of a trained network"
        benchmark.pedantic(turn, rounds=TURNS, iterations=1)
    before, after = (float(least[name].mean()) / rows for name in both)
    benchmark.extra_info.update(before=before, now=after)
    with capsys.disabled():
        each = ", ".join(f"{share:.0%} hidden {a / b:.2f}" for share, a, b in zip(STAGES, *least.values(), strict=True))
        print(
            f"\n{size}, {precision}: {1e6 * after:.0f} microseconds a sequence and step, before {1e6 * before:.0f} "
            f"({before / after:.2f} times: {each})"
        )
    assert after < before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_decode_one_token_a_step(benchmark: Any, capsys: Any, precision: str) -> None:
    both = sides((12, 48), precision)
    taken = dict.fromkeys(both, np.inf)

    def turn() -> None:
        for name, side in both.items():
            began = time.process_time()
            decode(side, vanilla(), OneAtATime(), key=KEY, n=DECODED)
            taken[name] = min(taken[name], time.process_time() - began)

    with torch_threads(1):
        benchmark.group = "decode with a trained network"
        benchmark.pedantic(turn, rounds=TURNS, iterations=1)
    benchmark.extra_info.update(taken)
    with capsys.disabled():
        print(f"\n{precision}: {DECODED} sequences at (12, 48), {taken['now']:.2f} s, before {taken['before']:.2f}")
