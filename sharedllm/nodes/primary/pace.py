"""How long steps take, where the time goes, when one is overdue, and what the least possible would be.

All times are seconds. A *floor* is what a token would take if software between the workers cost nothing:
every worker's and the primary's best computing time, and half a round trip per hop (``reference``: DESIGN
§4, the ring's arithmetic). *Covered*: several steps in flight, workers that become slow. *Not covered*: bytes
on slow links, which long prompts feel and single tokens do not.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from sharedllm.wire import Hop

__all__ = ["Pace"]

_FIRST_S = 20.0  # a pipeline's first step may take this long: caches are cold
_LEAST_S = 1.0
_PATIENCE = 4.0  # a step is overdue when it takes so many times what was expected
_SLOWER = 5.0  # a worker is slow when it takes so many times its own best
_WINDOW = 8


class Pace:
    """Measurements of one pipeline of ``workers`` nodes."""

    def __init__(self, workers: int) -> None:
        self._spans: list[deque[float]] = [deque(maxlen=_WINDOW) for _ in range(workers)]
        self._best: list[dict[int, float]] = [{} for _ in range(workers)]
        self._ratio: list[deque[float]] = [deque(maxlen=_WINDOW) for _ in range(workers)]
        self._here: deque[float] = deque(maxlen=_WINDOW)
        self._tokens: deque[float] = deque(maxlen=_WINDOW)
        self._bulk_row_s: deque[float] = deque(maxlen=_WINDOW)
        self._net: deque[float] = deque(maxlen=_WINDOW)

    def took(self, hops: Sequence[Hop], rows: int, bulk_rows: int, total_s: float, here_s: float) -> None:
        """Note a finished step of ``rows`` rows, ``here_s`` of whose ``total_s`` the primary computed."""
        if bulk_rows:
            self._bulk_row_s.append(total_s / max(rows, 1))
            return
        if len(hops) != len(self._spans) or not rows:
            return
        for i, hop in enumerate(hops):
            compute_s = hop.compute_us / 1e6
            best_s = self._best[i][rows] = min(compute_s, self._best[i].get(rows, compute_s))
            self._spans[i].append(compute_s)
            self._ratio[i].append(compute_s / max(best_s, 1e-6))
        self._here.append(here_s)
        self._tokens.append(total_s)
        self._net.append(max(0.0, total_s - here_s - sum(h.compute_us + h.wait_us for h in hops) / 1e6))

    def deadline_s(self, bulk_rows: int, in_flight: int) -> float:
        """After how long a step is overdue."""
        if not self._tokens and not self._bulk_row_s:
            return _FIRST_S
        token_s = statistics.median(self._tokens) if self._tokens else 0.0
        row_s = max(self._bulk_row_s, default=token_s)
        return max(_LEAST_S, _PATIENCE * max(1, in_flight) * (token_s + bulk_rows * row_s))

    def slow(self) -> list[int]:
        """Which workers have become several times slower than at their best with as many rows."""
        return [
            i
            for i, ratio in enumerate(self._ratio)
            if len(ratio) == _WINDOW and statistics.median(ratio) > _SLOWER
        ]

    def compute_s(self, worker: int) -> float:
        """A worker's median time for a step of single tokens."""
        return statistics.median(self._spans[worker]) if self._spans[worker] else 0.0

    def here_s(self) -> float:
        """The primary's own median: embedding, norm, head, and the choice of tokens."""
        return statistics.median(self._here) if self._here else 0.0

    def hop_s(self) -> float:
        """What one of the ring's hops costs beside computing and waiting."""
        return statistics.median(self._net) / (len(self._spans) + 1) if self._net else 0.0

    def token_s(self) -> float:
        """Median time from one token to the next of a stream."""
        return statistics.median(self._tokens) if self._tokens else 0.0

    def floor_s(self, rtt_s: Sequence[float]) -> float:
        """The least time per token: computing at its best, and half of each hop's best round trip.

        Never more than the fastest token took: a round trip may have been measured while others waited.
        """
        hops_s = sum(rtt_s) / len(rtt_s) / 2 * (len(self._spans) + 1) if rtt_s else 0.0
        best_s = [best.get(1, 0.0) for best in self._best]
        if not (self._tokens and all(best_s)):
            return 0.0
        return min(sum(best_s) + min(self._here) + hops_s, *self._tokens)
