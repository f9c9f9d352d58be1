"""Keeping a request within a jurisdiction: only nodes that enough attesters place there, on every hop.

A zone has attesters; a *placement* (node, zone, from when until when) is signed by one of them, and a node
counts as placed when ``quorum`` different attesters say so. A route stays within a zone when every node that
it names, primary, workers and relays alike, is placed there for the time of the request, and each hop signs
that it passed the request to the next one named (*transit*); an answer without the whole chain is refused.

*Covered*: a node that only says where it is; a placement of another node or zone, out of date, or signed by
too few or by strangers; a route with a hop outside; a hop that is left out of the chain. *Not covered*, for
no signature can: where a machine stands (attesters must look), a placed node that copies a request outside
besides passing it on, attesters of whom a quorum lies. A refusal to serve costs time, not secrecy.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.identity import NodeKey, node_id

__all__ = ["OutOfZone", "Placement", "Zone", "check_transit", "pass_on", "place"]

_PLACEMENT = b"sharedllm-placement-1\x00"
_TRANSIT = b"sharedllm-transit-1\x00"
_ZONE_BYTES = 64
_END = itemgetter(1)


class OutOfZone(SharedLLMError):
    """A node is not placed in the zone of a request, or a request can't be shown to have stayed there."""


@dataclass(frozen=True)
class Placement:
    """The word of an attester (public key, 32 bytes) that a node is in a zone for a time."""

    node: str
    zone: str
    from_s: int
    until_s: int
    attester: bytes
    signature: bytes

    @property
    def body(self) -> bytes:
        """What is signed."""
        return _body(self.node, self.zone, self.from_s, self.until_s)


def place(attester: NodeKey, node: str, zone: str, from_s: int, until_s: int) -> Placement:
    """``attester``'s word that ``node`` is in ``zone``."""
    signature = attester.sign(_body(node, zone, from_s, until_s))
    return Placement(node, zone, from_s, until_s, attester.public_bytes, signature)


class Zone:
    """A jurisdiction: whose word counts, and how many must agree.

    Signatures are checked once, when a placement is heard (``hear``).
    """

    def __init__(self, name: str, attesters: Collection[bytes], quorum: int) -> None:
        if not 0 < len(name.encode()) <= _ZONE_BYTES or not 0 < quorum <= len(set(attesters)):
            raise OutOfZone(
                f"The zone {name[:40]!r} with {len(set(attesters))} attesters can't ask for {quorum}; a zone "
                "has a name and at least as many attesters as must agree."
            )
        self.name, self.attesters, self.quorum = name, frozenset(attesters), quorum
        self._terms: dict[str, dict[bytes, tuple[int, int]]] = defaultdict(dict)

    def hear(self, placements: Iterable[Placement]) -> int:
        """Keep the placements that count here; how many those were."""
        kept = 0
        for placement in placements:
            if placement.zone == self.name and placement.attester in self.attesters and _signed(placement):
                terms = self._terms[placement.node]
                held = terms.get(placement.attester, (0, 0))
                terms[placement.attester] = _both(held, (placement.from_s, placement.until_s))
                kept += 1
        return kept

    def holds(self, node: str, now_s: float) -> bool:
        """Whether enough attesters place ``node`` here now."""
        terms = self._terms.get(node, {}).values()
        return sum(from_s <= now_s < until_s for from_s, until_s in terms) >= self.quorum

    def require(self, route: Sequence[str], now_s: float) -> None:
        """Raise ``OutOfZone``, naming the first node of ``route`` that is not placed here."""
        for node in route:
            if not self.holds(node, now_s):
                raise OutOfZone(
                    f"Node {node} is not placed in {self.name} by {self.quorum} of its attesters, so that "
                    "nothing was sent. Choose other nodes, or another zone."
                )


def pass_on(hop: NodeKey, request: bytes, following: str) -> bytes:
    """``hop``'s signature that it passed ``request`` to node ``following`` (itself: it answered)."""
    return hop.sign(_transit(request, following))


def check_transit(
    route: Sequence[str], keys: Mapping[str, bytes], request: bytes, signatures: Sequence[bytes]
) -> None:
    """Raise ``OutOfZone`` unless every hop of ``route`` signed that it passed ``request`` to the next.

    ``keys``: public keys by node id, which must be their hashes. The last hop signs for itself.
    """
    if len(signatures) != len(route) or not route:
        raise OutOfZone(f"A route of {len(route)} hops came back with {len(signatures)} signatures.")
    for node, following, signature in zip(route, [*route[1:], route[-1]], signatures, strict=True):
        key = keys.get(node, b"")
        try:
            if node_id(key) != node:
                raise ValueError
            Ed25519PublicKey.from_public_bytes(key).verify(signature, _transit(request, following))
        except (InvalidSignature, ValueError):
            raise OutOfZone(
                f"Node {node} did not sign that it passed the request to {following}; the answer is refused."
            ) from None


def _body(node: str, zone: str, from_s: int, until_s: int) -> bytes:
    # a zone's name is bounded and comes last, so that no two placements share a body
    return _PLACEMENT + struct.pack(">32sQQ", node.encode("ascii"), from_s, until_s) + zone.encode()


def _transit(request: bytes, following: str) -> bytes:
    return _TRANSIT + hashlib.sha256(request).digest() + following.encode("ascii")


def _both(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Two terms as one, if they meet: what was placed ahead of time ends nothing. Else the later end wins."""
    earlier, later = sorted((one, other), key=_END)
    return (min(earlier[0], later[0]), later[1]) if later[0] <= earlier[1] else later


def _signed(placement: Placement) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(placement.attester).verify(placement.signature, placement.body)
    except (InvalidSignature, ValueError, UnicodeEncodeError, struct.error):
        return False
    return True
