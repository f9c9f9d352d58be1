"""One exchange on one connection, from either end: frames in turn, until a side has nothing more to say.

*Covered*: an exchange that never ends (a ceiling of turns, and 5 s in all), a frame longer than any message,
a called node that is another than was meant. *Not covered*: bandwidth; a message has at most 0.4 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.gossip.messages import MESSAGE_BYTES
from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import Identity, read_peer
from sharedllm.nodes.proxy.channel import TlsChannel
from sharedllm.nodes.proxy.framing import frame, handshake, receive_frame, send_all
from sharedllm.nodes.proxy.splice import Traffic

__all__ = ["EXCHANGE_S", "Callers", "Exchange", "Receive", "call"]

EXCHANGE_S = 5.0
_WINDOW_ROUNDS, _CALLS_A_WINDOW = 8, 64
_TURNS = 4  # three are needed; a fourth answer to one connection would only cost

Receive = Callable[[str, bytes], bytes]  # who, what; the answer, empty for none


class Callers:
    """Who called how often, so that nobody takes all of a node's time; gossip needs a few calls a round."""

    def __init__(self, round_s: float) -> None:
        self._window_s, self._began_s = _WINDOW_ROUNDS * round_s, 0.0
        self._calls = Counter[str]()

    def admit(self, caller: str, now: float) -> None:
        """Count a call. Raises ``NotAdmitted`` when that is one too many."""
        if not 0 <= now - self._began_s < self._window_s:
            self._began_s = now
            self._calls.clear()
        self._calls[caller] += 1
        if self._calls[caller] > _CALLS_A_WINDOW:
            raise NotAdmitted(f"Node {caller} calls more often than gossip needs to; call again later.")


class Exchange:
    """The called end, as a session of a ``Listener``."""

    def __init__(self, channel: TlsChannel, caller: str, receive: Receive) -> None:
        self._channel, self._caller, self._receive = channel, caller, receive

    async def run(self) -> Traffic:
        """Answer until there is nothing more to say."""
        fault = ""
        try:
            async with asyncio.timeout(EXCHANGE_S):
                await _take_turns(self._channel, self._caller, self._receive)
        except SharedLLMError as error:
            fault = str(error)
        return Traffic(0, 0, fault)

    def close(self) -> None:
        """See ``Session``; the listener closes the socket."""


async def call(identity: Identity, partner: Contact, first: bytes, receive: Receive) -> None:
    """Call ``partner``, say ``first`` and go on in turn.

    Raises ``NotAdmitted`` when another node answers, ``OSError`` or a refusal when the exchange breaks.
    """
    raw = await _connect(partner)
    with raw:
        channel = TlsChannel(raw, *identity.wrap(identity.client, server_side=False))
        await handshake(channel)
        found = read_peer(channel.peer_certificate)
        if found.id != partner.id:
            raise NotAdmitted(f"At {partner.host}:{partner.port} is node {found.id}, not {partner.id}.")
        channel.admit()
        await send_all(channel, frame(first))
        await _take_turns(channel, partner.id, receive)
        with contextlib.suppress(OSError):
            channel.close_write()


async def _take_turns(channel: TlsChannel, other: str, receive: Receive) -> None:
    for _ in range(_TURNS):
        heard = await receive_frame(channel, MESSAGE_BYTES, "gossip message")
        if not heard:
            return
        answer = receive(other, heard)
        await send_all(channel, frame(answer))
        if not answer:
            return


async def _connect(partner: Contact) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(partner.host, partner.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    raw = socket.socket(family, kind, protocol)
    raw.setblocking(False)
    try:
        await loop.sock_connect(raw, address)
    except BaseException:
        raw.close()
        raise
    return raw
