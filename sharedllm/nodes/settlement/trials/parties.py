"""Parties by number: the same keys in every run of a seed, so that a run can be repeated to the byte."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.settlement.statements import Signer

__all__ = ["name", "party"]


def party(seed: int, number: int) -> Signer:
    """The party ``number`` of a run; its key is worth nothing, everybody can make it."""
    return Signer(NodeKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_of(seed, number)).digest())))


def name(seed: int, what: str, number: int) -> str:
    """64 hex digits for something that signs nothing: a manifest, a trainer, a server."""
    return hashlib.sha256(what.encode() + _of(seed, number)).hexdigest()


def _of(seed: int, number: int) -> bytes:
    return f"{seed}/{number}".encode()
