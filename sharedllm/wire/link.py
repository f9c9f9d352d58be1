"""One connection that carries frames: any thread may send, one thread receives.

Works over a TLS socket and over a plain one. OpenSSL lets two threads use one connection only in turn, so
each call into it holds a lock and none of them blocks: waiting is done outside, by ``poll``.

*Covered*: frames larger than the limits, an end in the middle of a frame, a side that does not read (sending
never blocks a caller of ``post``: what the socket does not take waits in an outbox of bounded size, and a
thread empties it). *Not covered*: encryption and who is there (the socket was made by whoever knows).
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque

from sharedllm.wire.errors import LinkClosed
from sharedllm.wire.frames import HEADER_BYTES, Frame, read_header
from sharedllm.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Link"]

_TOGETHER_BYTES = 64 << 10  # up to here header, meta and body are one write, hence one TLS record or few
_TCP_INFO_BYTES = 152  # of Linux' struct tcp_info, up to and with tcpi_min_rtt (since 4.6)
_WAKE_S = 1.0  # a waiting thread looks this often whether the link was closed under it


class Link:
    """Frames over ``sock``, which now belongs to the link. ``name`` says in errors who is there."""

    def __init__(self, sock: socket.socket, name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name, self.limits = name, limits
        self.sent_bytes = self.received_bytes = 0
        self._sock = sock
        self._calls = threading.Lock()  # around each call into the socket
        self._order = threading.RLock()  # around the outbox
        self._outbox: deque[memoryview] = deque()
        self._outbox_bytes = 0
        self._flusher: threading.Thread | None = None
        self._buffer, self._begin, self._end = bytearray(_TOGETHER_BYTES), 0, 0
        self._closed = self._broken = False  # broken: nothing can be sent, but the reason may wait to be read

    @property
    def closed(self) -> bool:
        """Whether this side closed the link, or found it broken."""
        return self._closed or self._broken

    @property
    def network_rtt_s(self) -> float | None:
        """The least round trip that the kernel saw on this connection; None where it does not say."""
        if self._sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return None
        with self._calls:
            try:
                info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            except OSError:
                return None
        if len(info) < _TCP_INFO_BYTES:
            return None
        return int.from_bytes(info[-4:], sys.byteorder) / 1e6  # tcpi_min_rtt, in µs

    def post(self, frame: Frame) -> None:
        """Send without waiting. Raises ``LinkClosed`` if the link is down or its outbox full: then it is."""
        head, body = frame.head() + frame.meta, memoryview(frame.body).cast("B")
        if len(head) + body.nbytes <= _TOGETHER_BYTES:
            parts = [memoryview(head + body)]
        else:
            parts = [memoryview(head), body] if body else [memoryview(head)]
        with self._order:
            if self.closed:
                raise LinkClosed(f"The connection to {self.name} is closed.")
            if self._outbox_bytes + sum(map(len, parts)) > self.limits.outbox_bytes:
                waiting = self._outbox_bytes
                self.close()  # a frame is lost, so what would come after it is worthless
                raise LinkClosed(f"{self.name} takes no data: {waiting:,} bytes wait for it.")
            self._outbox.extend(parts)
            self._outbox_bytes += sum(map(len, parts))
            if self._flusher is None and not self._flush():
                self._flusher = threading.Thread(target=self._drain, name=f"to {self.name}", daemon=True)
                self._flusher.start()

    def receive(self, timeout_s: float | None = None) -> Frame:
        """Wait for a whole frame. Raises ``LinkClosed`` or ``TimeoutError``, and is closed.

        Raises ``BadFrame`` for what is no frame; then nothing more can be received, but the reason be posted.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        head = bytearray(HEADER_BYTES)
        self._fill(memoryview(head), deadline_s)
        header = read_header(head, self.limits)
        meta, body = bytearray(header.meta_bytes), bytearray(header.body_bytes)
        self._fill(memoryview(meta), deadline_s)
        self._fill(memoryview(body), deadline_s)
        self.received_bytes += HEADER_BYTES + len(meta) + len(body)
        return Frame(header.kind, header.epoch, header.step, bytes(meta), body)

    def close(self) -> None:
        """End the connection; every waiting thread gets ``LinkClosed``. May be called twice."""
        with self._order:
            if self._closed:
                return
            self._closed = True
            self._forget()
        with self._calls, contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        with self._calls, contextlib.suppress(OSError):
            self._sock.close()

    def _fill(self, view: memoryview, deadline_s: float | None) -> None:
        """Fill ``view`` with what comes next: through the buffer if it is small, else directly."""
        while view:
            if self._begin < self._end:
                taken = min(len(view), self._end - self._begin)
                view[:taken] = self._buffer[self._begin : self._begin + taken]
                self._begin, view = self._begin + taken, view[taken:]
            elif len(view) >= len(self._buffer):
                view = view[self._read(view, deadline_s) :]
            else:
                self._begin, self._end = 0, self._read(memoryview(self._buffer), deadline_s)

    def _read(self, view: memoryview, deadline_s: float | None) -> int:
        while True:
            waiting_for = select.POLLIN
            try:
                with self._calls:
                    count = self._sock.recv_into(view)
                if count == 0:
                    raise LinkClosed(f"{self.name} ended the connection.")
                return count
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                waiting_for = select.POLLOUT
            except LinkClosed:
                self.close()
                raise
            except (OSError, ValueError) as error:
                self.close()
                raise LinkClosed(f"The connection to {self.name} broke ({error}).") from error
            self._wait(waiting_for, deadline_s)

    def _wait(self, events: int, deadline_s: float | None) -> None:
        """Wait until the socket may be ready. Raises ``LinkClosed`` and ``TimeoutError``."""
        left_s = _WAKE_S if deadline_s is None else min(_WAKE_S, deadline_s - time.monotonic())
        if left_s <= 0:
            self.close()
            raise TimeoutError(f"{self.name} said nothing in time.")
        handle = self._sock.fileno()
        if self._closed or handle < 0:
            raise LinkClosed(f"The connection to {self.name} is closed.")
        poll = select.poll()
        poll.register(handle, events)
        poll.poll(left_s * 1000)

    def _flush(self) -> bool:
        """Send what the socket takes at once; say whether the outbox is empty. ``_order`` is held."""
        while self._outbox:
            part = self._outbox[0]
            try:
                with self._calls:
                    count = self._sock.send(part)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except (OSError, ValueError) as error:
                self._broken = True
                self._forget()
                raise LinkClosed(f"The connection to {self.name} broke ({error}).") from error
            self.sent_bytes += count
            self._outbox_bytes -= count
            if count == len(part):
                self._outbox.popleft()
            else:
                self._outbox[0] = part[count:]
        return True

    def _forget(self) -> None:
        self._outbox.clear()
        self._outbox_bytes = 0

    def _drain(self) -> None:
        """Empty the outbox, in a thread of its own that ends with it."""
        while True:
            with self._order:
                try:
                    if self._closed or self._flush():
                        self._flusher = None
                        return
                except LinkClosed:
                    self._flusher = None
                    return
            with contextlib.suppress(LinkClosed):
                self._wait(select.POLLOUT, None)
