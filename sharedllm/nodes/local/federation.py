"""A whole federation on one machine, as ``sharedllm up`` starts it: coordinator, workers and primary.

Each is a process of its own with a node key of its own; they trust each other only by what the coordinator
signs, as they would on different machines. Join tokens go through pipes, never through arguments.

*Covered*: other machines that join (``lan``), a second start from the same folder, a port that is taken, a
start that fails half-way. *Not covered*: two starts at the same moment that choose the same free port; the
one that comes second ends with a sentence.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import psutil

from sharedllm.nodes.local import lock
from sharedllm.nodes.local.addresses import free_port, lan_address, port_of, refuse_taken
from sharedllm.nodes.local.errors import ProcessFailed
from sharedllm.nodes.local.process import GRACE_S, Process
from sharedllm.nodes.local.supervisor import Supervisor

__all__ = ["COORDINATOR_PORT", "PAGE_PORT", "WORKER_PORT", "Federation"]

COORDINATOR_PORT, PAGE_PORT, WORKER_PORT = 8420, 8421, 50052

_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"
_COORDINATOR_S, _NODES_S = 60.0, 180.0
_LOOK_S = 0.25
_MEMORY_SHARE = 0.8  # of what is free; the rest is for the primary, the page cache and the person


class Federation(Supervisor):
    """Coordinator, ``workers`` workers and a primary that serves ``model``, all under ``state``.

    ``specialists`` are served beside it, and together as a mixture. Port 0 lets the system choose. ``lan``
    makes coordinator and workers reachable for other machines; the page stays on loopback. ``spread`` splits
    the model over that many workers (default: all of them, or with ``lan`` as many as are fastest, of all
    that joined); ``threads`` is each engine's, ``memory_bytes`` each worker's (default: an equal part of most
    of what is free).
    """

    def __init__(
        self,
        state: Path,
        *,
        model: str = "smollm2-135m",
        specialists: Sequence[str] = (),
        workers: int = 2,
        port: int = PAGE_PORT,
        coordinator_port: int = COORDINATOR_PORT,
        lan: bool = False,
        spread: int | None = None,
        wire: Literal["fp16", "fp32", "int8"] = "fp16",
        threads: int | None = None,
        memory_bytes: int | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.state, self.model, self.lan = state.absolute(), model, lan
        self.specialists = tuple(specialists)
        super().__init__(self.state / "logs", _environment(threads), say=say)
        self._port, self._coordinator_port = port, coordinator_port
        self._spread = spread or (None if lan else workers)
        self._wire, self._threads = wire, threads
        self._memory_bytes = memory_bytes or _equal_part(workers)
        self._held = contextlib.ExitStack()
        self.address = (lan_address() or _LOOPBACK) if lan else _LOOPBACK
        self._host = _EVERYWHERE if lan else _LOOPBACK
        self.coordinator = self.add("coordinator", self._coordinator)
        taken: set[int] = set()
        self.workers = [self._add_worker(f"worker-{n}", taken) for n in range(1, workers + 1)]
        self.primary = self.add("primary", self._primary, self._token_line)

    @property
    def page_url(self) -> str:
        """Where a browser finds the page."""
        return f"http://{_LOOPBACK}:{_port(self.primary)}"

    @property
    def api_url(self) -> str:
        """What an OpenAI client calls its base URL."""
        return self.page_url + "/v1"

    @property
    def coordinator_url(self) -> str:
        """Where nodes of this machine find the coordinator."""
        return f"https://{_LOOPBACK}:{_port(self.coordinator)}"

    @property
    def public_url(self) -> str:
        """Where nodes of other machines find the coordinator (with ``lan``)."""
        return f"https://{self.address}:{_port(self.coordinator)}"

    @property
    def operator(self) -> Path:
        """The state folder of the person at this machine, who may ask the coordinator for its status."""
        return self.state / "operator"

    def up(self, before: Callable[[], object] = lambda: None) -> Self:
        """Start everything, or nothing; ``before`` runs once it is known that folder and ports are free.

        Raises ``AlreadyUp``, ``PortTaken``, ``ProcessFailed``, and what ``before`` raises.
        """
        try:
            self._held.enter_context(lock.holding(self.state))
            refuse_taken(_LOOPBACK, self._port, "--port", "the page")
            refuse_taken(self._host, self._coordinator_port, "--coordinator-port", "the coordinator")
            before()
            self.start([self.coordinator], _COORDINATOR_S)
            self._enrol_operator()
            self.start([*self.workers, self.primary], _NODES_S)
            lock.note(self.state, page=self.page_url, api=self.api_url, pid=os.getpid())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End the primary, then the workers, then the coordinator, and give up the state folder."""
        self.primary.stop(grace_s)
        for worker in self.workers:
            worker.ask_to_stop()
        super().stop(grace_s)
        self._held.close()

    def token(self, uses: int = 1, ttl_s: float = 3600.0) -> str:
        """Make a join token for this federation; it is a secret."""
        from sharedllm.nodes.coordinator import create_token

        return create_token(self.state / "coordinator", uses=uses, ttl_s=ttl_s)

    def ready(self) -> tuple[bool, str]:
        """Return whether a real token went through the whole pipeline, and a sentence about it."""
        try:
            answer = httpx.get(self.page_url + "/readyz", timeout=10.0, trust_env=False)
        except httpx.HTTPError as error:
            return False, f"The primary does not answer ({type(error).__name__})."
        facts = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        return answer.status_code == httpx.codes.OK, str(facts.get("sentence") or facts.get("error") or "")

    def await_pipeline(self, deadline_s: float = _NODES_S) -> str:
        """Wait until the pipeline works and return the sentence that says so; raises ``ProcessFailed``."""
        until_s = time.monotonic() + deadline_s
        while True:
            works, sentence = self.ready()
            if works:
                return sentence
            for process in self.processes:
                if not process.running:
                    raise ProcessFailed(process.obituary())
            if time.monotonic() > until_s:
                raise ProcessFailed(f"No pipeline after {deadline_s:.0f} s: {sentence} Logs: {self._logs}.")
            time.sleep(_LOOK_S)

    def status(self) -> dict[str, Any]:
        """Return what the coordinator knows, as ``sharedllm status`` shows it."""
        from sharedllm.nodes.coordinator import CoordinatorClient
        from sharedllm.nodes.identity import Identity

        client = CoordinatorClient(Identity.load(self.operator), self.coordinator_url)
        with contextlib.closing(client):
            return client.status()

    def _enrol_operator(self) -> None:
        from sharedllm.nodes.identity import join

        join(self.coordinator_url, self.token(), "operator", self.operator, "operator")

    def _token_line(self) -> str:
        return self.token() + "\n"

    def _add_worker(self, name: str, taken: set[int]) -> Process:
        port = 0
        if self.lan:
            port = free_port(self._host, WORKER_PORT, taken)
            taken.add(port)

        def command(url: str | None) -> list[str]:
            chosen = port or (port_of(url) if url else 0)
            command = self._node("worker", name, "--host", self._host, "--rpc-port", str(chosen))
            command += ["--memory", str(self._memory_bytes)]
            return [*command, "--lan-addr", f"{self.address}:{chosen}"] if self.lan else command

        return self.add(name, command, self._token_line)

    def _primary(self, url: str | None) -> list[str]:
        port = port_of(url) if url else self._port
        serving = ["--host", _LOOPBACK, "--port", str(port), "--model", self.model]
        if self.specialists:
            serving += ["--specialists", ",".join(self.specialists)]
        if self._spread:
            serving += ["--spread", str(self._spread)]
        return self._node("primary", "primary", *serving, "--wire", self._wire)

    def _coordinator(self, url: str | None) -> list[str]:
        port = port_of(url) if url else self._coordinator_port
        folder = str(self.state / "coordinator")
        return [*_program("coordinator"), "--host", self._host, "--port", str(port), "--state", folder]

    def _node(self, role: str, name: str, *more: str) -> list[str]:
        command = [*_program("node"), "--role", role, "--name", name, "--state", str(self.state / name)]
        command += ["--coordinator-url", self.coordinator_url, "--join-token-file", "-", *more]
        return [*command, "--threads", str(self._threads)] if self._threads else command

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _port(process: Process) -> int:
    """Return where a process served last; after its first start that is for good."""
    if process.url is None:
        raise ProcessFailed(f"{process.name} has not been ready yet; start the federation first.")
    return port_of(process.url)


def _program(command: str) -> list[str]:
    return [sys.executable, "-m", "sharedllm.cli.main", command]


def _environment(threads: int | None) -> dict[str, str]:
    """Children get every setting by flag, so what is set for a single node here must not reach them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SHAREDLLM_")}
    if home := os.environ.get("SHAREDLLM_HOME"):
        kept["SHAREDLLM_HOME"] = home
    added = {"SHAREDLLM_SETTINGS": os.devnull, "PYTHONUNBUFFERED": "1"}
    if threads:
        added["OMP_NUM_THREADS"] = str(threads)
    return kept | added


def _equal_part(workers: int) -> int:
    return int(psutil.virtual_memory().available * _MEMORY_SHARE / max(1, workers))
