"""A port that only proven nodes get past, with every resource of the unproven bounded.

Accept, TLS with a client certificate, then whatever ``greet`` asks, all within one deadline. Proxy and relay
differ in ``greet`` alone.

*Covered*: slow-loris in TLS or after it (one deadline for the whole), floods of half-open connections (the
oldest unfinished is dropped for the newest; established ones are not counted), too many connections of one
peer, running out of descriptors, a revoked peer (``cut``). *Not covered*: a flood faster than one handshake
takes, and bandwidth: the operating system's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from sharedllm.nodes.errors import NotAdmitted, TicketRefused
from sharedllm.nodes.identity import Identity, Peer, read_peer, server_context
from sharedllm.nodes.proxy.channel import TlsChannel
from sharedllm.nodes.proxy.framing import handshake, readable, refuse
from sharedllm.nodes.proxy.splice import Traffic

__all__ = ["Event", "Greet", "Limits", "Listener", "Session"]

_BACKLOG = 4096
_ACCEPTS_PER_TURN = 64
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S = 0.05


class Session(Protocol):
    """What an admitted connection is used for."""

    async def run(self) -> Traffic:
        """Use it until it ends."""

    def close(self) -> None:
        """Give back everything it holds, also if it never ran; once or more."""


Greet = Callable[[TlsChannel, Peer], Awaitable[Session]]


@dataclass(frozen=True)
class Limits:
    """What a port allows: time for the whole handshake, how many unfinished, how many per node, idle time."""

    handshake_s: float = 5.0
    handshakes: int = 1024
    connections_per_peer: int = 64
    idle_s: float = 600.0


@dataclass(frozen=True)
class Event:
    """What happened to a connection, for metrics: ``kind`` is admitted, refused, dropped, cut or ended."""

    kind: str
    peer: str = ""
    sentence: str = ""
    in_bytes: int = 0
    out_bytes: int = 0


class Listener:
    """Accepts connections and hands proven ones to ``greet``; it belongs to the event loop it listens in."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        greet: Greet,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._identity, self._limits, self._greet = identity, limits, greet
        self._tell = on_event or (lambda event: None)
        self._context = server_context(identity, client_certificates="required")
        self._socket: socket.socket | None = None
        self._unfinished: dict[asyncio.Task[None], None] = {}  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._peers: dict[str, set[asyncio.Task[None]]] = {}
        self._draining = False

    async def listen(self, host: str, port: int) -> int:
        """Listen on ``host``:``port`` (0: any) and return the port. Raises ``OSError`` when it is taken."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._socket = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._accept)
        return int(self._socket.getsockname()[1])

    def adopt(self, raw: socket.socket) -> None:
        """Treat ``raw`` as a connection that was just accepted."""
        while len(self._unfinished) >= self._limits.handshakes:
            self._drop_oldest()
        task = asyncio.get_running_loop().create_task(self._serve(raw))
        self._unfinished[task] = None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # not the task's own work: one that is dropped before its first step does none
        task.add_done_callback(lambda _: raw.close())

    def cut(self, peer_id: str) -> int:
        """End every connection of a node at once (it was revoked); how many there were."""
        tasks = list(self._peers.get(peer_id, ()))
        for task in tasks:
            task.cancel()
        return len(tasks)

    def drain(self) -> None:
        """Refuse whatever is new, with a sentence; what is established goes on."""
        self._draining = True

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many connections are past their certificate."""
        return sum(map(len, self._peers.values()))

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._socket is None:
                return
            try:
                raw, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._make_room()
                return
            self.adopt(raw)

    def _make_room(self) -> None:
        """Free descriptors by dropping a quarter of the unfinished: an admitted caller needs a second one."""
        for _ in range(len(self._unfinished) // 4 + 1):
            self._drop_oldest()
        if self._unfinished:
            return
        # the port stays readable, and asking again at once would find no descriptor either
        loop, listening = asyncio.get_running_loop(), self._socket
        if listening is not None:
            loop.remove_reader(listening.fileno())
            loop.call_later(_PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if self._socket is listening:
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._unfinished), None)
        if oldest is not None:
            del self._unfinished[oldest]
            oldest.cancel()
            self._tell(Event("dropped", sentence="Too many were unfinished; this was the oldest."))

    async def _serve(self, raw: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer: Peer | None = None
        session: Session | None = None
        try:
            try:
                async with asyncio.timeout(self._limits.handshake_s):
                    channel, peer = await self._prove(raw)
                    session = await self._admit(channel, peer, task)
            except TimeoutError:
                raise TimeoutError(f"Not finished within {self._limits.handshake_s:g} s.") from None
            self._unfinished.pop(task, None)
            self._tell(Event("admitted", peer.id))
            traffic = await session.run()
            self._tell(Event("ended", peer.id, traffic.fault, traffic.left_bytes, traffic.right_bytes))
        except (OSError, NotAdmitted, TicketRefused) as error:
            sentence = str(error) or type(error).__name__
            kind = "dropped" if isinstance(error, OSError) else "refused"
            self._tell(Event(kind, peer.id if peer else "", sentence))
        except asyncio.CancelledError:
            if session is not None and peer is not None:
                self._tell(Event("cut", peer.id))
            raise
        finally:
            self._unfinished.pop(task, None)
            if session is not None:
                session.close()
            if peer is not None:
                self._forget(peer.id, task)

    async def _prove(self, raw: socket.socket) -> tuple[TlsChannel, Peer]:
        raw.setblocking(False)
        # whoever never says a word costs no TLS session
        await readable(raw.fileno())
        channel = TlsChannel(raw, *self._identity.wrap(self._context, server_side=True))
        await handshake(channel)
        return channel, read_peer(channel.peer_certificate)

    async def _admit(self, channel: TlsChannel, peer: Peer, task: asyncio.Task[None]) -> Session:
        theirs = self._peers.setdefault(peer.id, set())
        try:
            if self._draining:
                raise TicketRefused("This node is about to leave and takes no new connections; use another.")
            if len(theirs) >= self._limits.connections_per_peer:
                raise TicketRefused(
                    f"Node {peer.id} already has {len(theirs)} connections here, as many as one may have."
                )
            theirs.add(task)
            session = await self._greet(channel, peer)
        except (NotAdmitted, TicketRefused) as error:
            await refuse(channel, str(error))
            raise
        channel.admit()
        return session

    def _forget(self, peer_id: str, task: asyncio.Task[None]) -> None:
        theirs = self._peers.get(peer_id)
        if theirs is not None:
            theirs.discard(task)
            if not theirs:
                del self._peers[peer_id]
