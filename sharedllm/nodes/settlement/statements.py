"""A statement is a few fields that one party signed: its canonical JSON is the only form it has.

Parties are named by their raw Ed25519 public key, 64 hex digits, so that nothing else is needed to check a
signature. What is signed begins with the schema's name, so a claim can never pass for a payment.

*Covered*: another byte anywhere, another field, type, order or spelling, numbers beyond 2^53, statements
longer than ``STATEMENT_BYTES``. *Not covered*: a stolen key; whose key it is (``identity`` knows nodes).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import Field, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.settlement.errors import StatementRefused
from sharedllm.store import canonical_json

__all__ = ["MOST", "STATEMENT_BYTES", "Signer", "Statement", "digits", "whole"]

STATEMENT_BYTES = 2048
MOST = 2**53
_SIGNATURE = re.compile("([0-9a-f]{128})?")


def digits(count: int) -> Any:
    """A field of exactly so many lower-case hex digits."""
    return field(metadata={"pattern": re.compile(f"[0-9a-f]{{{count}}}")})


def whole(least: int = 0) -> Any:
    """A field of a whole number in [least, 2^53]."""
    return field(metadata={"least": least})


class Signer:
    """A key that signs statements; ``id`` is its party's name."""

    def __init__(self, key: NodeKey) -> None:
        self._key = key
        self.id = key.public_bytes.hex()

    def sign(self, body: bytes) -> str:
        """The signature of a statement's body, 128 hex digits; the same whenever the body is."""
        return self._key.sign(body).hex()


@dataclass(frozen=True)
class Statement:
    """The common part of claims, acknowledgements and payments; ``signature`` is empty until signed."""

    SCHEMA: ClassVar[str]

    def __post_init__(self) -> None:
        """Raises ``StatementRefused`` for a field that is not what it must be."""
        for one in fields(self):
            _check(self.SCHEMA, one, getattr(self, one.name))

    @property
    def author(self) -> str:
        """The party that has to sign this."""
        raise NotImplementedError

    @cached_property
    def body(self) -> bytes:
        """What is signed, and hashed: the schema and every field but the signature."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "signature"}
        return canonical_json({"schema": self.SCHEMA, **named})

    @cached_property
    def id(self) -> str:
        """SHA-256 of the body, 64 hex digits."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def signature(self) -> str:
        """The author's signature of the body."""
        raise NotImplementedError

    def signed(self, signer: Signer) -> Self:
        """The same with its signature; raises ``StatementRefused`` if another party has to sign it."""
        if signer.id != self.author:
            raise StatementRefused(
                "signature", f"This {self.SCHEMA} is {self.author[:16]}…'s to sign, not {signer.id[:16]}…'s."
            )
        return replace(self, **{"signature": signer.sign(self.body)})

    def check_signature(self) -> None:
        """Raises ``StatementRefused`` unless the author signed exactly this."""
        try:
            _public(self.author).verify(bytes.fromhex(self.signature), self.body)
        except (InvalidSignature, ValueError):
            raise StatementRefused(
                "signature",
                f"The signature under this {self.SCHEMA} is not that of {self.author[:16]}…: it is forged, "
                "or a field was changed after signing.",
            ) from None

    def to_bytes(self) -> bytes:
        """Write the statement with its signature; ``from_bytes`` takes nothing but these bytes."""
        return canonical_json(
            {"schema": self.SCHEMA, **{one.name: getattr(self, one.name) for one in fields(self)}}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; the signature is not checked yet.

        Raises ``StatementRefused`` for anything else.
        """
        if len(data) > STATEMENT_BYTES:
            raise StatementRefused(
                "form", f"A statement has {len(data):,} bytes; none is longer than {STATEMENT_BYTES:,}."
            )
        try:
            given = json.loads(data)
            statement = cls(**{one.name: given[one.name] for one in fields(cls)})
            same = statement.to_bytes() == data
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            raise StatementRefused("form", f"These {len(data)} bytes are no {cls.SCHEMA} in canonical form.")
        return statement


def _check(schema: str, one: Field[Any], value: object) -> None:
    if "least" in one.metadata:
        fits = type(value) is int and one.metadata["least"] <= value <= MOST
    else:
        pattern = one.metadata.get("pattern", _SIGNATURE)
        fits = isinstance(value, str) and pattern.fullmatch(value) is not None
    if not fits:
        raise StatementRefused("form", f"The {one.name} of this {schema} is not of the kind that it must be.")


@lru_cache(maxsize=1 << 15)
def _public(party: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(party))
