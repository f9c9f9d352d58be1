"""GGUF files written by llama.cpp's own library give back the model, and damaged ones a sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest
import torch
import transformers

from sharedllm import store
from sharedllm.errors import BadModelFile
from sharedllm.model import Tokenizer
from sharedllm.store import gguf, gguf_header

Kind = library.GGMLQuantizationType
WriteGGUF = Callable[..., Path]
Reference = transformers.LlamaForCausalLM


def test_a_loaded_model_computes_what_the_reference_computes(
    write_gguf: WriteGGUF, reference: Reference
) -> None:
    loaded = store.load(write_gguf(reference))
    tokens_BT = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens_BT), reference(tokens_BT).logits, atol=1e-5, rtol=0)


def test_the_tokenizer_comes_along(write_gguf: WriteGGUF, reference: Reference, tokenizer: Tokenizer) -> None:
    loaded = store.load(write_gguf(reference))
    text = "the cat <|endoftext|> 123 മല 🙂\x07"
    assert loaded.tokenizer.encode(text) == tokenizer.encode(text)
    assert loaded.tokenizer.encode(text, special=True) == tokenizer.encode(text, special=True)
    assert loaded.tokenizer.ends == {0}


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1, Kind.Q8_0])
def test_every_block_format_is_dequantised_as_the_library_does(
    write_gguf: WriteGGUF, reference: Reference, kind: Kind
) -> None:
    source = gguf.read(write_gguf(reference, kind))
    weight = reference.model.layers[0].mlp.up_proj.weight.detach().numpy()
    expected = library.quants.dequantize(library.quants.quantize(weight, kind), kind)
    shape, read = source.tensors["blocks.0.feedforward.up.weight"]
    assert shape == weight.shape
    np.testing.assert_array_equal(read().numpy(), expected)


def test_our_parser_reads_what_the_librarys_reader_reads(write_gguf: WriteGGUF, reference: Reference) -> None:
    path = write_gguf(reference, Kind.Q8_0)
    ours, theirs = gguf_header.read_contents(path), library.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.fields == fields
    places = {t.name: (tuple(reversed(t.shape.tolist())), t.data_offset, t.n_bytes) for t in theirs.tensors}
    assert {n: (t.shape, t.start, t.n_bytes) for n, t in ours.tensors.items()} == places


def test_something_else_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "picture.gguf"
    path.write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(BadModelFile, match="does not begin with the letters GGUF"):
        store.load(path)


@pytest.mark.parametrize("n_bytes", [0, 3, 10, 23, 30, 400])
def test_a_file_cut_in_its_header_is_a_sentence(
    write_gguf: WriteGGUF, reference: Reference, n_bytes: int
) -> None:
    path = write_gguf(reference)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(BadModelFile, match="is not a whole GGUF file"):
        store.load(path)


def test_a_file_cut_in_its_weights_names_the_tensor(write_gguf: WriteGGUF, reference: Reference) -> None:
    path = write_gguf(reference)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadModelFile, match=r"tensor [\w.]+ ends at byte"):
        store.load(path)


@pytest.mark.parametrize("count", [2**60, 2**63, 2**64 - 1])
def test_a_count_that_lies_allocates_nothing(tmp_path: Path, count: int) -> None:
    path = tmp_path / "model.gguf"
    for kind in (0, 8, 9):  # arrays of bytes, of strings, of arrays
        field = struct.pack("<Q1sI", 1, b"a", 9) + struct.pack("<IQ", kind, count)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field + bytes(64))
        with pytest.raises(BadModelFile, match="announce"):
            gguf_header.read_contents(path)


def test_an_unknown_tensor_type_is_named(write_gguf: WriteGGUF, reference: Reference) -> None:
    path = write_gguf(reference)
    data = path.read_bytes()
    at = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 2 * 8
    path.write_bytes(data[:at] + struct.pack("<I", 999) + data[at + 4 :])
    with pytest.raises(BadModelFile, match=r"tensor blk.0.attn_q.weight has the unknown type 999"):
        store.load(path)


def test_a_type_that_can_not_be_dequantised_is_named(write_gguf: WriteGGUF, reference: Reference) -> None:
    path = write_gguf(reference)
    data = path.read_bytes()
    at = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 2 * 8
    path.write_bytes(data[:at] + struct.pack("<I", Kind.I32) + data[at + 4 :])
    with pytest.raises(BadModelFile, match="I32, which the `gguf` package can't dequantise"):
        store.load(path)


def drop(tensors: dict[str, np.ndarray]) -> None:
    del tensors["blk.1.ffn_up.weight"]


def add(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.attn_q.bias"] = np.zeros(64, dtype=np.float32)


def widen(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.1.ffn_up.weight"] = np.zeros((128, 64), dtype=np.float32)


def spoil(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.1.ffn_up.weight"] = np.full((96, 64), np.nan, dtype=np.float32)


def scale(tensors: dict[str, np.ndarray]) -> None:
    tensors["rope_freqs.weight"] = np.ones(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop, "missing blocks.1.feedforward.up.weight"),
        (add, "a tensor blk.0.attn_q.bias, for which"),
        (widen, r"blocks.1.feedforward.up.weight of model has the shape \(128, 64\)"),
        (spoil, "blocks.1.feedforward.up.weight of model holds NaN"),
        (scale, "uses scaled rotary positions"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_left(
    write_gguf: WriteGGUF, reference: Reference, home: Path, change: Callable[..., None], sentence: str
) -> None:
    path = write_gguf(reference, change=change)
    with pytest.raises(BadModelFile, match=sentence):
        store.load(path)
    assert [p for p in home.rglob("*") if p.is_file() and p.parent.name != "locks"] == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"llama.expert_count": 8}, "a mixture of experts"),
        ({"llama.rope.scaling.type": "linear"}, "scaled rotary positions"),
        ({"llama.rope.dimension_count": 8}, "partly rotated heads"),
        ({"llama.block_count": 2**31}, "announces 2147483648 layers"),
        ({"llama.attention.head_count": 0}, "lacks, or mistypes"),
        ({"llama.embedding_length": "wide"}, "lacks, or mistypes"),
        ({"tokenizer.ggml.pre": "klingon"}, "'klingon' is not one that SharedLLM can rebuild"),
        ({"tokenizer.ggml.model": "bert"}, "a tokenizer of the kind 'bert'"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "two pieces with a space between"),
        ({"tokenizer.ggml.merges": ["q zzz"]}, "merges don't fit its vocabulary"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "names token 9999"),
        ({"tokenizer.ggml.bos_token_id": "first"}, "names token 'first'"),
        ({"tokenizer.ggml.merges": [1, 2]}, "two pieces with a space between"),
        ({"tokenizer.chat_template": 7}, "chat template is not text"),
        ({"split.count": 2}, "one part of a split model"),
    ],
)
def test_metadata_that_we_can_not_honour_is_refused(
    write_gguf: WriteGGUF, reference: Reference, fields: dict[str, Any], sentence: str
) -> None:
    path = write_gguf(reference, fields=fields)
    with pytest.raises(BadModelFile, match=sentence):
        store.load(path)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    writer = library.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadModelFile, match="architecture 'mamba'"):
        store.load(tmp_path / "model.gguf")
