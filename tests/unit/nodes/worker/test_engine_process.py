"""The engine's process is heard, started again, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from sharedllm.nodes.worker import engine as keeping
from sharedllm.nodes.worker.engine import EngineProcess, News
from tests.unit.nodes.worker.children import DIES, IGNORES, WAITS, engine, until


def keep(kept: EngineProcess, story: Callable[[], Awaitable[None]]) -> None:
    """Let a story happen while an engine is kept, then stop it."""

    async def run() -> None:
        try:
            await story()
        finally:
            await kept.stop()

    asyncio.run(run())


def test_what_the_engine_says_of_itself_is_heard(tmp_path: Path) -> None:
    kept = engine(tmp_path, WAITS.format(says='{"sessions": 3, "kv_bytes": 70}'))
    keep(kept, kept.start)
    assert kept.news == News(sessions=3, kv_bytes=70)


@pytest.mark.parametrize("garbage", ["", "no JSON", "[1, 2]", "7", '{"unknown": 1}', "\x00\xff"])
def test_garbage_from_the_engine_is_passed_over(tmp_path: Path, garbage: str) -> None:
    kept = engine(tmp_path, WAITS.format(says=garbage + '\n{"sessions": 1}'))
    keep(kept, kept.start)
    assert kept.news.sessions == 1


def test_a_killed_engine_is_started_again(tmp_path: Path) -> None:
    kept = engine(tmp_path, WAITS.format(says='{"sessions": 3}'))

    async def story() -> None:
        await kept.start()
        first = kept.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: kept.restarts == 1)
        assert kept.news == News()
        await until(lambda: kept.news.sessions == 3)
        assert kept.pid != first

    keep(kept, story)


def test_an_engine_that_keeps_dying_is_started_ever_more_rarely(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_LONGEST_PAUSE_S", 0.6)
    kept = engine(tmp_path, DIES)

    async def story() -> None:
        starting = asyncio.create_task(kept.start())
        await until(lambda: kept.restarts == 3)
        starting.cancel()

    keep(kept, story)
    told = [record.args for record in caplog.records if "started again" in record.message]
    assert told == [(3, 0.4), (3, 0.6), (3, 0.6)]


def test_nothing_of_a_stopped_engine_is_left(tmp_path: Path) -> None:
    kept = engine(tmp_path, WAITS.format(says="{}"))
    keep(kept, kept.start)
    assert not psutil.pid_exists(kept.pid)
    assert not kept.socket.parent.exists()


def test_an_engine_that_does_not_end_when_told_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_GRACE_S", 0.2)
    kept = engine(tmp_path, IGNORES.format(says="{}"))
    keep(kept, kept.start)
    assert not psutil.pid_exists(kept.pid)


def test_an_engine_may_be_stopped_before_it_ever_spoke_and_twice(tmp_path: Path) -> None:
    kept = engine(tmp_path, "import signal; signal.pause()")

    async def story() -> None:
        starting = asyncio.create_task(kept.start())
        await until(lambda: kept._child is not None)
        starting.cancel()
        await kept.stop()

    keep(kept, story)
    assert not kept.socket.parent.exists()


def test_the_place_of_the_socket_is_short_enough_for_the_kernel(tmp_path: Path) -> None:
    kept = engine(tmp_path, DIES)
    asyncio.run(kept.stop())
    assert len(str(kept.socket)) < 100


def test_there_is_no_pid_of_an_engine_that_was_not_started(tmp_path: Path) -> None:
    kept = engine(tmp_path, DIES)
    with pytest.raises(RuntimeError, match="not been started"):
        _ = kept.pid
    asyncio.run(kept.stop())
