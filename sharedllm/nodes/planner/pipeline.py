"""What planning ends with: a pipeline with its predicted times, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NoHome", "Plan", "PlannedSpan"]


@dataclass(frozen=True)
class PlannedSpan:
    """Layers ``[start, stop)`` on one node: what it computes for a token, and the hop that leads to it."""

    node: str
    start: int
    stop: int
    compute_s: float
    hop_s: float


@dataclass(frozen=True)
class Plan:
    """Spans that cover a model, in order, and what they are predicted to take.

    ``token_s`` = Σ compute + the N + 1 hops of the ring, of which ``return_s`` is the last, back to the
    primary. ``floor_s`` is the same without what software adds to a hop: physics at these speeds. Neither
    holds the primary's own work (embedding, norm, head, sampling). ``left_out`` pairs each unused node's id
    with a sentence; ``note`` says what could not be done as asked, or is empty.
    """

    spans: tuple[PlannedSpan, ...]
    token_s: float
    floor_s: float
    return_s: float
    left_out: tuple[tuple[str, str], ...]
    note: str = ""

    @property
    def slowest_s(self) -> float:
        """The largest stage: full pipelines yield one token each time it passes."""
        return max(span.compute_s for span in self.spans)


@dataclass(frozen=True)
class NoHome:
    """Layers ``[start, stop)`` fit nowhere; one more node with ``missing_bytes`` free would hold them."""

    start: int
    stop: int
    missing_bytes: int
    sentence: str
