"""Watching over a pipeline: who no longer answers, who has become slow, and whether a better one exists.

Silence is judged by asking: every worker's engine answers a ping even while it computes, so a worker that is
merely busy is never taken for one that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sharedllm.nodes.primary.pace import Pace
from sharedllm.nodes.primary.ring import Down, Placed, Ring
from sharedllm.nodes.primary.routes import Routes, Then

__all__ = ["Watch"]

_PING_S = 2.0
_PING_OVERDUE_S = 0.5
_SILENT_S = 6.0
_SILENT_OVERDUE_S = 1.5
_HUNG = 5.0  # a worker that answers pings but not steps is given up after so many deadlines
_LENT_S = 30.0  # so long may a worker take to take an adapter; no step need be on its way meanwhile
_ASK_S = 10.0  # so often is reported, and may a better pipeline be asked for
_ASK_SLOW_S = 3.0
_REFRESH_S = 240.0  # tickets live for ten minutes
_BETTER = 0.7  # and so much shorter must its token time be


class Watch:
    """The watch over one open pipeline."""

    def __init__(self) -> None:
        self._pinged_s = 0.0
        self._asked_s = self._reported_s = self._opened_s = time.monotonic()
        self._tokens = 0

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
        if owing := ring.lending.late(_LENT_S):
            return Down(ring, min(owing), "frozen", f"It has not taken an adapter within {_LENT_S:.0f} s.")
        if not silent and since_s > (_PING_OVERDUE_S if overdue else _PING_S):
            self._pinged_s = now_s
            ring.ping()
        return None

    def saw(self, ring: Ring, pace: Pace, routes: Routes, then: Then) -> None:
        """After a result: if a worker has become slow, say so and ask whether there is a better pipeline."""
        slow = pace.slow()
        if not slow or time.monotonic() - self._asked_s < _ASK_SLOW_S:
            return
        self._asked_s = time.monotonic()
        member, spent_ms = ring.route.members[slow[0]], 1e3 * pace.compute_s(slow[0])
        detail = f"{member.name} takes {spent_ms:.0f} ms per step, several times what it took at its best."
        report = {"worker": member.node, "kind": "slow", "detail": detail, "speeds": _speeds(ring, pace)}
        present_s = pace.token_s()
        routes.report(report)
        route = ring.route
        routes.improve(
            route.spans, lambda spans, token_s: token_s < _BETTER * present_s, then, spared=route.spares
        )

    def tend(self, ring: Ring, pace: Pace, routes: Routes, then: Then, idle: bool, tokens: int) -> None:
        """Now and then: report how it goes, and while nothing is to do ask for something better.

        The same pipeline is asked for again in time, so that its spares' tickets never run out.
        """
        now_s = time.monotonic()
        if now_s - self._reported_s >= _ASK_S and tokens > self._tokens and pace.token_s():
            fresh, self._reported_s, self._tokens = tokens - self._tokens, now_s, tokens
            hops_ms = {m.node: 1e3 * pace.hop_s() for m in ring.route.members}
            report = {"kind": "ok", "speeds": _speeds(ring, pace), "hops_ms": hops_ms, "tokens": fresh}
            floor_s = pace.floor_s(ring.hop_rtt_s()) or None
            routes.report({**report, "token_s": pace.token_s(), "floor_s": floor_s})
        stale = now_s - self._opened_s > _REFRESH_S
        if now_s - self._asked_s >= (_ASK_S if idle else _REFRESH_S):
            self._asked_s = now_s
            self._opened_s = now_s if stale else self._opened_s
            predicted_s = ring.route.token_s

            def better(spans: list[Placed], token_s: float) -> bool:
                return idle and (len(spans) > len(ring.route.spans) or token_s < _BETTER * predicted_s)

            route = ring.route
            routes.improve(route.spans, better, then, spared=route.spares, refresh=stale)


def _speeds(ring: Ring, pace: Pace) -> dict[str, float]:
    """Seconds per layer of every worker, as measured."""
    members = enumerate(ring.route.members)
    return {m.node: max(1e-7, pace.compute_s(i) / (m.stop - m.start)) for i, m in members}
