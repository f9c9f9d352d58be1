"""What nodes that are processes say to each other: receiver, sender and kind (a byte each), and a payload.

The payload is a claim with the bytes it is for, an acknowledgement, or (to the relay itself) whether this
node is done.
"""

from __future__ import annotations

import hashlib

__all__ = ["ACKNOWLEDGED", "CLAIMED", "DATAGRAM_BYTES", "DONE", "RELAY", "carried", "claim_with", "content"]

CLAIMED, ACKNOWLEDGED, DONE = 0, 1, 2
RELAY = 255
DATAGRAM_BYTES = 1 << 16
_LEAST_BYTES, _MOST_BYTES = 1000, 9000


def content(server: int, client: int, number: int) -> bytes:
    """The bytes of a transfer: the same whenever they are made, so that they outlive the process."""
    name = f"{server}/{client}/{number}".encode()
    draw = int.from_bytes(hashlib.sha256(name).digest()[:4], "big")
    return hashlib.shake_128(name).digest(_LEAST_BYTES + draw % (_MOST_BYTES - _LEAST_BYTES))


def claim_with(statement: bytes, body: bytes) -> bytes:
    """The payload of a claim: its length in two bytes, the statement, the transfer."""
    return len(statement).to_bytes(2, "big") + statement + body


def carried(payload: bytes) -> tuple[bytes, bytes]:
    """A claim's statement and the bytes that came with it."""
    length = int.from_bytes(payload[:2], "big")
    return payload[2 : 2 + length], payload[2 + length :]
