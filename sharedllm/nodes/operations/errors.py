"""What a setting or a port refuses, as sentences."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["BadSetting", "PortTaken"]


class BadSetting(SharedLLMError):
    """A setting, from a flag, the environment or the file, is unknown, mistyped or out of range."""


class PortTaken(SharedLLMError):
    """Another program listens on the port that was asked for."""
