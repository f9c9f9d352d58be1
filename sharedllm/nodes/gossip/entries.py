"""A signed entry of the directory: who says what about which subject, in which version, until when.

An entry is named by its *slot*: kind, issuer and key. Of two entries in one slot the later sequence wins, and
of two with the same sequence the one whose body has the larger SHA-256, so that all nodes agree whatever
arrives first. A *withdrawn* entry says that its slot is empty; it is kept until it expires like any other.

Layout of the signed body, big-endian: ``sharedllm-gossip-1`` NUL, kind u8, withdrawn u8, issuer 32, sequence
u64, expires u64 (Unix s), key length u8, payload length u16, key, payload. On the wire the 64-byte Ed25519
signature follows, then the issuer's certificate (DER) with its length u16: the proof of membership travels
with the entry, so that no coordinator need be asked. The certificate is not part of the signed body, because
it is renewed more often than what it vouches for.

*Covered*: every length is checked before anything is cut off; a body has one reading. *Not covered*: an
issuer who signs two bodies under one sequence; all nodes keep the same one.
"""

from __future__ import annotations

import enum
import hashlib
import math
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding

from sharedllm.nodes.gossip.errors import BadEntry
from sharedllm.nodes.identity import NodeKey, node_id
from sharedllm.nodes.identity.certificates import read_certificate

__all__ = ["CERTIFICATE_BYTES", "ENTRY_BYTES", "PAYLOAD_BYTES", "SLOT_BYTES", "Author", "Entry", "Kind"]

_MAGIC = b"sharedllm-gossip-1\x00"
_HEAD = struct.Struct(">BB32sQQBH")
_FIXED = len(_MAGIC) + _HEAD.size
_SIGNATURE_BYTES = 64
_KEY_BYTES = 64
SLOT_BYTES = 16
VERSION_BYTES = 16
CERTIFICATE_BYTES = 2048


class Kind(enum.IntEnum):
    """What an entry is about."""

    LEASE = 1  # a node is here, and where; no key
    MANIFEST = 2  # a specialist exists; key: its id (32 bytes), payload: its signed manifest
    VOTE = 3  # a node should be expelled; key: its id in hex, payload: why


