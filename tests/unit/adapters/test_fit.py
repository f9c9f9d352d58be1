"""Fitting: what moves, what stays, and that it can be repeated."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.adapters import METHODS, Budget, Fit, applied, fit
from sharedllm.errors import BadAdapter, BadRecipe
from sharedllm.model.transformer import Transformer
from sharedllm.store import Loaded
from tests.unit.adapters.conftest import habit, one_thread, small_base

TRAINED = ["norm", "norm+bias", "lora", "full"]
SMALL = Budget(tokens=640, batch=4, window=16, evaluations=2, validation=96)
RATES = {"norm": 1e-2, "norm+bias": 1e-2, "lora": 1e-2, "full": 1e-2, "unigram": None}


def fitted(base: Loaded, text_T: Tensor, method: str, seed: int = 0, **changes):
    given = {"lr": RATES[method], "budget": SMALL} | changes
    return fit(base, text_T[:300], text_T[300:], method, seed=seed, **given)


def loss(model: Transformer, text_T: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(text_T[None, :-1])[0], text_T[1:]))


@pytest.fixture(scope="module", params=METHODS)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=[0, 4], ids=["dense", "experts"])
def done(request, method) -> tuple[Loaded, dict[str, Tensor], Fit]:
    """A base after a fit, its weights before, and what was made of it."""
    base, text_T = small_base(request.param), habit()
    before = {name: weight.detach().clone() for name, weight in base.model.named_parameters()}
    with one_thread():
        return base, before, fitted(base, text_T, method, seed=3)


def test_a_fit_leaves_the_base_bit_for_bit(done):
    base, before, _ = done
    assert all(torch.equal(before[name], weight) for name, weight in base.model.named_parameters())


def test_a_fit_leaves_no_gradient_and_no_frozen_weight_on_the_base(done):
    base, _, _ = done
    assert all(weight.requires_grad and weight.grad is None for weight in base.model.parameters())


def test_the_same_seed_gives_the_same_bits(done, text_T, method):
    base, _, one = done
    two = fitted(base, text_T, method, seed=3)
    assert one.train_nats == two.train_nats
    assert all(
        torch.equal(one.adapter.tensors[name], two.adapter.tensors[name]) for name in one.adapter.tensors
    )


@pytest.mark.parametrize("method", TRAINED)
def test_another_seed_gives_another_order_of_data(base, text_T, method):
    assert fitted(base, text_T, method, seed=1).train_nats != fitted(base, text_T, method, seed=2).train_nats


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_trained_method_lowers_the_loss_of_its_own_text(base, text_T, method, precision):
    budget = Budget(tokens=2560, batch=4, window=16, evaluations=2, validation=96)
    made = fit(base, text_T, text_T, method, RATES[method], 0, budget, precision=precision)
    assert made.best_nats < made.validation_nats[0][1] - 0.005


def test_bf16_ends_near_fp32(dense, text_T):
    # dense: in a mixture of experts a rounding may send a token to another expert
    one, two = (fitted(dense, text_T, "full", precision=precision) for precision in ("fp32", "bf16"))
    assert one.best_nats == pytest.approx(two.best_nats, abs=0.05)


@pytest.mark.parametrize("method", TRAINED)
def test_the_kept_adapter_has_the_validation_loss_that_was_reported(base, text_T, method):
    budget = Budget(tokens=2560, batch=4, window=60, evaluations=2, validation=60)
    made = fit(base, text_T, text_T[:61], method, RATES[method], 0, budget)
    assert made.best_step > 0
    with applied(base.model, made.adapter):
        # the full method's δ is rounded to fp16
        assert loss(base.model, text_T[:61]) == pytest.approx(made.best_nats, abs=1e-3)


def test_a_unigram_bias_has_the_validation_loss_that_was_reported(dense, text_T):
    budget = Budget(tokens=240, batch=1, window=60, evaluations=1, validation=60)
    skewed_T = torch.where(text_T > 20, text_T - 40, text_T) % 61
    made = fit(dense, skewed_T[:300], skewed_T[300:361], "unigram", None, 0, budget)
    assert made.best_step > 0
    with applied(dense.model, made.adapter):
        assert loss(dense.model, skewed_T[300:361]) == pytest.approx(made.best_nats, abs=1e-5)


def test_only_gains_change_in_norm_and_all_of_them_may(base, text_T):
    made = fitted(base, text_T, "norm")
    assert made.adapter.tensors.keys() == base.model.gains().keys()
    assert made.trainable == 5 * 16


def test_norm_bias_adds_a_zero_to_begin_with_and_twice_the_numbers(base, text_T):
    made = fitted(base, text_T, "norm+bias", lr=1e-9)
    biases = [tensor for name, tensor in made.adapter.tensors.items() if name.endswith(".bias")]
    assert made.trainable == 2 * 5 * 16
    assert len(biases) == 5
    assert all(float(bias.abs().max()) < 1e-7 for bias in biases)


def test_a_gains_delta_counts_from_the_bases_own_gain(dense, text_T):
    made = fitted(dense, text_T, "norm")
    with applied(dense.model, made.adapter):
        gain = dense.model.gains()["norm.weight"].detach().clone()
    difference = gain - dense.model.gains()["norm.weight"]
    torch.testing.assert_close(made.adapter.tensors["norm.weight"], difference, atol=1e-6, rtol=0)


def test_five_steps_of_full_fine_tuning_equal_plain_torch(dense, text_T):
    # One window is the whole text, so the order of data is no question; the loop is written independently.
    window_T = text_T[:17]
    budget = Budget(tokens=80, batch=1, window=16, evaluations=1, validation=16)
    made = fit(dense, window_T, window_T, "full", 1e-2, 0, budget)
    twin = Transformer(dense.model.config)
    twin.load_state_dict(dense.model.state_dict())
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / 5)) / 2
        nats = F.cross_entropy(twin(window_T[None, :-1])[0], window_T[1:])
        optimizer.zero_grad()
        nats.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        losses.append(nats.item())
    assert made.train_nats == pytest.approx(losses, abs=2e-5)
    with applied(dense.model, made.adapter):
        assert loss(dense.model, window_T) == pytest.approx(loss(twin, window_T), abs=1e-3)


def test_a_fit_that_diverges_says_so_and_keeps_the_best_before(base, text_T):
    made = fitted(base, text_T, "full", lr=1e30)
    assert made.diverged
    assert made.best_step == 0
    assert all(bool((tensor == 0).all()) for tensor in made.adapter.tensors.values())


def test_a_fit_that_only_harms_is_stopped_early_at_the_base(dense, text_T):
    budget = Budget(tokens=640, batch=4, window=16, evaluations=10, validation=96)
    made = fitted(dense, text_T, "norm", lr=30.0, budget=budget)
    assert made.best_step == 0
    assert len(made.train_nats) == 2


def test_frozen_weights_get_no_gradient(base):
    from sharedllm.adapters.norm import Norm

    tuned = Norm(base.model, 0, "fp32")
    tuned.model(torch.arange(8)[None]).sum().backward()
    with_gradient = {name for name, weight in tuned.model.named_parameters() if weight.grad is not None}
    assert with_gradient == base.model.gains().keys()


def test_frozen_weights_are_shared_with_the_base(base):
    from sharedllm.adapters.norm import Norm

    twin = Norm(base.model, 0, "fp32").model
    assert twin.embed.weight.data_ptr() == base.model.embed.weight.data_ptr()


def test_progress_is_told_every_step_up_to_the_budget(dense, text_T):
    told = []
    fitted(dense, text_T, "norm", progress=lambda what, done, total: told.append((done, total)))
    assert told == [(64 * step, 640) for step in range(1, 11)]


def test_a_text_shorter_than_a_window_is_refused(dense, text_T):
    with pytest.raises(BadRecipe, match="training text has 16 tokens"):
        fit(dense, text_T[:16], text_T, "norm", 1e-3, 0, SMALL)


def test_a_validation_text_shorter_than_a_window_is_refused(dense, text_T):
    with pytest.raises(BadRecipe, match="validation text"):
        fit(dense, text_T, text_T[:3], "norm", 1e-3, 0, SMALL)


def test_a_budget_without_a_step_is_refused():
    with pytest.raises(BadRecipe, match="makes no step"):
        Budget(tokens=63, batch=4, window=16)


@pytest.mark.parametrize(
    ("method", "lr"), [("unigram", 1e-3), ("norm", None), ("norm", -1.0), ("norm", math.inf)]
)
def test_a_learning_rate_that_does_not_go_with_the_method_is_refused(dense, text_T, method, lr):
    with pytest.raises(BadRecipe, match="learning rate"):
        fitted(dense, text_T, method, lr=lr)


def test_an_unknown_method_is_refused_with_the_list(dense, text_T):
    with pytest.raises(BadAdapter, match=r"norm, norm\+bias, lora, full, unigram"):
        fit(dense, text_T, text_T, "prefix", 1e-3, 0, SMALL)


def test_an_unknown_precision_is_refused_with_the_list(dense, text_T):
    with pytest.raises(BadRecipe, match="fp32, bf16"):
        fitted(dense, text_T, "norm", precision="fp8")
