"""A store of its own for every test, and the smallest models that have every part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from sharedllm import store
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer

TEXTS = ["the cat sat on the mat", "മലയാളം", "def main() -> None: return 12345", "🙂 hello\n\n  world"] * 4
CONFIG = Config(
    vocab_size=300,
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=16,
    hidden=96,
    context=64,
    tied_head=True,
)
# what llama.cpp's convert_hf_to_gguf.py calls the tensors of a LlamaForCausalLM
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WriteGGUF = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    if request.node.get_closest_marker("slow"):  # the pretrained model is fetched once, not once per test
        return store.home()
    home = tmp_path / "home"
    monkeypatch.setenv("SHAREDLLM_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG)


def make_reference(**changes: Any) -> transformers.LlamaForCausalLM:
    """Build ``CONFIG`` in code that nobody here wrote, with random weights."""
    torch.manual_seed(1)
    facts = {
        "vocab_size": CONFIG.vocab_size,
        "hidden_size": CONFIG.width,
        "num_hidden_layers": CONFIG.layers,
        "num_attention_heads": CONFIG.heads,
        "num_key_value_heads": CONFIG.kv_heads,
        "head_dim": CONFIG.head_width,
        "intermediate_size": CONFIG.hidden,
        "rms_norm_eps": CONFIG.norm_eps,
        "max_position_embeddings": CONFIG.context,
        "tie_word_embeddings": CONFIG.tied_head,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**facts | changes)).eval()


@pytest.fixture
def reference() -> transformers.LlamaForCausalLM:
    return make_reference()


@pytest.fixture
def write_gguf(tmp_path: Path, tokenizer: Tokenizer) -> WriteGGUF:
    """Write a model the way llama.cpp's converter does, with its own ``gguf`` writer."""

    def write(
        reference: transformers.LlamaForCausalLM,
        kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
        fields: dict[str, Any] | None = None,
        change: Callable[[dict[str, np.ndarray]], None] | None = None,
    ) -> Path:
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        add_fields(writer, tokenizer, fields or {})
        tensors = {}
        for name, tensor in reference.state_dict().items():
            if name == "lm_head.weight" and CONFIG.tied_head:
                continue
            values = tensor.numpy()
            if "q_proj" in name or "k_proj" in name:
                values = permuted(values, CONFIG.heads if "q_proj" in name else CONFIG.kv_heads)
            for theirs, short in GGUF_NAMES.items():
                name = name.replace(theirs, short)
            tensors[name] = values
        if change:
            change(tensors)
        for name, values in tensors.items():
            chosen = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(name, gguf.quants.quantize(values, chosen), raw_dtype=chosen)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """``LlamaModel.permute`` of llama.cpp's converter."""
    shape = (heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2).reshape(values.shape))


def add_fields(writer: gguf.GGUFWriter, tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    parts = json.loads(json.loads(tokenizer.to_bytes())["tokenizer"])["model"]
    tokens = sorted(parts["vocab"], key=parts["vocab"].get)
    fields = {
        "llama.block_count": CONFIG.layers,
        "llama.context_length": CONFIG.context,
        "llama.embedding_length": CONFIG.width,
        "llama.feed_forward_length": CONFIG.hidden,
        "llama.attention.head_count": CONFIG.heads,
        "llama.attention.head_count_kv": CONFIG.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": CONFIG.norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in parts["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
    }
    for name, value in (fields | changes).items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
