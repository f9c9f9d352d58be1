"""The proxy: a worker's one open port, where a certificate and a ticket come before any byte for the engine.

The engine's protocol is not parsed: the same proxy guards our own stage engine and llama.cpp's
``rpc-server``.

*Covered*: no certificate, another federation's, a revoked node's; a ticket that is forged, expired, replayed
by another, or for another worker; an engine that is down (a sentence). *Not covered*: what an admitted
caller says to the engine; a ticket that expires while its connection lasts (the lease and ``cut`` end
those).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity import TICKET_BYTES, Identity, Peer, Ticket, verify
from sharedllm.nodes.proxy.channel import PlainChannel, TlsChannel
from sharedllm.nodes.proxy.framing import ADMITTED, frame, receive_frame, send_all
from sharedllm.nodes.proxy.listener import Event, Limits, Listener, Session
from sharedllm.nodes.proxy.splice import Splice

__all__ = ["Admit", "Proxy"]

Admit = Callable[[Ticket, Peer], None]
_QUEUE_FULL_S = 0.01


class Proxy:
    """Guards ``engine_socket``; it belongs to the event loop in which ``serve`` was awaited.

    ``admit`` has the last word on a good ticket and raises ``TicketRefused`` (revoked, paused, another
    model). ``preamble`` tells the engine first, as u32 length and JSON, whom it serves and which span; off
    for engines that know nothing of it. ``on_event`` hears of every connection.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        engine_socket: Path,
        admit: Admit,
        limits: Limits | None = None,
        preamble: bool = True,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity, self._engine_socket, self._admit = identity, engine_socket, admit
        self._limits = limits or Limits()
        self._preamble, self._clock = preamble, clock
        self._listener = Listener(identity, self._limits, self._greet, on_event)
        self.adopt = self._listener.adopt
        self.close = self._listener.close
        self.cut = self._listener.cut
        self.drain = self._listener.drain

    async def serve(self, host: str, port: int) -> int:
        """Listen from now on, and return the port. Raises ``OSError`` when it is taken."""
        return await self._listener.listen(host, port)

    @property
    def connections(self) -> int:
        """How many connections are past their certificate."""
        return self._listener.connections

    async def _greet(self, channel: TlsChannel, peer: Peer) -> Session:
        token = await receive_frame(channel, TICKET_BYTES, "ticket")
        ticket = verify(
            token,
            ca_public_key=self._identity.ca_public_key,
            worker=self._identity.id,
            caller=peer.id,
            now=self._clock(),
        )
        self._admit(ticket, peer)
        engine = PlainChannel(await self._reach_engine())
        try:
            if self._preamble:
                await send_all(engine, frame(_admission(ticket)))
            await send_all(channel, ADMITTED)
        except BaseException:
            engine.close()
            raise
        return Splice(channel, engine, idle_s=self._limits.idle_s)

    async def _reach_engine(self) -> socket.socket:
        try:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                raw.setblocking(False)
                while True:
                    try:
                        raw.connect(str(self._engine_socket))
                        return raw
                    except BlockingIOError:
                        # its queue is full, and no event says when there is room
                        await asyncio.sleep(_QUEUE_FULL_S)
            except BaseException:
                raw.close()
                raise
        except OSError as error:
            raise TicketRefused(
                f"This worker's engine is not running ({error.strerror or error}); it is started again "
                "within seconds. Try again, or use another worker."
            ) from None


def _admission(ticket: Ticket) -> bytes:
    said = {
        "caller": ticket.caller,
        "worker": ticket.worker,
        "model": ticket.model,
        "start": ticket.start,
        "stop": ticket.stop,
        "pipeline": ticket.pipeline,
    }
    return json.dumps(said).encode()
