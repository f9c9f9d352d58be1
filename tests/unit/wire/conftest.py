"""Two links, one at each end of a connection: plain, and through TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sharedllm.nodes.identity import Authority, Identity, enrol
from sharedllm.wire import Link
from tests.unit.wire.connections import Ends, encrypted


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity]:
    """A worker and a primary of one federation."""
    folder = tmp_path_factory.mktemp("federation")
    authority = Authority.load_or_create(folder / "authority")
    return enrol(authority, folder / "worker", "worker"), enrol(authority, folder / "primary", "primary")


@pytest.fixture(params=["plain", "tls"])
def ends(request: pytest.FixtureRequest, nodes: tuple[Identity, Identity]) -> Iterator[Ends]:
    """Both ends of a fresh connection, the two as bare sockets."""
    sockets = socket.socketpair() if request.param == "plain" else encrypted(nodes)
    yield sockets
    for sock in sockets:
        sock.close()


@pytest.fixture
def pair(ends: Ends) -> Iterator[tuple[Link, Link]]:
    """Two links over one connection, with the usual limits."""
    left, right = Link(ends[0], "Ada"), Link(ends[1], "Bo")
    yield left, right
    left.close()
    right.close()
