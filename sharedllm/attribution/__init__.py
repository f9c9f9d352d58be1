"""Who said this token: responsibilities of specialists, ledgers that add up to the joint log-probability, and
the log and the receipts that keep them.

What must not happen in this room: running a model, choosing weights (the combiner does), listening on a
network, and importing torch where ``log`` is kept or a receipt is verified. A ledger line is arithmetic about
the mixture, not an explanation of why a specialist said what it said.

Bets: b018 (the ledger reconciles to the joint), b017 (what auditing costs).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sharedllm.attribution.entry import UNIT_NATS, Entry, verify

if TYPE_CHECKING:
    from sharedllm.attribution.ledger import Ledger, Row, billionths, entries, evidence, reconcile, rows
    from sharedllm.attribution.shares import LogShares, log_shares, responsibilities

__all__ = [
    "UNIT_NATS",
    "Entry",
    "Ledger",
    "LogShares",
    "Row",
    "billionths",
    "entries",
    "evidence",
    "log_shares",
    "reconcile",
    "responsibilities",
    "rows",
    "verify",
]

# torch takes a second to import, and whoever verifies a receipt needs none of it
_SHARES = {"LogShares", "log_shares", "responsibilities"}


def __getattr__(name: str) -> Any:
    """Import the modules that need torch when one of their names is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "shares" if name in _SHARES else "ledger"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
