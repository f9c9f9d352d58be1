"""What is said before bytes are spliced: frames with a length, one byte of answer, a sentence if it is no.

Ticket and request: u32 big-endian length, then that many bytes. Answer: ``00`` for yes; ``01``, u32 length
and a sentence in UTF-8 for no. Lengths are checked before anything is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Callable

from sharedllm.nodes.errors import NotAdmitted, TicketRefused
from sharedllm.nodes.proxy.channel import Channel, TlsChannel

__all__ = [
    "ADMITTED",
    "SENTENCE_BYTES",
    "frame",
    "handshake",
    "length_of",
    "readable",
    "receive_answer",
    "receive_exactly",
    "receive_frame",
    "refusal",
    "refuse",
    "send_all",
]

ADMITTED = b"\x00"
SENTENCE_BYTES = 512
_FAREWELL_S = 1.0
_FAREWELL_BYTES = 64 * 1024


def frame(data: bytes) -> bytes:
    """``data`` with its length before it."""
    return struct.pack(">I", len(data)) + data


def length_of(header: bytes, limit: int, what: str) -> int:
    """The length in a frame's first 4 bytes.

    Raises ``TicketRefused`` beyond ``limit``, naming ``what``.
    """
    (length,) = struct.unpack(">I", header)
    if length > limit:
        raise TicketRefused(f"A {what} of {length} bytes was announced; none is longer than {limit}.")
    return int(length)


def refusal(sentence: str) -> bytes:
    """The answer that says no, and why, in at most 512 bytes of UTF-8."""
    encoded = sentence.encode()[:SENTENCE_BYTES].decode(errors="ignore").encode()
    return b"\x01" + frame(encoded)


async def readable(fileno: int) -> None:
    """Wait until there is something to read, or the other end is gone."""
    loop = asyncio.get_running_loop()
    await _event(fileno, loop.add_reader, loop.remove_reader)


async def handshake(channel: TlsChannel) -> None:
    """Complete the TLS handshake.

    Raises ``NotAdmitted`` when either side refuses the other, ``OSError`` when the connection breaks.
    """
    try:
        while not channel.handshake():
            if channel.unsent:
                await _writable(channel.fileno())
            else:
                await readable(channel.fileno())
        await _flushed(channel)
    except ssl.SSLError as error:
        # the alert in it tells the other side why
        await _part(channel)
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        raise NotAdmitted(f"The TLS handshake failed: {str(reason).replace('_', ' ').lower()}.") from None


async def receive_exactly(channel: Channel, count: int) -> bytes:
    """The next ``count`` bytes. Raises ``OSError`` when the connection ends before."""
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        try:
            received = channel.recv_into(view)
        except BlockingIOError:
            await readable(channel.fileno())
            continue
        if received == 0:
            raise ConnectionAbortedError("the other end stopped in the middle of a sentence")
        view = view[received:]
    return bytes(buffer)


async def receive_frame(channel: Channel, limit: int, what: str) -> bytes:
    """The next frame. Raises ``TicketRefused`` if it is longer than ``limit``, ``OSError`` if cut short."""
    length = length_of(await receive_exactly(channel, 4), limit, what)
    return await receive_exactly(channel, length)


async def receive_answer(channel: Channel) -> None:
    """Wait for a yes. Raises ``TicketRefused`` with the other's sentence, ``OSError`` for anything else."""
    answer = await receive_exactly(channel, 1)
    if answer == ADMITTED:
        return
    if answer != b"\x01":
        raise ConnectionAbortedError("the other end answered neither yes nor no")
    sentence = await receive_frame(channel, SENTENCE_BYTES, "sentence")
    raise TicketRefused(sentence.decode(errors="replace"))


async def send_all(channel: Channel, data: bytes) -> None:
    """Send all of ``data``. Raises ``OSError`` when the connection breaks."""
    view = memoryview(data)
    while view:
        try:
            view = view[channel.send(view) :]
        except BlockingIOError:
            await _writable(channel.fileno())
    await _flushed(channel)


async def refuse(channel: TlsChannel, sentence: str) -> None:
    """Say no and why, within a second; whoever doesn't listen is not waited for."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await send_all(channel, refusal(sentence))
            channel.close_write()
            await _part(channel)


async def _part(channel: TlsChannel) -> None:
    """Send what is unsent and wait, a second at most, until the other end has heard it."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await _flushed(channel)
            channel.hang_up()
            # closing while the other end still sends would reset the connection and lose the last word
            left_bytes = _FAREWELL_BYTES
            while left_bytes > 0:
                try:
                    received = channel.discard()
                except BlockingIOError:
                    await readable(channel.fileno())
                    continue
                if received == 0:
                    return
                left_bytes -= received


async def _flushed(channel: Channel) -> None:
    while channel.unsent:
        channel.flush()
        if channel.unsent:
            await _writable(channel.fileno())


async def _writable(fileno: int) -> None:
    loop = asyncio.get_running_loop()
    await _event(fileno, loop.add_writer, loop.remove_writer)


async def _event(fileno: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    happened = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not happened.done():
            happened.set_result(None)

    add(fileno, wake)
    try:
        await happened
    finally:
        remove(fileno)
