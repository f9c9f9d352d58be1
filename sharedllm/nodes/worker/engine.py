"""The engine's process, seen from the worker: started, heard, and started again when it dies.

The child prints one JSON object a line: what it holds and how fast it is (``News``).

*Covered*: an engine that crashes (again after a pause that doubles up to 10 s), a worker that is killed (the
kernel ends the engine with it, on Linux). *Not covered*: an engine that hangs; primaries see that themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from sharedllm.nodes.local import tether
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.worker.settings import WorkerSettings

__all__ = ["EngineProcess", "News"]

_LONGEST_PAUSE_S = 10.0
_GRACE_S = 15.0
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class News:
    """What the engine last said of itself."""

    sessions: int = 0
    kv_bytes: int = 0
    weights_bytes: int = 0
    steps: int = 0
    read_bytes_per_s: float = 0.0
    in_bytes: int = 0
    out_bytes: int = 0


class EngineProcess:
    """Keeps an engine running for ``settings``; belongs to the event loop that called ``start``."""

    def __init__(self, settings: WorkerSettings, memory_bytes: int) -> None:
        self.news = News()
        self.restarts = 0
        # a short path of its own: a Unix socket's name has at most 107 bytes
        self._folder = tempfile.TemporaryDirectory(prefix="sharedllm-")
        self.socket = Path(self._folder.name) / "engine.sock"
        self._command = [sys.executable, "-m", "sharedllm.nodes.worker.child", "--socket", str(self.socket)]
        self._command += ["--state", str(settings.state), "--memory-bytes", str(memory_bytes)]
        self._command += ["--share", str(settings.share), "--name", settings.name]
        self._command += ["--threads", str(settings.threads)] if settings.threads else []
        self._child: subprocess.Popen[bytes] | None = None
        self._first = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The engine's process id; raises ``RuntimeError`` while there is none."""
        if self._child is None:
            raise RuntimeError("The engine has not been started.")
        return self._child.pid

    async def start(self) -> None:
        """Start the engine, wait until it listens, and keep it running from then on."""
        self._keeping = asyncio.create_task(self._keep())
        await self._first.wait()

    async def stop(self) -> None:
        """Let the engine hand over what it serves, and end it."""
        if self._keeping is not None:
            self._keeping.cancel()
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                await asyncio.to_thread(child.wait, _GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                await asyncio.to_thread(child.wait)
        if child is not None and child.stdout is not None:
            child.stdout.close()
        self._folder.cleanup()

    async def _keep(self) -> None:
        pause_s = 0.2
        while True:
            began_s = time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                self.socket.unlink()
            # spawned in the event loop's own thread: a tethered child ends with the thread that made it
            program = [sys.executable, "-IS", tether.__file__, str(os.getpid()), *self._command]
            self._child = subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            assert self._child.stdout is not None
            await asyncio.to_thread(self._listen, self._child.stdout, asyncio.get_running_loop())
            status = await asyncio.to_thread(self._child.wait)
            self._child.stdout.close()
            self.news, self.restarts = News(), self.restarts + 1
            metrics.engine_restarts.inc()
            pause_s = 0.2 if time.monotonic() - began_s > 60 else min(2 * pause_s, _LONGEST_PAUSE_S)
            _log.warning("The engine ended (status %s); it is started again in %.1f s.", status, pause_s)
            await asyncio.sleep(pause_s)

    def _listen(self, lines: IO[bytes], loop: asyncio.AbstractEventLoop) -> None:
        """Read what the engine says, in a thread, until it ends."""
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                self.news = News(**json.loads(line))
                loop.call_soon_threadsafe(self._first.set)
