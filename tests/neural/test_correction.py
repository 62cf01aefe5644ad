"""Corrector passes in a decode: against a slow twin, and what a rewriter may and may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lo_theory.diffusion import (
    DecodeOptions,
    FixedCount,
    Rewritten,
    decode,
    decode_cost,
    fixed_order,
    log_likelihood,
    margin,
    p2,
)
from lo_theory.diffusion.schedules import BinomialRule
from lo_theory.neural import SelfCorrection, TrainedPosterior, Transformer
from lo_theory.posterior import ExactPosterior
from lo_theory.problem import MASK
from tests.neural.small import KEY, LENGTH, NETWORK, PROBLEM

LAYOUT = PROBLEM.layout


def network(scale: float = 60.0) -> TrainedPosterior:
    """Weights of no training, so that it disagrees with itself."""
    model = Transformer(NETWORK, seed=4)
    with torch.no_grad():
        model.head.weight *= scale
        for block in model.blocks:  # neighbours count for much
            block.attention.out.weight *= 8
            block.attention.query_key_value.weight *= 3
    return TrainedPosterior(model, LAYOUT, batch=7)


def contexts(n: int) -> np.ndarray:
    tokens = PROBLEM.sample(KEY.fold("given"), n)
    return np.where(np.arange(LENGTH) % 4 == np.arange(n)[:, None] % 4, tokens, np.int8(MASK))


def logits(posterior: TrainedPosterior, row: list[int]) -> np.ndarray:
    return posterior.model(torch.tensor([row]))[0].detach().numpy()


def slow_decode(posterior: TrainedPosterior, given: list[int], steps: int, every: int, passes: int) -> Any:
    """One row, most likely tokens, roles in order; tokens, forwards, tokens that were changed once revealed."""
    tokens, forwards, changed = list(given), 0, 0
    hidden = [i for i in LAYOUT.order if given[i] == MASK]
    for step, part in enumerate(np.array_split(hidden, steps)):
        laws, forwards = logits(posterior, tokens), forwards + 1
        if (step + 1) % every == 0:
            draft = [int(law.argmax()) if token == MASK else token for token, law in zip(tokens, laws, strict=True)]
            for _ in range(passes):
                laws, forwards = logits(posterior, draft), forwards + 1
                new = [int(law.argmax()) if given[i] == MASK else given[i] for i, law in enumerate(laws)]
                if new == draft:
                    break
                draft = new
            else:
                new = draft
            changed += sum(tokens[i] not in (MASK, new[i]) for i in range(LENGTH))
            tokens = [MASK if token == MASK else new[i] for i, token in enumerate(tokens)]
        for i in part:
            tokens[i] = int(laws[i].argmax())
    return tokens, forwards, changed


@pytest.mark.parametrize(("every", "passes"), [(1, 1), (2, 4), (3, 2), (2, 1)])
def test_a_corrected_decode_equals_its_slow_twin(every: int, passes: int) -> None:
    posterior, given = network(), contexts(20)
    options = DecodeOptions(argmax=True, rewriter=SelfCorrection(posterior, every, passes))
    found = decode(posterior, fixed_order(), FixedCount(4), key=KEY, n=20, given=given, options=options)
    slow = [slow_decode(posterior, row.tolist(), 4, every, passes) for row in given]
    np.testing.assert_array_equal(found.tokens, [tokens for tokens, _, _ in slow])
    assert found.forwards == sum(forwards for _, forwards, _ in slow)
    assert sum(changed for _, _, changed in slow) > 10  # it does rewrite
    np.testing.assert_array_equal(found.tokens[given != MASK], given[given != MASK])


def test_no_chunk_changes_it_and_where_nothing_is_rewritten_the_decode_is_the_plain_one() -> None:
    posterior = network(3.0)
    call = {"key": KEY, "n": 23, "given": contexts(23)}
    correction = SelfCorrection(posterior)
    corrected = [
        decode(posterior, margin(), FixedCount(5), **call, options=DecodeOptions(chunk=chunk, rewriter=correction))
        for chunk in (23, 4)
    ]
    np.testing.assert_array_equal(corrected[0].tokens, corrected[1].tokens)
    assert corrected[0].forwards == corrected[1].forwards
    plain, never = (
        decode(posterior, margin(), FixedCount(5), **call, options=DecodeOptions(rewriter=rewriter))
        for rewriter in (None, SelfCorrection(posterior, every=6))
    )
    np.testing.assert_array_equal(plain.tokens, never.tokens)
    assert (plain.forwards, plain.distinct) == (never.forwards, never.distinct)
    assert not np.array_equal(plain.tokens, corrected[0].tokens)


def test_the_network_is_asked_everywhere_as_it_answers_where_tokens_are_hidden() -> None:
    posterior, given = network(), contexts(20)
    laws, hidden = posterior.everywhere(given), given == MASK
    np.testing.assert_allclose(laws[hidden], posterior.marginals(given).probs[hidden], atol=1e-5)
    assert laws.dtype == np.float32
    seen = laws[~hidden]
    assert (np.abs(seen - seen.round()) > 0.01).any()  # not one-hot
    np.testing.assert_allclose(laws.sum(axis=2), 1, rtol=1e-5)


def test_a_rewriter_has_the_last_word_on_what_was_not_given() -> None:
    target, given = PROBLEM.sample(KEY.fold("target"), 9), contexts(9)
    laws = np.eye(2)[target]

    def rewrite(view: Any) -> Rewritten:
        return Rewritten(target.copy(), laws.copy(), np.full(9, 3))

    exact = ExactPosterior(PROBLEM)
    for policy, schedule in ((margin(), FixedCount(4)), (p2(), BinomialRule(6))):
        found = decode(exact, policy, schedule, key=KEY, n=9, given=given, options=DecodeOptions(rewriter=rewrite))
        np.testing.assert_array_equal(found.tokens, np.where(given == MASK, target, given))
    assert found.forwards >= 9 * 3 * 6
    assert not found.impossible.any() or (found.dead_from[found.impossible] > 0).all()


def test_what_is_no_answer_of_a_rewriter_is_named_and_costs_are_not_measured() -> None:
    exact = ExactPosterior(PROBLEM)
    whole, laws, none = np.zeros((4, LENGTH), np.int8), np.full((4, LENGTH, 2), 0.5), np.zeros(4, np.int64)
    for answer, words in (
        (Rewritten(np.full_like(whole, MASK), laws, none), "must be complete"),
        (Rewritten(whole, laws[:, :3], none), "rewrite answers with shape"),
        (Rewritten(whole, 2 * laws, none), "rewrite gives row 0"),
    ):

        def rewrite(view: Any, answer: Rewritten = answer) -> Rewritten:
            return answer

        with pytest.raises(ValueError, match=words):
            decode(exact, margin(), FixedCount(3), key=KEY, n=4, options=DecodeOptions(rewriter=rewrite))
    options = DecodeOptions(rewriter=SelfCorrection(network()))
    with pytest.raises(ValueError, match="a rewriter changes tokens"):
        decode_cost(exact, margin(), FixedCount(3), PROBLEM, key=KEY, n=4, options=options)
    with pytest.raises(ValueError, match="a rewriter changes tokens"):
        log_likelihood(exact, margin(), FixedCount(3), whole, key=KEY, options=options)
    for name in ("every", "passes"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            SelfCorrection(network(), **{name: 0})
