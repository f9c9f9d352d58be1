"""Who stands behind a certificate: one role and one node id, which must be the hash of the certified key.

Chain, dates and purposes are OpenSSL's to check during the handshake (``tls``); here a certificate that
passed is read, strictly. A node id is a hash of the key, so that even a certificate of our own authority
can't give one node's name to another's key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.identity.keys import node_id

__all__ = ["LIFE_S", "ROLES", "Peer", "public_key_of", "read_certificate", "read_peer", "uri"]

ROLES = ("coordinator", "primary", "worker", "operator")
LIFE_S = 24 * 3600.0
CERTIFICATE_BYTES = 16 * 1024

_URI = re.compile(r"sharedllm://([a-z]{1,16})/([0-9a-f]{32})")


@dataclass(frozen=True)
class Peer:
    """A certified node: its id, its role, and from when until when (Unix seconds) that holds."""

    id: str
    role: str
    not_before: float
    not_after: float

    def renew_in_s(self, now: float) -> float:
        """Seconds until two thirds of the certificate's life are over; 0 once they are."""
        return max(0.0, self.not_before + (self.not_after - self.not_before) * 2 / 3 - now)

    def expired(self, now: float) -> bool:
        """Whether the certificate is out of date, so that only a fresh proof of the key can renew it."""
        return now >= self.not_after


def uri(role: str, id: str) -> str:
    """What a certificate says about its node, as the URI of its subject alternative name."""
    return f"sharedllm://{role}/{id}"


def read_certificate(encoded: bytes) -> x509.Certificate:
    """The one X.509 certificate in PEM or DER.

    Raises ``NotAdmitted`` when it is too long or is none.
    """
    try:
        if len(encoded) > CERTIFICATE_BYTES:
            raise ValueError
        if encoded.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(encoded)
        return x509.load_der_x509_certificate(encoded)
    except (ValueError, x509.InvalidVersion):
        raise NotAdmitted(
            f"What was given as a certificate ({len(encoded)} bytes) is none, or is longer than "
            f"{CERTIFICATE_BYTES} bytes."
        ) from None


def public_key_of(certificate: x509.Certificate) -> Ed25519PublicKey:
    """The Ed25519 key that ``certificate`` certifies.

    Raises ``NotAdmitted`` for a key of another kind.
    """
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise NotAdmitted(
            "A certificate is for another kind of key; nodes of a federation have Ed25519 keys."
        )
    return key


def read_peer(encoded: bytes | None) -> Peer:
    """The node that a verified certificate (DER, as ``getpeercert(True)`` gives it, or PEM) is for.

    Raises ``NotAdmitted`` without a certificate, or for one that names no node, several, an unknown role, or
    an id that is not its key's.
    """
    if not encoded:
        raise NotAdmitted(
            "No client certificate was shown. Join the federation first: sharedllm join URL TOKEN."
        )
    certificate = read_certificate(encoded)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    match = _URI.fullmatch(uris[0]) if len(uris) == len(list(names)) == 1 else None
    if match is None or match[1] not in ROLES:
        raise NotAdmitted("A certificate does not name one node as sharedllm://ROLE/ID; it is not a node's.")
    key = public_key_of(certificate).public_bytes(Encoding.Raw, PublicFormat.Raw)
    if match[2] != node_id(key):
        raise NotAdmitted(f"A certificate names node {match[2]}, but its key belongs to {node_id(key)}.")
    return Peer(
        id=match[2],
        role=match[1],
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )
