"""Which samplers keep the law of the data? Every discrete scheduler of diffusers that takes logits, run on the truth.

The model is exact, so whatever is wrong with the sequences is the sampler's doing. Needs `lo_theory[interop]`.

    python examples/diffusers_schedulers.py [--rows 4096]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import one_hot

from lo_theory import ExactPosterior, Key, LODistribution, TableObservations, as_module, decode, diversity, nae_sat
from lo_theory.diffusion import Diversity, OneAtATime, vanilla
from lo_theory.neural.oracle import EXCLUDED
from lo_theory.neural.samplers import run_remasking, run_scheduler
from lo_theory.testing.twins import joint_law


def bits(*, equal: bool) -> LODistribution:
    """Two bits: one fair bit twice, or two independent ones that are 0 with probability 3/4."""
    table = np.eye(2) if equal else np.full((2, 2), [0.75, 0.25])
    return LODistribution(np.array([[0.5, 0.5]]) if equal else table[:1], TableObservations([[0]], table[None]))


PROBLEMS = {
    "two equal bits": bits(equal=True),
    "two independent bits": bits(equal=False),
    "NAE (8, 24)": nae_sat(8, 24, seed=0),
}
MASK_ID = 2


class UniformOracle:
    """The exact denoiser of uniform corruption: p(x_i | each token was redrawn uniformly with probability 1 - keep).

    Logits [B, L, V] by summing over all sequences of the problem, for small ones. ``keep`` None: it is not known,
    uniform in 0..1, as for a network that does not see the time.
    """

    def __init__(self, problem: LODistribution) -> None:
        rows, weights = joint_law(problem)
        self.one_hot = one_hot(torch.from_numpy(rows).long()).double()
        self.log_weights = torch.from_numpy(weights).log()

    def __call__(self, tokens: torch.Tensor, keep: float | None) -> torch.Tensor:
        """Logits of noisy token ids [B, L]."""
        states, length, values = self.one_hot.shape
        flat = self.one_hot.reshape(states, -1)
        same = flat @ one_hot(tokens, values).reshape(len(tokens), -1).double().T  # tokens in common, [states, B]
        known = np.array([keep]) if keep is not None else (np.arange(64) + 0.5) / 64
        kept, count = torch.tensor(known, dtype=torch.float64)[:, None], torch.arange(length + 1)
        other = (1 - kept) / values
        likelihood = (torch.xlogy(count, kept + other) + torch.xlogy(length - count, other)).logsumexp(0)
        posterior = torch.softmax(self.log_weights[:, None] + likelihood[same.long()], dim=0)
        marginals = (posterior.T @ flat).reshape(len(tokens), length, values)
        return marginals.log().clamp(min=EXCLUDED).float()


Sample = Callable[[LODistribution, int, torch.Generator], torch.Tensor]


class Case(NamedTuple):
    """A sampler: who made it, its settings, and a function from (problem, rows, generator) to token ids."""

    name: str
    settings: str
    sample: Sample


def ours(problem: LODistribution, rows: int, generator: torch.Generator) -> torch.Tensor:
    """The decoder of this package in random order, one token a step."""
    key = Key(generator.initial_seed())
    return torch.tensor(decode(ExactPosterior(problem), vanilla(), OneAtATime(), key=key, n=rows).tokens)


def from_masks(
    make: Callable[[int], Any], steps: Callable[[int], int] = int, setup: dict[str, Any] | None = None, **options: Any
) -> Sample:
    """A scheduler ``make(L)`` that starts from masks and takes ``steps(L)`` steps; ``options`` go to ``step``."""

    def sample(problem: LODistribution, rows: int, generator: torch.Generator) -> torch.Tensor:
        length = problem.layout.length
        scheduler, times = make(length), None
        scheduler.set_timesteps(steps(length), **(setup or {}))
        if "mask_token_id" in options:  # BlockRefinementScheduler counts its steps up
            times = range(steps(length))
        model, start = as_module(ExactPosterior(problem)), torch.full((rows, length), MASK_ID)
        return run_scheduler(model, scheduler, start, timesteps=times, generator=generator, **options)

    return sample


def from_noise(make: Callable[[int], Any], steps: int, *, timed: bool, corrections: int = 0, **options: Any) -> Sample:
    """A scheduler that starts from random tokens. ``timed``: its denoiser knows how many are still random."""

    def sample(problem: LODistribution, rows: int, generator: torch.Generator) -> torch.Tensor:
        length, oracle = problem.layout.length, UniformOracle(problem)
        scheduler = make(length)
        scheduler.set_timesteps(steps)
        tokens = torch.randint(0, 2, (rows, length), generator=generator)
        for t in range(steps):
            logits = oracle(tokens, t / steps if timed else None)
            tokens = scheduler.step(logits, t, tokens, generator=generator, **options).prev_sample
            for _ in range(corrections if t < steps - 1 else 0):
                logits = oracle(tokens, (t + 1) / steps)
                tokens = scheduler.step_correct(logits, t, tokens, generator=generator).prev_sample
        return tokens

    return sample


def from_blocks(policy: Any, **config: Any) -> Sample:
    """A policy in the form of vLLM's dllm plugin. It takes likeliest tokens: a few rows say everything."""

    def sample(problem: LODistribution, rows: int, generator: torch.Generator) -> torch.Tensor:
        if problem.layout.length != 32:
            raise NotImplementedError("its blocks have 32 tokens")
        found = run_remasking(as_module(ExactPosterior(problem)), policy, 32, 4, mask_id=MASK_ID, config=config)
        return found.repeat(-(-rows // 4), 1)[:rows]

    return sample


def masked_cases() -> Iterator[Case]:
    """Schedulers with a mask token."""
    from diffusers import AmusedScheduler, BlockRefinementScheduler, VQDiffusionScheduler

    def amused(schedule: str) -> Callable[[int], Any]:
        return lambda length: AmusedScheduler(mask_token_id=MASK_ID, masking_schedule=schedule)

    yield Case("Amused", "as shipped: cosine, temperature 2 to 0, 12 steps", from_masks(amused("cosine"), lambda _: 12))
    for temperature in ((0, 0), (2, 0), (10, 10)):
        words = f"one token a step, temperature {temperature[0]} to {temperature[1]}"
        yield Case("Amused", words, from_masks(amused("linear"), setup={"temperature": temperature}))

    def block(length: int) -> Any:
        return BlockRefinementScheduler(block_length=length)

    own: dict[str, Any] = {"mask_token_id": MASK_ID}
    drawn = {**own, "temperature": 1.0}
    yield Case("BlockRefinement", "as shipped: temperature 0, threshold 0.95", from_masks(block, **own))
    yield Case("BlockRefinement", "temperature 1, threshold 0.95", from_masks(block, **drawn))
    one = from_masks(block, threshold=2.0, **drawn)
    yield Case("BlockRefinement", "temperature 1, one token a step (threshold 2)", one)

    def classes(logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits[..., :2], dim=-1).clamp(min=-70).transpose(1, 2)

    for steps in (8, 32, 100, 400):

        def vq(length: int, steps: int = steps) -> Any:
            return VQDiffusionScheduler(num_vec_classes=3, num_train_timesteps=steps)

        words = f"{steps} steps{', as shipped' if steps == 100 else ''}"
        yield Case("VQDiffusion", words, from_masks(vq, lambda _, steps=steps: steps, output=classes))


def noised_cases() -> Iterator[Case]:
    """Schedulers without a mask token: what is not known yet is a random token."""
    from diffusers import BlockRefinementScheduler, DiscreteDDIMScheduler, EntropyBoundScheduler

    def block(length: int) -> Any:
        return BlockRefinementScheduler(block_length=length)

    refined = from_noise(block, 32, timed=False, temperature=1.0)
    yield Case("BlockRefinement", "no mask token, temperature 1, 32 steps", refined)

    def ddim(**config: Any) -> Callable[[int], Any]:
        return lambda length: DiscreteDDIMScheduler(**config)

    yield Case("DiscreteDDIM", "as shipped: temperature 0, 32 steps", from_noise(ddim(), 32, timed=True))
    for steps in (8, 32, 128):
        words = f"temperature 1, {steps} steps"
        yield Case("DiscreteDDIM", words, from_noise(ddim(), steps, timed=True, temperature=1.0))
    for selection in ("lowest_log_margin", "random"):
        words = f"temperature 1, 128 steps, each corrected 4 times, `{selection}`"
        made = ddim(corrector_steps=4, corrector_selection=selection)
        yield Case("DiscreteDDIM", words, from_noise(made, 128, timed=True, corrections=4, temperature=1.0))

    def bound(**config: float) -> Callable[[int], Any]:
        return lambda length: EntropyBoundScheduler(**config)

    shipped = from_noise(bound(), 32, timed=False)
    yield Case("EntropyBound", "as shipped: bound 0.1, temperature 0.8 to 0.4, 32 steps", shipped)
    careful = from_noise(bound(entropy_bound=0.0, t_max=1.0, t_min=1.0), 32, timed=False)
    yield Case("EntropyBound", "bound 0, temperature 1, 32 steps", careful)


def cases() -> Iterator[Case]:
    """What is compared; vLLM's policy where its plugin is installed."""
    yield Case("lo_theory decode", "random order, one token a step", ours)
    yield from masked_cases()
    yield from noised_cases()
    try:
        from vllm_dllm_plugin.remasking import Llada2DefaultRemaskingPolicy
    except ImportError:
        return
    policy = Llada2DefaultRemaskingPolicy()
    yield Case("vLLM dllm plugin", "as shipped: likeliest tokens, threshold 0.01", from_blocks(policy))
    one = from_blocks(policy, commit_confidence_threshold=1.0)
    yield Case("vLLM dllm plugin", "likeliest tokens, one a step (threshold 1)", one)


def judge(case: Case, problem: LODistribution, rows: int) -> Diversity | None:
    """Draw sequences, more of those of two tokens, and compare their law with the data's; None if they have none."""
    rows *= 16 if problem.layout.length == 2 else 1
    try:
        ids = case.sample(problem, rows, torch.Generator().manual_seed(0))
    except NotImplementedError:
        return None
    return diversity(problem, ids.numpy().astype(np.int8), Key(0))


def cell(found: Diversity | None) -> str:
    """The distance, and ``yes`` if it is within four standard deviations of that of as many exact samples."""
    if found is None:
        return "-"
    kept = found.total_variation < found.total_variation_expected + 4 * found.total_variation_deviation
    return f"{found.total_variation:.3f} {'yes' if kept else '**no**'}"


def fair_bits() -> torch.Tensor:
    """Amused at temperature 0 on two equal bits, one token a step: the ids after the first of its two steps."""
    from diffusers import AmusedScheduler

    scheduler = AmusedScheduler(mask_token_id=MASK_ID, masking_schedule="linear")
    scheduler.set_timesteps(2, temperature=(0, 0))
    model, start = as_module(ExactPosterior(PROBLEMS["two equal bits"])), torch.full((2**16, 2), MASK_ID)
    first = scheduler.timesteps[:1]
    return run_scheduler(model, scheduler, start, timesteps=first, generator=torch.Generator().manual_seed(0))


def drawn_confidence() -> float:
    """BlockRefinement on two independent bits, one token a step: P(both are 0), 9/16 in the data."""
    from diffusers import BlockRefinementScheduler

    made = from_masks(
        lambda length: BlockRefinementScheduler(block_length=2), mask_token_id=MASK_ID, temperature=1.0, threshold=2.0
    )
    ids = made(PROBLEMS["two independent bits"], 2**18, torch.Generator().manual_seed(0))
    return float((ids == 0).all(dim=1).double().mean())


def corrected(selection: str) -> float:
    """One sweep of the corrector on two independent bits that are half noise: P(both are 0), 25/64 before it."""
    from diffusers import DiscreteDDIMScheduler

    scheduler, generator = DiscreteDDIMScheduler(corrector_selection=selection), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(2)
    noisy = (torch.rand(2**18, 2, generator=generator) < 3 / 8).long()  # 0 with 3/4 half of the time, else 1/2
    logits = UniformOracle(PROBLEMS["two independent bits"])(noisy, 0.5)
    ids = scheduler.step_correct(logits, 0, noisy, generator=generator).prev_sample
    return float((ids == 0).all(dim=1).double().mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4096)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    exact: dict[str, Diversity] = {}
    print("| sampler | settings | " + " | ".join(PROBLEMS) + " |\n|:--|:--|" + ":--|" * len(PROBLEMS))
    for case in cases():
        found = {name: judge(case, problem, rows) for name, problem in PROBLEMS.items()}
        exact |= {name: one for name, one in found.items() if one is not None}
        print(f"| {case.name} | {case.settings} | " + " | ".join(map(cell, found.values())) + " |", flush=True)
    known = [f"{one.total_variation_expected:.3f} ±{one.total_variation_deviation:.3f}" for one in exact.values()]
    print("| exact samples | as many | " + " | ".join(known) + " |\n")
    masks = float((fair_bits() == MASK_ID).double().mean())
    print(f"Amused, temperature 0, equal bits: {masks:.3f} of the tokens are masked after the first of two steps")
    print(f"BlockRefinement, independent bits, one a step: P(0, 0) = {drawn_confidence():.4f}; data 0.5625")
    for selection in ("lowest_log_margin", "random"):
        print(f"DiscreteDDIM, one sweep, {selection}: P(0, 0) = {corrected(selection):.4f}; before it 0.3906")


if __name__ == "__main__":
    main()
