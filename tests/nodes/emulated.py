"""A link as slow as a home connection: a TCP relay that holds bytes back, on loopback.

*Covered*: delay in both directions, jitter (order is kept, as TCP keeps it), a cable that is cut (bytes
vanish and no connection ends). *Not covered*: rate and loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from sharedllm.nodes.local import Federation, Process, free_port

_CHUNK_BYTES = 1 << 16


class EmulatedLink:
    """Listens on ``port`` and passes all bytes to ``target``; each way takes ``rtt_s / 2`` ± ``jitter_s``."""

    def __init__(self, target: tuple[str, int], rtt_s: float = 0.0, jitter_s: float = 0.0) -> None:
        self.target, self.rtt_s, self.jitter_s = target, rtt_s, jitter_s
        self.port = 0
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._random = random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emulated link", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._cut = True

    def close(self) -> None:
        """End it with all of its connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        with contextlib.suppress(asyncio.CancelledError):  # the link is being closed
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read at once, write when the time has come: bytes overlap on the way, as on a wire."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._deliver(due, writer))
        last_s = 0.0
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(_CHUNK_BYTES)
                last_s = max(last_s, self._loop.time() + self._delay_s())
                due.put_nowait((last_s, data))
                if not data:
                    break
        await sender

    async def _deliver(self, due: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                at_s, data = await due.get()
                await asyncio.sleep(max(0.0, at_s - self._loop.time()))
                if self._cut:
                    continue
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    def _delay_s(self) -> float:
        return max(0.0, self.rtt_s / 2 + self._random.uniform(-self.jitter_s, self.jitter_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def far_worker(
    federation: Federation, name: str, advertised: str | None, port: int, more: Sequence[str] = ()
) -> Process:
    """One more worker of a running federation, which says that it is reached at ``advertised``."""
    command = [sys.executable, "-m", "sharedllm.cli.main", "node", "--role", "worker", "--name", name]
    command += ["--state", str(federation.state / name), "--coordinator-url", federation.coordinator_url]
    command += ["--join-token-file", "-", "--host", "127.0.0.1", "--rpc-port", str(port), "--memory", "4GB"]
    command += ["--lan-addr", advertised] if advertised else []
    process = federation.add(name, lambda url: [*command, *more], lambda: federation.token() + "\n")
    federation.start([process], 90)
    return process


def some_port() -> int:
    """A port that is free now."""
    return free_port("127.0.0.1", 20000 + random.randrange(20000), set())
