"""What can go wrong with the processes of one machine, as sentences."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["AlreadyUp", "ProcessFailed"]


class AlreadyUp(SharedLLMError):
    """Another process runs a federation from the same state folder."""


class ProcessFailed(SharedLLMError):
    """A process ended, or did not say that it is ready, when it had to; the sentence has its last words."""
