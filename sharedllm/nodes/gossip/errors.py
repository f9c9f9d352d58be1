"""What gossip refuses, as sentences."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["BadEntry", "BadMessage", "Unwelcome"]


class BadEntry(SharedLLMError):
    """An entry is forged, too long, malformed, or its issuer is no member of the federation."""


class Unwelcome(BadEntry):
    """An entry is not taken here, for a reason that whoever passed it on may not know of."""


class BadMessage(SharedLLMError):
    """A gossip message is too long, cut short, of an unknown kind, or in another node's name."""
