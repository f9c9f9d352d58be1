"""What an engine refuses."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["BadStep", "NotServed"]


class BadStep(SharedLLMError):
    """A step that does not fit what this pipeline's caches hold."""


class NotServed(SharedLLMError):
    """A span, model or pipeline that this engine can't or may not serve."""
