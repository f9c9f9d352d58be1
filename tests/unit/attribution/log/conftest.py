"""A log of a fixed key in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sharedllm.attribution.log import Log
from tests.unit.attribution.log.naive import NAME, PRIVATE


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing takes most of the time here, and shows only when the power goes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    """Opens logs, by default the one in ``tmp_path/log``, and closes what a test left open."""
    logs: list[Log] = []

    def open_(folder: Path = tmp_path / "log", name: str = NAME) -> Log:
        logs.append(Log(folder, name, PRIVATE))
        return logs[-1]

    yield open_
    for log in logs:
        log.close()
