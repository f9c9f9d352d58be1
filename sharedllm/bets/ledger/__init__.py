"""The order of things: who registered what, and when it was decided, in a file whose lines hold each other.

What this does not prove: an owner who rewrites the whole repository leaves no trace unless somebody kept a
copy. The field ``witness`` is free for an outside clock.
"""

from __future__ import annotations

from sharedllm.bets.ledger.chain import (
    EVENTS,
    REASONS,
    REASONS_VERSION,
    Event,
    Ledger,
    Standing,
    registered,
    standing,
    verdict,
)

__all__ = [
    "EVENTS",
    "REASONS",
    "REASONS_VERSION",
    "Event",
    "Ledger",
    "Standing",
    "registered",
    "standing",
    "verdict",
]
