"""Members of one federation that gossip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.nodes.gossip.federation import Members


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path)
    yield members
    for service in list(members.running):
        members.stop(service)
