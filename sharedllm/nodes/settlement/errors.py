"""What a ledger refuses, as sentences; ``reason`` is the same in one word, to count by."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["CreditSpent", "JournalBroken", "StatementRefused"]


class StatementRefused(SharedLLMError):
    """A claim, acknowledgement or payment is forged, altered, repeated, or does not follow what it should."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class CreditSpent(SharedLLMError):
    """A client has as many unacknowledged transfers as it may; it gets no more until it acknowledges some."""


class JournalBroken(SharedLLMError):
    """A journal can't be opened or written, or what it holds is not this node's."""
