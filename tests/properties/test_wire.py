"""Whatever is written is read back, and no bytes at all raise anything but ``BadFrame``."""

from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sharedllm.wire import (
    HEADER_BYTES,
    Adapter,
    Adopted,
    Attach,
    BadFrame,
    Codec,
    Fault,
    Frame,
    Hello,
    Hop,
    Kind,
    Limits,
    Link,
    LinkClosed,
    Message,
    Note,
    Op,
    Open,
    Opened,
    Pong,
    Segment,
    StepMeta,
    Want,
    Welcome,
    decode,
    encode,
    encoded_bytes,
    read_header,
    rounded,
)

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
NATURAL = st.integers(0, (1 << 63) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SECONDS = st.floats(0, 1e12)
JSON = st.recursive(
    st.none() | st.booleans() | NATURAL | TEXT, lambda inner: st.dictionaries(TEXT, inner, max_size=3)
)
SEGMENTS = st.builds(Segment, st.sampled_from(Op), U32, U32, U16, st.sampled_from(Want), U32)
HOPS = st.builds(Hop, U16, U16, U32, U32, U32)
METAS = st.builds(
    StepMeta,
    st.lists(SEGMENTS, max_size=9).map(tuple),
    st.sampled_from(Codec),
    U16,
    st.integers(0, 2048),
    st.integers(0, 2048),
    st.lists(HOPS, max_size=5).map(tuple),
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, st.lists(NATURAL, max_size=4)),
    st.builds(Welcome, NATURAL),
    st.builds(
        Open,
        TEXT,
        TEXT,
        TEXT,
        NATURAL,
        NATURAL,
        st.none() | st.dictionaries(TEXT, JSON, max_size=3),
        st.dictionaries(TEXT, TEXT, max_size=3),
    ),
    st.builds(Opened, NATURAL, NATURAL, SECONDS, NATURAL, st.booleans(), NATURAL, NATURAL),
    st.builds(Adapter, NATURAL, TEXT, NATURAL, NATURAL),
    st.builds(Adopted, NATURAL),
    st.builds(Attach, TEXT, NATURAL),
    st.builds(Fault, TEXT, TEXT),
    st.builds(Note, NATURAL, TEXT),
    st.builds(Pong, SECONDS, NATURAL, NATURAL),
)
FRAMES = st.builds(
    Frame, st.sampled_from(Kind), U64, U64, st.binary(max_size=70_000), st.binary(max_size=140_000)
)
ROWS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-(2.0**126), 2.0**126, width=32),
).map(torch.from_numpy)


@given(FRAMES)
def test_a_header_is_read_as_it_was_written(frame: Frame) -> None:
    header = read_header(frame.head(), Limits(meta_bytes=1 << 20))
    assert (header.kind, header.epoch, header.step) == (frame.kind, frame.epoch, frame.step)
    assert (header.meta_bytes, header.body_bytes) == (len(frame.meta), len(frame.body))


@given(METAS)
def test_a_step_is_read_as_it_was_written(meta: StepMeta) -> None:
    assert StepMeta.from_bytes(meta.to_bytes()) == meta


@given(MESSAGES)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES) | st.binary(max_size=40))
def test_no_bytes_break_the_reading_of_a_header(data: bytes) -> None:
    for bytes_ in (data, b"SL\x01" + data[3:]):
        with contextlib.suppress(BadFrame):
            header = read_header(bytes_)
            assert header.meta_bytes <= 64 << 10
            assert header.body_bytes <= 64 << 20


@given(st.binary(max_size=200), METAS, st.data())
def test_no_bytes_break_the_reading_of_a_step(noise: bytes, meta: StepMeta, data: st.DataObject) -> None:
    changed = bytearray(meta.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for bytes_ in (noise, bytes(changed)):
        with contextlib.suppress(BadFrame):
            assert isinstance(StepMeta.from_bytes(bytes_), StepMeta)


@given(st.binary(max_size=200) | JSON.map(lambda value: str(value).encode()), st.data())
def test_no_bytes_break_the_reading_of_a_message(noise: bytes, data: st.DataObject) -> None:
    message = data.draw(MESSAGES)
    changed = bytearray(message.to_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for bytes_ in (noise, bytes(changed)):
        for cls in type(message), Open:
            with contextlib.suppress(BadFrame):
                assert cls.from_bytes(bytes_).to_bytes()


@given(ROWS, st.sampled_from(Codec))
def test_rounding_is_what_a_journey_does_and_a_second_one_does_nothing(
    h_RD: torch.Tensor, codec: Codec
) -> None:
    body = encode(h_RD, codec)
    assert body.nbytes == encoded_bytes(codec, *h_RD.shape)
    arrived = decode(bytes(body), codec, *h_RD.shape)
    assert torch.equal(arrived.view(torch.int32), rounded(h_RD, codec).view(torch.int32))
    assert torch.equal(rounded(arrived, codec), arrived)


@given(ROWS)
def test_fp32_changes_no_bit(h_RD: torch.Tensor) -> None:
    assert decode(encode(h_RD, Codec.FP32), Codec.FP32, *h_RD.shape).numpy().tobytes() == (
        h_RD.numpy().tobytes()
    )


@given(ROWS)
def test_fp16_is_near_or_saturates(h_RD: torch.Tensor) -> None:
    expected = h_RD.double().clamp(-65504, 65504)
    error = (rounded(h_RD, Codec.FP16).double() - expected).abs()
    assert bool((error <= expected.abs() * 2**-11 + 2**-25).all())


@given(ROWS)
def test_int8_is_off_by_at_most_half_a_step_of_its_row(h_RD: torch.Tensor) -> None:
    scale_R1 = (h_RD.abs().amax(dim=1, keepdim=True).double() / 127).clamp_min(1.2e-38)
    error = (rounded(h_RD, Codec.INT8).double() - h_RD.double()).abs()
    assert bool((error <= scale_R1 * 0.50001).all())


@given(st.binary(max_size=600), st.sampled_from(Codec), st.integers(0, 5), st.integers(0, 20))
def test_no_bytes_break_the_reading_of_rows(body: bytes, codec: Codec, rows: int, width: int) -> None:
    with contextlib.suppress(BadFrame):
        assert decode(body, codec, rows, width).shape == (rows, width)
    exact = (body * 1000)[: encoded_bytes(codec, rows, width)] if body else b""
    if len(exact) == encoded_bytes(codec, rows, width):
        assert decode(exact, codec, rows, width).shape == (rows, width)


@settings(max_examples=40, deadline=None)
@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
def test_frames_arrive_whole_however_the_bytes_are_cut(frames: list[Frame], sizes: list[int]) -> None:
    sock, other = socket.socketpair()
    link = Link(sock, "Ada", Limits(meta_bytes=1 << 20))
    data = b"".join(frame.head() + frame.meta + bytes(frame.body) for frame in frames)

    def send() -> None:
        at, turn = 0, 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            other.sendall(data[at : at + size])
            at, turn = at + size, turn + 1
        other.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert [link.receive(20) for _ in frames] == frames
        with pytest.raises(LinkClosed):
            link.receive(20)
    finally:
        sender.join(20)
        link.close()
