"""What two peers say to each other in one exchange, and its form in bytes.

An exchange: ``Sync`` (who calls, a few contacts, the root of its digests) is answered by ``Same`` when there
is nothing to tell, by ``Digests`` of everything when that is little, else by ``Buckets``. Digests are
answered by a ``Delta``: the entries that the other lacks, and the slots one lacks oneself, which the last
``Delta`` brings. Each message has one reading; integers are big-endian, lists are counted before they begin.

*Covered*: a message longer than ``MESSAGE_BYTES``, a list longer than its ceiling, bytes left over or
missing: each is refused before anything of that length is made.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.gossip.contents import BUCKET_BYTES
from sharedllm.nodes.gossip.entries import ENTRY_BYTES, SLOT_BYTES, VERSION_BYTES, Entry
from sharedllm.nodes.gossip.errors import BadMessage
from sharedllm.nodes.gossip.view import AGE_S, SAMPLE, Contact, Sample
from sharedllm.nodes.proxy import Endpoint

__all__ = [
    "DELTA_BYTES",
    "DIGESTS",
    "MESSAGE_BYTES",
    "Buckets",
    "Delta",
    "Digest",
    "Digests",
    "Message",
    "Same",
    "Sync",
    "decode",
    "encode",
]

DIGESTS = 4096
DELTA_BYTES = 256 * 1024
MESSAGE_BYTES = DELTA_BYTES + ENTRY_BYTES + SLOT_BYTES * DIGESTS + 1024
_ROOT_BYTES = 32
_HOST_BYTES = 253
_DIGEST_BYTES = SLOT_BYTES + 8 + VERSION_BYTES

Digest = tuple[bytes, int, bytes]  # slot, sequence, version


@dataclass(frozen=True, slots=True)
class Sync:
    """The first word: who calls, contacts it offers, the root of what it knows."""

    caller: Contact
    sample: Sample
    root: bytes


@dataclass(frozen=True, slots=True)
class Same:
    """Both know the same."""

    sample: Sample


@dataclass(frozen=True, slots=True)
class Buckets:
    """The digest of every bucket that has anything in it."""

    sample: Sample
    hashes: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Digests:
    """Slot, sequence and version of every entry in ``covered`` buckets (None: in all)."""

    sample: Sample
    covered: tuple[int, ...] | None
    items: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Entries that the other lacks, and slots whose entries are asked for."""

    entries: tuple[Entry, ...]
    wants: tuple[bytes, ...]


Message = Sync | Same | Buckets | Digests | Delta


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case Sync(caller, sample, root):
            return b"\x01" + _contact(caller) + _sample(sample) + root
        case Same(sample):
            return b"\x02" + _sample(sample)
        case Buckets(sample, hashes):
            rows = b"".join(bytes([index]) + hashes[index] for index in sorted(hashes))
            return b"\x03" + _sample(sample) + struct.pack(">H", len(hashes)) + rows
        case Digests(sample, covered, items):
            named = b"\x00" if covered is None else b"\x01" + struct.pack(">H", len(covered)) + bytes(covered)
            rows = b"".join(slot + struct.pack(">Q", sequence) + version for slot, sequence, version in items)
            return b"\x04" + _sample(sample) + named + struct.pack(">H", len(items)) + rows
        case Delta(entries, wants):
            told = [entry.to_bytes() for entry in entries]
            rows = b"".join(struct.pack(">H", len(data)) + data for data in told)
            asked = struct.pack(">H", len(wants)) + b"".join(wants)
            return b"\x05" + struct.pack(">H", len(told)) + rows + asked


