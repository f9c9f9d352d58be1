"""The HTTP server under the app: on time with those who dawdle, and with its own end.

*Covered*: a connection that does not finish its request's head, or idles, is closed; when too many have not,
the oldest goes first, so that others are still let in; SIGTERM ends streams of state at once and gives
generations time to finish. *Not covered*: TLS; a primary listens on loopback, or behind a proxy that has it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from sharedllm.nodes.operations import BadSetting, PortTaken

__all__ = ["Server", "make_server"]

HEAD_S = 10.0
MAX_WAITING = 256
_BACKLOG = 1024


def make_server(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    drain_s: float = 30.0,
    ready: Callable[[str], None] | None = None,
) -> Server:
    """Bind, and return the server to ``run``; ``ready`` is told its address once it serves.

    Raises ``PortTaken``, and ``BadSetting`` for an address within other machines' reach without an API key.
    """
    if not app.state.guarded and not _is_loopback(host):
        raise BadSetting(
            f"Listening on {host} lets other machines in, and no API key is set; set one, or listen on "
            "127.0.0.1."
        )
    return Server(app, host, port, drain_s, ready)


class Server(uvicorn.Server):
    """A bound server; ``run`` serves until SIGTERM, or until ``should_exit`` is set from any thread."""

    def __init__(
        self, app: FastAPI, host: str, port: int, drain_s: float, ready: Callable[[str], None] | None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_Punctual,
            ws="none",
            lifespan="off",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(drain_s)),
        )
        super().__init__(config)
        self._closing: asyncio.Event = app.state.closing
        self._ready = ready
        self._socket = _bound(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; blocks."""
        super().run([self._socket])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving and return from ``run``: raised again, as usual, a signal would kill the caller there,
        before it ended its own affairs.
        """
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)


class _Punctual(H11Protocol):
    """A connection that is closed when it takes longer than ``HEAD_S`` to ask for something."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # kept in the state that all connections of one server share, oldest first
        shared = vars(self.server_state)
        self._waiting: dict[_Punctual, asyncio.TimerHandle] = shared.setdefault("waiting", {})
        self._served = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._served = True
        if not self.transport.is_closing() and self.cycle.response_complete:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting[self] = self.loop.call_later(HEAD_S, self.transport.abort)
        if len(self._waiting) > MAX_WAITING:
            # a client that was served before and may come again is the last to go
            oldest = min(self._waiting, key=lambda waiting: waiting._served)
            oldest._stop_waiting()  # its loss is heard of later, and the next to come must not count it
            oldest.transport.abort()

    def _stop_waiting(self) -> None:
        timer = self._waiting.pop(self, None)
        if timer is not None:
            timer.cancel()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named: unnamed, each token waits 40 ms
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise PortTaken(
            f"Port {port} of {host} can't be listened on ({error.strerror}); stop the other program that "
            "uses it, or give another port."
        ) from error
    return made


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
