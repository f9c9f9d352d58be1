"""What a worker needs to know to begin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sharedllm.nodes.proxy import Endpoint

__all__ = ["WorkerSettings"]


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """A worker's state folder and what it gives.

    ``endpoints`` are advertised; if there are none, the address it listens at is. ``memory_bytes`` is for
    weights and caches together (None: four fifths of what is free), ``share`` the part of the time that it
    computes, ``gossip`` the address to tell others and the port to gossip at, ``operations`` where health and
    metrics are served, ``relay`` whether it relays for others.
    """

    state: Path
    coordinator_url: str
    host: str = "0.0.0.0"
    rpc_port: int = 50052
    endpoints: list[Endpoint] = dataclasses.field(default_factory=list)
    name: str = "worker"
    share: float = 1.0
    memory_bytes: int | None = None
    threads: int | None = None
    gossip: tuple[str, int] | None = None
    operations: tuple[str, int] | None = None
    relay: bool = False
