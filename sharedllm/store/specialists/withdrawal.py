"""A publisher's signed word that a manifest of his is no longer to be had.

``{"id": the manifest's, "schema": …, "signature": Ed25519 over id and schema, "signer": the public key}`` in
canonical JSON. It speaks of one manifest as its signer signed it, and for good: who wants it back publishes
another one. *Covered*: a forged or changed statement, another signer's, another spelling of the same JSON.
*Not covered*: copies that others have fetched already; nobody can take those back.
"""

from __future__ import annotations

import dataclasses
import json
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sharedllm.errors import BadManifest
from sharedllm.store.cache import canonical_json
from sharedllm.store.specialists.signed import Signed

__all__ = ["Withdrawal", "withdraw"]

_SCHEMA = "sharedllm-withdrawal-1"
_CEILING_BYTES = 512
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


@dataclasses.dataclass(frozen=True)
class Withdrawal:
    """That ``signer`` withdraws the manifest ``id``; made by ``withdraw`` or ``from_bytes`` alone."""

    id: str
    signer: str
    signature: str

    def of(self, signed: Signed) -> bool:
        """Whether it speaks of this manifest, by this signer."""
        return (self.id, self.signer) == (signed.id, signed.signer)

    def to_bytes(self) -> bytes:
        """Write the canonical form."""
        return canonical_json({**dataclasses.asdict(self), "schema": _SCHEMA})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Withdrawal:
        """Read and verify. Raises ``BadManifest``, naming ``where``."""
        try:
            given = json.loads(data) if len(data) < _CEILING_BYTES else None
            if not isinstance(given, dict) or given.pop("schema", None) != _SCHEMA:
                raise ValueError(f"it is no object of the schema {_SCHEMA}")
            made = cls(**given)
            forms = ((made.id, _HASH), (made.signer, _HASH), (made.signature, _SIGNATURE))
            if not all(isinstance(value, str) and form.fullmatch(value) for value, form in forms):
                raise ValueError("its id, signer or signature does not look like one")
            if made.to_bytes() != data:
                raise ValueError("it is not written in canonical JSON")
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(made.signer))
            key.verify(bytes.fromhex(made.signature), _said(made.id))
        except InvalidSignature:
            raise BadManifest(f"{where} is forged: the signature is not its signer's.") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise BadManifest(f"{where} is no withdrawal: {error}. Send it again.") from error
        return made


def withdraw(signed: Signed, private: Ed25519PrivateKey) -> Withdrawal:
    """Take a manifest back. Raises ``BadManifest`` for one that another key signed."""
    signer = private.public_key().public_bytes_raw().hex()
    if signer != signed.signer:
        raise BadManifest(
            f"{signed.name} is signed by {signed.signer[:16]}…, and your key is {signer[:16]}…; only who "
            "published it can withdraw it."
        )
    return Withdrawal(signed.id, signer, private.sign(_said(signed.id)).hex())


def _said(id: str) -> bytes:
    return canonical_json({"id": id, "schema": _SCHEMA})
