"""An authority in a temporary folder, and a stand-in coordinator that speaks joining over real TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedllm.nodes.identity import Authority, Identity, enrol
from tests.unit.nodes.identity.stand_in import StandIn


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.load_or_create(tmp_path / "authority")


@pytest.fixture
def worker(authority: Authority, tmp_path: Path) -> Identity:
    return enrol(authority, tmp_path / "worker", "worker")


@pytest.fixture
def primary(authority: Authority, tmp_path: Path) -> Identity:
    return enrol(authority, tmp_path / "primary", "primary")


@pytest.fixture
def coordinator(authority: Authority, tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(authority, enrol(authority, tmp_path / "coordinator", "coordinator")) as coordinator:
        yield coordinator
