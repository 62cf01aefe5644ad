"""Other people's samplers on any model: discrete schedulers of diffusers, remasking policies as vLLM's plugin has them.

Imports neither of them: a scheduler is whatever has ``step(logits, t, sample)``, a policy whatever has ``apply``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from lo_theory.problem.seams import check_count, checked

__all__ = ["run_remasking", "run_scheduler"]

Model = Callable[..., Any]


@torch.no_grad()
def run_scheduler(
    model: Model,
    scheduler: Any,
    start: torch.Tensor,
    *,
    timesteps: Iterable[Any] | None = None,
    output: Callable[[torch.Tensor], torch.Tensor] | None = None,
    **options: Any,
) -> torch.Tensor:
    """x_s = scheduler.step(model(x_t, t), t, x_t).prev_sample for every t: token ids [B, L] at the end.

    ``start`` int64[B, L]: all masks, or random tokens where the scheduler corrupts uniformly. ``timesteps``: those of
    the scheduler when left out; schedulers that count steps up take ``range(steps)``. ``output`` makes what the
    scheduler takes of the model's logits (VQDiffusionScheduler: log-probabilities [B, V, L]). ``options`` go to
    ``step``, such as ``generator`` and ``temperature``. Cost: one pass of the model a step. Errors: ValueError for an
    object without ``step``; the scheduler's own.
    """
    if not callable(getattr(scheduler, "step", None)):
        raise ValueError(f"a scheduler has step(logits, t, sample); {type(scheduler).__name__} has none")
    tokens = start
    for t in scheduler.timesteps if timesteps is None else timesteps:
        logits = model(tokens, t)
        tokens = scheduler.step(logits if output is None else output(logits), t, tokens, **options).prev_sample
    return tokens


@checked
@torch.no_grad()
def run_remasking(
    model: Model, policy: Any, length: int, n: int, *, mask_id: int, config: Mapping[str, Any] | None = None
) -> torch.Tensor:
    """Decode n blocks of ``length`` tokens by a policy in the form of vLLM's dllm plugin: token ids int64[n, L].

    Every step calls ``policy.apply(input_draft=block, logits=[L, S], remasking_config=config)`` for each block that is
    not finished; the answer has ``committed_token_ids`` (none, or the whole block) and ``next_input_block``. To
    ``config`` are added ``mask_token_id`` and ``denoise_step_index``. Cost: a pass of the model for all blocks and one
    call of the policy for each, a step. Errors: ValueError for a policy without ``apply``, for blocks of another
    length, and where a block is not finished after 4 L steps.
    """
    check_count(n, "at least one block is decoded")
    if not callable(getattr(policy, "apply", None)):
        raise ValueError(
            f"a remasking policy has apply(input_draft=, logits=, remasking_config=); {type(policy).__name__} has none"
        )
    done: dict[int, tuple[int, ...]] = {}
    blocks = dict.fromkeys(range(n), (mask_id,) * length)
    for step in range(4 * length):
        logits = model(torch.tensor([*blocks.values()]))
        given = {"denoise_steps": length, **(config or {}), "mask_token_id": mask_id, "denoise_step_index": step}
        for (row, block), own in zip(list(blocks.items()), logits, strict=True):
            answer = policy.apply(input_draft=block, logits=own, remasking_config=given)
            committed, following = tuple(answer.committed_token_ids), tuple(answer.next_input_block)
            if len(following) != length or len(committed) not in (0, length):
                raise ValueError(
                    f"{type(policy).__name__} commits {len(committed)} tokens and continues with {len(following)}: it "
                    f"commits none or {length}, and continues with {length}"
                )
            blocks[row] = following
            if committed:
                done[row] = committed
                del blocks[row]
        if not blocks:
            return torch.tensor([done[row] for row in range(n)])
    raise ValueError(f"{type(policy).__name__} left {len(blocks)} of {n} blocks unfinished after {4 * length} steps")
