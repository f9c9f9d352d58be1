"""Several processes as one: started together, named as they become ready, brought back when they die, ended.

*Covered*: a child that dies at once, again and again (it is tried less and less often), one that dies while
others start, an interrupt at any moment. *Not covered*: a child that runs but does nothing; its peers notice.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.local.errors import ProcessFailed
from sharedllm.nodes.local.process import GRACE_S, Event, Process

__all__ = ["Supervisor"]

_CALM_S = 60.0  # who ran this long has recovered


class Supervisor:
    """Owns processes; as a context manager it ends them all, the last started first.

    ``say`` gets sentences for a person. ``backoff_s`` is the first and the longest wait before a restart.
    """

    def __init__(
        self,
        logs: Path,
        environment: dict[str, str] | None = None,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        backoff_s: tuple[float, float] = (1.0, 30.0),
    ) -> None:
        self.say = say
        self.processes: list[Process] = []
        self._logs, self._environment = logs, environment
        self._backoff_s = backoff_s
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self._notices: queue.SimpleQueue[tuple[Process, Event] | None] = queue.SimpleQueue()
        self._failures: dict[Process, int] = {}
        self._due_s: dict[Process, float] = {}

    def add(
        self,
        name: str,
        command: Callable[[str | None], Sequence[str]],
        stdin: Callable[[], str] | None = None,
    ) -> Process:
        """Own one more process, not started yet; arguments as ``Process`` has them."""
        process = Process(
            name,
            command,
            logs=self._logs,
            spawner=self._spawner,
            environment=self._environment,
            stdin=stdin,
            on_event=lambda process, event: self._notices.put((process, event)),
        )
        self.processes.append(process)
        return process

    def start(self, processes: Iterable[Process], deadline_s: float) -> None:
        """Start several at once and wait until all are ready, saying so one by one.

        Raises ``ProcessFailed`` when one ends or is not ready in time.
        """
        waited_for = set(processes)
        until_s = time.monotonic() + deadline_s
        for process in sorted(waited_for, key=self.processes.index):
            process.start()
        while waited_for:
            try:
                notice = self._notices.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                raise ProcessFailed(next(iter(waited_for)).silence(deadline_s)) from None
            if notice is None:
                raise ProcessFailed("The start was called off.")
            process, event = notice
            if event == "ready":
                waited_for.discard(process)
                self._say_ready(process)
            elif not process.meant_to_end:
                raise ProcessFailed(process.obituary())

    def supervise(self) -> None:
        """Bring back whatever dies without being told to, until ``call_off`` is called."""
        while True:
            now_s = time.monotonic()
            for process in [process for process, due_s in self._due_s.items() if due_s <= now_s]:
                del self._due_s[process]
                self._bring_back(process)
            wait_s = min(self._due_s.values()) - time.monotonic() if self._due_s else None
            try:
                notice = self._notices.get(timeout=None if wait_s is None else max(0.0, wait_s))
            except queue.Empty:
                continue
            if notice is None:
                return
            process, event = notice
            if event == "ready":
                self._say_ready(process)
            elif not process.meant_to_end and not process.running:
                self._schedule(process, process.obituary())

    def call_off(self) -> None:
        """Make ``supervise`` return, or ``start`` fail; may be called from a signal handler or a thread."""
        self._notices.put(None)

    def kill(self) -> None:
        """End every process at once."""
        for process in reversed(self.processes):
            process.kill()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End every process gracefully, the last added first, each within ``grace_s``."""
        for process in reversed(self.processes):
            process.stop(grace_s)
        self._spawner.shutdown()

    def _bring_back(self, process: Process) -> None:
        if process.running:  # someone was faster
            return
        try:
            process.start()
        except SharedLLMError as error:
            self._schedule(process, str(error))

    def _schedule(self, process: Process, why: str) -> None:
        calm = time.monotonic() - process.started_s > _CALM_S
        self._failures[process] = 0 if calm else self._failures.get(process, -1) + 1
        first_s, longest_s = self._backoff_s
        wait_s = min(longest_s, first_s * 2 ** min(self._failures[process], 30))
        self._due_s[process] = time.monotonic() + wait_s
        self.say(f"{why} It is started again in {wait_s:.3g} s.")

    def _say_ready(self, process: Process) -> None:
        took_s = time.monotonic() - process.started_s
        self.say(f"{process.name} is ready at {process.url} (pid {process.pid}, {took_s:.1f} s)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
