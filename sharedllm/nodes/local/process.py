"""One process of a federation: started, awaited, frozen, ended, started again; its words kept in a file.

It runs in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor, which ends the rest
in order. It says ``ready <url>`` on stdout once it serves; stderr, and what else it says, goes to
``<name>.log`` in the log folder. Each start begins a new file; the four before it stay as ``<name>.1.log`` ….

*Covered*: a supervisor that is killed (see ``tether``), a child that ignores SIGTERM, its descendants.
*Not covered*: a descendant that left the session and whose parent died before ``kill`` looked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Literal

import psutil

from sharedllm.nodes.local.errors import ProcessFailed

__all__ = ["GRACE_S", "Event", "Process"]

Event = Literal["ready", "ended"]

GRACE_S = 15.0
_LOGS = 5
_READY = b"ready "
_MAX_LINE_BYTES = 4096
_TAIL_BYTES = 16384
_MAX_WORDS = 600


class Process:
    """A named child process; the same object lives through restarts.

    ``command`` is asked at each start, with the url of the last one (None the first time), so that a port
    which the system chose can be asked for again. ``stdin`` gives what the child reads (join tokens: never in
    arguments). ``spawner`` must run everything in one thread that lives as long as the child may: Linux ends
    a tethered child with the *thread* that made it. ``on_event`` is called from another thread.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[str | None], Sequence[str]],
        *,
        logs: Path,
        spawner: Executor,
        environment: Mapping[str, str] | None = None,
        stdin: Callable[[], str] | None = None,
        on_event: Callable[[Process, Event], None] | None = None,
    ) -> None:
        self.name, self.log = name, logs / f"{name}.log"
        self.url: str | None = None
        self.meant_to_end = False
        self.started_s = 0.0
        self._command, self._stdin = command, stdin
        self._spawner = spawner
        self._environment = dict(os.environ if environment is None else environment)
        self._on_event = on_event or (lambda process, event: None)
        self._child: subprocess.Popen[bytes] | None = None
        self._ready, self._ended, self._settled = threading.Event(), threading.Event(), threading.Event()
        self._ended.set()

    @property
    def pid(self) -> int:
        """The process id of the last start; raises ``ProcessFailed`` before the first."""
        if self._child is None:
            raise ProcessFailed(f"{self.name} was never started; call start() first.")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended (a frozen one runs)."""
        return not self._ended.is_set()

    def start(self) -> None:
        """Start it and return at once; raises ``ProcessFailed`` while it runs or if it can't be started."""
        if self.running:
            raise ProcessFailed(f"{self.name} runs already (pid {self.pid}).")
        command = [str(part) for part in self._command(self.url)]
        words = self._stdin() if self._stdin is not None else ""
        self._rotate()
        self._ready, self._ended, self._settled = threading.Event(), threading.Event(), threading.Event()
        self.meant_to_end, self.started_s = False, time.monotonic()
        try:
            child = self._child = self._spawner.submit(self._spawn, command).result()
        except OSError as error:
            self._ended.set()
            raise ProcessFailed(f"{self.name} could not be started ({error.strerror}).") from error
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; its log says why
            child.stdin.write(words.encode())
            child.stdin.close()
        events = (self._ready, self._ended, self._settled)
        threading.Thread(target=self._listen, args=(child, *events), name=self.name, daemon=True).start()

    def await_ready(self, deadline_s: float) -> str:
        """Return the url that it said it is ready at; raises ``ProcessFailed`` if it ends or says nothing."""
        self._settled.wait(deadline_s)
        if self._ready.is_set() and self.url is not None:
            return self.url
        raise ProcessFailed(self.obituary() if self._ended.is_set() else self.silence(deadline_s))

    def wait(self, deadline_s: float) -> bool:
        """Wait for it to end; returns whether it has."""
        return self._ended.wait(deadline_s)

    def kill(self) -> None:
        """End it and its descendants at once, as a pulled plug would; returns when it is gone."""
        self._signal_all(signal.SIGKILL)
        self._ended.wait(GRACE_S)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Ask it to finish, and kill it after ``grace_s``; returns when it is gone."""
        self.ask_to_stop()
        if not self.wait(grace_s):
            self.kill()

    def ask_to_stop(self) -> None:
        """Send SIGTERM (to a frozen one too) and return at once."""
        self.thaw()
        self.meant_to_end = True
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it and its descendants where they stand, as a machine that hangs does (SIGSTOP)."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal_all(signal.SIGCONT)

    def restart(self) -> None:
        """End it if it runs, and start it again."""
        if self.running:
            self.stop()
        self.start()

    def obituary(self) -> str:
        """Say how it ended, and what its log says last."""
        code = (self._child.returncode or 0) if self._child is not None else 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"{self.name} ended {how}. {self._last_words()}"

    def silence(self, waited_s: float) -> str:
        """Say that it has not become ready in time, and what its log says last."""
        return f"{self.name} was not ready after {waited_s:.0f} s. {self._last_words()}"

    def _last_words(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        if not lines:
            return f"Its log, {self.log}, is empty."
        last = _plain(lines[-1])
        return f"Its log, {self.log}, ends: {last}{'' if last.endswith(('.', '?', '!')) else '.'}"

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        tether = [sys.executable, "-IS", str(Path(__file__).with_name("tether.py")), str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*tether, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def _listen(
        self,
        child: subprocess.Popen[bytes],
        ready: threading.Event,
        ended: threading.Event,
        settled: threading.Event,
    ) -> None:
        assert child.stdout is not None
        with self.log.open("ab") as log, child.stdout as output:
            for line in _lines(output):
                if line.startswith(_READY) and not ready.is_set():
                    self.url = line[len(_READY) :].decode("utf-8", "replace").strip()
                    ready.set()
                    settled.set()
                    self._on_event(self, "ready")
                else:
                    log.write(line)
                    log.flush()
        child.wait()
        ended.set()
        settled.set()
        self._on_event(self, "ended")

    def _signal_all(self, number: signal.Signals) -> None:
        if number is signal.SIGKILL:
            self.meant_to_end = True
        if self._child is None or not self.running:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for descendant in family:
            with contextlib.suppress(psutil.Error):
                descendant.send_signal(number)  # psutil knows a reused pid from the process it saw

    def _rotate(self) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aged = [self.log, *(self.log.with_suffix(f".{age}.log") for age in range(1, _LOGS))]
        for older, newer in zip(aged[:0:-1], aged[-2::-1], strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)


def _plain(line: str) -> str:
    """Return what a log line says to a person: of a record in JSON, its message and what was raised."""
    try:
        record = json.loads(line)
        raised = str(record.get("error", "")).strip().splitlines()
        said = ": ".join([str(record["message"]), *raised[-1:]])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = line
    return said[:_MAX_WORDS]


def _lines(output: IO[bytes]) -> Iterator[bytes]:
    """Yield lines as they come; one without an end is cut, so that it can't fill memory."""
    while line := output.readline(_MAX_LINE_BYTES):
        yield line
