"""Who said this token: responsibilities of specialists, and ledgers that add up to the joint log-probability.

What must not happen in this room: running a model, choosing weights (the combiner does), signing or storing.
A ledger line is arithmetic about the mixture, not an explanation of why a specialist said what it said.

Bets: b018 (the ledger reconciles to the joint), b017 (what auditing costs).
"""

from sharedllm.attribution.ledger import UNIT_NATS, Entry, Ledger, entries, evidence, reconcile, verify
from sharedllm.attribution.shares import LogShares, log_shares, responsibilities

__all__ = [
    "UNIT_NATS",
    "Entry",
    "Ledger",
    "LogShares",
    "entries",
    "evidence",
    "log_shares",
    "reconcile",
    "responsibilities",
    "verify",
]
