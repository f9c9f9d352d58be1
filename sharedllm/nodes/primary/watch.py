"""Watching over a pipeline: who no longer answers, who has become slow, and whether a better one exists.

Silence is judged by asking: every worker's engine answers a ping even while it computes, so a worker that is
merely busy is never taken for one that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sharedllm.nodes.primary.pace import Pace
from sharedllm.nodes.primary.ring import Down, Ring, Route
from sharedllm.nodes.primary.routes import Routes

__all__ = ["Watch"]

_PING_S = 2.0
_PING_OVERDUE_S = 0.5
_SILENT_S = 6.0
_SILENT_OVERDUE_S = 1.5
_HUNG = 5.0  # a worker that answers pings but not steps is given up after so many deadlines
_ASK_S = 10.0  # so often may a better pipeline be asked for
_BETTER = 0.7  # and so much shorter must its token time be


class Watch:
    """The watch over one open pipeline."""

    def __init__(self) -> None:
        self._pinged_s = 0.0
        self._asked_s = time.monotonic()
        self._slow = False

    def wait_s(self, in_flight: Mapping[int, Any]) -> float:
        """How long the loop may sleep if nothing happens."""
        return 0.1 if in_flight else 0.5

    def look(self, ring: Ring, age_s: float, due_s: float) -> Down | None:
        """Ping when it is time, and name a worker that is frozen or hung; ``age_s`` is the oldest step's."""
        now_s = time.monotonic()
        overdue = age_s > due_s
        since_s = now_s - self._pinged_s
        silent = ring.silent() if self._pinged_s else []
        if silent and since_s > (_SILENT_OVERDUE_S if overdue else _SILENT_S):
            return Down(ring, silent[0].node, "frozen", f"It has not answered for {since_s:.1f} s.")
        if overdue and not silent and age_s > _HUNG * due_s:
            stuck = max(ring.route.members, key=lambda m: ring.pongs[m.node][1].busy_s)
            return Down(ring, stuck.node, "frozen", f"A step has been on its way for {age_s:.1f} s.")
        if not silent and since_s > (_PING_OVERDUE_S if overdue else _PING_S):
            self._pinged_s = now_s
            ring.ping()
        return None

    def saw(self, ring: Ring, pace: Pace, routes: Routes, then: Callable[[Route], None]) -> None:
        """After a result: if a worker has become slow, say so and ask whether there is a better pipeline."""
        slow = pace.slow()
        if not slow or time.monotonic() - self._asked_s < _ASK_S:
            return
        self._asked_s, self._slow = time.monotonic(), True
        members = ring.route.members
        name, spent_ms = members[slow[0]].name, 1e3 * pace.compute_s(slow[0])
        report = {
            "worker": members[slow[0]].node,
            "kind": "slow",
            "detail": f"{name} takes {spent_ms:.0f} ms per step, several times what it took at its best.",
            "speeds": {m.node: pace.compute_s(i) / (m.stop - m.start) for i, m in enumerate(members)},
        }
        routes.report(report, then)

    def idle(self, routes: Routes, then: Callable[[Route], None]) -> None:
        """While nothing is to do: ask now and then whether a better pipeline has become possible."""
        if time.monotonic() - self._asked_s >= _ASK_S:
            self._asked_s, self._slow = time.monotonic(), False
            routes.ask_later(then)

    def better(self, route: Route, ring: Ring, pace: Pace) -> bool:
        """Whether to move: other nodes or cuts, and much less time per token, or more workers as wished."""
        now = [(m.node, m.start, m.stop) for m in ring.route.members]
        then = [(m.node, m.start, m.stop) for m in route.members]
        if now == then:
            return False
        present_s = pace.token_s() if self._slow else ring.route.token_s
        return len(then) > len(now) or route.token_s < _BETTER * present_s
