"""The worker's parent: it ends when told, whatever its engine does, and takes its engine along."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity import Authority, Peer, Ticket, enrol
from sharedllm.nodes.worker import WorkerSettings, agent
from sharedllm.nodes.worker.engine import EngineProcess
from tests.unit.nodes.worker.children import DIES, WAITS, settings, until

MADE: list[EngineProcess] = []


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(Authority.load_or_create(tmp_path / "authority"), tmp_path / "worker", "worker")
    return tmp_path / "worker"


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let the worker's engine be ``program``."""

    def made(given: WorkerSettings, memory_bytes: int) -> EngineProcess:
        MADE.append(EngineProcess(given, memory_bytes))
        MADE[-1]._command = [sys.executable, "-ISc", program]
        return MADE[-1]

    monkeypatch.setattr(agent, "EngineProcess", made)


def test_a_worker_whose_engine_never_comes_up_still_ends_when_told(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, DIES)

    async def run() -> None:
        running = asyncio.create_task(agent._Agent(settings(state)).run())
        await until(lambda: bool(MADE) and MADE[-1].restarts > 0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)

    asyncio.run(run())
    assert not MADE[-1].socket.parent.exists()


def test_a_port_that_is_taken_ends_the_worker_and_its_engine(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, WAITS.format(says="{}"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = WorkerSettings(
            state, "https://127.0.0.1:1", host="127.0.0.1", rpc_port=taken.getsockname()[1]
        )
        with pytest.raises(OSError, match=r"in use|taken"):
            agent.serve(given)
    assert not psutil.pid_exists(MADE[-1].pid)


TICKET = Ticket("d" * 32, "c" * 32, "a" * 64, 0, 4, 2**40, "b" * 32)


def caller(identity: str) -> Peer:
    return Peer(id=identity, role="primary", not_before=0, not_after=2**40)


def test_a_revoked_caller_with_a_good_ticket_is_refused(state: Path) -> None:
    worker = agent._Agent(settings(state))
    worker._admit(TICKET, caller("c" * 32))
    worker.revoked = {"c" * 32}
    with pytest.raises(TicketRefused, match="was revoked"):
        worker._admit(TICKET, caller("c" * 32))


def test_a_paused_worker_refuses_everyone(state: Path) -> None:
    worker = agent._Agent(settings(state))
    worker.paused = True
    with pytest.raises(TicketRefused, match="paused by its owner"):
        worker._admit(TICKET, caller("c" * 32))


def test_a_caller_that_members_expelled_is_refused(state: Path) -> None:
    row = '{"' + "c" * 32 + '": {"reasons": {}, "expelled": true}}'
    (state / "accused.json").write_text(row)
    with pytest.raises(TicketRefused, match="expelled by two thirds"):
        agent._Agent(settings(state))._admit(TICKET, caller("c" * 32))
