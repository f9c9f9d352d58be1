"""A relay: how a node behind a router is reached, by a machine that sees nothing but ciphertext.

Run by the coordinator or any volunteer node. A worker keeps one control connection here; a caller asks for
it by node id; the relay tells the worker, which opens a fresh connection for that call; the relay splices
the two. What runs inside is the ordinary TLS between caller and worker, ticket and all, so the relay can cut
a conversation but not read or change it.

After the TLS handshake each connection says once (u32 length, JSON) what it is for: ``{"do": "register"}``,
``{"do": "call", "node": id}`` or ``{"do": "answer", "call": id}``; it is answered as the proxy answers. A
registered worker then hears ``{"call": id}`` per call, and an empty frame now and then so that it knows the
relay is there.

*Covered*: nodes without a certificate of the federation; a worker answering for another; calls nobody
answers; the proxy's limits. *Not covered*: who talks to whom, when and how much: that the relay sees.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity import Identity, Peer, is_node_id
from sharedllm.nodes.proxy.channel import TlsChannel
from sharedllm.nodes.proxy.framing import ADMITTED, frame, readable, receive_frame, send_all
from sharedllm.nodes.proxy.listener import Event, Limits, Listener, Session
from sharedllm.nodes.proxy.splice import Splice, Traffic

__all__ = ["REQUEST_BYTES", "Relay"]

REQUEST_BYTES = 256
_CALLS_WAITING = 256
_PATIENCE = 0.7


@dataclass
class _Call:
    """A caller that waits for ``node`` to answer."""

    node: str
    answered: asyncio.Future[tuple[TlsChannel, asyncio.Future[Traffic]]] = field(repr=False)

    def give_up(self) -> None:
        """Tell whoever answered, or still would, that nobody waits."""
        if self.answered.done() and not self.answered.cancelled():
            self.answered.result()[1].cancel()
        self.answered.cancel()


class Relay:
    """Joins callers and workers, in the event loop it serves in; ``admit`` refuses revoked nodes."""

    def __init__(
        self,
        identity: Identity,
        *,
        admit: Callable[[Peer], None],
        limits: Limits | None = None,
        ping_s: float = 20.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._admit, self._limits, self._ping_s = admit, limits or Limits(), ping_s
        self._workers: dict[str, _Registration] = {}
        self._calls: dict[str, _Call] = {}
        self._listener = Listener(identity, self._limits, self._greet, on_event)
        self.close = self._listener.close
        self.cut = self._listener.cut

    async def serve(self, host: str, port: int) -> int:
        """Listen from now on, and return the port. Raises ``OSError`` when it is taken."""
        return await self._listener.listen(host, port)

    @property
    def workers(self) -> frozenset[str]:
        """The ids of the nodes that can be reached through here."""
        return frozenset(self._workers)

    async def _greet(self, channel: TlsChannel, peer: Peer) -> Session:
        said = _request(await receive_frame(channel, REQUEST_BYTES, "request"))
        self._admit(peer)
        match said:
            case {"do": "register", **rest} if not rest and peer.role == "worker":
                await send_all(channel, ADMITTED)
                return _Registration(channel, peer.id, self._workers, self._ping_s)
            case {"do": "call", "node": str(node), **rest} if not rest and is_node_id(node):
                return await self._call(channel, node)
            case {"do": "answer", "call": str(id), **rest} if not rest:
                return await self._answer(channel, peer, id)
        raise TicketRefused("A relay takes register (from workers), call and answer; this was none of them.")

    async def _call(self, channel: TlsChannel, node: str) -> Session:
        worker = self._workers.get(node)
        if worker is None or len(self._calls) >= _CALLS_WAITING:
            reason = "is not registered with" if worker is None else "has too many calls waiting at"
            raise TicketRefused(f"Node {node} {reason} this relay. Try its other addresses.")
        id = secrets.token_hex(16)
        call = self._calls[id] = _Call(node, asyncio.get_running_loop().create_future())
        try:
            worker.tell({"call": id})
            # before the caller's own time is over, so that it hears why
            async with asyncio.timeout(self._limits.handshake_s * _PATIENCE):
                await asyncio.shield(call.answered)
            await send_all(channel, ADMITTED)
        except BaseException as error:
            call.give_up()
            if isinstance(error, TimeoutError):
                raise TicketRefused(
                    f"Node {node} is registered with this relay but does not answer it."
                ) from None
            raise
        finally:
            del self._calls[id]
        return _Conversation(channel, *call.answered.result(), self._limits.idle_s)

    async def _answer(self, channel: TlsChannel, peer: Peer, id: str) -> Session:
        call = self._calls.get(id)
        if call is None or call.node != peer.id or call.answered.done():
            raise TicketRefused("Nobody waits for this answer any more.")
        await send_all(channel, ADMITTED)
        answer = _Answer()
        if call.answered.done():
            raise TicketRefused("Nobody waits for this answer any more.")
        call.answered.set_result((channel, answer.finished))
        return answer


class _Registration:
    """A worker's control connection: calls and pings go out; anything that comes in, or an end, ends it."""

    def __init__(
        self, channel: TlsChannel, node: str, workers: dict[str, _Registration], ping_s: float
    ) -> None:
        self._channel, self._node, self._workers, self._ping_s = channel, node, workers, ping_s
        self._messages: asyncio.Queue[bytes] = asyncio.Queue(_CALLS_WAITING)
        self._sent_bytes = 0
        # a worker that comes back replaces itself: its old connection may be dead without knowing
        workers[node] = self

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a message. Raises ``TicketRefused`` when the worker does not keep up."""
        try:
            self._messages.put_nowait(json.dumps(message).encode())
        except asyncio.QueueFull:
            raise TicketRefused(
                f"Node {self._node} does not answer its relay. Try again in a moment."
            ) from None

    async def run(self) -> Traffic:
        sending = asyncio.ensure_future(self._send())
        listening = asyncio.ensure_future(readable(self._channel.fileno()))
        try:
            await asyncio.wait([sending, listening], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, listening):
                task.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
        return Traffic(0, self._sent_bytes, "the worker's control connection ended")

    def close(self) -> None:
        if self._workers.get(self._node) is self:
            del self._workers[self._node]

    async def _send(self) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self._messages.get(), self._ping_s)
            except TimeoutError:
                message = b""
            # a worker that reads nothing for so long is gone
            await asyncio.wait_for(send_all(self._channel, frame(message)), self._ping_s)
            self._sent_bytes += 4 + len(message)


class _Conversation:
    """The caller's side of a call: the splice, and word to the answering side when it is over."""

    def __init__(
        self, caller: TlsChannel, worker: TlsChannel, finished: asyncio.Future[Traffic], idle_s: float
    ) -> None:
        self._splice = Splice(caller, worker, idle_s=idle_s)
        self._finished = finished
        # the answering side can be cut on its own
        finished.add_done_callback(lambda _: self._splice.close())

    async def run(self) -> Traffic:
        traffic = await self._splice.run()
        if not self._finished.done():
            self._finished.set_result(Traffic(traffic.right_bytes, traffic.left_bytes, traffic.fault))
        return traffic

    def close(self) -> None:
        self._splice.close()
        self._finished.cancel()


class _Answer:
    """The worker's side of a call, which the caller's conversation drives; it lasts until that is over."""

    def __init__(self) -> None:
        self.finished: asyncio.Future[Traffic] = asyncio.get_running_loop().create_future()

    async def run(self) -> Traffic:
        return await self.finished

    def close(self) -> None:
        self.finished.cancel()


def _request(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise TicketRefused("What was said to this relay is no request: expected a JSON object.")
    return said
