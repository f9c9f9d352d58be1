"""A node's Ed25519 key: made once, kept in a file that only its user reads, and named by its public half."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.identity.files import create_secret

__all__ = ["NODE_ID_DIGITS", "NodeKey", "is_node_id", "node_id", "read_public_key"]

NODE_ID_DIGITS = 32
_KEY_FILE_BYTES = 4096


def node_id(public_bytes: bytes) -> str:
    """The name of the node that holds this key: 32 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(public_bytes).hexdigest()[:NODE_ID_DIGITS]


def is_node_id(text: object) -> bool:
    """Whether ``text`` is 32 lower-case hex digits."""
    return isinstance(text, str) and len(text) == NODE_ID_DIGITS and set(text) <= set("0123456789abcdef")


def read_public_key(public_bytes: bytes) -> Ed25519PublicKey:
    """The key whose raw form is these 32 bytes.

    Raises ``NotAdmitted`` for any other length.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(public_bytes)
    except ValueError:
        raise NotAdmitted(
            f"A public key has {len(public_bytes)} bytes, expected the 32 bytes of an Ed25519 key."
        ) from None


@dataclass(frozen=True)
class NodeKey:
    """A private key, which neither ``repr`` nor an error ever shows, and the public names it gives."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> NodeKey:
        """The key in ``path``; a new one, written there with permissions 0600, if there is none.

        Permissions that have become wider are narrowed again. Raises ``NotAdmitted`` if the file is not such
        a key, ``WriteFailed`` if it can't be written.
        """
        if not path.exists():
            key = cls(Ed25519PrivateKey.generate())
            if create_secret(path, key._pem()):
                return key
        return cls(_read(path))

    @property
    def public_bytes(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def id(self) -> str:
        """The node's name, 32 hex digits."""
        return node_id(self.public_bytes)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message``."""
        return self.private.sign(message)

    def _pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(_KEY_FILE_BYTES), password=None)
    except OSError as error:
        raise NotAdmitted(
            f"The key in {path} can't be read by its owner alone ({error.strerror}). Give the file to the "
            "user who runs this node."
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise NotAdmitted(
            f"{path} holds no Ed25519 private key in PEM. Restore it, or delete it and join again."
        )
    return key
