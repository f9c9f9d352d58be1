"""What one node knows: the newest entry of each slot, forgotten when it expires, with digests to compare.

Slots fall into 256 buckets by their first byte. A bucket's digest is the SHA-256 of its slots and ranks in
order, and the root that of all buckets, so that two nodes with the same entries find out with one comparison
of 32 bytes. (A sum or exclusive or of hashes would be cheaper and could be forged by who chooses entries.)

*Covered*: an issuer may hold so many slots of a kind; of more, all nodes keep the same ones (the smallest),
or they would never agree. *Not covered*: more members than ``entries`` allows; who comes later is left out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sharedllm.nodes.gossip.entries import Entry, Kind
from sharedllm.nodes.identity import node_id

__all__ = ["BUCKET_BYTES", "Contents", "Quotas"]

BUCKET_BYTES = 16
_SPARE_ENDS = 1024
_NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Quotas:
    """How many entries are kept: in all, and of each kind from one issuer."""

    entries: int = 65_536
    per_issuer: dict[Kind, int] = field(
        default_factory=lambda: {Kind.LEASE: 1, Kind.MANIFEST: 64, Kind.VOTE: 256}
    )


_USUAL = Quotas()


class Contents:
    """The newest entries by slot; a set with a memory for versions and an end for everything."""

    __slots__ = ("_by_issuer", "_dirty", "_ends", "_entries", "_hashes", "_quotas", "_root", "_slots")

    def __init__(self, quotas: Quotas = _USUAL) -> None:
        self._quotas = quotas
        self._entries: dict[bytes, Entry] = {}
        self._by_issuer: dict[tuple[bytes, Kind], set[bytes]] = {}
        self._ends: list[tuple[int, bytes]] = []
        self._slots: dict[int, set[bytes]] = {}
        self._hashes: dict[int, bytes] = {}
        self._dirty: set[int] = set()
        self._root = _NOTHING

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, slot: bytes) -> Entry | None:
        """The newest entry of a slot."""
        return self._entries.get(slot)

    def wants(self, slot: bytes, rank: tuple[int, bytes]) -> bool:
        """Whether an entry of that slot and rank would be news."""
        known = self._entries.get(slot)
        return known is None or known.rank < rank

    def takes(self, entry: Entry, now: float) -> bool:
        """Whether ``add`` would keep ``entry``: to be asked before its signature is checked."""
        if entry.expires_s <= now or not self.wants(entry.slot, entry.rank):
            return False
        if entry.slot in self._entries:
            return True
        if self._is_full(entry):
            return entry.slot < max(self._by_issuer[(entry.issuer, entry.kind)])
        return len(self._entries) < self._quotas.entries

    def add(self, entry: Entry, now: float) -> bool:
        """Keep ``entry`` if it is news, not expired, and within the quotas; whether it was kept."""
        if not self.takes(entry, now):
            return False
        if entry.slot not in self._entries and self._is_full(entry):
            self._drop(max(self._by_issuer[(entry.issuer, entry.kind)]))
        self._entries[entry.slot] = entry
        self._by_issuer.setdefault((entry.issuer, entry.kind), set()).add(entry.slot)
        self._slots.setdefault(entry.slot[0], set()).add(entry.slot)
        heapq.heappush(self._ends, (entry.expires_s, entry.slot))
        if len(self._ends) > 2 * len(self._entries) + _SPARE_ENDS:
            # an issuer may renew what is long to live as often as it likes
            self._ends = [(kept.expires_s, slot) for slot, kept in self._entries.items()]
            heapq.heapify(self._ends)
        self._dirty.add(entry.slot[0])
        return True

    def forget(self, now: float) -> int:
        """Drop what has expired; how many entries that was."""
        dropped = 0
        while self._ends and self._ends[0][0] <= now:
            _, slot = heapq.heappop(self._ends)
            entry = self._entries.get(slot)
            if entry is not None and entry.expires_s <= now:
                self._drop(slot)
                dropped += 1
        return dropped

    def expel(self, node: str) -> None:
        """Drop all that a node said."""
        for (issuer, _), slots in list(self._by_issuer.items()):
            if node_id(issuer) == node:
                for slot in list(slots):
                    self._drop(slot)

    @property
    def root(self) -> bytes:
        """32 bytes that are equal for equal contents."""
        if self._dirty:
            self._refresh()
        return self._root

    @property
    def buckets(self) -> dict[int, bytes]:
        """The digest of each bucket that has anything in it."""
        if self._dirty:
            self._refresh()
        return self._hashes

    def within(self, buckets: Iterable[int]) -> Iterator[Entry]:
        """The entries of some buckets, by slot."""
        for index in buckets:
            for slot in sorted(self._slots.get(index, ())):
                yield self._entries[slot]

    def _is_full(self, entry: Entry) -> bool:
        """Whether the issuer has as many slots of that kind as it may have."""
        theirs = self._by_issuer.get((entry.issuer, entry.kind), ())
        return len(theirs) >= self._quotas.per_issuer[entry.kind]

    def _drop(self, slot: bytes) -> None:
        entry = self._entries.pop(slot)
        theirs = self._by_issuer[(entry.issuer, entry.kind)]
        theirs.discard(slot)
        if not theirs:
            del self._by_issuer[(entry.issuer, entry.kind)]
        self._slots[slot[0]].discard(slot)
        self._dirty.add(slot[0])

    def _refresh(self) -> None:
        for index in self._dirty:
            slots = self._slots.get(index)
            if not slots:
                self._hashes.pop(index, None)
                continue
            digest = hashlib.sha256()
            for slot in sorted(slots):
                sequence, version = self._entries[slot].rank
                digest.update(slot + sequence.to_bytes(8, "big") + version)
            self._hashes[index] = digest.digest()[:BUCKET_BYTES]
        self._dirty.clear()
        whole = b"".join(bytes([index]) + self._hashes[index] for index in sorted(self._hashes))
        self._root = hashlib.sha256(whole).digest()
