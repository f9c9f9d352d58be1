"""The coordinator's process: uvicorn under TLS 1.3, with each connection's certificate handed to the routes.

*Covered*: half-open connections (a handshake has 5 s, the first request 10 s), more than 1,024 connections
(answered 503), a certificate that needs renewal while it serves, SIGTERM (answers what it was asked, writes
what it knows, ends). *Not covered*: a flood of handshakes that fills the link; that is a firewall's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from sharedllm import __version__
from sharedllm.errors import SharedLLMError
from sharedllm.nodes.coordinator.app import create_app
from sharedllm.nodes.coordinator.database import open_database
from sharedllm.nodes.coordinator.library import Shelf
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.gossip import Lease, Service
from sharedllm.nodes.identity import Authority, Identity, Peer, enrol, server_context
from sharedllm.nodes.operations import Health, metrics
from sharedllm.nodes.proxy import Event, Relay
from sharedllm.nodes.trust import Quorum

__all__ = ["CoordinatorSettings", "PortTaken", "serve"]

_HANDSHAKE_S = 5.0
_GOODBYE_S = 1.0
_FIRST_REQUEST_S = 10.0
_CONNECTIONS = 1_024
_UPKEEP_S = 5.0

_log = logging.getLogger(__name__)


class PortTaken(SharedLLMError):
    """The address to listen on is another program's, or not this machine's."""


@dataclasses.dataclass(frozen=True)
class CoordinatorSettings:
    """Where a coordinator listens and keeps its state.

    ``tls_cert`` and ``tls_key`` are shown to browsers and other strangers; nodes pin the federation's own.
    ``gossip``: the address to tell others, and the port to gossip at. ``operations``: where ``/healthz``,
    ``/readyz`` and ``/metrics`` are answered without TLS. ``library_bytes``: the most that published models
    may take, in ``state``.
    """

    state: Path
    host: str = "0.0.0.0"
    port: int = 8420
    database_url: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    relay_port: int | None = None
    gossip: tuple[str, int] | None = None
    operations: tuple[str, int] | None = None
    library_bytes: int = 8 << 30


def serve(settings: CoordinatorSettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the address once it listens (None: print it).

    Founds the federation if ``state`` holds none. Raises ``PortTaken``, ``DatabaseRefused``, ``NotAdmitted``
    for files that don't belong together.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SharedLLMError("A public certificate needs its key: give --tls-cert and --tls-key, or none.")
    authority = Authority.load_or_create(settings.state)
    identity = enrol(authority, settings.state, "coordinator")
    metrics.node.info({"role": "coordinator", "name": identity.id, "version": __version__})
    engine = open_database(settings.state, settings.database_url)
    try:
        coordinator = Coordinator(engine, authority)
        with _listening(settings.host, settings.port) as listener, _operations(settings, coordinator):
            shown = settings.host if settings.host not in ("0.0.0.0", "::", "") else "127.0.0.1"
            port = listener.getsockname()[1]
            url = f"https://[{shown}]:{port}" if ":" in shown else f"https://{shown}:{port}"
            server = _Server(settings, coordinator, identity, listener, lambda: (ready or _print)(url))
            server.run()
            coordinator.registry.flush()
    finally:
        engine.dispose()


def _print(url: str) -> None:
    print(f"ready {url}", flush=True)


class _Server(uvicorn.Server):
    """uvicorn with our TLS, a short handshake, and the upkeep that runs beside it."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        coordinator: Coordinator,
        identity: Identity,
        listener: socket.socket,
        ready: Callable[[], None],
    ) -> None:
        self._coordinator, self._identity, self._settings = coordinator, identity, settings
        self._listener, self._ready = listener, ready
        self._relay: Relay | None = None
        self._gossip: Service | None = None
        self._shelf = Shelf(settings.state / "library", settings.library_bytes)
        public = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            public = (settings.tls_cert, settings.tls_key)
        context = server_context(identity, client_certificates="optional", public=public)
        config = uvicorn.Config(
            create_app(coordinator, self._shelf),
            http=_Protocol,
            ws="none",
            lifespan="off",
            ssl_context_factory=lambda _config, _default: context,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=32 * 1024,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but the signal is not raised again at the end: what is known is yet to be written."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a handshake that may take 5 s instead of 60."""
        await self.lifespan.startup()
        server = await asyncio.get_running_loop().create_server(
            functools.partial(_Protocol, self.config, self.server_state, self.lifespan.state),
            sock=self._listener,
            ssl=self.config.ssl,
            backlog=self.config.backlog,
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_GOODBYE_S,
        )
        self.servers = [server]
        if self._settings.relay_port is not None:
            await self._start_relay(self._settings.relay_port)
        if self._settings.gossip is not None:
            self._start_gossip(*self._settings.gossip)
        self.started = True
        self._ready()

    async def main_loop(self) -> None:
        """As uvicorn's, with the upkeep beside it, and the relay until its end."""
        async with _beside(self._upkeep()):
            await super().main_loop()
        if self._relay is not None:
            await self._relay.close()
        if self._gossip is not None:
            await asyncio.to_thread(self._gossip.stop)

    async def _start_relay(self, port: int) -> None:
        self._relay = Relay(self._identity, admit=self._admit, on_event=_count)
        try:
            heard = await self._relay.serve(self._settings.host, port)
        except OSError as error:
            raise _taken(self._settings.host, port, "--relay-port", error) from error
        self._coordinator.relay = self._identity.id, heard

    def _start_gossip(self, advertised: str, port: int) -> None:
        quorum = Quorum(self._settings.state, self._coordinator.expel)
        self._gossip = Service(
            self._identity,
            lambda host, heard: Lease("coordinator", host, heard),
            host=self._settings.host,
            port=port,
            advertised=advertised,
            published=self._shelf.manifests,
            refuses=lambda node: quorum.expelled(node) or self._coordinator.registry.is_revoked(node),
            each_round=quorum.review,
            memory=self._settings.state / "nodes.json",
        )
        me = self._gossip.start()
        self._coordinator.gossip = me.id, me.port

    def _admit(self, peer: Peer) -> None:
        """The relay's question about a proven peer."""
        if self._coordinator.registry.is_revoked(peer.id):
            raise TicketRefused(f"Node {peer.id} was revoked by the federation's operator.")

    async def _upkeep(self) -> None:
        """Renew the coordinator's own certificate in time, keep the gauges, cut the revoked off the relay."""
        authority = Authority.load_or_create(self._settings.state)
        while True:
            await asyncio.sleep(_UPKEEP_S)
            self._coordinator.collect()
            if self._identity.peer.renew_in_s(self._coordinator.registry.clock()) == 0:
                enrol(authority, self._settings.state, "coordinator")
                self._identity.reload()
                _log.info("the coordinator's certificate was renewed")
            for revoked in self._coordinator.registry.revoked():
                if self._relay is not None:
                    self._relay.cut(revoked)
                if self._gossip is not None:
                    self._gossip.expel(revoked)


class _Protocol(H11Protocol):
    """Hands the peer's certificate to the routes, and hangs up on who connects and asks nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience = self.loop.call_later(_FIRST_REQUEST_S, self._hang_up)
        session = transport.get_extra_info("ssl_object")
        der = session.getpeercert(True) if session is not None else None
        routes = self.app

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            self._patience.cancel()
            scope.setdefault("extensions", {})["sharedllm"] = {"peer_der": der}
            await routes(scope, receive, send)

        self.app = with_peer

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        self.transport.abort()


@contextlib.asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, and as many open files as this process may have."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise _taken(host, port, "--port", error) from error
    with listener:
        yield listener


def _taken(host: str, port: int, option: str, error: OSError) -> PortTaken:
    return PortTaken(
        f"The coordinator can't listen on port {port} of {host} ({error.strerror}); is another one running? "
        f"Give another with {option}, or another address with --host."
    )


def _count(event: Event) -> None:
    metrics.relay_bytes.inc(event.in_bytes + event.out_bytes)


@contextlib.contextmanager
def _operations(settings: CoordinatorSettings, coordinator: Coordinator) -> Iterator[None]:
    if settings.operations is None:
        yield
        return
    host, port = settings.operations
    with Health(coordinator.ready, host, port):
        yield