PAYLOAD_BYTES = {Kind.LEASE: 2048, Kind.MANIFEST: 4096, Kind.VOTE: 512}
ENTRY_BYTES = _FIXED + _KEY_BYTES + max(PAYLOAD_BYTES.values()) + _SIGNATURE_BYTES + 2 + CERTIFICATE_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One signed statement; ``slot``, ``rank`` (sequence, version) and ``issuer_id`` follow from the body."""

    kind: Kind
    issuer: bytes
    key: bytes
    sequence: int
    expires_s: int
    withdrawn: bool
    payload: bytes
    signature: bytes
    certificate: bytes
    slot: bytes = field(init=False)
    rank: tuple[int, bytes] = field(init=False)

    def __post_init__(self) -> None:
        named = bytes([self.kind]) + self.issuer + self.key
        object.__setattr__(self, "slot", hashlib.sha256(named).digest()[:SLOT_BYTES])
        version = hashlib.sha256(self.body).digest()[:VERSION_BYTES]
        object.__setattr__(self, "rank", (self.sequence, version))

    @property
    def issuer_id(self) -> str:
        """The node that signed."""
        return node_id(self.issuer)

    @property
    def body(self) -> bytes:
        """What is signed."""
        head = _HEAD.pack(
            self.kind,
            self.withdrawn,
            self.issuer,
            self.sequence,
            self.expires_s,
            len(self.key),
            len(self.payload),
        )
        return _MAGIC + head + self.key + self.payload

    def to_bytes(self) -> bytes:
        """The form that travels; at most ``ENTRY_BYTES``."""
        certificate = struct.pack(">H", len(self.certificate)) + self.certificate
        return self.body + self.signature + certificate

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry:
        """Read what ``to_bytes`` wrote; nothing is proven yet.

        Raises ``BadEntry`` for any other bytes.
        """
        if not _FIXED <= len(data) <= ENTRY_BYTES or not data.startswith(_MAGIC):
            raise BadEntry(
                f"{len(data)} bytes are no gossip entry; one has {_FIXED} to {ENTRY_BYTES} and begins with "
                f"{_MAGIC[:-1].decode()}."
            )
        kind, withdrawn, issuer, sequence, expires_s, key_bytes, payload_bytes = _HEAD.unpack_from(
            data, len(_MAGIC)
        )
        if kind not in set(Kind) or withdrawn > 1:
            raise BadEntry(f"An entry of kind {kind} with flag {withdrawn} is unknown here.")
        signed = _FIXED + key_bytes + payload_bytes
        proof = signed + _SIGNATURE_BYTES + 2
        if key_bytes > _KEY_BYTES or payload_bytes > PAYLOAD_BYTES[Kind(kind)] or len(data) < proof:
            raise BadEntry(
                f"An entry announces a key of {key_bytes} and a payload of {payload_bytes} bytes, which is "
                "too long for its kind or for what arrived."
            )
        (certificate_bytes,) = struct.unpack_from(">H", data, proof - 2)
        if certificate_bytes > CERTIFICATE_BYTES or len(data) != proof + certificate_bytes:
            raise BadEntry(
                f"An entry announces a certificate of {certificate_bytes} bytes; {len(data) - proof} came."
            )
        if (withdrawn and payload_bytes) or (kind == Kind.LEASE and key_bytes):
            raise BadEntry("A withdrawn entry has no payload, and a lease has no key; this one has.")
        return cls(
            Kind(kind),
            issuer,
            data[_FIXED : _FIXED + key_bytes],
            sequence,
            expires_s,
            bool(withdrawn),
            data[_FIXED + key_bytes : signed],
            data[signed : signed + _SIGNATURE_BYTES],
            data[proof:],
        )


class Author:
    """Signs one node's entries: sequences rise over restarts, and no entry outlives the one that follows it.

    ``certificate`` (DER) may be replaced after a renewal. A later entry that expired before an earlier one
    would let a late copy of the earlier come back to life; that is why ``expires_s`` never falls.
    """

    def __init__(self, key: NodeKey, certificate: bytes) -> None:
        self._key, self._issuer = key, key.public_bytes
        self.certificate = certificate
        self._last: dict[tuple[Kind, bytes], tuple[int, int]] = {}

    @property
    def id(self) -> str:
        """The node that signs."""
        return node_id(self._issuer)

    def recall(self, entry: Entry) -> None:
        """Go on above an entry that this key signed before, in an earlier run or by a faster clock."""
        sequence, expires_s = self._last.get((entry.kind, entry.key), (0, 0))
        last = max(sequence, entry.sequence), max(expires_s, entry.expires_s)
        self._last[(entry.kind, entry.key)] = last

    def certify(self, pem: bytes) -> float:
        """Show this certificate from now on; its end (Unix s)."""
        certificate = read_certificate(pem)
        self.certificate = certificate.public_bytes(Encoding.DER)
        return certificate.not_valid_after_utc.timestamp()

    def issue(self, kind: Kind, key: bytes, payload: bytes, life_s: float, now: float) -> Entry:
        """A new version of this node's entry about ``key``, for ``life_s`` from ``now`` (Unix s).

        Raises ``BadEntry`` for what is too long.
        """
        if len(payload) > PAYLOAD_BYTES[kind]:
            raise BadEntry(
                f"A {kind.name.lower()} of {len(payload)} bytes was to be published; it may have at most "
                f"{PAYLOAD_BYTES[kind]}."
            )
        return self._sign(kind, key, payload, False, life_s, now)

    def withdraw(self, kind: Kind, key: bytes, now: float) -> Entry:
        """The end of this node's entry about ``key``; kept for as long as the entry would have been."""
        return self._sign(kind, key, b"", True, 0.0, now)

    def _sign(
        self, kind: Kind, key: bytes, payload: bytes, withdrawn: bool, life_s: float, now: float
    ) -> Entry:
        if len(key) > _KEY_BYTES:
            raise BadEntry(f"A key of {len(key)} bytes was given; it may have at most {_KEY_BYTES}.")
        before, expired_s = self._last.get((kind, key), (0, 0))
        # milliseconds, so that a node that restarts without a memory still goes on above what it said
        sequence = max(before + 1, int(now * 1000))
        expires_s = max(expired_s, math.ceil(now + life_s))
        self._last[(kind, key)] = sequence, expires_s
        unsigned = Entry(
            kind, self._issuer, key, sequence, expires_s, withdrawn, payload, b"", self.certificate
        )
        return Entry(
            kind,
            self._issuer,
            key,
            sequence,
            expires_s,
            withdrawn,
            payload,
            self._key.sign(unsigned.body),
            self.certificate,
        )
