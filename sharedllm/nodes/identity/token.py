"""Join tokens: one line that lets a machine in and pins the federation's authority, so no other can answer.

``SL1-<CA fingerprint, 64 hex>-<token id, 16 hex>-<secret, 43 characters of URL-safe base64>``. The
coordinator keeps the id and a hash of the secret. A plain SHA-256 is enough for 256 random bits; a password
would need more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from sharedllm.nodes.errors import JoinRefused

__all__ = ["JoinToken", "hash_secret", "new_token", "parse_token", "secret_matches"]

_TOKEN = re.compile(r"SL1-([0-9a-f]{64})-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
_TOKEN_CHARACTERS = 3 + 1 + 64 + 1 + 16 + 1 + 43


@dataclass(frozen=True)
class JoinToken:
    """A parsed token; its ``repr`` shows no secret."""

    fingerprint: str
    id: str
    secret: str = field(repr=False)

    def format(self) -> str:
        """The one line that a person copies to the next machine."""
        return f"SL1-{self.fingerprint}-{self.id}-{self.secret}"


def new_token(fingerprint: str) -> JoinToken:
    """A fresh token for the federation whose authority's certificate has this fingerprint (64 hex digits)."""
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    return JoinToken(fingerprint=fingerprint, id=secrets.token_hex(8), secret=secret)


def parse_token(text: str) -> JoinToken:
    """The token that a person pasted; spaces around it don't matter.

    Raises ``JoinRefused``, without repeating what was given, if it is none.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise JoinRefused(
            f"What was given as a join token ({len(text.strip())} characters) is none: one begins with SL1- "
            f"and has {_TOKEN_CHARACTERS} characters. Copy the whole line that 'sharedllm token' printed."
        )
    return JoinToken(fingerprint=match[1], id=match[2], secret=match[3])


def hash_secret(secret: str) -> str:
    """What the coordinator stores of a token's secret: its SHA-256, 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def secret_matches(secret: str, stored: str) -> bool:
    """Whether ``secret`` is the one whose hash was stored, compared in constant time."""
    return hmac.compare_digest(hash_secret(secret), stored)
