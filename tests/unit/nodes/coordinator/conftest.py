"""A clock that only moves when told, and a registry on a database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from sharedllm.nodes.coordinator.database import open_database
from sharedllm.nodes.coordinator.registry import Registry
from sharedllm.nodes.coordinator.schemas import NodeReport
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.identity import Authority

MODEL = "ab" * 32


class Clock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine, clock: Clock) -> Registry:
    return Registry(engine, clock=clock)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.load_or_create(tmp_path)


@pytest.fixture
def coordinator(engine: Engine, authority: Authority, clock: Clock) -> Coordinator:
    return Coordinator(engine, authority, clock=clock)


@pytest.fixture
def report() -> Callable[..., NodeReport]:
    def make(name: str, **fields: Any) -> NodeReport:
        usual: dict[str, Any] = {
            "name": name,
            "role": "worker",
            "host": name,
            "started": 1.0,
            "endpoints": [{"kind": "lan", "host": "127.0.0.1", "port": 50052}],
            "memory_bytes": 1_000,
            "models": [MODEL],
            "read_bytes_per_s": 1_000.0,
            "bandwidth_bytes_per_s": 1e9,
            "version": "0.1.0",
        }
        return NodeReport.model_validate(usual | fields)

    return make
