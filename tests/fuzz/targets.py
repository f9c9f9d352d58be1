"""What fuzzed bytes are fed to, and the valid examples that fuzzing begins with.

An input's first byte chooses. Each feed raises for anything but what the protocol states.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from sharedllm.wire import (
    HEADER_BYTES,
    VERSION,
    Adapter,
    Adopted,
    Attach,
    BadFrame,
    Codec,
    Fault,
    Frame,
    Hello,
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
    read_header,
)
from tests.fuzz.sessions import Target

_DEADLINE_S = 20.0
__all__ = ["feed", "feed_link", "feed_messages", "feed_readers", "seeds"]

_MESSAGES: list[type[Message]] = [Hello, Welcome, Open, Opened, Adapter, Adopted, Attach, Fault, Note, Pong]


def feed_readers(data: bytes) -> None:
    """A header, then what a step's meta would be, then rows."""
    with contextlib.suppress(BadFrame):
        header = read_header(data[:HEADER_BYTES])
        assert header.meta_bytes <= Limits().meta_bytes
        assert header.body_bytes <= Limits().body_bytes
    with contextlib.suppress(BadFrame):
        meta = StepMeta.from_bytes(data)
        assert StepMeta.from_bytes(meta.to_bytes()) == meta
    if len(data) > 3:
        with contextlib.suppress(BadFrame):
            decode(data[3:], Codec(data[0] % 3), data[1] % 8, data[2])


def feed_messages(data: bytes) -> None:
    """Every kind of message, from the same bytes."""
    for message in _MESSAGES:
        with contextlib.suppress(BadFrame):
            read = message.from_bytes(data)
            assert message.from_bytes(read.to_bytes()) == read


def feed_link(data: bytes) -> None:
    """A link whose other side sends these bytes and goes."""
    sock, other = socket.socketpair()
    link = Link(sock, "Ada")
    with other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            other.sendall(data)
    try:
        while True:
            frame = link.receive(_DEADLINE_S)
            assert len(frame.meta) <= link.limits.meta_bytes
    except (BadFrame, LinkClosed):
        pass
    finally:
        link.close()


def feeds(target: Target) -> list[Callable[[bytes], None]]:
    """What an input may be fed to; the engine twice, for it is the deepest."""
    return [feed_readers, feed_messages, feed_link, target.run, target.run]


def feed(target: Target, data: bytes) -> None:
    """Feed one input to what its first byte chooses."""
    if data:
        choices = feeds(target)
        choices[data[0] % len(choices)](data[1:])


def seeds() -> list[bytes]:
    """Inputs to begin with: one valid example of everything."""
    segments = (Segment(Op.FORK, 2, 5, source=1), Segment(Op.ROWS, 2, 5, 2, Want.ALL))
    meta = StepMeta(segments, Codec.FP16, 8, 2).to_bytes()
    frame = Frame(Kind.STEP, 3, 4, meta, bytes(32))
    whole = frame.head() + meta + bytes(32)
    messages = [
        Hello([VERSION]),
        Welcome(VERSION),
        Open("p", "toy", "ab", 0, 2, {"node": "self"}, {"1": "fp16"}),
        Opened(9, 9, 0.5, 1, True, 8, 2),
        Adapter(1, "ab", 1, 8),
        Adopted(1),
        Attach("p", 1),
        Fault("why", "here"),
        Note(1, "r"),
        Pong(0.5, 1, 2),
    ]
    quiet = b"\0\0"  # neither the admission nor the greeting is changed
    scripts = [
        b"\x01\x02\x00" + b"\x02\x00" * 4 + b"\x04\x0a\x00\x00",
        b"\x01\x02\x00\x03\x02" + b"\x01\x02\x05\x01\x00\x00" + b"\x00\x01\x03\x02\x00\x00" + b"\x00" * 10,
        b"\x01\x02\x00\x06\x00",
        b"\x07\x00\x00\x05\x01\x00",
        b"\x01\x02\x00\x08\x01\x02\x01\x00" + b"\x03\x01" + b"\x05\x00\x00\x01\x00\x01" + b"\x00" * 10,
        b"\x05\x01\x00\x01\x01\x00",
        b"\x00\x20" + b"GET / HTTP/1.1\r\n" * 2,
    ]
    return [
        *(b"\x00" + part for part in (frame.head(), meta, b"\x01\x02\x08" + bytes(32))),
        *(b"\x01" + message.to_bytes() for message in messages),
        *(b"\x02" + part for part in (whole, whole * 3, whole[:-1])),
        *(b"\x03" + quiet + script for script in scripts),
        b"\x03\x01\x05\x00\x07" + scripts[0],
    ]
