"""A node's one open port and how others reach it: certificate, ticket, then bytes, spliced unread.

What must not happen here: a byte for the engine before its caller is proven and admitted; parsing what an
engine says; memory, time or descriptors without a bound for anyone unproven; a torch import.

Bets that rest on this room: none; every figure that crosses machines does.
"""

from __future__ import annotations

from sharedllm.nodes.proxy.dial import dial
from sharedllm.nodes.proxy.endpoints import Endpoint, in_order
from sharedllm.nodes.proxy.listener import Event, Limits
from sharedllm.nodes.proxy.relay import Relay
from sharedllm.nodes.proxy.relayed import Registration
from sharedllm.nodes.proxy.server import Proxy
from sharedllm.nodes.proxy.splice import Splice, Traffic

__all__ = [
    "Endpoint",
    "Event",
    "Limits",
    "Proxy",
    "Registration",
    "Relay",
    "Splice",
    "Traffic",
    "dial",
    "in_order",
]