def decode(data: bytes) -> Message:
    """Read what ``encode`` wrote; entries in it are not proven yet.

    Raises ``BadMessage``, or ``BadEntry`` for an entry in it.
    """
    if len(data) > MESSAGE_BYTES:
        raise BadMessage(f"A gossip message of {len(data)} bytes came; none is longer than {MESSAGE_BYTES}.")
    reader = _Reader(data)
    readers: dict[int, Any] = {1: _sync, 2: _same, 3: _buckets, 4: _digests, 5: _delta}
    kind = reader.number("B")
    if kind not in readers:
        raise BadMessage(f"A gossip message of kind {kind} is unknown here; compare both nodes' versions.")
    message: Message = readers[kind](reader)
    reader.end()
    return message


class _Reader:
    """Cuts checked lengths off a message."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise BadMessage(f"A gossip message is cut short: {count} bytes were announced at {self._at}.")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, form: str, ceiling: int | None = None) -> int:
        value: int = struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]
        if ceiling is not None and value > ceiling:
            raise BadMessage(f"A gossip message announces {value} items; there may be at most {ceiling}.")
        return value

    def end(self) -> None:
        if self._at != len(self._data):
            raise BadMessage(
                f"A gossip message goes on for {len(self._data) - self._at} bytes after its end."
            )


def _contact(contact: Contact) -> bytes:
    host = contact.host.encode("ascii")
    return bytes.fromhex(contact.id) + struct.pack(">HB", contact.port, len(host)) + host


def _sample(sample: Sample) -> bytes:
    rows = [
        _contact(contact) + struct.pack(">H", min(AGE_S, max(0, round(age_s)))) for contact, age_s in sample
    ]
    return bytes([len(rows)]) + b"".join(rows)


def _read_sample(reader: _Reader) -> Sample:
    return tuple(
        [(_read_contact(reader), float(reader.number("H"))) for _ in range(reader.number("B", SAMPLE))]
    )


def _read_contact(reader: _Reader) -> Contact:
    id, port = reader.take(16).hex(), reader.number("H")
    host = reader.take(reader.number("B", _HOST_BYTES))
    try:
        return Contact(id, Endpoint("lan", host.decode("ascii"), port).host, port)
    except (UnicodeDecodeError, DialFailed) as error:
        raise BadMessage(f"A gossip message names an address that is none ({error}).") from None


def _sync(reader: _Reader) -> Sync:
    return Sync(_read_contact(reader), _read_sample(reader), reader.take(_ROOT_BYTES))


def _same(reader: _Reader) -> Same:
    return Same(_read_sample(reader))


def _buckets(reader: _Reader) -> Buckets:
    sample, count = _read_sample(reader), reader.number("H", 256)
    hashes = {reader.number("B"): reader.take(BUCKET_BYTES) for _ in range(count)}
    if len(hashes) != count:
        raise BadMessage("A gossip message gives two digests for one bucket.")
    return Buckets(sample, hashes)


def _digests(reader: _Reader) -> Digests:
    sample, covered = _read_sample(reader), None
    if reader.number("B", 1):
        covered = tuple(reader.take(reader.number("H", 256)))
        _once(covered, "bucket")
    rows = reader.take(reader.number("H", DIGESTS) * _DIGEST_BYTES)
    items = [
        (slot, sequence, version)
        for slot, sequence, version in struct.iter_unpack(f">{SLOT_BYTES}sQ{VERSION_BYTES}s", rows)
    ]
    _once([slot for slot, _, _ in items], "slot")
    return Digests(sample, covered, tuple(items))


def _delta(reader: _Reader) -> Delta:
    entries = [
        Entry.from_bytes(reader.take(reader.number("H", ENTRY_BYTES)))
        for _ in range(reader.number("H", DIGESTS))
    ]
    wanted = reader.take(reader.number("H", DIGESTS) * SLOT_BYTES)
    wants = [wanted[i : i + SLOT_BYTES] for i in range(0, len(wanted), SLOT_BYTES)]
    _once(wants, "slot")
    return Delta(tuple(entries), tuple(wants))


def _once(named: Sequence[object], what: str) -> None:
    """Refuse what is named twice: it would be answered twice."""
    if len(set(named)) != len(named):
        raise BadMessage(f"A gossip message names one {what} twice.")
