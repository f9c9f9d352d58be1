"""A receipt: an answer's records as they were logged, the proof that they are in the log, and signatures.

``sharedllm-receipt/1`` is JSON: ``records`` (see ``records``), ``proof`` (C2SP tlog-proof text for the last
record, checkpoint included), ``node`` (public key, hex), ``signature`` (the node's, over the canonical
form of these), ``salt`` (that of the prompt's hash) and ``acknowledgement`` (of the client). The last two may
be set to null before a receipt is shown to others: without the salt nobody can try prompts against the hash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.attribution.log import Proof, public_bytes
from sharedllm.errors import BadReceipt
from sharedllm.store import canonical_json, sha256_of

__all__ = ["acknowledged", "acknowledgement_message", "issue", "node_message", "parse"]

SCHEMA = "sharedllm-receipt/1"
_MOST_BYTES = 1 << 26
_KEYS = {"schema", "records", "proof", "node", "signature", "salt", "acknowledgement"}


def issue(records: Sequence[bytes], proof: Proof, salt: bytes, private: Ed25519PrivateKey) -> bytes:
    """Write the receipt of an answer whose last record ``proof`` proves, signed by the node."""
    receipt: dict[str, Any] = {
        "schema": SCHEMA,
        "records": [json.loads(record) for record in records],
        "proof": str(proof),
        "node": public_bytes(private).hex(),
        "salt": salt.hex(),
        "acknowledgement": None,
    }
    return canonical_json({**receipt, "signature": private.sign(node_message(receipt)).hex()})


def acknowledged(receipt: bytes, private: Ed25519PrivateKey) -> bytes:
    """The receipt, countersigned by the client to whom it was issued; the receipt is verified first.

    Raises ``BadReceipt`` as ``verify`` does, and for a key that is not the client's.
    """
    from sharedllm.attribution.receipts.verify import verify

    client = public_bytes(private).hex()
    verify(receipt, client_key=client)
    whole = parse(receipt)
    signature = private.sign(acknowledgement_message(whole)).hex()
    return canonical_json({**whole, "acknowledgement": {"client_key": client, "signature": signature}})


def parse(data: bytes) -> dict[str, Any]:
    """The JSON of a receipt; raises ``BadReceipt`` for what can't be one."""
    if len(data) > _MOST_BYTES:
        raise BadReceipt(f"A receipt has at most {_MOST_BYTES:,} bytes; this has {len(data):,}.")
    try:
        whole = json.loads(
            data, object_pairs_hook=_once, parse_float=_no_fraction, parse_constant=_no_fraction
        )
    except (ValueError, RecursionError) as error:
        raise BadReceipt(f"These {len(data):,} bytes are no receipt ({error}).") from error
    if not isinstance(whole, dict) or whole.get("schema") != SCHEMA:
        raise BadReceipt(f"This is no receipt: its schema is not {SCHEMA}.")
    if set(whole) != _KEYS:
        raise BadReceipt(f"A receipt has the keys {', '.join(sorted(_KEYS))}, and no others.")
    return whole


def node_message(receipt: dict[str, Any]) -> bytes:
    """What the node signs: all that the log and it say, but neither salt nor acknowledgement."""
    signed = {key: receipt[key] for key in ("schema", "records", "proof", "node")}
    return b"sharedllm receipt\n" + sha256_of(signed).encode()


def acknowledgement_message(receipt: dict[str, Any]) -> bytes:
    """What the client signs: the same, and that the node signed it."""
    return b"sharedllm receipt acknowledged\n" + sha256_of(node_message(receipt)).encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) != len(pairs):
        raise ValueError("a key is given twice")
    return whole


def _no_fraction(text: str) -> Any:
    raise ValueError(f"{text} is no whole number")
