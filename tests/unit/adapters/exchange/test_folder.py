"""Folders for ``peft``: it loads ours on transformers' Llama with the same logits, and we read its."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from sharedllm.adapters import Adapter, applied
from sharedllm.adapters.exchange import read_folder, write_folder
from sharedllm.adapters.lora import Lora
from sharedllm.errors import BadAdapter
from tests.benchmarks.reference import as_transformers

# peft asks transformers for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TOKENS_BT = torch.arange(24).reshape(2, 12)
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def fitted(dense) -> Adapter:
    """A LoRA whose B is no longer zero, as after training."""
    generator = torch.Generator().manual_seed(1)
    tensors = Lora(dense.model, 0, "fp32").delta()
    drawn = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}
    return Adapter("lora", dense.manifest.weights_sha256, drawn)


@torch.no_grad()
def logits(base, adapter: Adapter):
    with applied(base.model, adapter):
        return base.model(TOKENS_BT)


@torch.no_grad()
def test_peft_loads_our_folder_on_transformers_llama_with_the_same_logits(dense, fitted, tmp_path):
    import peft

    write_folder(tmp_path, fitted, dense)
    theirs = peft.PeftModel.from_pretrained(as_transformers(dense.model), tmp_path)
    torch.testing.assert_close(theirs(TOKENS_BT).logits, logits(dense, fitted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj"]},
        {"r": 3, "lora_alpha": 5, "use_rslora": True},
        {"r": 2, "lora_alpha": 2, "layers_to_transform": [1]},
    ],
)
@torch.no_grad()
def test_we_read_what_peft_writes_with_the_same_logits(dense, tmp_path, given):
    import peft

    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    theirs = peft.get_peft_model(
        as_transformers(dense.model), peft.LoraConfig(**{"target_modules": every} | given)
    )
    generator = torch.Generator().manual_seed(2)
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    expected = theirs(TOKENS_BT).logits
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(dense, read_folder(tmp_path, dense)), expected, atol=1e-4, rtol=1e-4)


def test_our_own_folder_comes_back_bit_for_bit(dense, fitted, tmp_path):
    write_folder(tmp_path, fitted, dense)
    back = read_folder(tmp_path, dense)
    assert back.tensors.keys() == fitted.tensors.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in fitted.tensors.items())


def test_unequal_ranks_are_filled_up(dense, fitted, tmp_path):
    name = "blocks.0.attention.q.weight"
    fitted.tensors[f"{name}.A"] = fitted.tensors[f"{name}.A"][:1]
    fitted.tensors[f"{name}.B"] = fitted.tensors[f"{name}.B"][:, :1]
    write_folder(tmp_path, fitted, dense)
    torch.testing.assert_close(logits(dense, read_folder(tmp_path, dense)), logits(dense, fitted))


def test_another_base_is_refused(dense, fitted, tmp_path):
    import dataclasses

    write_folder(tmp_path, fitted, dense)
    other = dataclasses.replace(dense, manifest=dataclasses.replace(dense.manifest, weights_sha256="f" * 64))
    with pytest.raises(BadAdapter, match="adapts the base with weights 0000"):
        read_folder(tmp_path, other)
    with pytest.raises(BadAdapter, match="Only a lora adapter of small"):
        write_folder(tmp_path, fitted, other)


@pytest.mark.parametrize("base", [4], indirect=True)
def test_a_base_with_experts_is_refused(base, fitted, tmp_path):
    with pytest.raises(BadAdapter, match="has experts"):
        write_folder(tmp_path, fitted, base)


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "LN_TUNING"},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"init_lora_weights": "pissa"},
        {"something_new": 1},
        {"r": 0},
        {"r": "4"},
        {"r": 1 << 40},
        {"lora_alpha": None},
        {"lora_alpha": 10**400},
    ],
)
def test_what_is_not_plain_lora_is_refused(dense, fitted, tmp_path, change):
    write_folder(tmp_path, fitted, dense)
    config = json.loads((tmp_path / CONFIG).read_bytes()) | change
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(BadAdapter, match="no configuration of an adapter"):
        read_folder(tmp_path, dense)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
@pytest.mark.parametrize("damage", ["cut", "gone", "nested"])
def test_a_damaged_folder_is_refused(dense, fitted, tmp_path, name, damage):
    write_folder(tmp_path, fitted, dense)
    path = tmp_path / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"[" * 200_000)
    with pytest.raises(BadAdapter):
        read_folder(tmp_path, dense)


@pytest.mark.parametrize(
    ("key", "tensor", "sentence"),
    [
        ("layers.0.self_attn.q_proj.lora_A", torch.zeros(4, 15), "and the base takes"),
        ("layers.2.self_attn.q_proj.lora_A", torch.zeros(4, 16), "2 layers don't have"),
        ("layers.0.self_attn.q_norm.lora_A", torch.zeros(4, 16), "only projections"),
        ("layers.0.mlp.up_proj.lora_A", torch.full((4, 16), torch.nan), "NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(dense, fitted, tmp_path, key, tensor, sentence):
    write_folder(tmp_path, fitted, dense)
    path = tmp_path / TENSORS
    tensors = safetensors.torch.load_file(path) | {f"base_model.model.model.{key}.weight": tensor}
    path.write_bytes(safetensors.torch.save(tensors))
    with pytest.raises(BadAdapter, match=sentence):
        read_folder(tmp_path, dense)


def test_half_of_a_pair_is_refused(dense, fitted, tmp_path):
    write_folder(tmp_path, fitted, dense)
    path = tmp_path / TENSORS
    tensors = safetensors.torch.load_file(path)
    del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]
    path.write_bytes(safetensors.torch.save(tensors))
    with pytest.raises(BadAdapter, match="only one of the two factors"):
        read_folder(tmp_path, dense)
