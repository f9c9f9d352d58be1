"""``sharedllm up`` as a person runs it: everything starts, is said, is brought back, and ends with Ctrl-C."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from sharedllm.cli.network import up
from sharedllm.cli.talk import generate
from sharedllm.nodes.local import AlreadyUp, lock

DEADLINE_S = 240.0


class Running:
    """A started ``sharedllm up`` and what it says."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", "sharedllm.cli.main", "up", "--no-browser"]
        ports = ["--port", "0", "--coordinator-port", "0"]
        self.program = subprocess.Popen(
            [*command, *ports, "--model", "toy"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SHAREDLLM_STATE": str(state)},
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, pattern: str) -> re.Match[str]:
        """Return the next line that has ``pattern``."""
        while (line := self._lines.get(timeout=DEADLINE_S)) is not None:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("\n".join(self.said))

    def _read(self) -> None:
        assert self.program.stdout is not None
        with self.program.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put(None)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("state"))
    yield started
    started.program.kill()
    started.program.wait()


@pytest.mark.slow
def test_up_serves_a_page_and_an_api_survives_a_kill_and_ends_with_an_interrupt(running: Running) -> None:
    worker = int(running.until(r"worker-1 is ready at .* \(pid (\d+)")[1])
    page = running.until(r"Page +(http://127\.0\.0\.1:\d+)")[1]
    running.until(r"API +" + page + "/v1")
    running.until("End +Ctrl-C")
    family = psutil.Process(running.program.pid).children(recursive=True)
    assert len(family) >= 6  # coordinator, primary, and two workers with an engine each

    said = CliRunner().invoke(generate.app, ["the cat", "--max-tokens", "4", "--url", page])
    assert said.exit_code == 0, said.output

    os.kill(worker, signal.SIGKILL)
    running.until("worker-1 ended by SIGKILL.* It is started again in 1 s")
    running.until("worker-1 is ready")

    family += psutil.Process(running.program.pid).children(recursive=True)
    running.program.send_signal(signal.SIGINT)
    assert running.program.wait(DEADLINE_S) == 0
    _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert not alive


def test_a_second_up_is_told_where_the_first_one_serves(tmp_path: Path) -> None:
    with lock.holding(tmp_path):
        lock.note(tmp_path, page="http://127.0.0.1:8421", pid=1)
        second = CliRunner().invoke(up.app, ["--state", str(tmp_path), "--no-browser"])
    assert isinstance(second.exception, AlreadyUp)
    assert "http://127.0.0.1:8421" in str(second.exception)


@pytest.mark.parametrize("lan", [False, True])
def test_the_welcome_says_how_another_machine_joins(
    lan: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedllm.nodes.local.federation.lan_address", lambda: "10.1.2.3")
    federation = up.Federation(tmp_path, workers=1, lan=lan)
    federation.coordinator.url, federation.primary.url = "https://0.0.0.0:8420", "http://127.0.0.1:8421"
    monkeypatch.setattr(federation, "token", lambda ttl_s: "SL1-token")
    said = up._welcome(federation, default_state=True)
    assert ("sharedllm join https://10.1.2.3:8420 SL1-token" in said) == lan
    assert ("sharedllm up --lan" in said) != lan


def test_a_display_is_needed_for_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert up._has_display()
    monkeypatch.delenv("WAYLAND_DISPLAY")
    assert not up._has_display()
