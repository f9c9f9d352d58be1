"""Several continuations heard at once, server-sent events, and noticing that the client has gone.

*Covered*: a client that leaves at any moment, or stops reading, cancels what it asked for; no task and no
stream outlives its request; a slow reader slows its own request and nobody else's. *Not covered*: a client
whose machine vanishes without a word while nothing is sent; the next heartbeat finds out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from starlette.types import Receive, Send

from sharedllm.nodes.api.errors import ClientGone
from sharedllm.nodes.api.service import Ask, Said, Service, Stream

__all__ = ["Events", "Voices", "unless_gone"]

_AHEAD = 64  # tokens that may wait for a slow reader before its streams are no longer read
_STALLED_S = 60.0


class Voices:
    """Streams that are heard together, as long as the ``async with`` lasts; afterwards none is left running.

    Entering submits every ask, or none: it raises what the service raises.
    """

    def __init__(self, service: Service, asks: Sequence[Ask]) -> None:
        self.service, self.asks = service, asks
        self.streams: list[Stream] = []
        self._heard: asyncio.Queue[tuple[int, Said | Exception | None]] = asyncio.Queue(_AHEAD)
        self._listeners: list[asyncio.Task[None]] = []
        self._speaking: set[int] = set()

    async def __aenter__(self) -> Self:
        try:
            for index, ask in enumerate(self.asks):
                self.streams.append(self.service.submit(ask))
                self._speaking.add(index)
        except BaseException:
            self._cancel()
            raise
        for index in range(len(self.streams)):
            self._listeners.append(asyncio.create_task(self._listen(index)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel()
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)

    async def next(self, patience_s: float | None = None) -> tuple[int, Said | None] | None:
        """Hear which stream said what (None: it has ended); None after ``patience_s`` of silence.

        Raises what a stream raised.
        """
        try:
            async with asyncio.timeout(patience_s):
                index, said = await self._heard.get()
        except TimeoutError:
            return None
        if isinstance(said, Exception):
            raise said
        return index, said

    async def _listen(self, index: int) -> None:
        try:
            async for said in self.streams[index]:
                await self._heard.put((index, said))
            self._speaking.discard(index)
            await self._heard.put((index, None))
        except Exception as error:
            self._speaking.discard(index)
            await self._heard.put((index, error))

    def _cancel(self) -> None:
        for index in self._speaking:
            self.streams[index].cancel()
        self._speaking.clear()


class Events:
    """Server-sent events, one by one. Raises ``ClientGone`` when the client reads nothing for long."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def open(self) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),  # a proxy that collects would undo streaming
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def data(self, *objects: dict[str, Any]) -> None:
        """Write each object as one event."""
        texts = (json.dumps(o, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for o in objects)
        await self._write("".join(f"data: {text}\n\n" for text in texts).encode())

    async def beat(self) -> None:
        """Write a comment, which clients skip: the connection stays open, and a lost one is found out."""
        await self._write(b": still here\n\n")

    async def done(self) -> None:
        """Write OpenAI's last line, and end."""
        await self._write(b"data: [DONE]\n\n", more=False)

    async def close(self) -> None:
        """End without another line."""
        await self._write(b"", more=False)

    async def _write(self, data: bytes, more: bool = True) -> None:
        try:
            async with asyncio.timeout(_STALLED_S):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise ClientGone(f"The client read nothing for {_STALLED_S:.0f} s.") from None


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` to its end, or cancel it as soon as the client has gone. Raises ``ClientGone``."""
    job = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((job, watch), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientGone("The client left before its answer was complete.")
        await job
    finally:
        job.cancel()
        watch.cancel()
        await asyncio.gather(job, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
