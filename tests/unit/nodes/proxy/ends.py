"""A splice between a TLS connection and a plain one, all four ends in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from sharedllm.nodes.identity import Identity, client_context, server_context
from sharedllm.nodes.proxy.channel import Channel, PlainChannel, TlsChannel
from sharedllm.nodes.proxy.framing import handshake, readable, send_all
from sharedllm.nodes.proxy.splice import Splice, Traffic


async def tls_pair(server: Identity, client: Identity) -> tuple[TlsChannel, TlsChannel]:
    """Two ends of one TLS connection, their handshake done: the server's and the client's."""
    here, there = socket.socketpair()
    accepting = server_context(server, client_certificates="required")
    serving = TlsChannel(here, *server.wrap(accepting, server_side=True))
    calling = TlsChannel(there, *client.wrap(client_context(client), server_side=False))
    await asyncio.gather(handshake(serving), handshake(calling))
    return serving, calling


@contextlib.asynccontextmanager
async def spliced(
    server: Identity, client: Identity, *, idle_s: float = 60.0
) -> AsyncIterator[tuple[TlsChannel, PlainChannel, asyncio.Task[Traffic]]]:
    """A client's TLS end, an engine's plain end, and the pump between them."""
    serving, calling = await tls_pair(server, client)
    serving.admit()
    inner, outer = socket.socketpair(socket.AF_UNIX)
    engine = PlainChannel(outer)
    pump = asyncio.create_task(Splice(serving, PlainChannel(inner), idle_s=idle_s).run())
    try:
        yield calling, engine, pump
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        calling.close()
        engine.close()


async def send_chunks(channel: Channel, chunks: Sequence[bytes]) -> None:
    """Send every chunk on its own, then end this direction."""
    for chunk in chunks:
        await send_all(channel, chunk)
        await asyncio.sleep(0)
    channel.close_write()
    await send_all(channel, b"")


async def receive_all(channel: Channel, room_bytes: int = 65536) -> bytes:
    """Everything until the other end ends its direction."""
    received = bytearray()
    room = memoryview(bytearray(room_bytes))
    while True:
        try:
            count = channel.recv_into(room)
        except BlockingIOError:
            await readable(channel.fileno())
            continue
        if count == 0:
            return bytes(received)
        received += room[:count]
