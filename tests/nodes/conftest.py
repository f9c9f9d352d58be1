"""One federation for all tests of a run; what one test breaks, the next finds mended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedllm.nodes.local import Federation
from tests.nodes.harness import Network


@pytest.fixture(scope="session")
def _federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    state: Path = tmp_path_factory.mktemp("federation")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with Federation(state, model="toy", workers=2, port=0, coordinator_port=0, threads=1) as federation:
        network = Network(federation)
        network.whole()
        yield network
        network.client.close()


@pytest.fixture
def network(_federation: Network) -> Network:
    """A federation in which everything runs."""
    _federation.whole()
    return _federation


@pytest.fixture(scope="session")
def undisturbed(_federation: Network) -> str:
    """What the model says when nothing happens."""
    _federation.whole()
    return _federation.tell().text
