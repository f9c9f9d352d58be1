"""The federation's authority: one Ed25519 key, the coordinator's, that certifies nodes and signs tickets.

The same key signs both. A certificate's signed bytes begin with 0x30 and a ticket's with ``ey``, so that one
is never a valid signature of the other.

*Covered*: certificates live a day, so that a lost one is worth little; they name one node and one role; an
operator's can't serve. *Not covered*: the coordinator's machine itself: who reads ``authority.key`` is the
federation.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.identity.certificates import LIFE_S, ROLES, public_key_of, read_certificate, uri
from sharedllm.nodes.identity.files import write_public
from sharedllm.nodes.identity.keys import NodeKey, node_id, read_public_key

__all__ = ["Authority", "fingerprint"]

_OWN_LIFE_S = 3650 * 24 * 3600.0
# clocks of home machines are off by minutes
_SKEW_S = 300.0


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256, as 64 hex digits, of a certificate's DER form; what a join token pins.

    Raises ``NotAdmitted`` when it is no certificate.
    """
    return hashlib.sha256(read_certificate(certificate_pem).public_bytes(Encoding.DER)).hexdigest()


@dataclass(frozen=True)
class Authority:
    """The federation's root: its key, and the certificate that every node pins."""

    key: NodeKey = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    fingerprint: str

    @classmethod
    def load_or_create(cls, folder: Path) -> Authority:
        """The authority in ``folder`` (``authority.key``, ``authority.crt``), founded if there is none.

        Raises ``NotAdmitted`` if the files are damaged or don't belong together, ``WriteFailed`` if they
        can't be written.
        """
        key = NodeKey.load_or_create(folder / "authority.key")
        path = folder / "authority.crt"
        if not path.exists():
            write_public(path, _certify_itself(key))
        pem = path.read_bytes()
        if public_key_of(read_certificate(pem)) != key.private.public_key():
            raise NotAdmitted(
                f"{path} is not the certificate of the key beside it. Restore both from the same backup."
            )
        return cls(key=key, certificate_pem=pem, fingerprint=fingerprint(pem))

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that certificates and tickets are verified with."""
        return self.key.private.public_key()

    def issue(
        self, public_bytes: bytes, role: str, *, seconds: float = LIFE_S, now: float | None = None
    ) -> bytes:
        """A certificate (PEM) that the raw Ed25519 key ``public_bytes`` is a ``role`` for ``seconds``.

        Raises ``NotAdmitted`` for a key that is none and for an unknown role.
        """
        public = read_public_key(public_bytes)
        if role not in ROLES:
            raise NotAdmitted(f"There is no role {role!r:.40}; a node is one of {', '.join(ROLES)}.")
        id = node_id(public_bytes)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role != "operator":
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        own = read_certificate(self.certificate_pem)
        builder = _builder(public, time.time() if now is None else now, seconds)
        certificate = (
            builder.subject_name(_name(id))
            .issuer_name(own.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri(role, id))]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.public_key), critical=False
            )
            .sign(self.key.private, algorithm=None)
        )
        return certificate.public_bytes(Encoding.PEM)


def _certify_itself(key: NodeKey) -> bytes:
    name = _name(f"SharedLLM federation {key.id[:16]}")
    public = key.private.public_key()
    builder = _builder(public, time.time(), _OWN_LIFE_S)
    certificate = (
        builder.subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key.private, algorithm=None)
    )
    return certificate.public_bytes(Encoding.PEM)


def _builder(public: Ed25519PublicKey, now: float, seconds: float) -> x509.CertificateBuilder:
    moment = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(seconds=_SKEW_S))
        .not_valid_after(moment + datetime.timedelta(seconds=seconds))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
