"""The two-way pump: every byte that comes in at one end goes out at the other, in order, unread.

One buffer per direction. A full sink stops the reading of its source, so that a slow end slows the other
down and takes no memory. A direction that ends is ended on the other side; when both have, or either end
fails, it is over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sharedllm.nodes.proxy.channel import BUFFER_BYTES, Channel

__all__ = ["Splice", "Traffic"]


@dataclass(frozen=True)
class Traffic:
    """What went through: bytes from the left end, from the right one, and why it ended (empty: in order)."""

    left_bytes: int
    right_bytes: int
    fault: str


class _Flow:
    """One direction: a buffer that is filled when empty, and emptied before it is filled again."""

    def __init__(self, source: Channel, sink: Channel) -> None:
        self.source, self.sink = source, sink
        self.ended = False
        self.total_bytes = 0
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._waiting = self._view[:0]

    @property
    def wants_to_read(self) -> bool:
        return not self._waiting and not self.ended

    @property
    def wants_to_write(self) -> bool:
        return bool(self._waiting) or self.sink.unsent

    def advance(self) -> bool:
        """Move what can be moved without waiting; whether any was. Raises ``OSError`` for a broken end."""
        moved = False
        try:
            if self.wants_to_read:
                received = self.source.recv_into(self._view)
                moved = True
                self.total_bytes += received
                self._waiting = self._view[:received]
                if received == 0:
                    self.ended = True
                    self.sink.close_write()
            while self._waiting:
                self._waiting = self._waiting[self.sink.send(self._waiting) :]
                moved = True
        except BlockingIOError:
            pass
        return moved


class Splice:
    """Joins two ends inside the running event loop; they are its own from then on, and it closes them."""

    def __init__(self, left: Channel, right: Channel, *, idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._forth, self._back = _Flow(left, right), _Flow(right, left)
        # per end: the direction that it is the source of, and the one that it is the sink of
        self._ends = {left: (self._forth, self._back), right: (self._back, self._forth)}
        self._watched: set[tuple[Channel, str]] = set()
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._moved_at = self._loop.time()
        self._fault: asyncio.Future[str] = self._loop.create_future()

    async def run(self) -> Traffic:
        """Pump until both directions have ended, an end fails, or both are silent for ``idle_s``."""
        self._idle = self._loop.call_later(self._idle_s, self._look_for_life)
        try:
            self._turn(self._forth)
            self._turn(self._back)
            return self._traffic(await self._fault)
        finally:
            self.close()

    def close(self) -> None:
        """Stop watching, and close both ends."""
        self._fault.cancel()
        if self._idle is not None:
            self._idle.cancel()
        for end in self._ends:
            self._watch(end, reading=False, writing=False)
            end.close()

    @property
    def traffic(self) -> Traffic:
        """What went through so far."""
        return self._traffic("")

    def _traffic(self, fault: str) -> Traffic:
        return Traffic(self._forth.total_bytes, self._back.total_bytes, fault)

    def _turn(self, flow: _Flow) -> None:
        """Advance one direction, and decide what is worth waiting for next."""
        if self._fault.done():
            return
        try:
            for end in self._ends:
                end.flush()
            if flow.advance():
                self._moved_at = self._loop.time()
        except OSError as error:
            self._fault.set_result(error.strerror or str(error) or type(error).__name__)
            return
        if self._forth.ended and self._back.ended and not any(end.unsent for end in self._ends):
            self._fault.set_result("")
            return
        for end, (outward, inward) in self._ends.items():
            self._watch(end, reading=outward.wants_to_read, writing=inward.wants_to_write)
        if flow.wants_to_read and flow.source.buffered:
            # the socket may never become readable again for what already waits in memory
            self._loop.call_soon(self._turn, flow)

    def _watch(self, end: Channel, *, reading: bool, writing: bool) -> None:
        outward, inward = self._ends[end]
        loop = self._loop
        for key, wanted in (("read", reading), ("write", writing)):
            if wanted == ((end, key) in self._watched):
                continue
            self._watched ^= {(end, key)}
            if key == "read":
                loop.add_reader(end.fileno(), self._turn, outward) if wanted else loop.remove_reader(
                    end.fileno()
                )
            else:
                loop.add_writer(end.fileno(), self._turn, inward) if wanted else loop.remove_writer(
                    end.fileno()
                )

    def _look_for_life(self) -> None:
        silent_s = self._loop.time() - self._moved_at
        if self._fault.done():
            return
        if silent_s >= self._idle_s:
            self._fault.set_result(f"nothing was sent either way for {self._idle_s:.0f} s")
        else:
            self._idle = self._loop.call_later(self._idle_s - silent_s, self._look_for_life)
