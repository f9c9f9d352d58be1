"""LoRA against peft's own forward and merge, dense and with experts."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer

from sharedllm.adapters import Adapter, applied
from sharedllm.adapters.lora import Lora
from sharedllm.errors import BadAdapter


@pytest.fixture
def tuned(base) -> Lora:
    """A LoRA whose B is no longer zero, as after training."""
    lora = Lora(base.model, 0, "fp32")
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.parameters:
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return lora


def adapter(base, tuned: Lora) -> Adapter:
    return Adapter("lora", base.manifest.weights_sha256, tuned.delta())


@torch.no_grad()
def test_an_applied_adapter_gives_the_logits_of_pefts_forward(base, tuned):
    tokens_BT = torch.arange(24).reshape(2, 12)
    expected = tuned.model(tokens_BT)
    with applied(base.model, adapter(base, tuned)):
        torch.testing.assert_close(base.model(tokens_BT), expected, atol=1e-4, rtol=1e-4)
    assert (base.model(tokens_BT) - expected).abs().max() > 0.1


@torch.no_grad()
def test_an_applied_adapter_has_the_weights_of_pefts_merge(base, tuned):
    names = {name.rsplit(".", 1)[0] for name in tuned.delta()}
    merged = copy.deepcopy(tuned.model)
    for module in list(merged.modules()):
        if isinstance(module, LoraLayer):
            module.merge()
    weights = {name.replace("base_layer.", ""): weight for name, weight in merged.named_parameters()}
    with applied(base.model, adapter(base, tuned)):
        for name, weight in base.model.named_parameters():
            if name in names:
                torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=1e-5)


def test_without_peft_a_sentence_says_which_extra_to_install(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BadAdapter, match=r"pip install 'sharedllm\[bets\]'"):
        Lora(base.model, 0, "fp32")


def test_all_projections_and_experts_are_covered_and_nothing_else(base):
    names = {name.rsplit(".", 1)[0] for name in Lora(base.model, 0, "fp32").delta()}
    others = {name for name, _ in base.model.named_parameters()} - names
    assert {name.split(".")[-2] for name in others} <= {
        "embed",
        "head",
        "norm",
        "attention_norm",
        "feedforward_norm",
        "router",
    }


def test_only_a_and_b_are_trained_and_their_number_is_rank_times_inputs_plus_outputs(dense):
    tuned = Lora(dense.model, 0, "fp32")
    per_block = 2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 24)
    assert sum(parameter.numel() for parameter in tuned.parameters) == 2 * 4 * per_block
    assert all(("lora_" in name) == weight.requires_grad for name, weight in tuned.model.named_parameters())


def test_a_fresh_lora_is_the_base(base):
    tokens_BT = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        expected = base.model(tokens_BT)
        fresh = Adapter("lora", "x", Lora(base.model, 0, "fp32").delta())
        with applied(base.model, fresh):
            assert torch.equal(base.model(tokens_BT), expected)


def test_the_seed_draws_a_and_leaves_torchs_generator_alone(base):
    state = torch.get_rng_state()
    one, same, other = (Lora(base.model, seed, "fp32").delta() for seed in (1, 1, 2))
    name = "blocks.0.attention.q.weight.A"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_an_a_that_does_not_multiply_with_its_b_is_refused(base, tuned):
    tensors = tuned.delta()
    tensors["blocks.0.attention.q.weight.A"] = torch.zeros(3, 16)
    with (
        pytest.raises(BadAdapter, match="do not multiply"),
        applied(base.model, Adapter("lora", "x", tensors)),
    ):
        pass


def test_thin_factors_of_a_huge_product_are_refused_before_memory_is_taken(base, tuned):
    name, tensors = "blocks.0.attention.q.weight", tuned.delta()
    tensors[f"{name}.A"], tensors[f"{name}.B"] = torch.zeros(1, 1 << 20), torch.zeros(1 << 20, 1)
    with pytest.raises(BadAdapter, match=rf"changes {name} by \(1048576, 1048576\)"):
        Lora.weights(base.model, tensors)


def test_a_missing_factor_is_refused_by_name(base, tuned):
    tensors = tuned.delta()
    del tensors["blocks.0.attention.q.weight.A"]
    with (
        pytest.raises(BadAdapter, match=r"blocks\.0\.attention\.q\.weight\.A is missing"),
        applied(base.model, Adapter("lora", "x", tensors)),
    ):
        pass
