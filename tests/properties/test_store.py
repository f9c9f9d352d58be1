"""What holds for every input: formats come back, the canonical form is one, damage is a sentence."""

from __future__ import annotations

import contextlib
import json
import tempfile
from functools import cache
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import safetensors.torch as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.errors import BadModelFile
from sharedllm.model import Tokenizer, train_tokenizer
from sharedllm.store import canonical_json, gguf, gguf_header, safetensors, sha256_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
UTF8 = st.text(st.characters(codec="utf-8"))


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat"] * 3, 290, ("<|endoftext|>", "<|im_end|>"))


@cache
def small_gguf() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = library.GGUFWriter(path, "llama")
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
        writer.add_array("numbers", [1, 2, 3])
        for name in ("token_embd.weight", "output_norm.weight"):
            writer.add_tensor(name, np.zeros((2, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


@cache
def small_safetensors() -> bytes:
    return reference.save({"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(4, dtype=torch.float16)})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "file"


@given(JSON)
@settings(deadline=None)
def test_canonical_json_is_json_of_the_same_value(obj: object) -> None:
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate has no UTF-8 form
        assert json.loads(canonical_json(obj)) == obj


@given(st.dictionaries(UTF8, st.integers()), st.randoms())
@settings(deadline=None)
def test_a_hash_does_not_depend_on_the_order_of_keys(obj: dict[str, int], chance: object) -> None:
    items = list(obj.items())
    chance.shuffle(items)  # type: ignore[attr-defined]
    assert sha256_of(dict(items)) == sha256_of(obj)


@given(
    st.dictionaries(
        UTF8.filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.lists(st.integers(0, 5), max_size=3),
            st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.uint8]),
        ),
        max_size=5,
    )
)
@settings(deadline=None)
def test_tensors_of_any_name_and_shape_come_back(
    path: Path, facts: dict[str, tuple[list[int], torch.dtype]]
) -> None:
    tensors = {name: torch.randint(9, shape).to(dtype) for name, (shape, dtype) in facts.items()}
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with path.open("wb") as file:
        safetensors.write(file, layout, tensors.values())
    torch.testing.assert_close(safetensors.read_tensors(path), tensors, rtol=0, atol=0)
    torch.testing.assert_close(reference.load_file(path), tensors, rtol=0, atol=0)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_cut_file_is_always_refused(path: Path, data: st.DataObject) -> None:
    read, whole = data.draw(
        st.sampled_from(
            [(gguf_header.read_contents, small_gguf()), (safetensors.read_header, small_safetensors())]
        )
    )
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadModelFile):
        read(path)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_a_garbled_file_is_read_or_refused_but_never_crashes(path: Path, data: st.DataObject) -> None:
    read, whole = data.draw(
        st.sampled_from([(gguf.read, small_gguf()), (safetensors.read_tensors, small_safetensors())])
    )
    garbled = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        garbled[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(garbled)
    with contextlib.suppress(BadModelFile):
        read(path)


@given(UTF8)
@settings(deadline=None)
def test_every_text_comes_back_from_a_trained_tokenizer(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text)) == text


@given(st.lists(st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|", "|>", "im_end", " ", "cat"])))
@settings(deadline=None)
def test_text_from_people_never_holds_a_control_token(pieces: list[str]) -> None:
    assert {0, 1}.isdisjoint(tokenizer().encode("".join(pieces)))
