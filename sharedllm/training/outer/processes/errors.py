"""What ends a round, and what ends a worker."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = ["Broken", "CannotGoOn"]


class Broken(Exception):
    """This generation is over: a member died, hung, left or differs. The round is repeated."""


class CannotGoOn(SharedLLMError):
    """A worker has to stop: put out by the others, alone, or without the meeting place."""
