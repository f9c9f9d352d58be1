"""The coordinator: the directory of a federation, its certificate authority, the builder of its pipelines.

A federation has one. Its state is one database, so that a restart loses nothing, and its word travels in what
it signs: certificates and tickets. While it is away, running generations and known pipelines go on.

Must not happen here: a token id, an activation or a prompt; torch; a route that trusts what a body says about
its sender (the certificate says it); a secret in a log. A worker imports this room for its client, so the
server's libraries are loaded only when ``serve`` is asked for.

Bets that rest on it: b005 (handoff), b045 (throttle).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharedllm.nodes.coordinator.client import CoordinatorClient, PipelineGone, RequestRefused
from sharedllm.nodes.coordinator.heartbeat import Heartbeat

if TYPE_CHECKING:
    from sharedllm.nodes.coordinator.admission import create_token, revoke
    from sharedllm.nodes.coordinator.server import CoordinatorSettings, serve

__all__ = [
    "CoordinatorClient",
    "CoordinatorSettings",
    "Heartbeat",
    "PipelineGone",
    "RequestRefused",
    "create_token",
    "revoke",
    "serve",
]

_SERVER = {
    "CoordinatorSettings": "server",
    "serve": "server",
    "create_token": "admission",
    "revoke": "admission",
}


def __getattr__(name: str) -> Any:
    """Load the server's libraries when the server is asked for (PEP 562)."""
    if name not in _SERVER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_SERVER[name]}"), name)
