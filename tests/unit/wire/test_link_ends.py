"""A link that ends, stalls or talks nonsense closes itself, and says why in a sentence."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from sharedllm.wire import BadFrame, Frame, Kind, Limits, Link, LinkClosed
from tests.unit.wire.connections import Ends

SOON_S = 20.0
WHOLE = Frame(Kind.STEP, 1, 1, b"meta", b"body" * 30_000)


def outcome(act: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Run ``act`` in a thread of its own; what it raises is kept."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def post_many(link: Link, frame: Frame) -> None:
    for _ in range(100):
        link.post(frame)


@pytest.mark.parametrize("cut", [0, 1, 27, 28, 30, 32, 70_000])
def test_an_end_in_the_middle_of_a_frame_closes_the_link(ends: Ends, cut: int) -> None:
    link = Link(ends[0], "Ada")
    data = WHOLE.head() + WHOLE.meta + bytes(WHOLE.body)
    _, raised = outcome(lambda: (ends[1].sendall(data[:cut]), Link(ends[1], "Bo").close()))
    with pytest.raises(LinkClosed, match="Ada"):
        link.receive(SOON_S)
    assert link.closed
    assert not raised


@pytest.mark.parametrize("cut", [0, 5, 30, 40_000])
def test_a_side_that_stops_in_the_middle_is_not_waited_for(ends: Ends, cut: int) -> None:
    link = Link(ends[0], "Ada")
    ends[1].sendall((WHOLE.head() + WHOLE.meta + bytes(WHOLE.body))[:cut])
    with pytest.raises(TimeoutError, match="Ada said nothing in time"):
        link.receive(0.05)
    assert link.closed
    with pytest.raises(LinkClosed):
        link.receive(0.05)


def test_closing_wakes_whoever_waits(pair: tuple[Link, Link]) -> None:
    left, _ = pair
    entered = threading.Event()
    original = left._wait

    def noticed(events: int, deadline_s: float | None) -> None:
        entered.set()
        original(events, deadline_s)

    left._wait = noticed  # type: ignore[method-assign]
    thread, raised = outcome(left.receive)
    assert entered.wait(SOON_S)
    left.close()
    thread.join(SOON_S)
    assert [type(error) for error in raised] == [LinkClosed]


def test_a_closed_link_may_be_closed_again_but_takes_nothing(pair: tuple[Link, Link]) -> None:
    left, right = pair
    left.close()
    left.close()
    with pytest.raises(LinkClosed, match="Ada is closed"):
        left.post(Frame(Kind.PING))
    with pytest.raises(LinkClosed):
        left.receive(SOON_S)
    with pytest.raises(LinkClosed, match="Bo"):
        right.receive(SOON_S)


def test_a_side_that_does_not_read_fills_the_outbox_and_is_given_up(ends: Ends) -> None:
    link = Link(ends[0], "Ada", Limits(outbox_bytes=1 << 20))
    with pytest.raises(LinkClosed, match="Ada takes no data"):
        post_many(link, Frame(Kind.STEP, body=bytes(200_000)))
    assert link.closed
    assert link._outbox_bytes == 0
    assert not link._outbox


def test_posting_to_one_that_is_gone_closes_the_link(ends: Ends) -> None:
    link = Link(ends[0], "Ada")
    Link(ends[1], "Bo").close()
    with pytest.raises(LinkClosed, match="Ada"):
        post_many(link, Frame(Kind.PING))
    assert link.closed
    link.close()
    assert ends[0].fileno() == -1


def test_the_last_words_of_one_that_is_gone_can_still_be_read(ends: Ends) -> None:
    link, other = Link(ends[0], "Ada"), Link(ends[1], "Bo")
    other.post(Frame(Kind.FAULT, meta=b"why"))
    other.close()
    with pytest.raises(LinkClosed, match="Ada"):
        post_many(link, Frame(Kind.PING))
    assert link.receive(SOON_S).meta == b"why"
    with pytest.raises(LinkClosed, match="Ada"):
        link.receive(SOON_S)
    assert ends[0].fileno() == -1


def test_one_that_goes_while_much_waits_for_it_closes_the_link(ends: Ends) -> None:
    link = Link(ends[0], "Ada")
    link.post(Frame(Kind.STEP, body=bytes(20 << 20)))
    flusher = link._flusher
    assert flusher is not None
    Link(ends[1], "Bo").close()
    flusher.join(SOON_S)
    assert link.closed
    assert not link._outbox


def test_one_that_talks_nonsense_can_still_be_told_so(ends: Ends) -> None:
    link, other = Link(ends[0], "Ada"), Link(ends[1], "Bo")
    older = bytearray(Frame(Kind.HELLO).head())
    older[2] = 9
    other._sock.send(older)
    with pytest.raises(BadFrame, match="Update the older node"):
        link.receive(SOON_S)
    link.post(Frame(Kind.FAULT))
    assert other.receive(SOON_S).kind is Kind.FAULT
    link.close()
    other.close()


def test_an_oversized_frame_is_refused_at_its_header_without_taking_memory(ends: Ends) -> None:
    link = Link(ends[0], "Ada")
    head = bytearray(Frame(Kind.STEP).head())
    head[8:12] = b"\xff" * 4
    ends[1].sendall(bytes(head) + os.urandom(1000))
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame, match="4,294,967,295"):
            link.receive(SOON_S)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_no_body_is_taken_where_none_may_come(ends: Ends) -> None:
    link = Link(ends[0], "Ada", Limits(body_bytes=0))
    ends[1].sendall(Frame(Kind.OPEN, meta=b"{}").head() + b"{}" + Frame(Kind.STEP, body=b"1").head())
    assert link.receive(SOON_S).meta == b"{}"
    with pytest.raises(BadFrame, match="at most 65,536 and 0"):
        link.receive(SOON_S)
