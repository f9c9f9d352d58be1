"""An answer as its records tell it, every field typed, every hash followed, every line added again."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from sharedllm.attribution.entry import UNIT_NATS, Entry, verify
from sharedllm.attribution.receipts.records import BILLION, SCHEMA, Head, record_hash
from sharedllm.errors import BadLedger, BadReceipt
from sharedllm.store import canonical_json

__all__ = ["Answer", "Token", "read"]

_REASON_CHARACTERS = 64
_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class Token:
    """One token's ledger entry, and each specialist's responsibility in billionths."""

    entry: Entry
    shares: tuple[int, ...]

    @property
    def probability(self) -> float:
        """What the mixture gave the token, 0 to 1."""
        return math.exp(self.entry.joint * UNIT_NATS)


@dataclass(frozen=True)
class Answer:
    """A head and its tokens; ``finish_reason`` is None if the log holds no end of the answer."""

    head: Head
    tokens: tuple[Token, ...]
    finish_reason: str | None


def read(records: Any) -> tuple[Answer, bytes]:
    """The answer, and the canonical bytes of its last record, which commit to all; raises ``BadReceipt``."""
    _check(isinstance(records, list) and records, "A receipt has a list of records, the head first.")
    previous, tokens, finish_reason = "", list[Token](), None
    head = _head(records[0])
    for number, record in enumerate(records[1:], 1):
        _check(finish_reason is None, f"Record {number} comes after the end of the answer.")
        where = f"Record {number}"
        previous = record_hash(_bytes(records[number - 1], number - 1))
        kind = _fields(record, where, {"kind": str, "schema": str, "previous": str}, more=True)["kind"]
        _check(
            record["previous"] == previous,
            f"Record {number - 1} ({records[number - 1]['kind']}) was changed, or a record was left out: its "
            f"hash is not the one that record {number} names.",
        )
        if kind == "end":
            finish_reason = _end(record, where, len(tokens))
        else:
            tokens += _piece(record, where, head, len(tokens))
    return Answer(head, tuple(tokens), finish_reason), _bytes(records[-1], len(records) - 1)


def _head(record: Any) -> Head:
    texts = {f.name: str for f in fields(Head)}
    types: dict[str, Any] = {"kind": str, "schema": str, **texts}
    types |= {"client_key": (str, type(None)), "specialists": list, "ids": list}
    types |= {"prompt_tokens": int, "began_unix_s": int}
    given = _fields(record, "The head", types)
    _check(given["kind"] == "head", "The first record of an answer is its head.")
    names, ids = given["specialists"], given["ids"]
    for list_ in (names, ids):
        _check(all(isinstance(x, str) for x in list_), "Specialists and their ids are named by text.")
    for key in ("prompt_sha256", "salt_sha256", "client_key"):
        _check(
            given[key] is None or (len(given[key]) == 64 and set(given[key]) <= _HEX),
            f"The head's {key} is not 64 hex digits.",
        )
    values = {f.name: given[f.name] for f in fields(Head)}
    return Head(**{**values, "specialists": tuple(names), "ids": tuple(ids)})


def _piece(record: Any, where: str, head: Head, before: int) -> list[Token]:
    types = {"kind": str, "schema": str, "previous": str, "first": int, "rows": list}
    given = _fields(record, where, types)
    _check(given["kind"] == "tokens", f"{where} is neither tokens nor an end.")
    _check(
        given["first"] == before, f"{where} begins at token {given['first']}, and {before} came before it."
    )
    _check(bool(given["rows"]), f"{where} holds no token.")
    return [_token(row, f"Token {before + i}", head.specialists) for i, row in enumerate(given["rows"])]


def _token(row: Any, where: str, specialists: tuple[str, ...]) -> Token:
    _check(isinstance(row, list) and len(row) == 9, f"{where} has not the nine columns of a token.")
    _check(all(isinstance(row[i], list) for i in (1, 2, 3, 4, 8)), f"{where} lacks a list of amounts.")
    _check(type(row[0]) is int and row[0] >= 0, f"{where} has no token id.")
    logw, logp, seen, prior = (tuple(row[i]) for i in (1, 2, 3, 4))
    entry = Entry(specialists, row[0], logw, logp, seen, prior, *row[5:8])
    try:
        verify(entry)
    except (BadLedger, TypeError, OverflowError) as error:
        raise BadReceipt(f"{where} does not add up. {error}") from error
    shares = tuple(row[8])
    _check(
        len(shares) == len(specialists)
        and all(type(x) is int and 0 <= x <= BILLION for x in shares)
        and sum(shares) == BILLION,
        f"The responsibilities of {where.lower()} do not add up to {BILLION:,} billionths.",
    )
    for name, share, w, p in zip(specialists, shares, entry.logw, entry.logp, strict=True):
        r = 0.0 if w is None or p is None else math.exp((w + p - entry.joint) * UNIT_NATS)
        _check(
            abs(share - r * BILLION) <= len(shares) + 1,
            f"The responsibility of {name} for {where.lower()} is {share} billionths, and should be "
            f"{r * BILLION:.0f} by its log-probability and weight; it was changed.",
        )
    return Token(entry, shares)


def _end(record: Any, where: str, tokens: int) -> str:
    types = {"kind": str, "schema": str, "previous": str, "tokens": int, "finish_reason": str}
    given = _fields(record, where, types)
    _check(given["tokens"] == tokens, f"The end counts {given['tokens']} tokens, and {tokens} are here.")
    reason: str = given["finish_reason"]
    _check(
        reason.isprintable() and len(reason) <= _REASON_CHARACTERS,
        "The answer ended for no reason that can be shown.",
    )
    return reason


def _fields(record: Any, where: str, types: dict[str, Any], *, more: bool = False) -> dict[str, Any]:
    _check(isinstance(record, dict), f"{where} is no JSON object.")
    missing = [key for key in types if key not in record]
    _check(not missing, f"{where} lacks {', '.join(missing)}.")
    _check(more or set(record) == set(types), f"{where} has other keys than {', '.join(sorted(types))}.")
    for key, kind in types.items():
        fits = isinstance(record[key], kind) and not isinstance(record[key], bool)
        _check(fits, f"{where} has {key} = {str(record[key])[:40]!r}, which is not what belongs there.")
    _check(record["schema"] == SCHEMA, f"{where} is not of schema {SCHEMA}.")
    return dict(record)


def _bytes(record: Any, number: int) -> bytes:
    try:
        return canonical_json(record)
    except (ValueError, RecursionError) as error:
        raise BadReceipt(f"Record {number} can't be written down again ({error}).") from error


def _check(fits: object, sentence: str) -> None:
    if not fits:
        raise BadReceipt(sentence)
