"""What a decoding step of 2,000 sequences costs the processor, beside the network: for L&O-NAE-SAT at (25, 275).

Goal: policy, schedule and drawing of tokens take less time than the forward pass of the 19M network on a GPU. On one,
both are measured; elsewhere the processor's part alone, one thread. Run by ``make bench``.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from lo_theory.diffusion import POLICIES, DecodeOptions, FixedCount, Noise, OneAtATime, _kernels, decode
from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig
from lo_theory.posterior import ExactPosterior, Marginals
from lo_theory.problem import nae_sat
from lo_theory.rng import Key

KEY = Key(0).fold("bench of decoding")
PROBLEM = nae_sat(25, 275, seed=0)
ROWS, STEPS = 2_000, 25
NOISE = {"": None, ", oracle noise": Noise(0.5)}


class Ready:
    """A posterior that costs nothing: the same marginals whatever is asked."""

    layout = PROBLEM.layout

    def __init__(self) -> None:
        first = KEY.generator().random((ROWS, self.layout.length, 1)).astype(np.float32)
        self.answer = Marginals(np.concatenate((first, 1 - first), axis=2), np.zeros(ROWS), np.ones(ROWS, np.bool_))

    def marginals(self, tokens: ArrayLike) -> Marginals:
        """The marginals made at the start."""
        rows, answer = len(np.asarray(tokens)), self.answer
        return Marginals(answer.probs[:rows], answer.log_evidence[:rows], answer.converged[:rows])


@pytest.mark.parametrize("policy", ["vanilla", "margin", "entropy", "fixed_order"])
@pytest.mark.parametrize("noise", list(NOISE))
def test_processor_part_of_a_step(benchmark: Any, capsys: Any, policy: str, noise: str) -> None:
    if noise and policy != "margin":
        pytest.skip("one policy stands for all with noise")
    options = DecodeOptions(noise=NOISE[noise], chunk=ROWS)
    ready = Ready()

    def run() -> float:
        began = time.process_time()
        decode(ready, POLICIES[policy](), FixedCount(STEPS), key=KEY, n=ROWS, options=options)
        return (time.process_time() - began) / STEPS

    run()  # compiles
    benchmark.group = "decoding, a step of 2,000 sequences"
    found = benchmark.pedantic(lambda: median(run() for _ in range(5)), rounds=1, iterations=1)
    benchmark.extra_info.update(seconds_a_step=found)
    with capsys.disabled():
        print(f"\n{policy}{noise}: {1e3 * found:.1f} ms of processor time a step of {ROWS} sequences, 12 tokens each")


def every_row_by_itself(first: np.ndarray, tokens: np.ndarray) -> None:
    """In place of the kernel that finds equal contexts: no two are."""
    first[:] = np.arange(len(first))


@pytest.mark.parametrize("policy", ["vanilla", "margin", "fixed_order"])
@pytest.mark.parametrize(("N", "P", "rows"), [(8, 24, ROWS), (25, 275, 64)])
def test_equal_contexts_are_asked_once(
    benchmark: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch, policy: str, N: int, P: int, rows: int
) -> None:
    """Goal: a decode of the exact posterior, one token a step, is nowhere slower for looking for equal contexts."""
    exact, looks = ExactPosterior(nae_sat(N, P, seed=0)), _kernels.first_equal

    def run(way: Any) -> tuple[float, float]:
        monkeypatch.setattr(_kernels, "first_equal", way)
        began = time.process_time()
        found = decode(exact, POLICIES[policy](), OneAtATime(), key=KEY, n=rows)
        return time.process_time() - began, found.distinct / rows

    def turns() -> tuple[float, float, float]:
        times = [(run(looks), run(every_row_by_itself)) for _ in range(5)]
        return min(a[0] for a, _ in times), min(b[0] for _, b in times), times[0][0][1]

    turns()  # compiles
    benchmark.group = "decoding, equal contexts"
    once, each, distinct = benchmark.pedantic(turns, rounds=1, iterations=1)
    benchmark.extra_info.update(seconds=once, before=each, contexts=distinct)
    with capsys.disabled():
        print(
            f"\n({N}, {P}) {policy}: {distinct:.1f} of {N + P} contexts a sequence, {1e3 * once:.0f} ms for {rows}, "
            f"each row by itself {1e3 * each:.0f} ms"
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_forward_pass_on_a_gpu(benchmark: Any, capsys: Any) -> None:
    network = Transformer(TransformerConfig.of("19M", n_values=2, length=300), seed=1).to("cuda")
    posterior = TrainedPosterior(network, PROBLEM.layout, batch=1_000, precision="bfloat16", compiled=True)
    tokens = np.full((ROWS, 300), -1, np.int8)

    def run() -> float:
        began = time.perf_counter()
        posterior.marginals(tokens)
        return time.perf_counter() - began

    run()  # compiles
    benchmark.group = "decoding, a step of 2,000 sequences"
    found = benchmark.pedantic(lambda: median(run() for _ in range(10)), rounds=1, iterations=1)
    benchmark.extra_info.update(seconds_a_step=found)
    with capsys.disabled():
        print(
            f"\nforward pass of the 19M network, {ROWS} sequences, both ways over the bus included: {1e3 * found:.1f} ms"
        )
