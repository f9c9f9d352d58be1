"""The primary: serves people, keeps both ends of the model, and turns the ring of workers between them.

What must not happen here: a token id on the wire, a wait without a deadline, a request that is lost because
a worker is. Only its ``server`` knows HTTP, and only ``loop`` decides what happens next.

Bets that rest on it: b005 (handoff), b045 (throttle).
"""

from sharedllm.nodes.primary.loop import Loop
from sharedllm.nodes.primary.results import Model
from sharedllm.nodes.primary.ring import Connect, Member, Route
from sharedllm.nodes.primary.routes import Coordinator, Routes, route_from
from sharedllm.nodes.primary.sequence import CHUNK, Sequence, Stream
from sharedllm.nodes.primary.server import PrimarySettings, serve
from sharedllm.nodes.primary.service import Primary

__all__ = [
    "CHUNK",
    "Connect",
    "Coordinator",
    "Loop",
    "Member",
    "Model",
    "Primary",
    "PrimarySettings",
    "Route",
    "Routes",
    "Sequence",
    "Stream",
    "route_from",
    "serve",
]
