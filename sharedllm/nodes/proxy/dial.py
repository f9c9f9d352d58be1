"""Calling a worker: race its addresses, verify its node id, hand in the ticket, return the TLS socket.

The race is that of RFC 8305 (happy eyeballs): LAN first, the next candidate after a head start or as soon as
one fails, and the first that proves to be the expected node wins. Addresses are hints from a directory; the
certificate decides.

*Covered*: an address that leads elsewhere, hangs, or dribbles bytes; all within one deadline. *Not covered*:
two threads on one TLS socket: whoever reads in one and writes in another must not do both at once (OpenSSL's
rule).
"""

from __future__ import annotations

import collections
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import DialFailed, NotAdmitted, TicketRefused
from sharedllm.nodes.identity import Identity, read_peer
from sharedllm.nodes.proxy.endpoints import Endpoint, in_order
from sharedllm.nodes.proxy.framing import ADMITTED, SENTENCE_BYTES, frame, length_of
from sharedllm.nodes.proxy.relayed import reach

__all__ = ["HEAD_START_S", "dial"]

HEAD_START_S = 0.15


def dial(
    endpoints: Sequence[Endpoint], ticket: str, *, expect: str, identity: Identity, deadline_s: float
) -> ssl.SSLSocket:
    """A connection to node ``expect``, admitted with ``ticket``; blocking, without a timeout.

    Raises ``DialFailed`` (which addresses failed, and how) or ``TicketRefused`` (in the worker's words).
    """
    end = time.monotonic() + deadline_s
    connected = _race(in_order(endpoints), expect, identity, end)
    try:
        _hand_in(connected, ticket, end)
        connected.settimeout(None)
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError):
            raise DialFailed(f"Node {expect} answered but did not admit us: {_reason(error)}.") from None
        raise
    return connected


@dataclass
class _Attempt:
    endpoint: Endpoint
    connected: ssl.SSLSocket | None
    failure: str = ""


class _Finish:
    """Where attempts arrive; after the race is over, late winners are closed at the door."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[_Attempt] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._over = False

    def arrive(self, attempt: _Attempt) -> None:
        with self._lock:
            if not self._over:
                self._arrived.put(attempt)
            elif attempt.connected is not None:
                attempt.connected.close()

    def next(self, timeout_s: float) -> _Attempt | None:
        try:
            return self._arrived.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        with self._lock:
            self._over = True
        while (attempt := self.next(0.0)) is not None:
            if attempt.connected is not None:
                attempt.connected.close()


def _race(candidates: list[Endpoint], expect: str, identity: Identity, end: float) -> ssl.SSLSocket:
    finish = _Finish()
    waiting = collections.deque(candidates)
    running: list[Endpoint] = []
    failures: list[str] = []
    start_next = 0.0
    try:
        while (waiting or running) and time.monotonic() < end:
            if waiting and (not running or time.monotonic() >= start_next):
                running.append(waiting.popleft())
                start_next = time.monotonic() + HEAD_START_S
                threading.Thread(
                    target=_attempt,
                    args=(finish, running[-1], expect, identity, end),
                    name="dial",
                    daemon=True,
                ).start()
                continue
            attempt = finish.next((min(end, start_next) if waiting else end) - time.monotonic())
            if attempt is None:
                continue
            if attempt.connected is not None:
                return attempt.connected
            running.remove(attempt.endpoint)
            failures.append(f"{attempt.endpoint}: {attempt.failure}")
            start_next = 0.0
    finally:
        finish.close()
    failures += [f"{endpoint}: no answer in time" for endpoint in running]
    told = "; ".join(failures) or "no address of it is known"
    raise DialFailed(f"Node {expect} can't be reached ({told}). Is it on, and is its port open?")


def _attempt(finish: _Finish, endpoint: Endpoint, expect: str, identity: Identity, end: float) -> None:
    try:
        finish.arrive(_Attempt(endpoint, _connect(endpoint, expect, identity, end)))
    except (OSError, SharedLLMError) as error:
        finish.arrive(_Attempt(endpoint, None, _reason(error)))


def _connect(endpoint: Endpoint, expect: str, identity: Identity, end: float) -> ssl.SSLSocket:
    raw = _reach(endpoint, expect, identity, end)
    with raw:
        connected = identity.wrap_socket(identity.client, raw)
    try:
        connected.settimeout(_left(end))
        connected.do_handshake()
        found = read_peer(connected.getpeercert(True))
        if found.id != expect:
            raise NotAdmitted(f"it is node {found.id}")
    except BaseException:
        connected.close()
        raise
    return connected


def _reach(endpoint: Endpoint, expect: str, identity: Identity, end: float) -> socket.socket:
    if endpoint.kind == "relay":
        return reach(identity, endpoint, expect, end)
    raw = socket.create_connection((endpoint.host, endpoint.port), timeout=_left(end))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return raw


def _hand_in(connected: ssl.SSLSocket, ticket: str, end: float) -> None:
    connected.settimeout(_left(end))
    connected.sendall(frame(ticket.encode()))
    answer = _exactly(connected, 1, end)
    if answer == ADMITTED:
        return
    if answer != b"\x01":
        raise ConnectionAbortedError("it answered neither yes nor no")
    length = length_of(_exactly(connected, 4, end), SENTENCE_BYTES, "sentence")
    raise TicketRefused(_exactly(connected, length, end).decode(errors="replace"))


def _exactly(connected: ssl.SSLSocket, count: int, end: float) -> bytes:
    received = b""
    while len(received) < count:
        connected.settimeout(_left(end))
        more = connected.recv(count - len(received))
        if not more:
            raise ConnectionAbortedError("it hung up")
        received += more
    return received


def _left(end: float) -> float:
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no answer in time")
    return left_s


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not of this federation"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)
