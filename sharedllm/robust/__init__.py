"""Aggregation that survives its enemies: many workers' vectors into one, although some of them lie.

What must not happen here: training, data, sockets, or a model: vectors in, a vector out (the loss of the
gate is a function that somebody else wrote). No rule that lets NaN through, and no promise beyond f < n/2.

Bets that rest on this room: b044 (liars in training) and b103 (nearest-neighbour mixing of norm adapters).
"""

from __future__ import annotations

from sharedllm.robust.attacks import ATTACKS, attack, z_max
from sharedllm.robust.gate import Gated, gated
from sharedllm.robust.momentum import WorkerMomentum
from sharedllm.robust.optimised import Aggregator
from sharedllm.robust.rules import PREAGGREGATIONS, RULES, aggregate, check_rule, finite
from sharedllm.robust.vectors import Files, Held, Vectors
from sharedllm.robust.weights import Clipping

__all__ = [
    "ATTACKS",
    "PREAGGREGATIONS",
    "RULES",
    "Aggregator",
    "Clipping",
    "Files",
    "Gated",
    "Held",
    "Vectors",
    "WorkerMomentum",
    "aggregate",
    "attack",
    "check_rule",
    "finite",
    "gated",
    "z_max",
]
