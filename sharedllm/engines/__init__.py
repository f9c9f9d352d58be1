"""Engines: what computes. A stage runs a span of our own transformer; ``Engine`` serves it on a Unix socket.

An engine knows models and frames, not nodes: who may call is settled by the proxy before it, and how the next
worker is reached is a function that it is given. What must not happen here: certificates, tickets, HTTP.

A token's bits never depend on which other requests are computed beside it or what they wear, on where the
model is cut or on the number of threads, so a generation that moves to another worker goes on bit for bit.
Adapters are lent to a pipeline and worn by its slots; they are gone when it is.
A ternary model's weights stay packed (``ternary``).
Bets that rest on it: b005 (handoff), b045 (throttle).
"""

from sharedllm.engines.ends import Ends
from sharedllm.engines.errors import BadStep, NoKernel, NotServed
from sharedllm.engines.greeting import greet
from sharedllm.engines.lending import Lending, lent
from sharedllm.engines.server import Dial, Engine
from sharedllm.engines.sessions import Admission, Find
from sharedllm.engines.slots import kv_bytes_per_token
from sharedllm.engines.stage import Stage, Work, layer_bytes

__all__ = [
    "Admission",
    "BadStep",
    "Dial",
    "Ends",
    "Engine",
    "Find",
    "Lending",
    "NoKernel",
    "NotServed",
    "Stage",
    "Work",
    "greet",
    "kv_bytes_per_token",
    "layer_bytes",
    "lent",
]
