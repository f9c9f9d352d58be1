"""What every test of the proxy starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedllm.nodes.identity import Authority, enrol
from tests.unit.nodes.proxy.federation import Engine, Federation, Loop, echo


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def federation(tmp_path: Path, loop: Loop) -> Federation:
    authority = Authority.load_or_create(tmp_path / "authority")
    worker = enrol(authority, tmp_path / "worker", "worker")
    return Federation(tmp_path, loop, authority, worker, enrol(authority, tmp_path / "primary", "primary"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "engine.sock", echo)
    yield engine
    engine.close()
