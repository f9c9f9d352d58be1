"""Children that stand in for an engine: small programs that say something and wait, or die."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from sharedllm.nodes.worker import WorkerSettings
from sharedllm.nodes.worker.engine import EngineProcess

DEADLINE_S = 30.0
WAITS = "import signal; print({says!r}, flush=True); signal.pause()"
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
DIES = "raise SystemExit(3)"


def settings(state: Path, **given: object) -> WorkerSettings:
    return WorkerSettings(state, "https://127.0.0.1:1", host="127.0.0.1", rpc_port=0, **given)  # type: ignore[arg-type]


def engine(state: Path, program: str) -> EngineProcess:
    """An engine's keeper whose engine is ``program``."""
    made = EngineProcess(settings(state), 1 << 30)
    made._command = [sys.executable, "-ISc", program]
    return made


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a child or a thread to get somewhere."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)
