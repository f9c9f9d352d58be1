"""How a connection begins: what the proxy says of the caller, then the version that both speak.

*Covered*: an admission that is too long, late, cut short or no admission; versions that do not meet.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from sharedllm.engines.errors import NotServed
from sharedllm.engines.sessions import Admission
from sharedllm.wire import VERSION, BadFrame, Fault, Frame, Hello, Kind, Link, LinkClosed, Welcome

__all__ = ["greet", "read_admission", "refuse", "welcome"]

_LENGTH = struct.Struct(">I")
_ADMISSION_BYTES = 4096
_GREETING_S = 5.0


def greet(link: Link) -> None:
    """Agree on a version, as the caller. Raises ``BadFrame``, ``LinkClosed``, ``TimeoutError``."""
    link.post(Frame(Kind.HELLO, meta=Hello([VERSION]).to_bytes()))
    reply = link.receive(_GREETING_S)
    if reply.kind is Kind.FAULT:
        raise NotServed(Fault.from_bytes(reply.meta).sentence)
    if reply.kind is not Kind.WELCOME or Welcome.from_bytes(reply.meta).version != VERSION:
        raise BadFrame(f"{link.name} answered a greeting with {reply.kind.name}.")


def welcome(link: Link) -> None:
    """Agree on a version, as the callee. Raises ``NotServed`` and what ``Link.receive`` raises."""
    hello = link.receive(_GREETING_S)
    if hello.kind is not Kind.HELLO or VERSION not in Hello.from_bytes(hello.meta).versions:
        raise NotServed(f"This node speaks version {VERSION} of the protocol; the caller does not.")
    link.post(Frame(Kind.WELCOME, meta=Welcome(VERSION).to_bytes()))


def read_admission(sock: socket.socket) -> Admission:
    """What the proxy says of the caller. Raises ``OSError``, ``BadFrame``."""
    sock.settimeout(_GREETING_S)
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > _ADMISSION_BYTES:
        raise BadFrame(f"An admission announces {length:,} bytes; at most {_ADMISSION_BYTES:,} are taken.")
    return Admission.from_bytes(_exactly(sock, length))


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise BadFrame("An admission ended early.")
        data += more
    return data


def refuse(link: Link, sentence: str) -> None:
    """Tell the caller why not, if it still listens."""
    with contextlib.suppress(LinkClosed):
        link.post(Frame(Kind.FAULT, meta=Fault(sentence[:1000], "request").to_bytes()))
