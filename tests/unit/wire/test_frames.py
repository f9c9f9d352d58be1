"""A frame's header is read as it was written, or refused before anything of its length is allocated."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from sharedllm.wire import HEADER_BYTES, BadFrame, Frame, Header, Kind, Limits, read_header


def test_a_header_is_read_as_it_was_written() -> None:
    frame = Frame(Kind.STEP, epoch=7, step=1 << 40, meta=b"meta", body=b"12345678")
    assert read_header(frame.head()) == Header(Kind.STEP, 4, 8, 7, 1 << 40)


def test_a_body_is_counted_in_bytes_whatever_it_is_made_of() -> None:
    numbers = memoryview(struct.pack("<6f", *range(6))).cast("f")
    assert read_header(Frame(Kind.STEP, body=numbers).head()).body_bytes == 24


@pytest.mark.parametrize("field", ["epoch", "step"])
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_an_epoch_or_step_beyond_64_bits_is_not_written(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Frame(Kind.PING, **{field: value}).head()


@pytest.mark.parametrize(
    ("at", "byte", "sentence"),
    [(0, 0x16, "speaks no SharedLLM"), (2, 9, "Update the older node"), (3, 0, "kind 0"), (3, 99, "kind 99")],
)
def test_what_is_no_frame_of_this_version_is_refused(at: int, byte: int, sentence: str) -> None:
    head = bytearray(Frame(Kind.PING).head())
    head[at] = byte
    with pytest.raises(BadFrame, match=sentence):
        read_header(head)


@pytest.mark.parametrize("count", [0, 1, HEADER_BYTES - 1, HEADER_BYTES + 1])
def test_a_header_of_another_length_is_refused(count: int) -> None:
    with pytest.raises(BadFrame, match="28"):
        read_header(bytes(count))


@pytest.mark.parametrize("at", [4, 8])
def test_four_announced_gigabytes_are_refused_without_taking_memory(at: int) -> None:
    head = bytearray(Frame(Kind.STEP).head())
    head[at : at + 4] = b"\xff" * 4
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame, match=r"4,294,967,295"):
            read_header(head)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_lengths_up_to_the_limits_are_taken_and_not_one_byte_more() -> None:
    limits = Limits(meta_bytes=3, body_bytes=5)
    assert read_header(Frame(Kind.STEP, meta=b"abc", body=b"12345").head(), limits).body_bytes == 5
    for frame in (Frame(Kind.STEP, meta=b"abcd"), Frame(Kind.STEP, body=b"123456")):
        with pytest.raises(BadFrame, match="at most 3 and 5"):
            read_header(frame.head(), limits)
