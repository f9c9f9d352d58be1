"""An append-only Merkle log of entries (bytes), and proofs about it that need no log and no server.

Hashing is RFC 6962's, files lie as C2SP tlog-tiles says, checkpoints and proofs are C2SP's signed notes, so
that tools of transparency logs read what is written here. What must not happen in this room: torch, a
network, or knowing what an entry means.

Bets: b017 (what auditing costs).
"""

from sharedllm.attribution.log.checkpoint import Checkpoint, Proof
from sharedllm.attribution.log.hashing import leaf_hash
from sharedllm.attribution.log.log import Log
from sharedllm.attribution.log.notes import LogKey, public_bytes, sign_note, verify_note
from sharedllm.attribution.log.proofs import verify_consistency, verify_inclusion
from sharedllm.attribution.log.tiles import LARGEST_ENTRY_BYTES

__all__ = [
    "LARGEST_ENTRY_BYTES",
    "Checkpoint",
    "Log",
    "LogKey",
    "Proof",
    "leaf_hash",
    "public_bytes",
    "sign_note",
    "verify_consistency",
    "verify_inclusion",
    "verify_note",
]
