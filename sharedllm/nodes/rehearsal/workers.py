"""A worker of a rehearsal: an engine in threads of this process, behind a real proxy on loopback.

*Covered*: slow by any share of the time, killed in the middle of a chosen step, cut off, started again.
*Not covered*: what only separate processes show (another kernel, another memory); ``nodes.local`` has those.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sharedllm.engines import Dial, Engine, Find
from sharedllm.nodes.identity import Identity
from sharedllm.nodes.proxy import Endpoint, Proxy
from sharedllm.nodes.rehearsal.shares import Share, steady

__all__ = ["Worker"]

T = TypeVar("T")

_MEMORY_BYTES = 4 << 30
_DEADLINE_S = 20.0


class Worker:
    """``share`` says what part of the time it works; ``at`` holds what happens to it at which step, from 1.

    A step's time has come when it was computed and has not been sent on.
    """

    def __init__(
        self, identity: Identity, find: Find, dial: Dial, folder: Path, proxies: asyncio.AbstractEventLoop
    ) -> None:
        self.identity = identity
        self.share: Share = steady(1.0)
        self.at: dict[int, Callable[[], None]] = {}
        self.steps = 0
        self.alive = False
        self._find, self._dial, self._folder, self._proxies = find, dial, folder, proxies
        self._starts = 0
        self._restarting: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Start an engine and a proxy, on a port of its own."""
        self._starts += 1
        path = self._folder / f"{self.identity.id[:8]}-{self._starts}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
        self._engine = Engine(self._find, self._dial, _MEMORY_BYTES, self._stepped)
        self._accepting = threading.Thread(target=self._engine.serve, args=(listener,), daemon=True)
        self._accepting.start()

        async def serve() -> tuple[Proxy, int]:
            proxy = Proxy(self.identity, engine_socket=path, admit=lambda ticket, peer: None)
            return proxy, await proxy.serve("127.0.0.1", 0)

        self._proxy, port = self._do(serve())
        self.endpoint = Endpoint("lan", "127.0.0.1", port)
        self.alive = True

    def kill(self) -> None:
        """End everything at once, in the middle of whatever it does; the port closes, too."""
        if self.alive:
            self.alive = False
            self._engine.close()
            self._do(self._proxy.close())

    def restart(self) -> None:
        """Be killed, and come back with the same key and empty caches; that takes a moment."""

        def again() -> None:
            self.kill()
            self.start()

        self._restarting = threading.Thread(target=again, daemon=True)
        self._restarting.start()

    def cut(self, caller: str) -> None:
        """Cut every connection of node ``caller`` to this worker, which goes on living."""

        async def cut() -> None:
            self._proxy.cut(caller)

        self._do(cut())

    def close(self) -> None:
        """Be killed, and leave no thread that accepts."""
        if self._restarting is not None:
            self._restarting.join(_DEADLINE_S)
        self.kill()
        self._accepting.join(_DEADLINE_S)

    def _stepped(self) -> float:
        """A step was computed: let happen what is due, and say what part of the time is worked."""
        self.steps += 1
        what = self.at.pop(self.steps, None)
        if what is not None:
            what()
        return self.share(self.steps)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        with contextlib.ExitStack() as undo:
            undo.callback(work.close)
            future = asyncio.run_coroutine_threadsafe(work, self._proxies)
            undo.pop_all()
            return future.result(_DEADLINE_S)
