"""Non-blocking ends of a connection, plain or TLS, which pump and handshakes read and write alike.

TLS runs over memory buffers rather than a socket of its own: one system call then brings many records, and
one direction can be closed (``close_notify``) while the other goes on, which Python's TLS sockets can't do.

*Covered*: truncation (an end without ``close_notify`` is an error, never an orderly end); memory (at most
one buffer of ciphertext in either direction waits here). *Not covered*: two threads: an end belongs to one
event loop.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any, Protocol

__all__ = ["BUFFER_BYTES", "Channel", "PlainChannel", "TlsChannel"]

BUFFER_BYTES = 256 * 1024
_RECORD_BYTES = 16 * 1024
# what a stranger may make us hold before it is admitted
_SMALL_BYTES = 16 * 1024
_CONTROL_BYTES = 64 * 1024


class Channel(Protocol):
    """One end of a connection; what would wait raises ``BlockingIOError``, what broke other ``OSError``."""

    @property
    def buffered(self) -> bool:
        """Whether ``recv_into`` has something to give before the socket is readable again."""

    @property
    def unsent(self) -> bool:
        """Whether ``flush`` has something to send once the socket is writable."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def recv_into(self, view: memoryview) -> int:
        """Bytes put into ``view``; 0 when the other end has orderly ended its direction."""

    def send(self, view: memoryview) -> int:
        """Bytes taken from ``view``; they may be ``unsent`` for a while."""

    def flush(self) -> None:
        """Send what is unsent, as far as goes without waiting."""

    def close_write(self) -> None:
        """End this direction in order, after everything that was sent."""

    def close(self) -> None:
        """Give the descriptor back."""


class PlainChannel:
    """A stream socket, made non-blocking."""

    buffered = False
    unsent = False

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._socket = raw
        self.fileno = raw.fileno
        self.send = raw.send
        self.close = raw.close

    def recv_into(self, view: memoryview) -> int:
        """See ``Channel``."""
        return self._socket.recv_into(view)

    def flush(self) -> None:
        """See ``Channel``; the kernel holds what was sent."""

    def close_write(self) -> None:
        """See ``Channel``."""
        self._socket.shutdown(socket.SHUT_WR)


class TlsChannel:
    """A TLS session over a stream socket, made non-blocking; small reads until ``admit``."""

    def __init__(
        self, raw: socket.socket, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        raw.setblocking(False)
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._scratch = memoryview(bytearray(_SMALL_BYTES))
        self._unsent = memoryview(b"")
        self._stash = b""
        self._ended = False
        self.fileno = raw.fileno
        self.close = raw.close

    def admit(self) -> None:
        """From now on this end may use full buffers."""
        self._scratch = memoryview(bytearray(BUFFER_BYTES))

    @property
    def peer_certificate(self) -> bytes | None:
        """The other end's certificate (DER), once the handshake is done."""
        return self._session.getpeercert(True)

    @property
    def buffered(self) -> bool:
        """See ``Channel``."""
        return bool(self._ended or self._stash or self._incoming.pending or self._session.pending())

    @property
    def unsent(self) -> bool:
        """See ``Channel``."""
        return bool(self._unsent) or self._outgoing.pending > 0

    def handshake(self) -> bool:
        """Take the handshake as far as goes without waiting; whether it is done. Raises ``ssl.SSLError``."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                try:
                    self._receive()
                except BlockingIOError:
                    return False
            else:
                self.flush()
                return True

    def recv_into(self, view: memoryview) -> int:
        """See ``Channel``."""
        if self._stash:
            taken = min(len(view), len(self._stash))
            view[:taken], self._stash = self._stash[:taken], self._stash[taken:]
            return taken
        if not (filled := self._decrypt(view)) and not self._ended:
            self._receive()
            if not (filled := self._decrypt(view)) and not self._ended:
                raise BlockingIOError
        return filled

    def send(self, view: memoryview) -> int:
        """See ``Channel``."""
        self.flush()
        if self.unsent:
            raise BlockingIOError
        taken = self._session.write(view)
        self.flush()
        return taken

    def flush(self) -> None:
        """See ``Channel``."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent or self._outgoing.pending:
                if not self._unsent:
                    self._unsent = memoryview(self._outgoing.read())
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def close_write(self) -> None:
        """See ``Channel``."""
        # unwrap also looks for the other end's close_notify, and would stumble over data that came before it
        room = memoryview(bytearray(_RECORD_BYTES))
        while self._incoming.pending and not self._ended:
            if not (filled := self._decrypt(room)):
                break
            self._stash += bytes(room[:filled])
        with contextlib.suppress(ssl.SSLError):
            self._session.unwrap()
        self.flush()

    def hang_up(self) -> None:
        """Send nothing more, not even in TLS; what still arrives is for ``discard``."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def discard(self) -> int:
        """Read what arrived and forget it; how many bytes, 0 at the end."""
        return self._socket.recv_into(self._scratch)

    def _receive(self) -> None:
        received = self._socket.recv_into(self._scratch)
        if received == 0:
            raise ConnectionAbortedError("the other end went away without saying so")
        self._incoming.write(self._scratch[:received])

    def _decrypt(self, view: memoryview) -> int:
        filled = 0
        try:
            while (self._incoming.pending or self._session.pending()) and not self._ended:
                # a whole record always fits, so that none is left half-read in the session without need
                if filled and len(view) - filled < _RECORD_BYTES:
                    break
                # typed as bytes, but a count when a buffer is given
                received: Any = self._session.read(len(view) - filled, view[filled:])
                filled += received
                # the other end's close_notify, as it is told before we sent ours
                self._ended = received == 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        if self._outgoing.pending:
            if self._unsent and self._outgoing.pending > _CONTROL_BYTES:
                raise ConnectionAbortedError("the other end asks for new keys without end and reads none")
            self.flush()
        return filled
