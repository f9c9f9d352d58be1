"""Who may say something: an entry counts when its issuer is certified by the federation and signed it.

*Covered*: another federation's certificate, one that is for another key, expired, or may not serve as a node;
an entry that outlives its issuer's certificate by more than the clocks of home machines are off; an issuer
that was expelled. *Not covered*: a member who signs falsehoods; that is ``sharedllm.nodes.trust``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.gossip.entries import Entry
from sharedllm.nodes.gossip.errors import BadEntry, Unwelcome
from sharedllm.nodes.identity import node_id, read_peer
from sharedllm.nodes.identity.certificates import read_certificate

__all__ = ["Certified", "Keyring", "Membership"]

_SKEW_S = 300.0
_REMEMBERED = 8192


class Membership(Protocol):
    """Decides whether an entry may be believed to be its issuer's."""

    def check(self, entry: Entry, now: float) -> None:
        """Raise ``BadEntry`` unless a member issued ``entry``; ``Unwelcome`` if the sender may not know."""


class Certified:
    """Members are those whom the authority (PEM) certified; ``expelled`` says who is no longer one."""

    def __init__(self, ca: bytes, expelled: Callable[[str], bool] = lambda node: False) -> None:
        self._authority = read_certificate(ca)
        self._expelled = expelled
        self._read: dict[bytes, tuple[str, float, float]] = {}

    def check(self, entry: Entry, now: float) -> None:
        """See ``Membership``."""
        id, not_before, not_after = self._peer(entry.certificate)
        if id != entry.issuer_id:
            raise BadEntry(f"An entry of node {entry.issuer_id} came with the certificate of {id}.")
        if self._expelled(id):
            raise Unwelcome(f"Node {id} was expelled; nothing new is taken from it.")
        if entry.expires_s > not_after + _SKEW_S:
            raise BadEntry(f"An entry of node {id} is not covered by its certificate's dates.")
        if not not_before - _SKEW_S <= now <= not_after + _SKEW_S:
            raise Unwelcome(f"The certificate of node {id} does not hold now; compare both nodes' clocks.")
        _verify(entry)

    def _peer(self, certificate: bytes) -> tuple[str, float, float]:
        known = self._read.get(certificate)
        if known is None:
            try:
                issued = read_certificate(certificate)
                issued.verify_directly_issued_by(self._authority)
                peer = read_peer(certificate)
            except (InvalidSignature, ValueError, TypeError, NotAdmitted):
                raise BadEntry("An entry came without a certificate of this federation.") from None
            known = peer.id, peer.not_before, peer.not_after
            if len(self._read) >= _REMEMBERED:
                self._read.clear()
            self._read[certificate] = known
        return known


class Keyring:
    """Members are those whose keys it holds; a signature is verified once, whoever asks how often.

    For many peers in one process (simulations), where each would find the same.
    """

    def __init__(self) -> None:
        self.members: set[bytes] = set()
        self._verified: set[tuple[bytes, bytes, bytes]] = set()

    def check(self, entry: Entry, now: float) -> None:
        """See ``Membership``."""
        if entry.issuer not in self.members:
            raise BadEntry(f"Node {entry.issuer_id} is no member.")
        seen = entry.slot, entry.rank[1], entry.signature
        if seen not in self._verified:
            _verify(entry)
            self._verified.add(seen)


def _verify(entry: Entry) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(entry.issuer).verify(entry.signature, entry.body)
    except (InvalidSignature, ValueError):
        raise BadEntry(f"An entry says node {node_id(entry.issuer)} signed it; it did not.") from None
