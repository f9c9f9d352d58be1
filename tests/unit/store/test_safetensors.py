"""Safetensors agree with the reference library in both directions; a header that lies is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as library
import torch

from sharedllm.errors import BadModelFile
from sharedllm.store import safetensors

TENSORS = {
    "b": torch.arange(6, dtype=torch.float16).view(2, 3),
    "a": torch.randn(5, 7),
    "c": torch.tensor([True, False, True]),
    "d": torch.arange(3, dtype=torch.bfloat16),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "empty": torch.empty(0, 4),
}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with path.open("wb") as file:
        safetensors.write(file, layout, tensors.values())


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    save(tmp_path / "file", TENSORS)
    assert_same(library.load_file(tmp_path / "file"), TENSORS)


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    library.save_file(TENSORS, tmp_path / "file")
    assert_same(safetensors.read_tensors(tmp_path / "file"), TENSORS)


def test_a_header_of_odd_length_is_read(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<ff", 1.0, 2.0))
    assert len(header) % 4
    assert safetensors.read_tensors(tmp_path / "file")["a"].tolist() == [1.0, 2.0]


def test_changing_a_mapped_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    save(tmp_path / "file", TENSORS)
    before = (tmp_path / "file").read_bytes()
    safetensors.read_tensors(tmp_path / "file")["a"].zero_()
    assert (tmp_path / "file").read_bytes() == before


def test_a_tensor_that_is_not_as_announced_is_not_written(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(ValueError, match="as announced"):
        safetensors.write(file, {"a": (torch.float32, (3,))}, [torch.zeros(4)])


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"a": entry(dtype="F3")}, "unknown type 'F3'"),
        ({"a": entry(shape=[3])}, "do not fit its shape"),
        ({"a": entry(shape=[-1, -2])}, "not a whole number"),
        ({"a": entry(shape=[2.0])}, "not a whole number"),
        ({"a": entry(data_offsets=[8, 0])}, "do not fit its shape"),
        ({"a": entry(data_offsets=[4, 12])}, "overlaps another or leaves a gap"),
        ({"a": entry(), "b": entry()}, "overlaps another or leaves a gap"),
        ({"a": entry(shape=[4], data_offsets=[0, 16])}, "but the file ends at"),
        ({}, "but the file ends at"),
        ({"a": {}}, "dtype"),
        ([], "not a whole safetensors file"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, sentence: str) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(BadModelFile, match=sentence):
        safetensors.read_tensors(tmp_path / "file")


@pytest.mark.parametrize("length", [2**63, 10**9, 17])
def test_a_header_longer_than_its_file_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(struct.pack("<Q", length) + bytes(16))
    with pytest.raises(BadModelFile, match="too few for the header"):
        safetensors.read_header(tmp_path / "file")
