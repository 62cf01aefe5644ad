"""Models in and the oracle out: logits of any model as a posterior, a posterior as logits for any sampler."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lo_theory import ExactPosterior, Key, as_module, decode, diversity, from_logits, generated_accuracies, losses
from lo_theory.diffusion import FixedCount, OneAtATime, Uniform, conditional_accuracy, infill_accuracies, margin
from lo_theory.diffusion.leaks import find_leaks
from lo_theory.diffusion.pattern_losses import pattern_losses
from lo_theory.lab.decode_view import record
from lo_theory.neural import TrainedPosterior, Transformer, TransformerConfig
from lo_theory.neural.oracle import EXCLUDED
from lo_theory.posterior import MarginalsOnly, Posterior
from lo_theory.problem import MASK, LODistribution, TableObservations, nae_sat

NAE = nae_sat(5, 9, seed=2)
BY_ROLE: dict[str, list[int]] = {"latent": [11, 7], "observation": [3, 11]}


def mixed_alphabet() -> LODistribution:
    """Latents of three values, observations of two, in a shuffled order."""
    rng = np.random.default_rng(1)
    tables = rng.random((1, 9, 2)) + 0.1
    law = TableObservations(rng.integers(0, 4, (6, 2)), tables / tables.sum(axis=2, keepdims=True))
    prior = rng.random((4, 3)) + 0.1
    return LODistribution(prior / prior.sum(axis=1, keepdims=True), law, rng.permutation(10))


MIXED = mixed_alphabet()


def contexts(problem: LODistribution, n: int = 40) -> np.ndarray:
    tokens = problem.sample(Key(1), n)
    tokens[np.random.default_rng(0).random(tokens.shape) < 0.5] = MASK
    return tokens


def table(problem: LODistribution, size: int = 0) -> torch.Tensor:
    """Logits [L, S] of a model that reads nothing."""
    shape = problem.layout.length, size or problem.layout.n_values
    return torch.linspace(-1.0, 2.0, math.prod(shape), dtype=torch.float64).reshape(shape)


def constant(problem: LODistribution, size: int = 0) -> Any:
    logits = table(problem, size)
    return lambda tokens: logits.expand(len(tokens), -1, -1)


# --- the round trip ---


@pytest.mark.parametrize("ids", [None, [4, 9], BY_ROLE])
@pytest.mark.parametrize("mask_id", [None, 20, 0])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_oracle_comes_back_as_the_exact_posterior(ids: Any, mask_id: int | None, wrapped: bool) -> None:
    if ids is None and mask_id == 0:
        mask_id = 2
    exact, tokens = ExactPosterior(NAE), contexts(NAE)
    module = as_module(exact, ids=ids, mask_id=mask_id, vocabulary=30, wrapped=wrapped)
    truth = exact.marginals(tokens).probs
    for form, error in ((module, 1e-6), (module.double(), 1e-14)):
        found = from_logits(form, NAE, ids=ids, mask_id=mask_id, batch=7).marginals(tokens)
        np.testing.assert_allclose(found.probs, truth, atol=error)
        assert found.probs.dtype == np.float64
        assert np.isnan(found.log_evidence).all()
        assert found.converged.all()
        assert (found.probs[truth == 0] == 0).all()


def test_values_that_a_role_does_not_take_are_dropped_and_the_rest_renormalised() -> None:
    tokens, exact = contexts(MIXED), ExactPosterior(MIXED)
    found = from_logits(as_module(exact).double(), MIXED).marginals(tokens).probs
    np.testing.assert_allclose(found, exact.marginals(tokens).probs, atol=1e-14)
    flat = from_logits(lambda ids: torch.zeros(*ids.shape, 3), MIXED).marginals(np.full((1, 10), MASK)).probs[0]
    for position, count in enumerate(MIXED.layout.values):
        np.testing.assert_array_equal(flat[position], np.where(np.arange(3) < count, 1 / count, 0))


@pytest.mark.parametrize("size", [2, 3, 50])
def test_probabilities_are_the_softmax_over_the_ids_of_the_values(size: int) -> None:
    found = from_logits(constant(NAE, size), NAE).marginals(np.full((3, 14), MASK)).probs
    np.testing.assert_allclose(found, table(NAE, size)[:, :2].softmax(dim=-1).expand(3, -1, -1), rtol=1e-12)


def test_logits_far_below_the_others_keep_their_ratio() -> None:
    found = from_logits(lambda ids: torch.tensor([-3000.0, -3001.0]).expand(*ids.shape, 2), NAE)
    np.testing.assert_allclose(found.marginals(np.full((1, 14), MASK)).probs[..., 0], 1 / (1 + math.exp(-1)), rtol=1e-7)


def test_tokens_arrive_by_their_names_and_each_batch_once() -> None:
    seen: list[torch.Tensor] = []

    def model(ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return torch.zeros(*ids.shape, 21, requires_grad=True)

    tokens = contexts(NAE, 10)
    from_logits(model, NAE, ids=BY_ROLE, mask_id=20, batch=4).marginals(tokens)
    assert [len(part) for part in seen] == [4, 4, 2]
    given = torch.cat(seen).numpy()
    assert given.dtype == np.int64
    latents, observed = NAE.layout.split(given)
    true_latents, true_observed = NAE.layout.split(tokens)
    np.testing.assert_array_equal(latents, np.array([11, 7, 20])[true_latents])
    np.testing.assert_array_equal(observed, np.array([3, 11, 20])[true_observed])


def test_every_form_of_a_model_gives_the_same() -> None:
    weights = table(NAE, 3)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(weights)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return self.weights * (1 + ids[..., None])

    def numpy_model(ids: np.ndarray) -> np.ndarray:
        return weights.numpy() * (1 + ids[..., None])

    module, tokens = Module().eval(), contexts(NAE)
    forms = [
        from_logits(module, NAE),
        from_logits(lambda ids: module(ids), NAE),
        from_logits(lambda ids: SimpleNamespace(logits=module(ids)), NAE),
        from_logits(numpy_model, NAE, numpy=True),
        from_logits(lambda ids: weights * (1 + ids[..., None]), NAE, device="cpu", batch=1),
    ]
    answers = [form.marginals(tokens).probs for form in forms]
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], atol=1e-15)


def test_a_network_of_this_package_is_the_same_by_either_door() -> None:
    network = Transformer(TransformerConfig(layers=1, heads=2, width=16, n_values=2, length=14), seed=0).eval()
    tokens = contexts(NAE)
    one = TrainedPosterior(network, NAE.layout).marginals(tokens).probs
    other = from_logits(lambda ids: network(torch.where(ids == 2, -1, ids)), NAE).marginals(tokens).probs
    np.testing.assert_allclose(one, other, atol=1e-6)


# --- everything works on it ---


def test_everything_that_takes_a_posterior_takes_it() -> None:
    exact, key = ExactPosterior(NAE), Key(4)
    model: Posterior = from_logits(as_module(exact).double(), NAE)
    measured = losses(model, exact, NAE, Uniform(), key=key, n=60)
    assert measured.kl.mean == pytest.approx(0, abs=1e-12)
    assert measured.model.mean == pytest.approx(measured.exact.mean, abs=1e-12)
    rows = pattern_losses({"model": model}, exact, NAE, Uniform(), key=key, n=60)["model"].roles
    assert not find_leaks({role: sums["evidence"].total for role, sums in rows.items()})
    for schedule in (OneAtATime(), FixedCount(4)):
        made, truth = (decode(who, margin(), schedule, key=key, n=50).tokens for who in (model, exact))
        np.testing.assert_array_equal(made, truth)
    assert generated_accuracies(NAE, made, key)["self_consistency"].mean > 0.5
    assert diversity(NAE, made, key).distinct > 0
    assert conditional_accuracy(model, NAE, key, 50).mean == 1
    assert infill_accuracies(model, NAE, Uniform(), key, 50)["infill"].mean > 0.5
    given = np.full(NAE.layout.length, MASK, np.int8)
    trace = record(NAE, {"exact": exact, "model": model}, "model", margin(), OneAtATime(), key=key, given=given)
    assert trace.met() == pytest.approx(0, abs=1e-12)


# --- what does not fit ---


def changed(change: Any) -> Any:
    """A model whose answer ``change`` spoils."""

    def model(ids: torch.Tensor) -> Any:
        return change(torch.zeros(*ids.shape, 3))

    return model


def spoilt(value: float, at: Any) -> Any:
    def change(logits: torch.Tensor) -> torch.Tensor:
        logits[at] = value
        return logits

    return changed(change)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (changed(lambda a: a[:, :-1]), r"length 13, the sequences of this problem have 14 tokens.*drop what the model"),
        (changed(lambda a: a.transpose(1, 2)), r"length 3.*transpose them to \[batch, length, vocabulary\]"),
        (changed(lambda a: a[:-1]), "answers 5 rows for 6 sequences"),
        (
            changed(lambda a: a[..., :1]),
            r"over 1 token ids, the values have ids up to 1: make its vocabulary at least 2",
        ),
        (changed(lambda a: a[..., 0]), r"shape \(6, 14\): logits have the shape.*\[6, 14, 2 or more\]"),
        (changed(lambda a: a.argmax(-1)), "torch.int64: logits are floating-point"),
        (changed(lambda a: a > 0), "torch.bool"),
        (changed(lambda a: (a, a)), r"answers tuple.*lambda tokens: model\(tokens\)\[0\]"),
        (changed(lambda a: None), "answers NoneType"),
        (changed(lambda a: a.to("meta")), "answers on meta, its tokens were on cpu: pass device='meta'"),
        (spoilt(math.nan, (2, 5, 1)), "logit nan for value 1 in row 2 at position 5"),
        (spoilt(math.inf, (0, 3, 0)), "logit inf for value 0 in row 0 at position 3"),
        (spoilt(-math.inf, (1, 4)), r"-inf for all values \(ids \[0, 1\]\) in row 1 at hidden position 4"),
    ],
)
def test_answers_that_do_not_fit_are_refused_in_words(model: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_logits(model, NAE).marginals(np.full((6, 14), MASK))


def test_what_is_said_of_revealed_tokens_and_of_other_ids_counts_for_nothing() -> None:
    tokens = np.full((2, 14), MASK)
    tokens[:, 4] = 1
    spoil = spoilt(-math.inf, (slice(None), 4))
    assert (from_logits(spoil, NAE).marginals(tokens).probs[:, 4] == [0, 1]).all()
    assert from_logits(spoilt(math.nan, (..., 2)), NAE).marginals(tokens).probs[0, 0, 0] == 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": [1, 1]}, r"ids name \[0, 1\] all by the id 1"),
        ({"ids": [0, 5], "mask_id": 5}, "mask_id 5 is also the id of value 1 of every latent"),
        ({"ids": {"latent": [0, 1], "observation": [2, 3]}, "mask_id": 3}, "value 1 of every observation"),
        ({"ids": [0, 1, 2]}, "ids must be 2 integers"),
        ({"ids": [0.0, 1.0]}, "ids must be 2 integers, one for each value; got float64"),
        ({"ids": [-1, 0]}, "0 or larger, got -1"),
        ({"ids": {"latent": [0, 1]}}, r"keys 'latent' and 'observation', got \['latent'\]"),
        ({"ids": {"latent": [0, 1], "observation": [4, 4]}}, r"ids\['observation'\] name \[0, 1\] all by the id 4"),
        ({"mask_id": -1}, "0 or larger, got -1"),
        ({"mask_id": 2.5}, "mask_id must be"),
        ({"mask_id": True}, "mask_id must be"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99' here"),
        ({"device": "nowhere"}, "there is no device 'nowhere' here"),
    ],
)
def test_ids_and_options_that_do_not_fit_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_logits(constant(NAE), NAE, **options)


def test_things_that_are_no_models_are_refused() -> None:
    for nothing in (None, "model", torch.nn.Linear, np.zeros(3)):
        with pytest.raises(ValueError, match="fn must take token ids"):
            from_logits(nothing, NAE)
    with pytest.raises(ValueError, match="problem must be a problem"):
        from_logits(constant(NAE), NAE.layout)


def test_a_module_on_another_device_is_refused_before_it_is_asked() -> None:
    module = torch.nn.Linear(2, 2, device="meta").eval()
    assert from_logits(module, NAE).device == torch.device("meta")  # the device of its weights is where tokens go
    with pytest.raises(ValueError, match="weights are on meta and device is 'cpu'"):
        from_logits(module, NAE, device="cpu")


def test_a_module_in_training_mode_is_refused_by_name_until_eval() -> None:
    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Dropout(0.5)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(torch.ones(*ids.shape, 2))

    module, tokens = Noisy(), np.full((2, 14), MASK)
    posterior = from_logits(module, NAE)
    with pytest.raises(ValueError, match=r"Noisy is in training mode.*call \.eval\(\)"):
        posterior.marginals(tokens)
    module.eval()
    assert (posterior.marginals(tokens).probs == 0.5).all()
    module.inner.train()
    with pytest.raises(ValueError, match="training mode"):
        posterior.marginals(tokens)


# --- the oracle ---


def test_logits_are_logs_of_the_marginals_and_what_is_excluded_has_the_floor() -> None:
    exact, tokens = ExactPosterior(MIXED), contexts(MIXED)
    tokens_of = torch.from_numpy(np.where(tokens == MASK, 3, tokens).astype(np.int64))
    module = as_module(exact, vocabulary=6).double()
    probs = np.zeros((*tokens.shape, 6))
    probs[..., :3] = exact.marginals(tokens).probs
    logits = module(tokens_of).numpy()
    np.testing.assert_allclose(logits[probs > 0], np.log(probs[probs > 0]), atol=1e-15)
    assert (logits[probs == 0] == EXCLUDED).all()
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_the_modules_and_the_floor_is_zero_in_each(dtype: torch.dtype) -> None:
    module = as_module(ExactPosterior(NAE)).to(dtype)
    logits = module(torch.full((3, 14), 2))
    assert (logits.dtype, module.dtype, module.device, logits.shape) == (dtype, dtype, torch.device("cpu"), (3, 14, 3))
    assert (torch.softmax(logits / 13, dim=-1)[..., 2] == 0).all()
    assert not module.training
    assert list(module.parameters()) == list(module.state_dict()) == []


def test_samplers_may_pass_what_they_pass_to_networks() -> None:
    module, ids = as_module(ExactPosterior(NAE)), torch.full((2, 14), 2)
    plain = module(ids)
    for other in (
        module(ids, torch.tensor([0.5, 0.5])),
        module(ids, timestep=3),
        module(input_ids=ids, attention_mask=torch.ones(2, 14), position_ids=torch.arange(14), use_cache=False),
        as_module(ExactPosterior(NAE), wrapped=True)(input_ids=ids).logits,
    ):
        assert torch.equal(other, plain)
    with pytest.raises(ValueError, match="attention_mask hides tokens"):
        module(ids, attention_mask=torch.zeros(2, 14))


def test_weak_denoisers_come_out_too() -> None:
    weak, tokens = MarginalsOnly(MIXED), contexts(MIXED)
    found = from_logits(as_module(weak).double(), MIXED).marginals(tokens).probs
    np.testing.assert_allclose(found, weak.marginals(tokens).probs, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda exact: as_module(exact, ids=[7, 3], vocabulary=7), "vocabulary is 7, the values have ids up to 7"),
        (lambda exact: as_module(exact, ids=[3, 3]), "by the id 3"),
        (lambda exact: as_module(NAE), "posterior must be a posterior"),
        (lambda exact: as_module(exact)(torch.full((2, 13), 2)), r"integers \[B, 14\].*shape \(2, 13\)"),
        (lambda exact: as_module(exact)(torch.zeros(2, 14)), "float32"),
        (
            lambda exact: as_module(exact, ids=BY_ROLE, mask_id=20)(torch.full((1, 14), 3)),
            r"token id 3 in row 0 at position 0 is neither of the ids \[11, 7\] of its values nor the mask id 20",
        ),
    ],
)
def test_what_the_oracle_cannot_take_is_refused_in_words(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(ExactPosterior(NAE))
