"""What the log holds of an answer: a head, then its tokens in pieces, then its end, each naming the last.

Every record carries the SHA-256 of the one before it, so the last commits to the whole answer, and one
inclusion proof proves all of it. Tokens are written in pieces, as they come: after a crash in mid-answer the
log holds what was served up to the last piece. (A leaf for each token would make as many proofs as tokens; a
single leaf for an answer would lose it in a crash, and is limited to 64 KB by the log's format.)

The prompt is in the log only as a hash, with a salt that the log does not hold; the salt's hash makes every
record of an answer unguessable, so tiles and checkpoints may be shown to anyone. Records themselves hold
token ids and are for the node's own user and whoever has the receipt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sharedllm.attribution.log import LARGEST_ENTRY_BYTES
from sharedllm.errors import BadReceipt

__all__ = [
    "BILLION",
    "MOST_SPECIALISTS",
    "SCHEMA",
    "Chain",
    "Head",
    "answers",
    "prompt_hash",
    "record_hash",
]

SCHEMA = "sharedllm-answer/1"
MOST_SPECIALISTS = 512
BILLION = 1_000_000_000
_TEXT_CHARACTERS = 256
_AMOUNT_BYTES, _ROOM_BYTES = 21, 512  # digits, sign and comma of 2^60 units; keys and hash of a record

TokenRow = tuple[int, Sequence[int | None], Sequence[int | None], Sequence[int], Sequence[int], int, int, int]


@dataclass(frozen=True)
class Head:
    """Who asked what of whom. Hashes and keys are hex; ``began_unix_s`` is the node's word.

    Raises ``BadReceipt`` for texts that would not show on a terminal as they are, and for odd specialists.
    """

    request_id: str
    client_key: str | None
    model: str
    specialists: tuple[str, ...]
    ids: tuple[str, ...]
    rule: str
    prompt_sha256: str
    prompt_tokens: int
    salt_sha256: str
    began_unix_s: int

    def __post_init__(self) -> None:
        texts = (self.request_id, self.model, self.rule, *self.specialists, *self.ids)
        if not all(text.isprintable() and len(text) <= _TEXT_CHARACTERS for text in texts):
            raise BadReceipt(
                f"A request, model, rule or specialist is named in more than {_TEXT_CHARACTERS} "
                "characters, or in some that can't be shown."
            )
        named = len(self.specialists)
        if not 1 <= named <= MOST_SPECIALISTS or len(set(self.specialists)) != named:
            raise BadReceipt(
                f"An answer is audited for 1 to {MOST_SPECIALISTS} specialists, each named once; not {named}."
            )
        if len(self.ids) != named:
            raise BadReceipt(f"{named} specialists need as many ids, not {len(self.ids)}.")


def prompt_hash(salt: bytes, prompt: Sequence[int]) -> str:
    """The hash of a prompt's token ids under a salt, without which it can't be guessed."""
    return hashlib.sha256(salt + json.dumps(list(prompt), separators=(",", ":")).encode()).hexdigest()


def record_hash(record: bytes) -> str:
    """What the next record says of this one."""
    return hashlib.sha256(record).hexdigest()


class Chain:
    """Writes an answer's records; raises ``BadReceipt`` for a head that no log can hold."""

    def __init__(self, head: Head) -> None:
        self.head = _canonical({"kind": "head", **dataclasses.asdict(head)})
        if len(self.head) > LARGEST_ENTRY_BYTES:
            raise BadReceipt(
                f"The names of this answer's specialists take {len(self.head):,} bytes, and an entry of "
                f"the log has {LARGEST_ENTRY_BYTES:,}; name fewer, or shorter."
            )
        self.tokens = 0
        self._most_rows = (LARGEST_ENTRY_BYTES - _ROOM_BYTES) // (
            _AMOUNT_BYTES * (4 + 5 * len(head.specialists)) + 16
        )
        self._previous = record_hash(self.head)

    def pieces(self, rows: Sequence[TokenRow], shares: Sequence[Sequence[int]]) -> list[bytes]:
        """The next tokens' records: ledger rows (``attribution.Row``) and shares in billionths."""
        written = []
        for at in range(0, len(rows), self._most_rows):
            piece = [
                [*row, share]
                for row, share in zip(
                    rows[at : at + self._most_rows], shares[at : at + self._most_rows], strict=True
                )
            ]
            written.append(self._next({"kind": "tokens", "first": self.tokens, "rows": piece}))
            self.tokens += len(piece)
        return written

    def end(self, finish_reason: str) -> bytes:
        """The last record."""
        return self._next({"kind": "end", "tokens": self.tokens, "finish_reason": finish_reason})

    def _next(self, record: dict[str, Any]) -> bytes:
        data = _canonical({**record, "previous": self._previous})
        self._previous = record_hash(data)
        return data


def answers(entries: Iterable[tuple[int, bytes]]) -> dict[str, list[int]]:
    """Where the records of each request are, given a stretch of a log as (index, entry), in order.

    An answer whose head lies before the stretch is left out; one that was cut off ends where it was.
    """
    found: dict[str, list[int]] = {}
    last: dict[str, list[int]] = {}
    for index, entry in entries:
        record = json.loads(entry)
        if record["kind"] == "head":
            positions = found[record["request_id"]] = [index]
        elif record["previous"] in last:
            positions = last.pop(record["previous"])
            positions.append(index)
        else:
            continue
        last[record_hash(entry)] = positions
    return found


def _canonical(record: dict[str, Any]) -> bytes:
    """As ``store.canonical_json``, without its look at every number's neighbours: all keys are ours."""
    text = json.dumps(
        {"schema": SCHEMA, **record},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode()
