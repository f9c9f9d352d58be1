"""A live model is what was kept, bit for bit, or a sentence says which blob is not what it should be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import adapters, store
from sharedllm.adapters.lora import Lora
from sharedllm.errors import BadModelFile
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed

TOKENS = torch.arange(12).view(2, 6)


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(TOKENS)
    return out


def flip(sha256: str, at: int) -> None:
    path = Blobs().path(sha256)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_whole_model_lives_as_it_was_kept(signed: Signed, model: Transformer) -> None:
    assert torch.equal(logits(specialists.live(signed).model), logits(model))


def test_an_adapter_lives_as_its_own_room_applies_it(
    adapted: Signed, adapter: adapters.Adapter, model: Transformer
) -> None:
    with adapters.applied(model, adapter):
        expected = logits(model)
    assert torch.equal(logits(specialists.live(adapted).model), expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_lora_adapter_lives_as_its_own_room_applies_it(
    base: store.Manifest, model: Transformer, key: Ed25519PrivateKey, tmp_path: Path, precision: str
) -> None:
    torch.manual_seed(2)
    form = Lora(model, 0, "fp32").delta()
    made = adapters.Adapter(
        "lora", base.weights_sha256, {n: 0.1 * torch.randn_like(t) for n, t in form.items()}
    )
    adapters.write(tmp_path / "lora", made, precision)
    body = specialists.with_adapter("low", base, "lora", tmp_path / "lora", provenance={})
    with adapters.applied(model, adapters.read(tmp_path / "lora", base.weights_sha256)):
        expected = logits(model)
    assert torch.equal(logits(specialists.live(specialists.sign(body, key)).model), expected)


def test_its_manifest_is_the_specialists_own(adapted: Signed) -> None:
    assert specialists.live(adapted).manifest == adapted.body


def test_the_base_in_the_store_is_left_as_it_was(adapted: Signed, signed: Signed, model: Transformer) -> None:
    specialists.live(adapted)
    assert torch.equal(logits(specialists.live(signed).model), logits(model))


def test_deltas_are_those_of_the_adapter(adapted: Signed, adapter: adapters.Adapter) -> None:
    found = specialists.deltas(adapted)
    assert found.keys() == adapter.tensors.keys()
    assert all(torch.equal(found[name], adapter.tensors[name]) for name in found)


def test_a_whole_model_has_no_deltas(signed: Signed) -> None:
    assert specialists.deltas(signed) == {}


def test_deltas_need_no_weights(adapted: Signed) -> None:
    Blobs().path(adapted.body.weights_sha256).unlink()
    assert specialists.deltas(adapted)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 9, 200, -1])
def test_one_flipped_bit_in_any_blob_is_refused(adapted: Signed, which: int, at: int) -> None:
    flip(list(adapted.blobs)[which], at)
    with pytest.raises(BadModelFile, match="is damaged"):
        specialists.live(adapted)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_blob_cut_short_is_refused_by_its_size(adapted: Signed, which: int) -> None:
    path = Blobs().path(list(adapted.blobs)[which])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelFile, match=r"has [0-9]+ bytes, and its manifest says"):
        specialists.live(adapted)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_blob_that_is_not_here_is_named(adapted: Signed, which: int) -> None:
    sha256 = list(adapted.blobs)[which]
    Blobs().path(sha256).unlink()
    with pytest.raises(BadModelFile, match=f"Blob {sha256} is missing"):
        specialists.live(adapted)


def test_another_tokenizer_of_another_size_is_refused(
    signed: Signed, key: Ed25519PrivateKey, tokenizer: Tokenizer
) -> None:
    other = Blobs().put_bytes(tokenizer.to_bytes() + b" ")
    body = dataclasses.replace(signed.body, tokenizer_sha256=other)
    with pytest.raises(BadModelFile, match="bytes, and its manifest says"):
        specialists.live(specialists.sign(body, key))


def test_weights_that_are_no_tokenizer_are_refused_as_one(signed: Signed, key: Ed25519PrivateKey) -> None:
    weights, size = signed.body.weights_sha256, signed.body.sizes["weights"]
    body = dataclasses.replace(
        signed.body, tokenizer_sha256=weights, sizes={"weights": size, "tokenizer": size}
    )
    with pytest.raises(BadModelFile):
        specialists.live(specialists.sign(body, key))


def test_nan_in_published_weights_is_refused(
    model: Transformer, tokenizer: Tokenizer, base: store.Manifest, key: Ed25519PrivateKey
) -> None:
    path = Blobs().path(base.weights_sha256)
    data = bytearray(path.read_bytes())
    data[-4:] = b"\xff\xff\xff\x7f"
    body = dataclasses.replace(base, weights_sha256=Blobs().put_bytes(bytes(data)))
    with pytest.raises(BadModelFile, match="holds NaN or infinity"):
        specialists.live(specialists.sign(body, key))


def worn(base: store.Manifest, key: Ed25519PrivateKey, tmp_path: Path, method: str, tensors: dict) -> Signed:  # type: ignore[type-arg]
    import safetensors.torch

    safetensors.torch.save_file(tensors, tmp_path / "odd")
    return specialists.sign(
        specialists.with_adapter("odd", base, method, tmp_path / "odd", provenance={}), key
    )


@pytest.mark.parametrize(
    ("method", "change", "sentence"),
    [
        ("norm", lambda t: {k: v for k, v in t.items() if k != "norm.weight"}, "norm.weight is missing"),
        ("norm", lambda t: t | {"embed.weight": torch.zeros(300, 32)}, "embed.weight is missing or not one"),
        ("norm", lambda t: t | {"norm.weight": torch.zeros(31)}, r"changes norm.weight by \(31,\)"),
        ("norm", lambda t: t | {"norm.weight": torch.full((32,), torch.nan)}, "holds NaN"),
        ("lora", lambda t: t, "lacks an A or a B"),
        ("lora", lambda t: {"x.A": torch.ones(1, 2), "x.B": torch.ones(2, 1)}, "x is missing or not one"),
        ("lora", lambda t: {"x.A": torch.ones(3, 2), "x.B": torch.ones(2, 1)}, "don't multiply"),
        (
            "lora",
            lambda t: {"norm.weight.A": torch.ones(1, 2), "norm.weight.B": torch.ones(2, 1)},
            r"changes norm.weight by \(2, 2\)",
        ),
        (
            "lora",
            lambda t: {"norm.weight.A": torch.ones(1, 1 << 20), "norm.weight.B": torch.ones(1 << 20, 1)},
            r"changes norm.weight by \(1048576, 1048576\)",
        ),
    ],
)
def test_an_adapter_of_another_form_is_refused(
    base: store.Manifest,
    adapter: adapters.Adapter,
    key: Ed25519PrivateKey,
    tmp_path: Path,
    method: str,
    change: object,
    sentence: str,
) -> None:
    odd = worn(base, key, tmp_path, method, change(dict(adapter.tensors)))  # type: ignore[operator]
    with pytest.raises(BadModelFile, match=sentence):
        specialists.live(odd)
