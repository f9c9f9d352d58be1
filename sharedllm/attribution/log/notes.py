"""Signed notes (C2SP signed-note): text that ends in a newline, a blank line, and a line per signature.

Only Ed25519 (type 0x01). *Covered*: a changed text, another key, a signature under another name; unknown
signers are passed over, as the specification asks, for logs whose checkpoints others sign too.
*Not covered*: other kinds of signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sharedllm.errors import BadLog

__all__ = ["LogKey", "public_bytes", "sign_note", "verify_note"]

_ED25519 = b"\x01"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_MOST_BYTES, _MOST_SIGNATURES = 1 << 16, 64
_DASH = "\u2014"


@dataclass(frozen=True)
class LogKey:
    """A name and the 32 bytes of its public key; ``str`` gives the form in which both are handed around."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not self.name or "+" in self.name or any(c.isspace() or c < " " for c in self.name):
            raise BadLog(f"A log's key name has no spaces, control characters or plus; not {self.name!r}.")
        if len(self.public) != _KEY_BYTES:
            raise BadLog(f"An Ed25519 public key has {_KEY_BYTES} bytes, not {len(self.public)}.")

    @property
    def id(self) -> bytes:
        """The four bytes that stand before a signature."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> LogKey:
        """Read what ``str`` wrote; raises ``BadLog`` for anything else."""
        name, _, rest = text.strip().partition("+")
        digits, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
            parsed = cls(name, key[1:])
            fits = key[:1] == _ED25519 and parsed.id.hex() == digits
        except (binascii.Error, ValueError, BadLog):
            fits = False
        if not fits:
            raise BadLog(
                "That is no log key. One looks like name+0123abcd+base64, and its digits follow from the "
                "rest; copy it whole."
            )
        return parsed


def public_bytes(private: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of a key's public half."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign_note(text: str, name: str, private: Ed25519PrivateKey) -> bytes:
    """Sign ``text``, which ends in a newline, as ``name``; raises ``BadLog`` for text that no note holds."""
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise BadLog("A note is text without control characters that ends in a newline.")
    key = LogKey(name, public_bytes(private))
    signature = base64.b64encode(key.id + private.sign(text.encode())).decode()
    return f"{text}\n{_DASH} {name} {signature}\n".encode()


def verify_note(note: bytes, key: LogKey) -> str:
    """The text of a note that ``key`` signed; raises ``BadLog`` for any other."""
    text, signatures = _parted(note)
    found = [data for name, data in signatures if name == key.name and data[:4] == key.id]
    if not found:
        signers = ", ".join(repr(name) for name, _ in signatures)
        raise BadLog(f"The note is not signed by {key.name} ({key.id.hex()}), but by {signers}.")
    public = Ed25519PublicKey.from_public_bytes(key.public)
    for data in found:
        try:
            public.verify(data[4:], text.encode())
        except InvalidSignature:
            raise BadLog(
                f"The signature of {key.name} does not fit the note; the note was changed."
            ) from None
    return text


def _parted(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Split a note into its text and its (name, key id + signature)s."""
    if len(note) > _MOST_BYTES:
        raise BadLog(f"A note has at most {_MOST_BYTES:,} bytes; this one has {len(note):,}.")
    try:
        text, gap, lines = note.decode().rpartition("\n\n")
        control = any(c < " " and c != "\n" for c in text + lines)
        if not gap or not text or not lines.endswith("\n") or control:
            raise ValueError("it has no text, blank line and signatures")
        signatures = []
        for line in lines[:-1].split("\n"):
            dash, name, encoded = line.split(" ")
            data = base64.b64decode(encoded, validate=True)
            if dash != _DASH or not name or len(data) < 5 or base64.b64encode(data).decode() != encoded:
                raise ValueError("a signature line is malformed")
            signatures.append((name, data))
        if len(signatures) > _MOST_SIGNATURES:
            raise ValueError("it has too many signatures")
    except ValueError as error:  # also of UTF-8 and base64
        raise BadLog(f"These {len(note)} bytes are no signed note ({error}).") from error
    return text + "\n", signatures
