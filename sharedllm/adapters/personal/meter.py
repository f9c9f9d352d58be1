"""How far a personal fit is: work in trained tokens, of which a forward alone costs half of one."""

from __future__ import annotations

import time

from sharedllm.store import Progress

__all__ = ["Meter"]


class Meter:
    """Counts work and tells ``progress`` (what with its rate, done, total)."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress
        self._began_s = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has been since the beginning."""
        return time.perf_counter() - self._began_s

    def add(self, tokens: int, what: str) -> None:
        """Count ``tokens`` of work that were just done."""
        self._done += tokens
        self._total = max(self._total, self._done)
        self._tell(what)

    def extend(self, tokens: int) -> None:
        """Count with more work than was foreseen."""
        self._total += tokens

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            rate = self._done / max(self.seconds, 1e-9)
            self._progress(f"{what}, {rate:,.0f} tok/s", self._done, self._total)
