"""An answer of three tokens by two specialists, logged among other entries, and its receipt."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.attribution import billionths, rows
from sharedllm.attribution.log import Log, public_bytes
from sharedllm.attribution.receipts import Chain, Head, issue, log_name, prompt_hash
from sharedllm.combiner import FixedShare, mixture

NODE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CLIENT = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CLIENT_KEY = public_bytes(CLIENT).hex()
SALT, PROMPT = bytes(range(16)), (5, 6, 7)
HEAD = Head(
    request_id="chatcmpl-1",
    client_key=CLIENT_KEY,
    model="mixture",
    specialists=("drama", "scripture"),
    ids=("1" * 64, "2" * 64),
    rule="fixed-share 0.02",
    prompt_sha256=prompt_hash(SALT, PROMPT),
    prompt_tokens=len(PROMPT),
    salt_sha256=hashlib.sha256(SALT).hexdigest(),
    began_unix_s=1_700_000_000,
)


def records(head: Head = HEAD, tokens: int = 3, *, end: bool = True) -> list[bytes]:
    """What an auditor logs, in two pieces."""
    draw = torch.Generator().manual_seed(1)
    a_NT = -9 * torch.rand(len(head.specialists), tokens, generator=draw, dtype=torch.float64)
    logw_NT = FixedShare(len(a_NT), 0.02).carry(a_NT)
    joint_T, said = mixture(a_NT, logw_NT), torch.arange(11, 11 + tokens)
    made, shares = rows(a_NT, logw_NT, joint_T, said), billionths(a_NT, logw_NT)
    chain = Chain(head)
    written = [chain.head, *chain.pieces(made[:1], shares[:1]), *chain.pieces(made[1:], shares[1:])]
    return [*written, chain.end("stop")] if end else written


def receipt(folder: Path, head: Head = HEAD, *, tokens: int = 3, end: bool = True) -> bytes:
    """The receipt of such an answer, from a log in ``folder``."""
    log = Log(folder, log_name(public_bytes(NODE)), NODE)
    try:
        log.append([b"of somebody else"] * 5)
        logged = records(head, tokens, end=end)
        first = log.append(logged)
        log.append([b"later"])
        return issue(logged, log.prove(first + len(logged) - 1), SALT, NODE)
    finally:
        log.close()


def log_key() -> str:
    """The key of that log."""
    return public_bytes(NODE).hex()


def of(**changes: object) -> Head:
    """The head with other fields."""
    return dataclasses.replace(HEAD, **changes)  # type: ignore[arg-type]
