"""The workers of one machine: started, listened to, killed, frozen, and all gone when the launcher is.

*Covered*: workers that end by themselves, by signal, or not at all; Ctrl-C, which only the launcher gets; no
process and no zombie outlives the ``with``. *Not covered*: a launcher that is killed on a system other than
Linux; its workers end when they next ask for the meeting place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out of __all__

from sharedllm.errors import BadRecipe
from sharedllm.store import atomic, canonical_json
from sharedllm.training.data import Streams
from sharedllm.training.outer.processes.learner import write_text
from sharedllm.training.outer.processes.meeting import GIVE_UP, Meeting, depart
from sharedllm.training.outer.processes.settings import Settings
from sharedllm.training.outer.processes.worker import Job

__all__ = ["Crew", "Event"]

Event = dict[str, Any]

_PROGRAM = (sys.executable, "-c", "from sharedllm.training.outer.processes import worker; worker.main()")
# a lost peer is nothing to write pages about: the worker says it in a sentence
_QUIET = {"TORCH_CPP_LOG_LEVEL": "FATAL", "OMP_NUM_THREADS": "1"}
_GRACE_S = 5.0
_MAX_LINE_BYTES = 1 << 20
_LAST_WORDS_BYTES = 2_000


class Crew:
    """The workers called ``numbers``, which meet at ``store``; a ``with`` starts them and ends them all.

    ``folder`` gets their text, checkpoints and logs. Workers named in ``liars`` lie as their attack says.
    ``program`` is what a worker runs. Raises ``BadRecipe`` when ``folder`` holds another training.
    """

    def __init__(
        self,
        settings: Settings,
        streams: Streams,
        folder: Path,
        *,
        store: TCPStore,
        numbers: Sequence[int],
        liars: Mapping[int, str] | None = None,
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.settings, self.folder = settings, folder
        self._store, self._first = store, tuple(numbers)
        self._liars, self._program = dict(liars or {}), tuple(program)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._said: queue.Queue[Event] = queue.Queue()
        self._listeners: list[threading.Thread] = []
        _claim(folder, settings, self._liars)
        write_text(folder / "text.safetensors", streams)

    def __enter__(self) -> Self:
        for number in self._first:
            self._start(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._children:
            self.thaw(number)
            self._signal(number, signal.SIGTERM)
        deadline_s = time.monotonic() + _GRACE_S
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for listener in self._listeners:
            listener.join()

    def join(self) -> int:
        """Start a newcomer, which takes over the others' state; returns its number."""
        number = Meeting.number(self._store)
        self._start(number)
        return number

    def kill(self, number: int) -> None:
        """Pull its plug (SIGKILL)."""
        self._signal(number, signal.SIGKILL)

    def freeze(self, number: int) -> None:
        """Let it hang where it is (SIGSTOP)."""
        self._signal(number, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(number, signal.SIGCONT)

    def events(self) -> Iterator[Event]:
        """Yield what the workers say, each with ``worker``, until all have ended and said so (``ended``).

        Once one came to the end, or gave up, those that stay silent are killed: they hang.
        """
        ended, patience_s = 0, None
        while ended < len(self._children):
            try:
                event = self._said.get(timeout=patience_s)
            except queue.Empty:
                for number in self._children:
                    self.kill(number)
                continue
            ended += event["event"] == "ended"
            if event["event"] in ("done", "failed"):
                patience_s = (2 if event["event"] == "done" else GIVE_UP + 2) * self.settings.patience_s
            yield event

    def _start(self, number: int) -> None:
        liars = len(self._liars)
        place = (self._store.host, int(self._store.port))
        job = Job(*place, number, str(self.folder), self._liars.get(number), liars)
        log = self.folder / f"worker-{number}.log"
        with log.open("ab") as errors:
            child = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=os.environ | _QUIET,
            )
        self._children[number] = child
        assert child.stdin is not None
        told = dataclasses.asdict(job) | {"parent": os.getpid()}
        with contextlib.suppress(BrokenPipeError):  # it ended at once, and its listener says so
            child.stdin.write(json.dumps(told).encode() + b"\n")
            child.stdin.close()
        listener = threading.Thread(target=self._listen, args=(number, child, log), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _listen(self, number: int, child: subprocess.Popen[bytes], log: Path) -> None:
        assert child.stdout is not None
        why = ""
        with child.stdout as output:
            while line := output.readline(_MAX_LINE_BYTES):
                with contextlib.suppress(ValueError):  # cut off by a kill
                    event = json.loads(line)
                    why = event["why"] if event["event"] == "failed" else why
                    self._said.put(event | {"worker": event.get("worker", number)})
        code = child.wait()
        depart(self._store, number)
        words = why or (_last_words(log) if code > 0 else "")
        self._said.put({"event": "ended", "worker": number, "code": code, "why": words})

    def _signal(self, number: int, what: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._children[number].send_signal(what)


def _claim(folder: Path, settings: Settings, liars: Mapping[int, str]) -> None:
    """Make ``folder`` that of this training. Raises ``BadRecipe`` when it is another's."""
    path = folder / "settings.json"
    now = json.loads(settings.to_json()) | {"attacks": {str(number): liars[number] for number in liars}}
    before = json.loads(path.read_bytes()) if path.exists() else now
    differing = sorted(key for key in now if before.get(key) != now[key] and key != "patience_s")
    if differing:
        raise BadRecipe(
            f"{folder} holds a training with other {', '.join(differing)}; go on with the same settings, or "
            "give another --checkpoint folder."
        )
    atomic.write_bytes(path, canonical_json(now))


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-_LAST_WORDS_BYTES:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"Its log, {log}, is empty."
