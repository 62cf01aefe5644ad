"""Hugging Face models, of random weights, judged like any other; the oracle in their place."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory import ExactPosterior, as_module, evaluate, from_logits
from lo_theory.problem import MASK

pytest.importorskip("transformers", "4.50", reason="the extra is not installed: pip install '.[interop]'")

EXAMPLE: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "outside_models.py"))
PROBLEM = EXAMPLE["PROBLEM"]
NAMES: dict[str, Any] = {"ids": {"latent": [5, 6], "observation": [7, 8]}, "mask_id": 4}


def test_a_bert_is_the_softmax_over_the_ids_of_the_values() -> None:
    torch.manual_seed(0)
    bert = EXAMPLE["hugging_face"]()
    tokens = PROBLEM.sample(EXAMPLE["Key"](0), 6)
    tokens[:, ::3] = MASK
    found = from_logits(bert, PROBLEM, **NAMES, batch=2).marginals(tokens).probs
    latents, observed = PROBLEM.layout.split(tokens)
    ids = np.concatenate([np.array([5, 6, 4])[latents], np.array([7, 8, 4])[observed]], axis=1)
    with torch.no_grad():
        logits = bert(torch.from_numpy(ids)).logits.double()
    for position in np.flatnonzero(tokens[0] == MASK):
        own = [5, 6] if position < 8 else [7, 8]
        np.testing.assert_allclose(found[:, position], logits[:, position, own].softmax(-1), atol=1e-6)
    with pytest.raises(ValueError, match="BertForMaskedLM is in training mode"):
        from_logits(bert.train(), PROBLEM, **NAMES).marginals(tokens)


def test_a_bert_is_evaluated_in_one_call() -> None:
    posterior = from_logits(EXAMPLE["hugging_face"](), PROBLEM, **NAMES)
    found = evaluate(posterior, PROBLEM, sequences=4, masks=["uniform"], policies=())
    assert "LogitsPosterior" not in repr(found)
    assert found.settings["model"] == "BertForMaskedLM"


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    posterior = from_logits(EXAMPLE["hugging_face"](), PROBLEM, ids=[0, 11], mask_id=4)
    with pytest.raises(ValueError, match="over 10 token ids, the values have ids up to 11"):
        posterior.marginals(np.full((1, 32), MASK))


def test_the_oracle_answers_as_a_hugging_face_model_does() -> None:
    exact = ExactPosterior(PROBLEM)
    oracle = as_module(exact, **NAMES, vocabulary=10, wrapped=True).double()
    ids = torch.full((2, 32), 4)
    answer = oracle(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert answer.logits.shape == EXAMPLE["hugging_face"]()(ids).logits.shape
    tokens = np.full((2, 32), MASK)
    np.testing.assert_allclose(
        from_logits(oracle, PROBLEM, **NAMES).marginals(tokens).probs, exact.marginals(tokens).probs, atol=1e-14
    )
