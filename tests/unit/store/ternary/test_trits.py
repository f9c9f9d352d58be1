"""Five trits to a byte, there and back, and nothing else in."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadModelFile
from sharedllm.store.ternary import pack, packed_bytes, unpack


def test_five_trits_take_one_byte_with_the_first_one_lowest() -> None:
    assert pack(torch.tensor([1, -1, 0, 0, 1], dtype=torch.int8)).tolist() == [2 + 0 * 3 + 9 + 27 + 2 * 81]


def test_the_end_is_padded_with_zeros() -> None:
    assert torch.equal(pack(torch.tensor([1], dtype=torch.int8)), pack(torch.tensor([1, 0, 0, 0, 0]).char()))


def test_a_million_trits_take_exactly_one_point_six_bits_each() -> None:
    assert 8 * len(pack(torch.zeros(1_000_000, dtype=torch.int8))) == 1_600_000


def test_nothing_packs_into_nothing() -> None:
    assert (
        pack(torch.zeros(0, dtype=torch.int8)).numel()
        == unpack(torch.zeros(0, dtype=torch.uint8), 0).numel()
        == 0
    )


def test_trits_can_be_unpacked_into_memory_that_is_there() -> None:
    trits = torch.tensor([1, -1, 0, 1, 1, -1], dtype=torch.int8)
    out = torch.empty(6, dtype=torch.int8)
    assert unpack(pack(trits), 6, out) is out
    assert torch.equal(out, trits)


@pytest.mark.parametrize("number", [2, -2, 127, -128])
def test_another_number_is_no_trit(number: int) -> None:
    with pytest.raises(ValueError, match="other numbers"):
        pack(torch.tensor([0, number, 0], dtype=torch.int8))


def test_trits_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"int8, not torch\.float32"):
        pack(torch.zeros(5))


@pytest.mark.parametrize("byte", range(243, 256))
def test_a_byte_that_is_no_five_trits_is_refused(byte: int) -> None:
    packed = torch.tensor([0, byte, 0], dtype=torch.uint8)
    with pytest.raises(BadModelFile, match=f"at most 242, but one is {byte}"):
        unpack(packed, 15)


@pytest.mark.parametrize("n", [9, 16])
def test_another_number_of_bytes_is_refused(n: int) -> None:
    with pytest.raises(BadModelFile, match=f"{n} trits take {packed_bytes(n)} bytes, but there are 3"):
        unpack(torch.zeros(3, dtype=torch.uint8), n)


def test_trits_after_the_last_are_refused() -> None:
    with pytest.raises(BadModelFile, match="after the last are not zero"):
        unpack(pack(torch.ones(5, dtype=torch.int8)), 4)
