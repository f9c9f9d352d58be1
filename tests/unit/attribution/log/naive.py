"""A key and a name for logs, and the root hash as the RFC defines it."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "sharedllm/test"


def naive_root(entries: list[bytes]) -> bytes:
    """The root hash as RFC 6962, §2.1, defines it, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()
