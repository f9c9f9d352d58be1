"""Adapters at rest and on a model: what is refused, and that the base comes back."""

from __future__ import annotations

import math

import pytest
import safetensors.torch
import torch

from sharedllm.adapters import Adapter, applied, read, write
from sharedllm.errors import BadAdapter

TOKENS_BT = torch.arange(24).reshape(2, 12)


def norm_adapter(base, value: float = 0.1) -> Adapter:
    tensors = {name: torch.full_like(gain.detach(), value) for name, gain in base.model.gains().items()}
    return Adapter("norm", base.manifest.weights_sha256, tensors)


def norm_bias_adapter(base, value: float = 0.1) -> Adapter:
    tensors = norm_adapter(base, value).tensors
    tensors |= {name.replace(".weight", ".bias"): tensor / 2 for name, tensor in tensors.items()}
    return Adapter("norm+bias", base.manifest.weights_sha256, tensors)


def full_adapter(base, value: float = 0.01) -> Adapter:
    tensors = {name: torch.full(w.shape, value).half() for name, w in base.model.named_parameters()}
    return Adapter("full", base.manifest.weights_sha256, tensors)


def unigram_adapter(base, token: int = 3) -> Adapter:
    tensors = {"tokens": torch.tensor([token], dtype=torch.int32), "bias": torch.tensor([2.0])}
    return Adapter("unigram", base.manifest.weights_sha256, tensors)


MAKERS = [norm_adapter, norm_bias_adapter, full_adapter, unigram_adapter]


@pytest.mark.parametrize("make", MAKERS)
def test_an_adapter_survives_its_file(base, tmp_path, make):
    adapter = make(base)
    write(tmp_path / "a.safetensors", adapter)
    back = read(tmp_path / "a.safetensors", base.manifest.weights_sha256)
    assert back.method == adapter.method
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in adapter.tensors.items())


@pytest.mark.parametrize("make", MAKERS)
@torch.no_grad()
def test_the_base_comes_back_bit_for_bit(base, make):
    before = base.model(TOKENS_BT)
    weights = [weight.data_ptr() for weight in base.model.parameters()]
    with applied(base.model, make(base)) as model:
        assert not torch.equal(model(TOKENS_BT), before)
    assert torch.equal(base.model(TOKENS_BT), before)
    assert [weight.data_ptr() for weight in base.model.parameters()] == weights


@pytest.mark.parametrize("make", MAKERS)
@torch.no_grad()
def test_the_base_comes_back_when_the_body_raises(base, make):
    before = base.model(TOKENS_BT)
    with pytest.raises(KeyError), applied(base.model, make(base)):
        raise KeyError
    assert torch.equal(base.model(TOKENS_BT), before)


@torch.no_grad()
def test_adapters_nest_and_come_off_in_order(base):
    before = base.model(TOKENS_BT)
    with applied(base.model, unigram_adapter(base)):
        once = base.model(TOKENS_BT)
        with applied(base.model, unigram_adapter(base)), applied(base.model, norm_adapter(base)):
            pass
        assert torch.equal(base.model(TOKENS_BT), once)
    assert torch.equal(base.model(TOKENS_BT), before)


@torch.no_grad()
def test_a_unigram_bias_is_added_to_its_token_alone(base):
    before = base.model(TOKENS_BT)
    with applied(base.model, unigram_adapter(base)):
        after = base.model(TOKENS_BT)
    assert torch.equal(after[..., 3], before[..., 3] + 2.0)
    assert torch.equal(after[..., 4:], before[..., 4:])


@torch.no_grad()
def test_an_adapter_of_zeros_is_the_base(base):
    before = base.model(TOKENS_BT)
    for adapter in (norm_adapter(base, 0.0), norm_bias_adapter(base, 0.0), full_adapter(base, 0.0)):
        with applied(base.model, adapter):
            assert torch.equal(base.model(TOKENS_BT), before)


def test_another_base_is_refused(base, tmp_path):
    write(tmp_path / "a.safetensors", norm_adapter(base))
    with pytest.raises(BadAdapter, match="this one is ffff"):
        read(tmp_path / "a.safetensors", "f" * 64)


