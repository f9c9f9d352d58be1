"""Frames arrive whole and in order, whoever posts them and however the bytes are cut."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from sharedllm.wire import HEADER_BYTES, Frame, Kind, Link
from tests.unit.wire.connections import Ends

SOON_S = 20.0


def received(link: Link, count: int) -> list[Frame]:
    return [link.receive(SOON_S) for _ in range(count)]


@pytest.mark.parametrize("meta_bytes", [0, 1, 65_507, 65_508, 65_509, 65_536])
@pytest.mark.parametrize("body_bytes", [0, 1, 65_508, 65_536, 300_000])
def test_a_frame_of_any_size_arrives_whole(pair: tuple[Link, Link], meta_bytes: int, body_bytes: int) -> None:
    left, right = pair
    frame = Frame(Kind.STEP, 3, 4, os.urandom(meta_bytes), os.urandom(body_bytes))
    left.post(frame)
    assert right.receive(SOON_S) == frame


def test_frames_keep_their_order_and_their_edges(pair: tuple[Link, Link]) -> None:
    left, right = pair
    sizes = [0, 1, 70_000, 5, 200_000, 0, 65_508, 65_509, 31]
    for step, size in enumerate(sizes):
        left.post(Frame(Kind.STEP, 1, step, bytes([step]), bytes([step]) * size))
    frames = received(right, len(sizes))
    assert [(f.step, f.meta, bytes(f.body)) for f in frames] == [
        (step, bytes([step]), bytes([step]) * size) for step, size in enumerate(sizes)
    ]


def test_many_threads_may_post_while_one_receives(pair: tuple[Link, Link]) -> None:
    left, right = pair

    def post(epoch: int) -> None:
        for step in range(40):
            left.post(Frame(Kind.STEP, epoch, step, b"m" * step, bytes([epoch]) * (step * 2_000)))

    threads = [threading.Thread(target=post, args=(epoch,)) for epoch in range(4)]
    for thread in threads:
        thread.start()
    frames = received(right, 160)
    for thread in threads:
        thread.join(SOON_S)
    for epoch in range(4):
        own = [frame for frame in frames if frame.epoch == epoch]
        assert [frame.step for frame in own] == list(range(40))
        assert all(bytes(f.body) == bytes([epoch]) * (f.step * 2_000) for f in own)


def test_both_sides_may_send_much_at_once(pair: tuple[Link, Link]) -> None:
    body = os.urandom(3 << 20)
    for link in pair:
        for step in range(3):
            link.post(Frame(Kind.STEP, 1, step, body=body))
    got: list[list[Frame]] = [[], []]
    threads = [
        threading.Thread(target=lambda i=i, link=link: got[i].extend(received(link, 3)))  # type: ignore[misc]
        for i, link in enumerate(pair)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert [[(f.step, bytes(f.body) == body) for f in side] for side in got] == [
        [(0, True), (1, True), (2, True)]
    ] * 2


@pytest.mark.parametrize("chunk", [1, 7, HEADER_BYTES, HEADER_BYTES + 1, 16_384])
def test_it_does_not_matter_how_the_bytes_are_cut(ends: Ends, chunk: int) -> None:
    link = Link(ends[0], "Cy")
    frames = [Frame(Kind.STEP, 1, step, b"meta", os.urandom(500)) for step in range(3)]
    data = b"".join(frame.head() + frame.meta + frame.body for frame in frames)
    sender = threading.Thread(
        target=lambda: [ends[1].sendall(data[at : at + chunk]) for at in range(0, len(data), chunk)]
    )
    sender.start()
    assert received(link, 3) == frames
    sender.join(SOON_S)


def test_a_body_is_sent_from_where_it_lies() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link, other = Link(ours, "Di"), Link(theirs, "Ed")
    body = bytearray(1 << 20)
    link.post(Frame(Kind.STEP, body=body))
    body[-1] = 7
    assert other.receive(SOON_S).body[-1] == 7
    link.close()
    other.close()


def test_bytes_are_counted_on_both_sides(pair: tuple[Link, Link]) -> None:
    left, right = pair
    frame = Frame(Kind.STEP, meta=b"meta", body=bytes(100_000))
    left.post(frame)
    right.receive(SOON_S)
    assert left.sent_bytes == right.received_bytes == HEADER_BYTES + 4 + 100_000


def test_the_kernel_is_asked_for_the_round_trip_only_where_there_is_a_network(
    pair: tuple[Link, Link],
) -> None:
    assert [link.network_rtt_s for link in pair] == [None, None]


def test_the_kernel_knows_the_round_trip_of_a_network_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = Link(socket.create_connection(server.getsockname()), "Fa")
        right = Link(server.accept()[0], "Gu")
    left.post(Frame(Kind.PING))
    right.receive(SOON_S)
    rtt_s = left.network_rtt_s
    assert rtt_s is None or 0 < rtt_s < 1
    left.close()
    assert left.network_rtt_s is None
    right.close()
