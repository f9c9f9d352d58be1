"""Parties with keys that are the same in every run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.settlement import Signer


@pytest.fixture(scope="session")
def party() -> Callable[[int], Signer]:
    """The party with this number."""
    return lambda n: Signer(NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)))
