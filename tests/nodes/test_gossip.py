"""Coordinator and workers as processes that gossip: with the coordinator killed, workers know who is here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sharedllm.nodes.identity import Authority, enrol

pytestmark = pytest.mark.slow
DEADLINE_S = 90.0


class Processes:
    """``sharedllm`` commands with state under one folder, killed in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.load_or_create(folder / "coordinator")
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one."""
        environment = {**os.environ, "SHAREDLLM_STATE": str(self.folder), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "sharedllm.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.running.append(process)
        return process

    def worker(self, name: str, url: str) -> subprocess.Popen[str]:
        state = self.folder / name
        enrol(self.authority, state, "worker")
        own = ["--name", name, "--state", str(state), "--coordinator-url", url, "--memory", "100MB"]
        where = ["--host", "127.0.0.1", "--rpc-port", "0", "--gossip-port", "0"]
        return self.start("node", "--role", "worker", *own, *where)

    def known(self, name: str) -> set[str]:
        """The names of the nodes that a worker remembers."""
        path = self.folder / name / "nodes.json"
        rows = json.loads(path.read_bytes())["nodes"] if path.exists() else {}
        return {row["name"] for row in rows.values()}

    def close(self) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.communicate(timeout=30)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.close()


def within(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < until_s, f"not so within {DEADLINE_S} s"
        threading.Event().wait(0.2)


def test_a_worker_that_starts_without_a_coordinator_finds_the_others(processes: Processes) -> None:
    state = ["--state", str(processes.folder / "coordinator"), "--host", "127.0.0.1", "--port", "0"]
    coordinator = processes.start("coordinator", *state, "--gossip-port", "0")
    assert coordinator.stdout is not None
    url = coordinator.stdout.readline().split()[1]
    one, _ = processes.worker("one", url), processes.worker("two", url)
    within(lambda: processes.known("one") == {"coordinator", "one", "two"})
    coordinator.kill()
    one.send_signal(signal.SIGTERM)
    one.wait(30)
    remembered = processes.folder / "one" / "nodes.json"
    before = remembered.stat().st_mtime_ns
    processes.worker("one", url)
    within(lambda: remembered.stat().st_mtime_ns > before and "two" in processes.known("one"))
