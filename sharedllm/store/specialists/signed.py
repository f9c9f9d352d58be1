"""A signed manifest: an envelope of < 4 KB around a manifest's canonical bytes, refused in any other form.

``{"body": the manifest, "signature": Ed25519 over its canonical bytes, "signer": the public key}``, itself in
canonical JSON, so that one manifest and one key make one file. What is signed holds the schema's name, so a
signature over anything else in the federation can't be taken for one of these.

*Covered*: a changed body, a foreign signature, an unknown or missing field, a wrong type, NaN, another
spelling of the same JSON, a key given twice, 4 KB or more (refused before it is parsed). *Not covered*:
whether the signer tells the truth; a signature proves who said it and that nothing was changed since.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sharedllm.errors import BadManifest, BadModelFile
from sharedllm.store.cache import canonical_json, sha256_of
from sharedllm.store.manifest import CEILING_BYTES, AdapterBlob, Manifest

__all__ = ["METHODS", "Signed", "is_name", "sign"]

METHODS = ("norm", "lora")
_DTYPES = ("float32", "float16", "bfloat16", "ternary")
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LICENCE_CHARACTERS = 200
_BLOB_BYTES = 1 << 48  # more than any disk of ours, less than what a float counts exactly


@dataclasses.dataclass(frozen=True)
class Signed:
    """A manifest, the Ed25519 public key that signed it (64 hex digits), and the signature (128).

    Made by ``sign`` or ``from_bytes`` alone; ``id`` is what receipts and gossip call the specialist.
    """

    body: Manifest
    signer: str
    signature: str

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical body: the same whoever signs it."""
        return sha256_of(canonical_json(self.body.to_dict()))

    @property
    def name(self) -> str:
        """What the publisher calls it; others may use the same name."""
        return self.body.name

    @property
    def blobs(self) -> dict[str, int]:
        """Bytes by hash of everything that the model is made of."""
        body = self.body
        blobs = {body.weights_sha256: body.sizes["weights"], body.tokenizer_sha256: body.sizes["tokenizer"]}
        if body.adapter is not None:
            blobs[body.adapter.sha256] = body.adapter.size
        return blobs

    def to_bytes(self) -> bytes:
        """Write the canonical form, < 4 KB."""
        envelope = {"signature": self.signature, "signer": self.signer}
        return canonical_json({"body": self.body.to_dict(), **envelope})

    @classmethod
    def from_bytes(cls, data: bytes, where: str, signers: Collection[str] | None = None) -> Signed:
        """Read and verify; ``where`` names the origin in a ``BadManifest``.

        ``signers`` are the public keys to accept; None takes whoever signed.
        """
        if len(data) >= CEILING_BYTES:
            raise BadManifest(
                f"{where} has {len(data):,} bytes; a signed manifest has < {CEILING_BYTES:,}. Fetch it "
                "again, or ask its publisher for a shorter provenance."
            )
        try:
            envelope = json.loads(data)
            if not isinstance(envelope, dict) or set(envelope) != {"body", "signature", "signer"}:
                raise ValueError("it has not exactly a body, a signature and a signer")
            signed = cls(
                Manifest.from_dict(envelope["body"], "its body"), envelope["signer"], envelope["signature"]
            )
            _check(signed)
            if signed.to_bytes() != data:
                raise ValueError("it is not written in canonical JSON")
        except (ValueError, TypeError, RecursionError, BadModelFile) as error:
            raise BadManifest(f"{where} is no signed manifest: {error}. Fetch it again.") from error
        _verify(signed, where)
        if signers is not None and signed.signer not in signers:
            raise BadManifest(
                f"{where} is signed by {signed.signer[:16]}…, which is none of the keys that you accept. "
                "Ask its publisher for the right key, or accept this one."
            )
        return signed


def sign(body: Manifest, private: Ed25519PrivateKey) -> Signed:
    """Sign a manifest. Raises ``BadManifest`` for one that ``Signed.from_bytes`` would refuse."""
    signer = private.public_key().public_bytes_raw().hex()
    try:
        signature = private.sign(canonical_json(body.to_dict())).hex()
        signed = Signed(body, signer, signature)
        data = signed.to_bytes()
    except (ValueError, TypeError) as error:
        raise BadManifest(f"The manifest of {body.name} can't be signed: {error}.") from error
    return Signed.from_bytes(data, f"The manifest of {body.name}")


def is_name(text: str) -> bool:
    """Say whether a specialist may be called so."""
    return _NAME.fullmatch(text) is not None


def _check(signed: Signed) -> None:
    """Raise ``ValueError`` for a field that the schema does not allow."""
    body = signed.body
    hashes = {
        "signer": (signed.signer, _HASH),
        "signature": (signed.signature, _SIGNATURE),
        "weights_sha256": (body.weights_sha256, _HASH),
        "tokenizer_sha256": (body.tokenizer_sha256, _HASH),
        "name": (body.name, _NAME),
    }
    for field, (value, form) in hashes.items():
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise ValueError(f"its {field} does not look like one")
    if set(body.sizes) != {"weights", "tokenizer"}:
        raise ValueError("its sizes are not those of weights and tokenizer")
    for kind, size in body.sizes.items():
        _check_size(kind, size)
    if body.dtype not in _DTYPES:
        raise ValueError(f"its dtype is none of {', '.join(_DTYPES)}")
    if not isinstance(body.licence, str) or not 0 < len(body.licence) <= _LICENCE_CHARACTERS:
        raise ValueError(f"its licence is no text of 1 to {_LICENCE_CHARACTERS} characters")
    if not isinstance(body.provenance, dict):
        raise ValueError("its provenance is no object")
    if body.adapter is not None:
        _check_adapter(body.adapter)


def _check_adapter(adapter: AdapterBlob) -> None:
    if adapter.method not in METHODS:
        raise ValueError(f"its adapter's method is none of {', '.join(METHODS)}")
    if not isinstance(adapter.sha256, str) or _HASH.fullmatch(adapter.sha256) is None:
        raise ValueError("its adapter's sha256 does not look like one")
    _check_size("adapter", adapter.size)


def _check_size(kind: str, size: Any) -> None:
    if type(size) is not int or not 0 < size <= _BLOB_BYTES:
        raise ValueError(f"the size of its {kind} is no number of bytes from 1 to {_BLOB_BYTES:,}")


def _verify(signed: Signed, where: str) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed.signer))
        key.verify(bytes.fromhex(signed.signature), canonical_json(signed.body.to_dict()))
    except (InvalidSignature, ValueError):
        raise BadManifest(
            f"{where} is forged or was changed: the signature is not {signed.signer[:16]}…'s over this "
            "content. Fetch it again from somebody you trust."
        ) from None
