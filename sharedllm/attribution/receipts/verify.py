"""Verify a receipt with nothing but its bytes, and say in sentences what that proves and what it does not.

*Covered*: any change of what a receipt says (each check names what is wrong, the node's signature covers the
rest); a receipt of another log, another node or another client, where the caller says which it expects.
*Not covered*: the sentences of ``Verified.leaves_open``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.attribution.log import Checkpoint, LogKey, Proof
from sharedllm.attribution.receipts.answer import Answer, read
from sharedllm.attribution.receipts.receipt import acknowledgement_message, node_message, parse
from sharedllm.attribution.receipts.records import prompt_hash
from sharedllm.errors import BadLog, BadReceipt

__all__ = ["Verified", "log_name", "verify"]


@dataclass(frozen=True)
class Verified:
    """What a good receipt says, and sentences for people: what it proves, and what it leaves open."""

    answer: Answer
    index: int
    checkpoint: Checkpoint
    log_key: LogKey
    node: str
    acknowledged: bool
    proves: tuple[str, ...]
    leaves_open: tuple[str, ...]


def log_name(node_public: bytes) -> str:
    """The name of the audit log of the node with this public key."""
    return f"sharedllm/{hashlib.sha256(node_public).hexdigest()[:32]}"


def verify(
    data: bytes,
    *,
    log_key: str | None = None,
    client_key: str | None = None,
    prompt: Sequence[int] | None = None,
) -> Verified:
    """Verify a receipt; raises ``BadReceipt`` with a sentence that names what is wrong.

    ``log_key`` is the log's key that the caller trusts (``name+digits+base64``, or the node's public key in
    hex), ``client_key`` the Ed25519 public key in hex to which it must have been issued, ``prompt`` the token
    ids that must have been asked. What is not given is not checked, and the sentences say so.
    """
    receipt = parse(data)
    key = _log_key(receipt["node"])
    if log_key is not None and _expected(log_key) != key:
        raise BadReceipt(f"The receipt is of the log {key}, not of the one that you expect, {log_key}.")
    answer, last = read(receipt["records"])
    if not isinstance(receipt["proof"], str):
        raise BadReceipt("A receipt's proof is text.")
    try:
        proof = Proof.parse(receipt["proof"])
        checkpoint = proof.verify(last, key)
    except BadLog as error:
        raise BadReceipt(f"The log does not bear the receipt out. {error}") from error
    _signed(receipt["node"], receipt["signature"], node_message(receipt), "node")
    _salted(receipt["salt"], answer, prompt)
    acknowledged = _acknowledged(receipt, answer)
    if client_key is not None and answer.head.client_key != client_key.lower():
        raise BadReceipt(
            f"The receipt is issued to {answer.head.client_key or 'nobody'}, not to {client_key}."
        )
    proves = _proves(answer, proof.index, checkpoint, acknowledged, prompt is not None)
    leaves_open = _leaves_open(answer, key, log_key is not None, acknowledged)
    return Verified(answer, proof.index, checkpoint, key, receipt["node"], acknowledged, proves, leaves_open)


def _expected(text: str) -> LogKey:
    try:
        return _log_key(text.lower()) if len(text) == 64 else LogKey.parse(text)
    except BadLog as error:
        raise BadReceipt(str(error)) from error


def _log_key(node: Any) -> LogKey:
    public = _hex(node, 32, "The node's public key")
    return LogKey(log_name(public), public)


def _hex(text: Any, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (ValueError, TypeError):
        value = b""
    if len(value) != size or value.hex() != text:
        raise BadReceipt(f"{what} is not {2 * size} hex digits in small letters.")
    return value


def _signed(public: str, signature: Any, message: bytes, who: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(_hex(public, 32, f"The {who}'s key"))
    try:
        key.verify(_hex(signature, 64, f"The {who}'s signature"), message)
    except InvalidSignature:
        raise BadReceipt(
            f"The {who}'s signature does not fit the receipt; the receipt or the signature was changed."
        ) from None


def _salted(salt: Any, answer: Answer, prompt: Sequence[int] | None) -> None:
    if salt is not None:
        value = _hex(salt, 16, "The salt")
        if hashlib.sha256(value).hexdigest() != answer.head.salt_sha256:
            raise BadReceipt("The salt is not the one whose hash was logged; it was changed.")
        if prompt is not None and prompt_hash(value, prompt) != answer.head.prompt_sha256:
            raise BadReceipt("The receipt is for another prompt than the one given.")
    elif prompt is not None:
        raise BadReceipt("The receipt's salt was taken out, so no prompt can be compared with it.")


def _acknowledged(receipt: dict[str, Any], answer: Answer) -> bool:
    given = receipt["acknowledgement"]
    if given is None:
        return False
    if not isinstance(given, dict) or set(given) != {"client_key", "signature"}:
        raise BadReceipt("An acknowledgement is a client key and a signature.")
    if given["client_key"] != answer.head.client_key:
        raise BadReceipt("The acknowledgement is of another client than the one the receipt is issued to.")
    _signed(given["client_key"], given["signature"], acknowledgement_message(receipt), "client")
    return True


def _proves(
    answer: Answer, index: int, checkpoint: Checkpoint, acknowledged: bool, prompt: bool
) -> tuple[str, ...]:
    head, n = answer.head, len(answer.tokens)
    who = f"the client key {head.client_key}" if head.client_key else "no client key"
    sentences = [
        f"The node signed that it served {n:,} tokens of {head.model} for request "
        f"{head.request_id}, to {who}.",
        f"The answer's last record is entry {index:,} of the log {checkpoint.origin}, of which "
        f"{checkpoint.size:,} entries were signed; it commits to every record before it.",
        f"Each token's lines add up to its log-probability exactly, and responsibilities of "
        f"{len(head.specialists)} specialist{'s' * (len(head.specialists) > 1)} to one.",
        "No token, weight, share, specialist id or hash in it was changed since the log was signed.",
    ]
    if prompt:
        sentences.append("The prompt is the one given.")
    if acknowledged:
        sentences.append("The client countersigned it.")
    return tuple(sentences)


def _leaves_open(answer: Answer, key: LogKey, trusted: bool, acknowledged: bool) -> tuple[str, ...]:
    sentences = [
        "Whether the node computed what it says: one that invents consistent numbers can sign them too.",
        f"When: {answer.head.began_unix_s} (Unix time) is the node's own word; an old receipt stays good.",
        "Whether the log shows everybody the same history: compare its checkpoints with those of others.",
        "Why a specialist said what it said: a responsibility is arithmetic, not a cause.",
    ]
    if not trusted:
        sentences.insert(
            0,
            f"Whose log it is: its key, {key}, is the receipt's own word. Give the key that you know.",
        )
    if answer.finish_reason is None:
        sentences.append("How the answer ended: the log holds no end of it.")
    if not acknowledged:
        sentences.append("Whether the client received it: nobody countersigned.")
    return tuple(sentences)
