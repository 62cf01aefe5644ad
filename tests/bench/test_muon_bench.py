"""A step of Muon for the matrices of a network of 3 layers, width 96, against torch.optim.Muon, one thread.

Goal: a step takes at most 15 ms on one core, with bfloat16 in the processor or without. torch's rounds to bfloat16, which
a processor without it multiplies slowly. The two are taken in turns.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from lo_theory.neural import Transformer, TransformerConfig
from lo_theory.neural.muon import Muon
from lo_theory.neural.optimisers import is_hidden

NETWORK = TransformerConfig(layers=3, heads=3, width=96, inner=192, n_values=2, length=300)


def test_step_of_muon(benchmark: Any) -> None:
    torch.set_num_threads(1)
    model = Transformer(NETWORK, seed=0)
    matrices = [value for name, value in model.named_parameters() if is_hidden(name, value)]
    for value in matrices:
        value.grad = torch.randn(value.shape)
    peers: dict[str, Any] = {"ours": Muon(matrices, lr=1e-3, weight_decay=0.0)}
    if hasattr(torch.optim, "Muon"):  # from torch 2.9
        peers["torch"] = torch.optim.Muon(matrices, lr=1e-3, adjust_lr_fn="match_rms_adamw")
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(10):
        for name, peer in peers.items():
            began = time.perf_counter()
            peer.step()
            seconds[name].append(time.perf_counter() - began)
    found = {name: 1e3 * median(times[1:]) for name, times in seconds.items()}
    benchmark.extra_info.update({f"{name} ms": round(value, 2) for name, value in found.items()})
    print({name: f"{value:.1f} ms" for name, value in found.items()})
    benchmark.pedantic(peers["ours"].step, rounds=10)
