"""What a node says of itself in its lease, and what a reader may rely on: the form, and who signed it."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from sharedllm.nodes.errors import DialFailed, NotAdmitted
from sharedllm.nodes.gossip.entries import Entry
from sharedllm.nodes.gossip.errors import BadEntry
from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import read_peer
from sharedllm.nodes.proxy import Endpoint

__all__ = ["LEASE_S", "Lease", "anybody", "since_of"]

LEASE_S = 60.0
_NAME_CHARACTERS = 63
_ENDPOINTS = 16
_FIELDS = {"since_s", "name", "host", "port", "endpoints"}


@dataclass(frozen=True)
class Lease:
    """A node's name, where it gossips, the ``endpoints`` at which it serves, since when it is here (Unix s).

    ``role`` is what its certificate says, for a lease that was read.
    """

    name: str
    host: str
    port: int
    endpoints: tuple[Endpoint, ...] = ()
    since_s: float = 0.0
    role: str = ""

    def to_bytes(self) -> bytes:
        """The payload of an entry of kind ``LEASE``."""
        said = {
            "name": self.name,
            "since_s": self.since_s,
            "host": self.host,
            "port": self.port,
            "endpoints": [endpoint.to_dict() for endpoint in self.endpoints],
        }
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def of(cls, entry: Entry) -> Lease:
        """The lease in an entry. Raises ``BadEntry`` for another form."""
        try:
            said = json.loads(entry.payload)
            if not isinstance(said, dict) or set(said) != _FIELDS:
                raise ValueError("it has not exactly the fields " + ", ".join(sorted(_FIELDS)))
            place = Endpoint("lan", said["host"], said["port"])
            if (
                not isinstance(said["name"], str)
                or len(said["name"]) > _NAME_CHARACTERS
                or not said["name"].isprintable()
            ):
                raise ValueError("its name is too long, or can't be shown")
            if not isinstance(said["endpoints"], list) or len(said["endpoints"]) > _ENDPOINTS:
                raise ValueError(f"it has no list of at most {_ENDPOINTS} endpoints")
            since_s = since_of(entry.payload)
            endpoints = tuple(map(Endpoint.from_dict, said["endpoints"]))
            role = read_peer(entry.certificate).role
        except (ValueError, TypeError, RecursionError, DialFailed, NotAdmitted) as error:
            raise BadEntry(f"The lease of node {entry.issuer_id} can't be read: {error}.") from None
        return cls(said["name"], place.host, place.port, endpoints, since_s, role)

    def contact(self, id: str) -> Contact:
        """Where node ``id``, whose lease this is, gossips."""
        return Contact(id, self.host, self.port)


def anybody(entries: Sequence[Entry], me: str) -> Contact | None:
    """Any node but ``me`` of those whose leases these are, at the address that it signed; None if unread."""
    others = [entry for entry in entries if entry.issuer_id != me]
    try:
        chosen = random.choice(others)
        return Lease.of(chosen).contact(chosen.issuer_id)
    except (IndexError, BadEntry):
        return None


@functools.lru_cache(maxsize=8192)
def since_of(payload: bytes) -> float:
    """Since when the node of a lease says that it is here (Unix s); infinite if it says nothing."""
    try:
        since_s = json.loads(payload)["since_s"]
        return float(since_s) if type(since_s) in (int, float) and since_s >= 0 else math.inf
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return math.inf
