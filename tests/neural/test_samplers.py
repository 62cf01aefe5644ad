"""Other people's samplers on stand-ins of the same form; tests/interop runs the real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory import ExactPosterior, as_module
from lo_theory.neural.samplers import run_remasking, run_scheduler
from lo_theory.problem import nae_sat

NAE = nae_sat(4, 6, seed=1)
LENGTH, MASK_ID = NAE.layout.length, 2
MODEL = as_module(ExactPosterior(NAE))


class LeftToRight:
    """A scheduler that draws the first masked token of every row."""

    timesteps = range(LENGTH)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def step(self, logits: torch.Tensor, t: int, sample: torch.Tensor, *, generator: Any = None) -> SimpleNamespace:
        assert not torch.is_grad_enabled()
        self.seen.append((t, tuple(logits.shape)))
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).reshape(sample.shape)
        first = (sample == MASK_ID).cumsum(dim=1) * (sample == MASK_ID) == 1
        return SimpleNamespace(prev_sample=torch.where(first, drawn, sample))


def test_a_scheduler_that_reveals_one_token_a_step_draws_possible_sequences() -> None:
    scheduler, start = LeftToRight(), torch.full((50, LENGTH), MASK_ID)
    ids = run_scheduler(MODEL, scheduler, start, generator=torch.Generator().manual_seed(0))
    assert np.isfinite(NAE.log_prob(MODEL.vocabulary.decode(ids.numpy()))).all()
    assert scheduler.seen == [(t, (50, LENGTH, 3)) for t in range(LENGTH)]
    assert (start == MASK_ID).all()
    again = run_scheduler(MODEL, LeftToRight(), start, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ids, again)


def test_time_steps_and_the_form_of_the_output_are_the_schedulers() -> None:
    scheduler = LeftToRight()
    half = run_scheduler(
        lambda ids, t: MODEL(ids).transpose(1, 2),
        scheduler,
        torch.full((5, LENGTH), MASK_ID),
        timesteps=[9, 7],
        output=lambda logits: logits.transpose(1, 2),
    )
    assert [t for t, _ in scheduler.seen] == [9, 7]
    assert ((half == MASK_ID).sum(dim=1) == LENGTH - 2).all()


class Likeliest:
    """A remasking policy that keeps the ``count`` likeliest masked tokens."""

    def __init__(self, count: int) -> None:
        self.count, self.configs = count, []  # type: ignore[var-annotated]

    def apply(self, *, input_draft: Any, logits: Any = None, remasking_config: Any = None) -> SimpleNamespace:
        self.configs.append(remasking_config)
        tokens, probs = torch.tensor(input_draft), logits.softmax(-1).max(-1)
        confidence = torch.where(tokens == remasking_config["mask_token_id"], probs.values, -1.0)
        for i in confidence.argsort(descending=True)[: self.count]:
            if confidence[i] >= 0:
                tokens[i] = probs.indices[i]
        if (tokens == MASK_ID).any():
            return SimpleNamespace(committed_token_ids=(), next_input_block=tuple(tokens.tolist()))
        return SimpleNamespace(committed_token_ids=tuple(tokens.tolist()), next_input_block=(MASK_ID,) * LENGTH)


@pytest.mark.parametrize("count", [1, 3, LENGTH])
def test_a_remasking_policy_decodes_blocks(count: int) -> None:
    policy = Likeliest(count)
    ids = run_remasking(MODEL, policy, LENGTH, 3, mask_id=MASK_ID, config={"mine": 1})
    assert ids.shape == (3, LENGTH)
    assert (ids < 2).all()
    steps = -(-LENGTH // count)
    assert [config["denoise_step_index"] for config in policy.configs] == [i for i in range(steps) for _ in range(3)]
    assert all(config["mine"] == 1 and config["denoise_steps"] == LENGTH for config in policy.configs)
    if count == 1:
        assert np.isfinite(NAE.log_prob(ids.numpy())).all()


def test_policies_and_schedulers_that_do_not_fit_are_refused_in_words() -> None:
    start = torch.full((1, LENGTH), MASK_ID)
    with pytest.raises(ValueError, match=r"step\(logits, t, sample\); object has none"):
        run_scheduler(MODEL, object(), start)
    with pytest.raises(ValueError, match=r"has apply\(input_draft=.*; object has none"):
        run_remasking(MODEL, object(), LENGTH, 1, mask_id=MASK_ID)
    with pytest.raises(ValueError, match="left 2 of 2 blocks unfinished after 40 steps"):
        run_remasking(MODEL, Likeliest(0), LENGTH, 2, mask_id=MASK_ID)
    short = SimpleNamespace(
        apply=lambda **_: SimpleNamespace(committed_token_ids=(1,), next_input_block=(MASK_ID,) * LENGTH)
    )
    with pytest.raises(ValueError, match=f"commits 1 tokens and continues with {LENGTH}: it commits none or {LENGTH}"):
        run_remasking(MODEL, short, LENGTH, 1, mask_id=MASK_ID)
    with pytest.raises(ValueError, match="at least one block"):
        run_remasking(MODEL, Likeliest(1), LENGTH, 0, mask_id=MASK_ID)
