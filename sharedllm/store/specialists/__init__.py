"""Specialists at rest: a signed manifest of < 4 KB, and the blobs that it names by hash, are all of one.

A specialist is a whole model, or an adapter on a base that others share. ``live`` builds either from what the
manifest says, so that nobody runs code to use a stranger's specialist. Its ``id`` (the hash of the body) is
what receipts and gossip name; its signature says who published it.

What must not happen here: training (``nodes.specialists`` has the recipe), talking to other machines,
executing anything of a manifest or a blob, using a byte that was not hashed.

Bets that rest on this room: b001 (loader), and the specialists of every mixture that is served.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sharedllm.store.specialists.directory import PUBLISHER, export, find, names, publish
from sharedllm.store.specialists.signed import METHODS, Signed, is_name, sign
from sharedllm.store.specialists.withdrawal import Withdrawal, withdraw

if TYPE_CHECKING:
    from sharedllm.store.specialists.living import deltas, live, with_adapter

__all__ = [
    "METHODS",
    "PUBLISHER",
    "Signed",
    "Withdrawal",
    "deltas",
    "export",
    "find",
    "is_name",
    "live",
    "names",
    "publish",
    "sign",
    "with_adapter",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used (PEP 562): directories read manifests without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.living"), name)
