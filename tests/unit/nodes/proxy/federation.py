"""A federation in a temporary folder, an engine that echoes, and a proxy in an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity import Authority, Identity, Peer, Ticket, enrol, issue
from sharedllm.nodes.proxy import Endpoint, Event, Limits, Proxy

Result = TypeVar("Result")
DEADLINE_S = 20.0


class Loop:
    """An event loop in a thread; ``do`` runs something in it and waits."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def do(self, work: Callable[[], Awaitable[Result]]) -> Result:
        async def awaited() -> Result:
            return await work()

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(DEADLINE_S)

    def call(self, work: Callable[[], Result]) -> Result:
        async def called() -> Result:
            return work()

        return self.do(called)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()


class Engine:
    """Listens on a Unix socket; ``serve`` gets each connection in a thread of its own."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self.path = path
        self.calls = 0
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(128)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connected, _ = self._listening.accept()
            if self._closing:
                connected.close()
                return
            self.calls += 1
            self._threads.append(threading.Thread(target=self._run, args=(connected,)))
            self._threads[-1].start()

    _closing = False

    def _run(self, connected: socket.socket) -> None:
        with connected, contextlib.suppress(OSError):
            self._serve(connected)

    def close(self) -> None:
        self._closing = True
        with socket.socket(socket.AF_UNIX) as waker:
            waker.connect(str(self.path))
        for thread in self._threads:
            thread.join(DEADLINE_S)
        self._listening.close()
        self.path.unlink()


def echo(connected: socket.socket) -> None:
    """Return every byte, and end when the other side ends."""
    while data := connected.recv(65536):
        connected.sendall(data)


@dataclass
class Federation:
    """An authority and its nodes; ``proxy`` starts a worker's proxy."""

    folder: Path
    loop: Loop
    authority: Authority
    worker: Identity
    primary: Identity
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    revoked: set[str] = field(default_factory=set)

    def node(self, name: str, role: str = "primary") -> Identity:
        return enrol(self.authority, self.folder / name, role)

    def ticket(self, **changes: Any) -> str:
        facts: dict[str, Any] = {
            "worker": self.worker.id,
            "caller": self.primary.id,
            "model": "a" * 64,
            "start": 2,
            "stop": 7,
            "expires": int(time.time()) + 600,
            "pipeline": "b" * 32,
        }
        return issue(self.authority, Ticket(**{**facts, **changes}))

    def admit(self, ticket: Ticket, peer: Peer) -> None:
        if peer.id in self.revoked:
            raise TicketRefused(f"Node {peer.id} was revoked.")

    @contextlib.contextmanager
    def proxy(self, engine: Path, **settings: Any) -> Iterator[tuple[Proxy, Endpoint]]:
        settings = {"preamble": False, "limits": Limits(), **settings}

        async def start() -> tuple[Proxy, int]:
            proxy = Proxy(
                self.worker, engine_socket=engine, admit=self.admit, on_event=self.events.put, **settings
            )
            return proxy, await proxy.serve("127.0.0.1", 0)

        proxy, port = self.loop.do(start)
        try:
            yield proxy, Endpoint("lan", "127.0.0.1", port)
        finally:
            self.loop.do(proxy.close)

    def event(self, kind: str) -> Event:
        """The next event of ``kind``."""
        while True:
            event = self.events.get(timeout=DEADLINE_S)
            if event.kind == kind:
                return event
