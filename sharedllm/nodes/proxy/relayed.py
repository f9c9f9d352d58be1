"""The two legs to a relay: a worker that stays registered and answers, a caller that asks for a worker.

Either leg is the outer TLS connection to the relay, joined to one end of a socket pair; the other end is
then used as if it were a connection from or to the far node, with the ordinary TLS and ticket inside.

*Covered*: a relay that is another node, goes away (registered again, with growing pauses), or falls silent.
*Not covered*: a relay that drops or delays: the deadline of whoever dials decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import NotAdmitted, TicketRefused
from sharedllm.nodes.identity import Identity, read_peer
from sharedllm.nodes.proxy.channel import PlainChannel, TlsChannel
from sharedllm.nodes.proxy.endpoints import Endpoint
from sharedllm.nodes.proxy.framing import frame, handshake, receive_answer, receive_frame, send_all
from sharedllm.nodes.proxy.listener import Limits
from sharedllm.nodes.proxy.relay import REQUEST_BYTES
from sharedllm.nodes.proxy.splice import Splice, Traffic

__all__ = ["Registration", "reach"]

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# a relay pings every 20 s
_SILENCE_S = 60.0
_ANSWERS_AT_ONCE = 64


class Registration:
    """Keeps a worker reachable through ``relay``; ``adopt`` (a ``Proxy``'s) gets what callers asked for."""

    def __init__(
        self,
        identity: Identity,
        relay: Endpoint,
        adopt: Callable[[socket.socket], None],
        *,
        limits: Limits | None = None,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._identity, self._relay, self._adopt = identity, relay, adopt
        self._limits, self._silence_s = limits or Limits(), silence_s
        self._legs: set[asyncio.Task[Traffic]] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Stay registered until cancelled; then every relayed connection ends too."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                with contextlib.suppress(OSError, TimeoutError, SharedLLMError):
                    await self._stay()
                if self.registered.is_set():
                    pause_s = _FIRST_PAUSE_S
                    self.registered.clear()
                # spread out, or all workers of a relay that restarts come back in the same moment
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            tasks = [*self._answers, *self._legs]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay(self) -> None:
        channel = await _ask(self._identity, self._relay, {"do": "register"}, self._limits.handshake_s)
        try:
            self.registered.set()
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await receive_frame(channel, REQUEST_BYTES, "call")
                if message and len(self._answers) < _ANSWERS_AT_ONCE:
                    answer = asyncio.create_task(self._answer(_call_in(message)))
                    self._answers.add(answer)
                    answer.add_done_callback(self._answers.discard)
        finally:
            channel.close()

    async def _answer(self, call: str) -> None:
        # who called hears from the relay that nobody answered
        with contextlib.suppress(OSError, TimeoutError, SharedLLMError):
            request = {"do": "answer", "call": call}
            channel = await _ask(self._identity, self._relay, request, self._limits.handshake_s)
            self._adopt(_join(channel, self._legs, self._limits.idle_s))


def reach(identity: Identity, relay: Endpoint, node: str, end: float) -> socket.socket:
    """A stream to ``node`` through ``relay``, for a thread that blocks; ``end`` on the monotonic clock.

    Raises ``TicketRefused`` in the relay's words, ``NotAdmitted`` when it is another node, ``OSError`` when
    it can't be reached.
    """
    left_s = max(end - time.monotonic(), 0.0)
    calling = asyncio.run_coroutine_threadsafe(_call(identity, relay, node, left_s), _loop())
    return calling.result()


async def _call(identity: Identity, relay: Endpoint, node: str, left_s: float) -> socket.socket:
    channel = await _ask(identity, relay, {"do": "call", "node": node}, left_s)
    return _join(channel, _legs(), Limits().idle_s)


def _join(channel: TlsChannel, legs: set[asyncio.Task[Traffic]], idle_s: float) -> socket.socket:
    ours, theirs = socket.socketpair()
    channel.admit()
    leg = asyncio.get_running_loop().create_task(Splice(channel, PlainChannel(ours), idle_s=idle_s).run())
    legs.add(leg)
    leg.add_done_callback(legs.discard)
    return theirs


async def _ask(identity: Identity, relay: Endpoint, request: dict[str, Any], left_s: float) -> TlsChannel:
    async with asyncio.timeout(left_s):
        raw = await _connect(relay)
        try:
            channel = TlsChannel(raw, *identity.wrap(identity.client, server_side=False))
            await handshake(channel)
            found = read_peer(channel.peer_certificate)
            if found.id != relay.relay:
                raise NotAdmitted(f"The relay is node {found.id}, not {relay.relay}.")
            await send_all(channel, frame(json.dumps(request).encode()))
            await receive_answer(channel)
        except BaseException:
            raw.close()
            raise
    return channel


async def _connect(relay: Endpoint) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError(f"{relay.host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        relay.host, relay.port, type=socket.SOCK_STREAM
    ):
        raw = socket.socket(family, kind, protocol)
        raw.setblocking(False)
        try:
            await loop.sock_connect(raw, address)
        except OSError as error:
            raw.close()
            failure = error
        except BaseException:
            raw.close()
            raise
        else:
            return raw
    raise failure


def _call_in(message: bytes) -> str:
    try:
        call = json.loads(message)["call"]
    except (ValueError, TypeError, KeyError, RecursionError):
        call = None
    if not isinstance(call, str):
        raise TicketRefused("The relay said something that is no call.")
    return call


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop that pumps what blocking callers reach through relays, for the rest of the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="relayed", daemon=True).start()
    return loop


@cache
def _legs() -> set[asyncio.Task[Traffic]]:
    """What that loop pumps; a task that nobody holds may be collected."""
    return set()