def test_a_truncated_file_is_refused(base, tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, norm_adapter(base))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadAdapter, match="whole safetensors"):
        read(path, base.manifest.weights_sha256)


def test_a_missing_file_is_refused(base, tmp_path):
    with pytest.raises(BadAdapter, match="whole safetensors"):
        read(tmp_path / "none.safetensors", base.manifest.weights_sha256)


def test_a_safetensors_file_that_is_no_adapter_is_refused(base, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(BadAdapter, match="is no adapter"):
        read(tmp_path / "m.safetensors", base.manifest.weights_sha256)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_by_name(bad):
    with pytest.raises(BadAdapter, match=r"norm\.weight"):
        Adapter("norm", "x", {"norm.weight": torch.tensor([1.0, bad])})


def test_nan_in_a_file_is_refused(base, tmp_path):
    metadata = {"schema": "sharedllm-adapter/1", "method": "norm", "base_sha256": "x"}
    (tmp_path / "a").write_bytes(safetensors.torch.save({"norm.weight": torch.tensor([math.nan])}, metadata))
    with pytest.raises(BadAdapter, match="NaN"):
        read(tmp_path / "a", "x")


def test_a_gain_of_another_width_is_refused_and_the_model_stays(base):
    adapter = norm_adapter(base)
    adapter.tensors["norm.weight"] = torch.zeros(17)
    before = base.model.gains()["blocks.0.attention_norm.weight"].detach().clone()
    with pytest.raises(BadAdapter, match=r"shape \(17,\)"), applied(base.model, adapter):
        pass
    assert torch.equal(base.model.gains()["blocks.0.attention_norm.weight"], before)


def test_a_bias_of_another_width_is_refused_and_the_model_stays(base):
    adapter = norm_bias_adapter(base)
    adapter.tensors["norm.bias"] = torch.zeros(17)
    with torch.no_grad():
        before = base.model(TOKENS_BT)
        with pytest.raises(BadAdapter, match=r"shape \(17,\) behind norm"), applied(base.model, adapter):
            pass
        assert torch.equal(base.model(TOKENS_BT), before)


@torch.no_grad()
def test_a_bias_is_added_behind_its_norm(base):
    adapter = norm_bias_adapter(base, 0.0)
    adapter.tensors["norm.bias"] = torch.full((16,), 0.5)
    h_BTD = torch.randn(1, 3, 16)
    expected = base.model.norm(h_BTD) + 0.5
    with applied(base.model, adapter):
        assert torch.equal(base.model.norm(h_BTD), expected)


@pytest.mark.parametrize("make", [norm_adapter, norm_bias_adapter, full_adapter])
def test_a_surplus_tensor_is_refused_by_name(base, make):
    adapter = make(base)
    adapter.tensors["blocks.9.x"] = torch.zeros(1)
    with pytest.raises(BadAdapter, match=r"blocks\.9\.x is not one of them"), applied(base.model, adapter):
        pass


def test_a_token_outside_the_vocabulary_is_refused(base):
    with pytest.raises(BadAdapter, match="token 61"), applied(base.model, unigram_adapter(base, 61)):
        pass


def test_a_bias_without_tokens_is_refused(base):
    adapter = Adapter("unigram", "x", {"bias": torch.zeros(2)})
    with pytest.raises(BadAdapter, match="tokens and their biases"), applied(base.model, adapter):
        pass


def test_an_unknown_method_is_refused(base):
    with (
        pytest.raises(BadAdapter, match="no adapter method"),
        applied(base.model, Adapter("prefix", "x", {})),
    ):
        pass


def test_nine_norms_of_256_gains_are_9216_bytes():
    adapter = Adapter("norm", "x", {f"n{i}": torch.zeros(256) for i in range(9)})
    assert (adapter.numbers, adapter.n_bytes) == (2304, 9216)


def test_the_same_adapter_is_always_the_same_bytes(tmp_path):
    tensors = {f"x.{i}": torch.full((3,), float(i)) for i in range(9)}
    for name in "abcdefgh":
        write(tmp_path / name, Adapter("norm", "1" * 64, tensors), "fp16", {"why": "hash"})
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1
