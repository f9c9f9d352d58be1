"""What may go wrong on the wire."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["BadFrame", "LinkClosed"]


class BadFrame(SharedLLMError):
    """Bytes that are no frame of this protocol, or one that is larger than it may be."""


class LinkClosed(SharedLLMError):
    """The other side of a connection is gone, or this one closed it."""
