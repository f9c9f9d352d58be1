"""Which nodes compute which layers for whom: a pure function from figures to a pipeline, with its prediction.

What must not happen in this room: input or output, clocks, randomness, torch, or a node's word taken for a
measurement (whoever calls decides which figures to believe). A plan says what it predicts, so that it can be
held against what is measured; a node that it leaves out is told why, with numbers.

Bets that rest on it: b045 (throttle).
"""

from sharedllm.nodes.planner.offers import PRIMARY, BadFigures, Links, ModelShape, NodeOffer, Objective
from sharedllm.nodes.planner.pipeline import NoHome, Plan, PlannedSpan
from sharedllm.nodes.planner.plan import cuts, plan, spares

__all__ = [
    "PRIMARY",
    "BadFigures",
    "Links",
    "ModelShape",
    "NoHome",
    "NodeOffer",
    "Objective",
    "Plan",
    "PlannedSpan",
    "cuts",
    "plan",
    "spares",
]
