"""A federation whose members are processes that gossip over TLS on loopback, and what is done to them.

*Covered*: starting, telling, killing without a word, parting by refusal. *Not covered*: machines of their
own, and networks that lose packets (TCP hides those; the simulator does not).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import Authority, enrol

__all__ = ["Members", "Process"]

_END_S = 10.0


class Process:
    """One member; ``ask`` sends a command and waits for its answer."""

    def __init__(self, folder: Path, seeds: list[Contact], round_s: float, lease_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sharedllm.nodes.gossip.trials.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = [[seed.id, seed.host, seed.port] for seed in seeds]
        begin = {"folder": str(folder), "seeds": told, "round_s": round_s, "lease_s": lease_s}
        said = self._say(begin)
        self.contact = Contact(said["id"], said["host"], said["port"])

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Have it do something. Raises ``BrokenPipeError`` when it is gone."""
        return self._say({"do": do, **more})

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        self._process.kill()
        self._close()

    def end(self) -> None:
        """Let it leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._close()

    def _say(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BrokenPipeError("the member is gone")
        said: dict[str, Any] = json.loads(line)
        return said

    def _close(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Members:
    """``count`` members that joined through the first; ended with the context.

    ``tell`` returns the seconds until the slowest of some members had heard, None if one had not in time.
    """

    def __init__(self, folder: Path, count: int, round_s: float, lease_s: float) -> None:
        self._authority = Authority.load_or_create(folder / "authority")
        self._folder, self._round_s, self._lease_s = folder, round_s, lease_s
        self._made = 0
        self.running: list[Process] = []
        self._threads = ThreadPoolExecutor(64)
        try:
            self.join([])
            first = [self.running[0].contact]
            for _ in range(count - 1):
                self.join(first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End whoever still runs."""
        for process in self.running:
            process.end()
        self.running = []
        self._threads.shutdown()

    def join(self, seeds: list[Contact]) -> Process:
        """One more member."""
        folder = self._folder / f"member-{self._made}"
        self._made += 1
        enrol(self._authority, folder, "worker")
        process = Process(folder, seeds, self._round_s, self._lease_s)
        self.running.append(process)
        return process

    def kill(self, processes: Collection[Process]) -> None:
        """End some members without a word."""
        for process in processes:
            self.running.remove(process)
            process.kill()

    def part(self, left: Collection[Process], right: Collection[Process]) -> None:
        """Have two groups refuse each other; two empty ones: nobody refuses anybody any more."""
        for process in self.running:
            other = right if process in left else left if process in right else ()
            process.ask("refuse", ids=[one.contact.id for one in other])

    def tell(
        self, key: str, teller: Process, hearers: Collection[Process], timeout_s: float, life_s: float = 600.0
    ) -> float | None:
        """Have ``teller`` say ``key`` and wait until all ``hearers`` heard it."""
        said = teller.ask("say", key=key, life_s=life_s)["at_s"]
        last = self.heard(key, hearers, timeout_s)
        return None if last is None else max(0.0, last - said)

    def heard(self, key: str, hearers: Collection[Process], timeout_s: float) -> float | None:
        """The monotonic time at which the last of ``hearers`` heard ``key``; None if one did not in time."""
        asked = [self._threads.submit(one.ask, "await", key=key, timeout_s=timeout_s) for one in hearers]
        times = [one.result()["at_s"] for one in asked]
        return None if None in times else max(times)

    def states(self) -> list[dict[str, Any]]:
        """What each member says now: ``nodes`` (ids) and ``heard`` (keys)."""
        return [process.ask("state") for process in self.running]
