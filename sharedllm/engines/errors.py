"""What an engine refuses."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["BadStep", "NoKernel", "NotServed"]


class BadStep(SharedLLMError):
    """A step that does not fit what this pipeline's caches hold."""


class NoKernel(SharedLLMError):
    """Machine code for packed weights can't be had here; the same numbers are computed without it."""


class NotServed(SharedLLMError):
    """A span, model or pipeline that this engine can't or may not serve."""
