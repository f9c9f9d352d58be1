"""What the network refuses or lacks, as sentences."""

from __future__ import annotations

from sharedllm.errors import SharedLLMError

__all__ = [
    "Busy",
    "CoordinatorAway",
    "DialFailed",
    "JoinRefused",
    "NoPipeline",
    "NotAdmitted",
    "TicketRefused",
]


class Busy(SharedLLMError):
    """Every place and every waiting place is taken; ``retry_after_s`` says when to come back."""

    def __init__(self, sentence: str, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class NoPipeline(SharedLLMError):
    """The registered nodes can't hold the model: which layers lack a home, and how much memory is missing."""


class TicketRefused(SharedLLMError):
    """A ticket is expired, forged, or for another worker, caller, span or model."""


class DialFailed(SharedLLMError):
    """No address of a node answered, or the one that did is another node."""


class CoordinatorAway(SharedLLMError):
    """The coordinator can't be reached or does not answer."""


class JoinRefused(SharedLLMError):
    """A join token is unknown, used up or expired, or the coordinator is not the one that it names."""


class NotAdmitted(SharedLLMError):
    """A node's certificate is missing, expired, revoked, or of another federation or role."""
