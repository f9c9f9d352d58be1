"""What a log signs (C2SP tlog-checkpoint), and an entry's proof against it in one text (C2SP tlog-proof)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.attribution.log.hashing import HASH_BYTES, leaf_hash
from sharedllm.attribution.log.notes import LogKey, sign_note, verify_note
from sharedllm.attribution.log.proofs import verify_consistency, verify_inclusion
from sharedllm.errors import BadLog

__all__ = ["Checkpoint", "Proof"]

_PROOF = "c2sp.org/tlog-proof@v1"
_LARGEST_SIZE = 1 << 63
_MOST_HASHES = 63


@dataclass(frozen=True)
class Checkpoint:
    """A log's name, how many entries it has, and their root hash."""

    origin: str
    size: int
    root: bytes

    def signed(self, private: Ed25519PrivateKey) -> bytes:
        """The note that says so, signed under the log's name."""
        text = f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
        return sign_note(text, self.origin, private)

    @classmethod
    def verified(cls, note: bytes, key: LogKey) -> Checkpoint:
        """Read a checkpoint that ``key`` signed for the log of its name; raises ``BadLog`` for any other."""
        lines = verify_note(note, key).split("\n")
        if len(lines) < 4 or "" in lines[:-1]:
            raise BadLog("A checkpoint has at least three lines: the log's name, its size, its root hash.")
        if lines[0] != key.name:
            raise BadLog(f"The checkpoint is of the log {lines[0]!r}, not of {key.name}.")
        return cls(lines[0], _number(lines[1]), _hash(lines[2]))

    def check_extends(self, older: Checkpoint, path: Sequence[bytes]) -> None:
        """Raise ``BadLog`` unless this log begins with all that ``older`` held: none lost, changed, moved."""
        if self.origin != older.origin:
            raise BadLog(f"{self.origin} and {older.origin} are two logs; neither extends the other.")
        verify_consistency(older.size, older.root, self.size, self.root, path)


@dataclass(frozen=True)
class Proof:
    """Where an entry stands, the hashes from it up to a root, and the signed checkpoint of that root."""

    index: int
    path: tuple[bytes, ...]
    note: bytes

    def __str__(self) -> str:
        hashes = "".join(f"{base64.b64encode(sibling).decode()}\n" for sibling in self.path)
        return f"{_PROOF}\nindex {self.index}\n{hashes}\n{self.note.decode()}"

    @classmethod
    def parse(cls, text: str) -> Proof:
        """Read what ``str`` wrote; raises ``BadLog`` for anything else."""
        head, _, note = text.partition("\n\n")
        lines = head.split("\n")
        if len(lines) < 2 or lines[0] != _PROOF or not lines[1].startswith("index "):
            raise BadLog(f"That is no log proof; one begins with the line {_PROOF} and an index.")
        if len(lines) > 2 + _MOST_HASHES:
            raise BadLog(f"A log proof has at most {_MOST_HASHES} hashes.")
        try:
            encoded = note.encode()
        except UnicodeEncodeError as error:
            raise BadLog("The checkpoint of a log proof is UTF-8.") from error
        return cls(_number(lines[1][6:]), tuple(_hash(line) for line in lines[2:]), encoded)

    def verify(self, entry: bytes, key: LogKey) -> Checkpoint:
        """The checkpoint under which ``entry`` stands; raises ``BadLog`` if ``key`` signed none such."""
        checkpoint = Checkpoint.verified(self.note, key)
        verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and str(int(text)) == text):
        raise BadLog(f"{text[:20]!r} is no number of entries.")
    if int(text) >= _LARGEST_SIZE:
        raise BadLog(f"No log has {text} entries.")
    return int(text)


def _hash(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES or base64.b64encode(value).decode() != text:
        raise BadLog(f"{text[:60]!r} is no SHA-256 in base64.")
    return value
