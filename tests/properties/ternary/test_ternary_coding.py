"""Whatever is coded comes back, byte for byte, and damage never comes back as something else."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.bets.packing import CODERS, Matrix, entropy_bits
from sharedllm.errors import BadModelFile
from sharedllm.store.ternary import coding

TRITS = st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40)


def encoded(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path, sink = Path(folder) / "plain", io.BytesIO()
        path.write_bytes(data)
        coding.encode(path, sink)
    return sink.getvalue()


def decoded(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path, sink = Path(folder) / "coded", io.BytesIO()
        path.write_bytes(data)
        coding.decode(path, sink)
    return sink.getvalue()


@given(st.binary(max_size=500))
def test_a_frame_holds_what_was_put_in(data: bytes) -> None:
    assert decoded(encoded(data)) == data


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(data: bytes, drawn: st.DataObject) -> None:
    frame = bytearray(encoded(data))
    at = drawn.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= drawn.draw(st.integers(1, 255))
    with contextlib.suppress(BadModelFile):
        assert decoded(bytes(frame)) == data


@given(st.binary(max_size=300))
def test_what_is_no_frame_is_a_sentence(data: bytes) -> None:
    with contextlib.suppress(BadModelFile):
        decoded(coding_magic() + data)


def coding_magic() -> bytes:
    return encoded(b"")[:4]


@pytest.mark.parametrize("name", CODERS)
@given(st.lists(TRITS, min_size=1, max_size=4))
def test_a_coder_gives_back_every_trit(name: str, numbers: list[list[int]]) -> None:
    matrices = [Matrix.of(torch.tensor(each, dtype=torch.int8)) for each in numbers]
    coder = CODERS[name]
    back = coder.decode(coder.encode(matrices), [len(matrix.packed) for matrix in matrices])
    assert np.array_equal(back, np.concatenate([matrix.packed for matrix in matrices]))


@given(TRITS)
def test_entropy_is_between_nothing_and_log2_3_a_trit(numbers: list[int]) -> None:
    bits = entropy_bits([Matrix.of(torch.tensor(numbers, dtype=torch.int8))])
    assert -1e-9 <= bits <= 1.5850 * len(numbers)
