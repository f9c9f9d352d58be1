"""What a primary shows of itself: who computes which layers, how fast, and how near to the possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharedllm.nodes.primary.pace import Pace
from sharedllm.nodes.primary.ring import Ring

if TYPE_CHECKING:
    from sharedllm.nodes.primary.loop import Loop

__all__ = ["picture"]


def picture(loop: Loop) -> dict[str, Any]:
    """The loop's part of ``Service.state``; milliseconds are medians of the last steps of single tokens."""
    ring, pace, batcher = loop.ring, loop.pace, loop.batcher
    token_s = pace.token_s()
    floor_s = pace.floor_s(ring.hop_rtt_s()) if ring else 0.0
    rows = max(1, len(batcher.active))
    return {
        "epoch": ring.epoch if ring else 0,
        "pipeline": ring.route.pipeline if ring else None,
        "status": "ready" if ring else "opening" if loop.hopeful else "none",
        "sentence": loop.sentence,
        "spans": _spans(ring, pace) if ring else [],
        "primary": {"compute_ms": 1e3 * pace.here_s(), "hop_ms": 1e3 * pace.hop_s()},
        "tokens_per_s": rows / token_s if token_s and batcher.active else 0.0,
        "token_ms": 1e3 * token_s,
        "floor_ms": 1e3 * floor_s,
        "floor_percent": 100 * floor_s / token_s if token_s else 0.0,
        "predicted_ms": 1e3 * ring.route.token_s if ring else 0.0,
        "active": len(batcher.active),
        "waiting": len(batcher.waiting),
        "capacity_tokens": batcher.capacity,
        "used_tokens": batcher.used,
        "prefix_hits": batcher.prefix_hits,
        "failovers": loop.failovers,
        "news": list(loop.news),
        "left_out": [list(pair) for pair in ring.route.left_out] if ring else [],
        "steady": ring.steady if ring else False,
        "wire": loop.model.wire.name.lower(),
        "coordinator": "away" if loop.routes.away else "up",
    }


def _spans(ring: Ring, pace: Pace) -> list[dict[str, Any]]:
    token_s = pace.token_s()
    return [
        {
            "node": member.node,
            "name": member.name,
            "host": member.host,
            "start": member.start,
            "stop": member.stop,
            "compute_ms": 1e3 * pace.compute_s(i),
            "hop_ms": 1e3 * pace.hop_s(),
            "busy": min(1.0, pace.compute_s(i) / token_s) if token_s else 0.0,
            "path": ring.paths.get(member.node, "lan"),
        }
        for i, member in enumerate(ring.route.members)
    ]
