"""Damage to manifests and blobs, counted, and a process that has nothing but them: what b001 rests on.

What must not happen here: damage to a file outside the folder that was given.
"""

from __future__ import annotations

from sharedllm.bets.tampering.alone import Alone, digest
from sharedllm.bets.tampering.damage import (
    Tally,
    blob_damage,
    changes,
    manifest_damage,
    regions,
    signed_anyway,
)

__all__ = [
    "Alone",
    "Tally",
    "blob_damage",
    "changes",
    "digest",
    "manifest_damage",
    "regions",
    "signed_anyway",
]
