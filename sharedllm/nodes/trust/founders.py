"""A federation's root: who its founders are and which keys speak for it, signed by four founders of five.

Roots form a chain: each names the one before by its hash and is signed by enough founders of that one *and*
of its own, so that founders can be replaced and a verifier who has one root can follow to the last (as in The
Update Framework). Body: canonical JSON of all fields but the signatures, after ``sharedllm-root-1`` NUL.

*Covered*: a founder who signs twice, is none, or signs two successors alone: two roots of one version need
``2 × threshold − founders`` who signed both, three of five, and those are named by the two roots. *Not
covered*: enough founders who agree to lie in one voice; they are the federation.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.identity import NodeKey

__all__ = ["ROOT_BYTES", "BadRoot", "Key", "Root", "seal", "signers"]

_MAGIC = b"sharedllm-root-1\x00"
_HEX = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_FOUNDERS, _KEYS = 16, 64
_LATEST_S = 2**40
ROOT_BYTES = 32 * 1024


class BadRoot(SharedLLMError):
    """A federation's root is forged, stale, out of order, or contradicts another."""


@dataclass(frozen=True)
class Key:
    """An Ed25519 key (64 hex digits) that speaks for a federation from ``from_s`` until ``until_s``."""

    public: str
    from_s: int
    until_s: int


@dataclass(frozen=True)
class Root:
    """One root; ``signatures`` by founder. ``previous``: hash of the root before, empty in the first."""

    federation: str
    version: int
    previous: str
    founders: tuple[str, ...]
    threshold: int
    keys: tuple[Key, ...]
    issued_s: int
    expires_s: int
    signatures: Mapping[str, str] = field(default_factory=dict, compare=False)

    @functools.cached_property
    def body(self) -> bytes:
        """What founders sign."""
        said = {
            "federation": self.federation,
            "version": self.version,
            "previous": self.previous,
            "founders": list(self.founders),
            "threshold": self.threshold,
            "keys": [[key.public, key.from_s, key.until_s] for key in self.keys],
            "issued_s": self.issued_s,
            "expires_s": self.expires_s,
        }
        return _MAGIC + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    @functools.cached_property
    def digest(self) -> str:
        """The hash that the next root names."""
        return hashlib.sha256(self.body).hexdigest()

    def to_bytes(self) -> bytes:
        """The form that travels."""
        whole = json.loads(self.body[len(_MAGIC) :]) | {"signatures": dict(sorted(self.signatures.items()))}
        return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Root:
        """Read what ``to_bytes`` wrote; nothing is proven yet. Raises ``BadRoot`` for any other bytes."""
        try:
            if len(data) > ROOT_BYTES:
                raise ValueError(f"it has more than {ROOT_BYTES} bytes")
            said = json.loads(data)
            keys = tuple(Key(*key) for key in said.pop("keys"))
            root = cls(**{**said, "founders": tuple(said["founders"]), "keys": keys})
            _check_form(root)
            if root.to_bytes() != data:
                raise ValueError("it is not in canonical JSON")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadRoot(f"What came as a federation's root is none: {error}. Fetch it again.") from None
        return root


def seal(root: Root, founders: Collection[NodeKey]) -> Root:
    """``root`` with the signatures of ``founders`` added to those it has."""
    added = {founder.public_bytes.hex(): founder.sign(root.body).hex() for founder in founders}
    kept = {name: getattr(root, name) for name in Root.__dataclass_fields__}
    return Root(**{**kept, "signatures": {**root.signatures, **added}})


def signers(root: Root, founders: Collection[str]) -> frozenset[str]:
    """Which of ``founders`` (public keys) validly signed ``root``."""
    found = set()
    for founder in set(founders) & set(root.signatures):
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(founder))
            key.verify(bytes.fromhex(root.signatures[founder]), root.body)
        except (InvalidSignature, ValueError):
            continue
        found.add(founder)
    return frozenset(found)


def _check_form(root: Root) -> None:
    """Raise ``ValueError`` for a field that can't be right."""
    name = root.federation
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
        raise ValueError("its federation has no name, or one that can't be shown")
    numbers = (root.version, root.threshold, root.issued_s, root.expires_s)
    spans = [moment for key in root.keys for moment in (key.from_s, key.until_s)]
    if not all(type(number) is int and 0 <= number <= _LATEST_S for number in (*numbers, *spans)):
        raise ValueError("one of its numbers is none")
    hashes = [*root.founders, *[key.public for key in root.keys], *[root.previous][: root.version > 1]]
    if not all(isinstance(text, str) and _HEX.fullmatch(text) for text in hashes):
        raise ValueError("one of its keys or hashes does not look like one")
    if len(set(root.founders)) != len(root.founders) or not 1 <= len(root.founders) <= _FOUNDERS:
        raise ValueError(f"it does not have 1 to {_FOUNDERS} different founders")
    if not len(root.founders) < 2 * root.threshold <= 2 * len(root.founders) or len(root.keys) > _KEYS:
        raise ValueError("its threshold is no majority of its founders, or it has too many keys")
    if len(root.signatures) > 2 * _FOUNDERS or not all(
        isinstance(text, str) and _SIGNATURE.fullmatch(text) for text in root.signatures.values()
    ):
        raise ValueError("its signatures do not look like some")
